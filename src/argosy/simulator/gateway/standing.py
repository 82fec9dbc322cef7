"""Which replicas of a model listen, and which are ready: their views' order, and the slots of all.

As `Router.join` and `leave`, and `Admission.replace_table`, do it live. O(a model's replicas).
"""

import numpy as np

from argosy.simulator.compiled import compiled, inner
from argosy.simulator.gateway import prefixes, rates
from argosy.simulator.gateway.queue import UNKNOWN
from argosy.simulator.gateway.state import CACHE_BYTES, GONE, READY, SUSPECT, Gateway
from argosy.simulator.gateway.texts import own_slots


@compiled
def replica_joins(gateway: Gateway, replica: int, cache_bytes: int, now_s: float) -> None:
    """It listens and is ready, for the first time or as a new process.

    `cache_bytes` of prompts are what its prefix cache holds: its context in tokens x slots x 4; 0
    where that is not known. After all changes of a moment call `table_changed`.
    """
    prefixes.forget(gateway.prefixes, replica)
    row = gateway.replicas[replica]
    model, view = gateway.models[row.model], gateway.views[row.row]
    view.slots = own_slots(row.slots, 0, gateway.rules[0].processes)
    view.ready_since_s = now_s if model.turn else -np.inf  # a fleet's first replicas start cold
    prefixes.join(gateway.prefixes, replica, cache_bytes or CACHE_BYTES)
    rates.join(gateway, replica)
    row.held_share = 1.0
    _stand(gateway, replica, READY)


@compiled
def replica_leaves(gateway: Gateway, replica: int) -> None:
    """It listens no more: its cache is gone. Then `table_changed`."""
    if gateway.replicas[replica].standing != GONE:
        prefixes.forget(gateway.prefixes, replica)
        _stand(gateway, replica, GONE)


@compiled
def replica_is_suspect(gateway: Gateway, replica: int, is_suspect: bool) -> None:
    """One that listens missed its probes, or answers again. Then `table_changed`."""
    if gateway.replicas[replica].standing != GONE:
        _stand(gateway, replica, SUSPECT if is_suspect else READY)


@compiled
def sum_slots(gateway: Gateway, number: int) -> None:
    """The slots of a model, after replicas came or left."""
    model, rules = gateway.models[number], gateway.rules[0]
    if model.listening == 0:
        model.slots = model.slots_wanted
        return
    total = 0
    for view in gateway.views[model.first : model.first + model.listening]:
        slots = gateway.replicas[view.replica].slots
        if slots == 0:
            model.slots = UNKNOWN
            return
        total += slots
    model.slots = own_slots(total, rules.process, rules.processes)


@inner
def _stand(gateway: Gateway, replica: int, standing: int) -> None:
    """Put its view where those of its standing are, each by name."""
    gateway.replicas[replica].standing = standing
    model = gateway.models[gateway.replicas[replica].model]
    before = gateway.views[model.first : model.first + model.replicas].copy()
    model.ready = model.listening = 0
    row = model.first
    for wanted in (READY, SUSPECT, GONE):
        for number in range(model.first, model.first + model.replicas):  # by name
            if gateway.replicas[number].standing == wanted:
                gateway.views[row] = before[gateway.replicas[number].row - model.first]
                gateway.replicas[number].row = row
                row += 1
        if wanted == READY:
            model.ready = row - model.first
        if wanted == SUSPECT:
            model.listening = row - model.first
