"""The live side of autoscaling: signals of gateways and tables in, targets out.

Belongs here: demand by steps out of counts, launches timed, what replicas sustain, the policy
called. Does not: the rule (`policies/autoscaling`), starting and ending replicas, asking gateways.
Read `scaler.py` first.
"""

from argosy.control.scaling.planned import Planned, PlanUnreadableError, read_plan
from argosy.control.scaling.scaler import LiveScaler, ModelDecision, Round
from argosy.control.scaling.signals import Signals, signals_of
from argosy.control.scaling.sustains import calibrated
from argosy.control.scaling.warmup import Subject, measure

__all__ = [
    "LiveScaler",
    "ModelDecision",
    "PlanUnreadableError",
    "Planned",
    "Round",
    "Signals",
    "Subject",
    "calibrated",
    "measure",
    "read_plan",
    "signals_of",
]
