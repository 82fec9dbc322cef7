"""The loop of virtual time: arrivals, the gateway's decisions, the engines' steps, losses.

    an arrival -> gateway.arrive -> SENT -> engine.submit -> FIRST_TOKEN -> FINISHED -> settled

Compiled. Owns the order in which these happen and the record of each request alive (`ALIVE`, by
slot: the same number in the engine and in the gateway). Decides nothing. All functions work on
`Sim`, a tuple of arrays; `serving.py` makes it and feeds it windows of a trace.

A replica that dies is noticed `serving.DETECT_S` later, as live: until then the gateway sends to it
and finds the connection refused, and what it was answering stands still. Then its requests go on
from the tokens they had on another replica, as the gateway's continuation does.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from argosy.policies import breaker
from argosy.policies.admission.bounds import (
    ANSWER_TOKENS_PREDICTED,
    BYTES_PER_TOKEN,
    cost_predicted_tokens,
)
from argosy.simulator.compiled import Numbers, Rows, digest_of, shared
from argosy.simulator.compiled import compiled as compiled_of
from argosy.simulator.engine import State, kill, pop_event, revive, submit_hashed
from argosy.simulator.engine.events import ACCEPTED, NOTHING, REPLICA_DEAD
from argosy.simulator.engine.state import DEAD
from argosy.simulator.engine.steps import FINISHED, FIRST_TOKEN
from argosy.simulator.gateway.gateway import (
    ASKS_MOST,
    EXPIRED,
    NO_REPLICA,
    NO_ROOM,
    SENT,
    Ask,
    again,
    arrive,
    cancelled,
    finished,
    first_token,
    let_go,
    sweep,
    table_changed,
)
from argosy.simulator.gateway.standing import replica_is_suspect, replica_joins, replica_leaves
from argosy.simulator.gateway.state import Gateway
from argosy.simulator.handle import Handle, field
from argosy.simulator.outcomes import DONE, LOST, RESULT, SHED, TOO_LONG, UNSERVED
from argosy.simulator.outcomes import EXPIRED as WAITED_TOO_LONG

SWEEP_S = 0.25  # as the live gateway's
REFUSALS_MAX = breaker.FAILURES_TO_OPEN  # connections refused, and a replica is left alone
_NOBODY = -1

_TEXTS = (  # what is in the machine code of this file
    "fleet/share.py",
    "policies/admission",
    "policies/breaker.py",
    "policies/rates.py",
    "policies/routing",
    "simulator/compiled.py",
    "simulator/driver.py",
    "simulator/engine",
    "simulator/gateway",
    "simulator/handle.py",
    "simulator/outcomes.py",
)
compiled = partial(compiled_of, digest=digest_of(_TEXTS))
shared(cost_predicted_tokens)

ALIVE = np.dtype(
    [
        ("arrival_s", "f8"),
        ("sent_s", "f8"),  # for the first time; NaN: not yet
        ("first_s", "f8"),  # its first token; NaN: not yet
        ("prompt_tokens", "i8"),
        ("output_tokens", "i8"),
        ("had_tokens", "i8"),  # of its answer, from replicas that died
        ("model", "i8"),
        ("tier", "i8"),
        ("origin", "i8"),
        ("group", "i8"),
        ("attempts", "i8"),
        ("hash_from", "i8"),
        ("hash_until", "i8"),
        ("is_alive", "?"),
    ]
)
MARKS = np.dtype(
    [
        ("now_s", "f8"),
        ("next_sweep_s", "f8"),
        ("attempts_max", "i8"),  # replicas that one request is sent to
        ("free", "i8"),  # slots on the stack
        ("ended", "i8"),  # results to be read
        ("alive", "i8"),
        ("todo", "i8"),  # the gateway's events that were copied and not yet acted on
        ("lost", "i8"),  # requests of dead replicas that nobody has noticed
        ("next_sample_s", "f8"),
        ("sample_s", "f8"),
        ("samples", "i8"),
    ]
)
SAMPLE = np.dtype(  # of a group of replicas at one time
    [
        ("at_s", "f8"),
        ("listening", "i8"),
        ("running", "i8"),
        ("waiting", "i8"),  # in the engines
        ("blocks_used", "i8"),
        ("busy_s", "f8"),  # since the start, of all together
        ("tokens", "i8"),  # read and written since the start
        ("queued", "i8"),  # at the gateway, for the group's model
    ]
)
LOST_REQUEST = np.dtype([("slot", "i8"), ("replica", "i8"), ("tokens", "i8")])
TODO = np.dtype([("kind", "i8"), ("request", "i8"), ("replica", "i8")])
SAMPLES_MAX = 1024


class Book(Handle):
    """What the driver itself keeps."""

    marks: Rows = field(MARKS)  # [0]
    alive: Rows = field(ALIVE)  # [slot]
    slots: Numbers = field(np.int32)  # free ones, as a stack
    results: Rows = field(RESULT)  # as many as `ended`
    todo: Rows = field(TODO)
    lost: Rows = field(LOST_REQUEST)
    killed: Numbers = field(np.int64, 2)  # [requests, 2]: what `kill` tells
    samples: Rows = field(SAMPLE, 2)  # [SAMPLES_MAX, group]
    # [origin, group]: round trip, and what a request costs before its first step
    trip_s: Numbers = field(np.float64, 2)
    refusals: Numbers = field(np.int64)  # [replica]: of connections, since it joined
    context_tokens: Numbers = field(np.int64)  # [model]: of prompt and answer, at most


class Sim(NamedTuple):
    """All of it. Replace `engine` and `gateway` where their hashes change."""

    engine: State
    gateway: Gateway
    book: Book


class Columns(NamedTuple):
    """A window of a trace, in the fleet's numbers."""

    arrival_s: Numbers
    prompt_tokens: Numbers
    output_tokens: Numbers
    model: Numbers
    tier: Numbers
    tenant: Numbers
    origin: Numbers
    session: Numbers
    offsets: Numbers  # rows + 1, into the hashes; or empty


@compiled
def feed(sim: Sim, columns: Columns, begin: int, end: int) -> None:
    """Rows [begin, end) arrive, each after all that happens before it."""
    for row in range(begin, end):
        at_s = columns.arrival_s[row]
        run_until(sim, at_s)
        slot = _take_slot(sim, columns, row)
        alive = sim.book.alive[slot]
        if alive.prompt_tokens + alive.output_tokens > sim.book.context_tokens[alive.model]:
            _end(sim, slot, TOO_LONG, at_s)
            continue
        sent_bytes = alive.prompt_tokens * BYTES_PER_TOKEN
        ask = Ask(
            int(columns.model[row]),
            int(columns.tenant[row]),
            int(columns.tier[row]),
            int(cost_predicted_tokens(sent_bytes, ANSWER_TOKENS_PREDICTED)),
            sent_bytes,
            int(columns.session[row]),
            alive.hash_from,
            alive.hash_until,
        )
        arrive(sim.gateway, slot, ask, at_s)
        _act(sim, at_s)


@compiled
def run_until(sim: Sim, until_s: float) -> None:
    """All that happens up to and with `until_s`, but for what starts then."""
    marks = sim.book.marks[0]
    while marks.next_sweep_s <= until_s:
        _pop_until(sim, marks.next_sweep_s)
        sweep(sim.gateway, marks.next_sweep_s)
        _act(sim, marks.next_sweep_s)
        if marks.next_sample_s <= marks.next_sweep_s:
            _sample(sim, marks.next_sweep_s)
        marks.next_sweep_s += SWEEP_S
    _pop_until(sim, until_s)
    marks.now_s = until_s


@compiled
def drain(sim: Sim, until_s: float) -> None:
    """No more arrivals: run until all have ended, or to `until_s`."""
    marks = sim.book.marks[0]
    while marks.alive > 0 and marks.now_s < until_s:
        run_until(sim, min(until_s, marks.next_sweep_s))


@compiled
def give_up(sim: Sim) -> None:
    """Those that are still alive end unserved."""
    for slot in range(len(sim.book.alive)):
        if sim.book.alive[slot].is_alive:
            _end(sim, slot, UNSERVED, sim.book.marks[0].now_s)


@compiled
def _pop_until(sim: Sim, until_s: float) -> None:
    while True:
        at_s, kind, replica, slot = pop_event(sim.engine, until_s)
        if kind == NOTHING:
            return
        if kind == FIRST_TOKEN:
            _has_first(sim, slot, replica, at_s)
        elif kind == FINISHED:
            _has_finished(sim, slot, at_s)


@compiled
def _has_first(sim: Sim, slot: int, replica: int, at_s: float) -> None:
    alive = sim.book.alive[slot]
    if np.isnan(alive.first_s):
        alive.first_s = at_s
        alive.group = sim.engine.replicas[replica].group
    first_token(sim.gateway, slot, at_s)


@compiled
def _has_finished(sim: Sim, slot: int, at_s: float) -> None:
    alive = sim.book.alive[slot]
    # What the cache spared is not told: the gateway then believes its own index, as it does of
    # engines that say nothing.
    finished(sim.gateway, slot, (alive.prompt_tokens, 0, alive.output_tokens), at_s)
    _end(sim, slot, DONE, at_s)
    _act(sim, at_s)


# What the gateway did, done.


@compiled
def _act(sim: Sim, at_s: float) -> None:
    """Send, and end, as the gateway's events say; what that leads to included."""
    marks, todo, done = sim.book.marks[0], sim.book.todo, 0
    marks.todo = 0
    _copy_events(sim)
    while done < marks.todo:
        kind, slot, replica = todo[done].kind, todo[done].request, todo[done].replica
        done += 1
        if kind == SENT:
            _send(sim, slot, replica, at_s)
        elif kind in (NO_ROOM, ASKS_MOST):
            _end(sim, slot, SHED, at_s)
        elif kind == EXPIRED:
            _end(sim, slot, WAITED_TOO_LONG, at_s)
        elif kind == NO_REPLICA:
            _end(sim, slot, LOST, at_s)


@compiled
def _copy_events(sim: Sim) -> None:
    marks, gateway = sim.book.marks[0], sim.gateway
    for place in range(gateway.told[0]):
        event, todo = gateway.events[place], sim.book.todo[marks.todo]
        todo.kind, todo.request, todo.replica = event.kind, event.request, event.replica
        marks.todo += 1


@compiled
def _send(sim: Sim, slot: int, replica: int, at_s: float) -> None:
    alive = sim.book.alive[slot]
    alive.attempts += 1
    if np.isnan(alive.sent_s):
        alive.sent_s = at_s
    prompt, output = alive.prompt_tokens + alive.had_tokens, alive.output_tokens - alive.had_tokens
    hashes = (alive.hash_from, alive.hash_until)
    code = submit_hashed(sim.engine, replica, slot, (prompt, output), at_s, hashes)
    if code == ACCEPTED:
        return
    if (
        code == REPLICA_DEAD and alive.attempts < sim.book.marks[0].attempts_max
    ):  # the connection is refused
        sim.book.refusals[replica] += 1
        if sim.book.refusals[replica] == REFUSALS_MAX:
            replica_is_suspect(sim.gateway, replica, True)
        let_go(sim.gateway, slot)
        again(sim.gateway, slot, at_s)
        _copy_events(sim)
        return
    _end(sim, slot, LOST if code == REPLICA_DEAD else TOO_LONG, at_s)
    cancelled(sim.gateway, slot, 0, at_s)
    _copy_events(sim)


# Slots and results.


@compiled
def _take_slot(sim: Sim, columns: Columns, row: int) -> int:
    marks = sim.book.marks[0]
    marks.free -= 1
    slot = sim.book.slots[marks.free]
    marks.alive += 1
    alive = sim.book.alive[slot]
    alive.is_alive = True
    alive.arrival_s = columns.arrival_s[row]
    alive.sent_s = alive.first_s = np.nan
    alive.prompt_tokens = columns.prompt_tokens[row]
    alive.output_tokens = columns.output_tokens[row]
    alive.had_tokens = alive.attempts = 0
    alive.model = columns.model[row]
    alive.tier = columns.tier[row]
    alive.origin = columns.origin[row]
    alive.group = _NOBODY
    alive.hash_from = alive.hash_until = 0
    if len(columns.offsets) > 0:
        alive.hash_from = columns.offsets[row]
        alive.hash_until = columns.offsets[row + 1]
    return slot


@compiled
def _end(sim: Sim, slot: int, outcome: int, at_s: float) -> None:
    marks, alive = sim.book.marks[0], sim.book.alive[slot]
    trip_s = sim.book.trip_s[alive.origin, alive.group] if alive.group != _NOBODY else 0.0
    result = sim.book.results[marks.ended]
    marks.ended += 1
    result.arrival_s = alive.arrival_s
    result.ttft_s = alive.first_s - alive.arrival_s + trip_s
    result.end_s = at_s + trip_s
    result.prompt_tokens = alive.prompt_tokens
    result.output_tokens = alive.output_tokens
    result.model, result.tier = alive.model, alive.tier
    result.origin, result.group = alive.origin, alive.group
    result.outcome = outcome
    result.attempts = alive.attempts
    result.waited_s = (at_s if np.isnan(alive.sent_s) else alive.sent_s) - alive.arrival_s
    alive.is_alive = False
    marks.alive -= 1
    sim.book.slots[marks.free] = slot
    marks.free += 1


# Replicas that die, are noticed, and come back.


@compiled
def replicas_die(sim: Sim, replicas: Numbers, at_s: float) -> None:
    """They answer no more; nobody knows yet. All up to `at_s` has been run."""
    marks = sim.book.marks[0]
    for replica in replicas:
        if sim.engine.replicas[replica].phase == DEAD:
            continue
        for row in range(kill(sim.engine, replica, at_s, sim.book.killed)):
            lost = sim.book.lost[marks.lost]
            lost.slot, lost.replica = sim.book.killed[row, 0], replica
            lost.tokens = sim.book.killed[row, 1]
            marks.lost += 1


@compiled
def deaths_are_noticed(sim: Sim, replicas: Numbers, at_s: float) -> None:
    """The gateway drops them; what they were answering goes on elsewhere."""
    marks, count = sim.book.marks[0], 0
    for place in range(marks.lost):
        let_go(sim.gateway, sim.book.lost[place].slot)
    for replica in replicas:
        if sim.engine.replicas[replica].phase == DEAD:
            replica_leaves(sim.gateway, replica)
    count, marks.lost = marks.lost, 0
    table_changed(sim.gateway, at_s)
    _act(sim, at_s)
    for place in range(count):
        lost = sim.book.lost[place]
        alive = sim.book.alive[lost.slot]
        alive.had_tokens += lost.tokens
        if alive.had_tokens >= alive.output_tokens:  # all but its end had come
            alive.had_tokens = alive.output_tokens - 1
        again(sim.gateway, lost.slot, at_s)
        _act(sim, at_s)


@compiled
def replicas_join(sim: Sim, replicas: Numbers, at_s: float) -> None:
    """They are ready, for the first time or again."""
    for replica in replicas:
        it = sim.engine.replicas[replica]
        revive(sim.engine, replica)
        sim.book.refusals[replica] = 0
        cached = it.blocks * it.block_tokens * BYTES_PER_TOKEN if it.entry_blocks > 0 else 1
        replica_joins(sim.gateway, replica, cached, at_s)
    table_changed(sim.gateway, at_s)
    _act(sim, at_s)


@compiled
def replicas_drain(sim: Sim, replicas: Numbers, at_s: float) -> None:
    """They get no new requests; what they answer goes on to its end. All to `at_s` has been run."""
    for replica in replicas:
        replica_leaves(sim.gateway, replica)
    table_changed(sim.gateway, at_s)
    _act(sim, at_s)


# How it stands, some hundred times.


@compiled
def _sample(sim: Sim, at_s: float) -> None:
    marks, samples = sim.book.marks[0], sim.book.samples
    if marks.samples == len(samples):
        _thin_out(sim)
    row = samples[marks.samples]
    for group in range(len(row)):
        one = row[group]
        one.at_s = at_s
        one.listening = one.running = one.waiting = one.blocks_used = one.tokens = one.queued = 0
        one.busy_s = 0.0
    for replica in range(len(sim.engine.replicas)):
        it = sim.engine.replicas[replica]
        one = row[it.group]
        one.listening += it.phase != DEAD
        one.running += it.decoding + it.reading
        one.waiting += it.waiting
        one.blocks_used += it.blocks - it.blocks_free
        one.busy_s += it.busy_s
        one.tokens += it.tokens_prefilled + it.tokens_decoded
        one.queued = sim.gateway.queues.lines[sim.gateway.replicas[replica].model].waiting
    marks.samples += 1
    marks.next_sample_s = at_s + marks.sample_s


@compiled
def _thin_out(sim: Sim) -> None:
    """Every second sample goes, and half as many are taken from now on."""
    marks, samples = sim.book.marks[0], sim.book.samples
    for place in range(len(samples) // 2):
        for group in range(samples.shape[1]):
            samples[place, group] = samples[2 * place + 1, group]
    marks.samples = len(samples) // 2
    marks.sample_s *= 2
