"""Replicas as engines in virtual time: continuous batching, exact to each step, compiled.

Belongs here: what one replica does with the requests it was sent, and the order of what happens on
all of them. Does not: which replica gets a request (`simulator/gateway`), how long a step takes
(`perf`). Read `events.py` first: what a driver calls; then `steps.py`: what a step is.

    state = build([ReplicaGroup(count=8, step_time=..., kv_tokens=400_000)])
    submit(state, replica, slot, prompt_tokens, output_tokens, at_s)
    time_s, kind, replica, slot = pop_event(state, until_s)

The functions are numba's, over a tuple of arrays: callable from Python, and inlined by compiled
drivers. `replay.py` is the simplest one.
"""

from argosy.simulator.engine.build import (
    EngineRefusedError,
    ReplicaGroup,
    build,
    grow,
    use_hashes,
)
from argosy.simulator.engine.events import (
    ACCEPTED,
    BEHIND,
    GONE,
    LEAVING,
    NEVER_FITS,
    NOT_A_REQUEST,
    NOT_HERE,
    NOTHING,
    REPLICA_DEAD,
    SLOT_TAKEN,
    cancel,
    kill,
    next_event_s,
    pop_event,
    revive,
    set_speed,
    submit,
    submit_hashed,
)
from argosy.simulator.engine.state import State
from argosy.simulator.engine.steps import CANCELLED, FINISHED, FIRST_TOKEN
from argosy.simulator.engine.views import (
    Account,
    account,
    itl_counts,
    itl_s,
    kv_tokens_free,
    prefix_tokens_cached,
    prompt_tokens_unread,
    requests_running,
    requests_waiting,
)

__all__ = [
    "ACCEPTED",
    "BEHIND",
    "CANCELLED",
    "FINISHED",
    "FIRST_TOKEN",
    "GONE",
    "LEAVING",
    "NEVER_FITS",
    "NOTHING",
    "NOT_A_REQUEST",
    "NOT_HERE",
    "REPLICA_DEAD",
    "SLOT_TAKEN",
    "Account",
    "EngineRefusedError",
    "ReplicaGroup",
    "State",
    "account",
    "build",
    "cancel",
    "grow",
    "itl_counts",
    "itl_s",
    "kill",
    "kv_tokens_free",
    "next_event_s",
    "pop_event",
    "prefix_tokens_cached",
    "prompt_tokens_unread",
    "requests_running",
    "requests_waiting",
    "revive",
    "set_speed",
    "submit",
    "submit_hashed",
    "use_hashes",
]
