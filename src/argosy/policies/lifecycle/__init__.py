"""Which replicas come and which go, so that reality becomes what is wanted and no request is lost.

Belongs here: make before break, surge, who goes first, the cap on removals. Does not: how many are
wanted (autoscaling), whether a replica is well (health), starting and ending one (the control
plane). Read `views.py`, then `decide.py`.
"""

from argosy.policies.lifecycle.decide import decide
from argosy.policies.lifecycle.views import (
    Create,
    Decision,
    Lifecycle,
    Peak,
    Remove,
    ReplicaView,
    Settings,
    View,
    Wanted,
)

__all__ = [
    "Create",
    "Decision",
    "Lifecycle",
    "Peak",
    "Remove",
    "ReplicaView",
    "Settings",
    "View",
    "Wanted",
    "decide",
]
