"""Which replica answers a request: pure policies with one signature, and their decisions as data.

Belongs here: choosing among views. Does not: counting what is in flight, knowing prefixes,
learning rates (the gateway's, and `policies/rates.py`). Read `views.py` first, then
`predicted.py`, the default, and `places.py`, its arithmetic, which the simulator compiles.
"""

from argosy.policies.routing.decisions import (
    DEFAULT_POLICY,
    POLICIES,
    Decision,
    Note,
    PolicyName,
    decision,
    note,
    replay,
)
from argosy.policies.routing.loads import least_loaded, power_of_two, round_robin
from argosy.policies.routing.places import SLOTS_ASSUMED, turns_waited
from argosy.policies.routing.predicted import Score, predicted, scores
from argosy.policies.routing.sessions import home_of
from argosy.policies.routing.views import (
    NoRoute,
    Policy,
    ReplicaView,
    RequestShape,
    Route,
    Tuning,
    load_of,
)

__all__ = [
    "DEFAULT_POLICY",
    "POLICIES",
    "SLOTS_ASSUMED",
    "Decision",
    "NoRoute",
    "Note",
    "Policy",
    "PolicyName",
    "ReplicaView",
    "RequestShape",
    "Route",
    "Score",
    "Tuning",
    "decision",
    "home_of",
    "least_loaded",
    "load_of",
    "note",
    "power_of_two",
    "predicted",
    "replay",
    "round_robin",
    "scores",
    "turns_waited",
]
