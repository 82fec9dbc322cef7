"""Where replicas should run at one tick: a pure decision with its reasons.

Belongs here: choosing pools and layouts for the capacity that is wanted, under residency, losses
to be survived, spread and stock, with few moves. Does not: how much is wanted (autoscaling),
starting and draining (the control plane), what to buy (the planner). Read `views.py`, then
`place.py` and `steps.py`; docs/decisions/0018 explains the algorithm and how near it comes.
"""

from argosy.policies.placement.place import place
from argosy.policies.placement.views import (
    DEFAULT_TUNING,
    Change,
    ChangeCode,
    DearCode,
    DomainKind,
    NeedView,
    OptionView,
    Placed,
    Placement,
    PoolView,
    ShareView,
    Short,
    ShortCode,
    SpreadView,
    Step,
    SurviveView,
    Tick,
    Tuning,
    UpView,
)

__all__ = [
    "DEFAULT_TUNING",
    "Change",
    "ChangeCode",
    "DearCode",
    "DomainKind",
    "NeedView",
    "OptionView",
    "Placed",
    "Placement",
    "PoolView",
    "ShareView",
    "Short",
    "ShortCode",
    "SpreadView",
    "Step",
    "SurviveView",
    "Tick",
    "Tuning",
    "UpView",
    "place",
]
