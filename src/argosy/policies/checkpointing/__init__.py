"""How often to write a checkpoint, from what one costs and how often things fail.

Belongs here: the interval and the belief about failures behind it, as pure functions. Does not:
writing one (`training`), or what is lost without one. Live islands and simulated runs call the
same. All of it is in `interval.py`.
"""

from argosy.policies.checkpointing.interval import (
    CheckpointSettings,
    CheckpointView,
    Interval,
    interval,
)

__all__ = ["CheckpointSettings", "CheckpointView", "Interval", "interval"]
