"""How many replicas each deployment of a model is to have: demand in tokens, forecast, decided.

Belongs here: the forecast, the rule, and which of a model's deployments grow. Does not: where
deployments are made (`placement`), starting and draining (the control plane's), counting requests
(the gateway's). Read `view.py` first, then `rule.py`.
"""

from argosy.policies.autoscaling.replay import Given, Logged, given_of, replayed
from argosy.policies.autoscaling.rule import ScaleState, scale
from argosy.policies.autoscaling.view import (
    Decision,
    Demand,
    DeploymentView,
    DomainKind,
    Event,
    ModelView,
    Settings,
    Sustains,
    Target,
)

__all__ = [
    "Decision",
    "Demand",
    "DeploymentView",
    "DomainKind",
    "Event",
    "Given",
    "Logged",
    "ModelView",
    "ScaleState",
    "Settings",
    "Sustains",
    "Target",
    "given_of",
    "replayed",
    "scale",
]
