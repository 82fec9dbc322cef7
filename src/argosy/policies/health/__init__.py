"""Who is healthy, when what ended starts again, who is unlike its peers, how much may be out.

Belongs here: judging probes and sightings, restart delays, crash loops and probation, comparing
like replicas, the budget. Does not: probing, killing, starting, draining (the control plane's), and
the breaker on requests (`policies/breaker.py`). Read `probes.py`, `restarts.py`, `peers_view.py`,
then `budget.py`; docs/HEALTH.md has the states, the timings and the numbers.
"""

from argosy.policies.health.budget import (
    Allowance,
    BudgetNode,
    BudgetReplica,
    BudgetSettings,
    BudgetView,
    PutOff,
    Wish,
    allowed,
)
from argosy.policies.health.peers import compare
from argosy.policies.health.peers_state import PeersState
from argosy.policies.health.peers_view import (
    OutSeen,
    PeerSeen,
    PeerSettings,
    PeersView,
    Quarantine,
    Release,
)
from argosy.policies.health.probes import (
    HealthState,
    Healthy,
    Probe,
    Suspect,
    Unresponsive,
    Verdict,
    judge,
)
from argosy.policies.health.restarts import (
    DOUBLINGS_MAX,
    CrashLoop,
    Probation,
    RestartDelay,
    RestartState,
    SentBack,
    became_ready,
    probation,
    put_on_probation,
    restart_delay_s,
    sent_back,
)
from argosy.policies.health.settings import HealthSettings

__all__ = [
    "DOUBLINGS_MAX",
    "Allowance",
    "BudgetNode",
    "BudgetReplica",
    "BudgetSettings",
    "BudgetView",
    "CrashLoop",
    "HealthSettings",
    "HealthState",
    "Healthy",
    "OutSeen",
    "PeerSeen",
    "PeerSettings",
    "PeersState",
    "PeersView",
    "Probation",
    "Probe",
    "PutOff",
    "Quarantine",
    "Release",
    "RestartDelay",
    "RestartState",
    "SentBack",
    "Suspect",
    "Unresponsive",
    "Verdict",
    "Wish",
    "allowed",
    "became_ready",
    "compare",
    "judge",
    "probation",
    "put_on_probation",
    "restart_delay_s",
    "sent_back",
]
