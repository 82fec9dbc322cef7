"""How much each island trains, when a round closes, what a delta counts, who leaves, who is wrong.

Belongs here: decisions about islands of unlike and changing speed, as pure functions of what is
known. Does not: leases and their ledger, bytes, the arithmetic of a round (`training/outer`). The
syncer and a simulated run call the same. Read `views.py`, then `rations.py` and `rounds.py`.
"""

from argosy.policies.elasticity.making_room import Guest, who_leaves
from argosy.policies.elasticity.rations import blocks_of_lease, rations
from argosy.policies.elasticity.rounds import (
    closing,
    lr_of,
    momentum_of,
    usual_momentum,
    weights,
)
from argosy.policies.elasticity.trust import (
    Distrust,
    Trusted,
    TrustState,
    against,
    judge,
    size_trust,
)
from argosy.policies.elasticity.views import (
    Close,
    Counted,
    DeltaSeen,
    DeltaWeight,
    ElasticitySettings,
    IslandSeen,
    RoundView,
    Wait,
)

__all__ = [
    "Close",
    "Counted",
    "DeltaSeen",
    "DeltaWeight",
    "Distrust",
    "ElasticitySettings",
    "Guest",
    "IslandSeen",
    "RoundView",
    "TrustState",
    "Trusted",
    "Wait",
    "against",
    "blocks_of_lease",
    "closing",
    "judge",
    "lr_of",
    "momentum_of",
    "rations",
    "size_trust",
    "usual_momentum",
    "weights",
    "who_leaves",
]
