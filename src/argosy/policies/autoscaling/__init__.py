"""How many replicas each deployment of a model is to have: demand in tokens, forecast, decided.

Belongs here: the forecast, the rule, and which of a model's deployments grow. Does not: where
deployments are made (`placement`), starting and draining (the control plane's), counting requests
(the gateway's). Read `view.py` first, then `rule.py`.
"""

from argosy.policies.autoscaling.replay import Given, asked_again, given_of, replayed
from argosy.policies.autoscaling.rule import (
    Ask,
    Need,
    ScaleState,
    answered,
    asked,
    remembering,
    scale,
    spread_over,
)
from argosy.policies.autoscaling.spread import Part
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
    "Ask",
    "Decision",
    "Demand",
    "DeploymentView",
    "DomainKind",
    "Event",
    "Given",
    "ModelView",
    "Need",
    "Part",
    "ScaleState",
    "Settings",
    "Sustains",
    "Target",
    "answered",
    "asked",
    "asked_again",
    "given_of",
    "remembering",
    "replayed",
    "scale",
    "spread_over",
]
