"""How many replicas each deployment of all models is to have: how much, then where.

Belongs here: the two policies called one after the other, and what the fleet file says of pools
that the second one needs. Does not: either of them (`autoscaling` says how much capacity a model
needs, `placement` which deployments have it). It is the one policy that knows others; the
simulator and the control plane both call it. Read `views.py`, then `decide.py`;
docs/decisions/0023 says why.
"""

from argosy.policies.capacity.decide import decided
from argosy.policies.capacity.replay import Logged, Placing, placing_of, replayed
from argosy.policies.capacity.views import LIVE_TUNING, Closed, Limit, Sited, Stock, Taken, World
from argosy.policies.capacity.world import world_of

__all__ = [
    "LIVE_TUNING",
    "Closed",
    "Limit",
    "Logged",
    "Placing",
    "Sited",
    "Stock",
    "Taken",
    "World",
    "decided",
    "placing_of",
    "replayed",
    "world_of",
]
