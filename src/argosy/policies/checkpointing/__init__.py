"""How often an island saves its own state.

Belongs here: intervals from costs and failure rates, as pure functions. Does not: saving, timing.
Read `interval.py`.
"""

from argosy.policies.checkpointing.interval import (
    NODE_MTTF_S,
    interval_s,
    lost_share,
    mttf_s,
)

__all__ = ["NODE_MTTF_S", "interval_s", "lost_share", "mttf_s"]
