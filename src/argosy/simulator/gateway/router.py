"""Where a request goes and what is kept of it, as `gateway/router.py` does, on arrays.

The choice is the policies' text (`policies/routing/places.py`); here is what it is told.
"""

import numpy as np

from argosy.policies.routing.places import (
    drawn_place,
    its_turn,
    least_loaded_place,
    predicted_place,
    turns_waited,
)
from argosy.policies.routing.sessions import closeness
from argosy.simulator.compiled import Row, Rows, compiled, inner
from argosy.simulator.gateway import prefixes, rates
from argosy.simulator.gateway.heap import NOBODY
from argosy.simulator.gateway.state import NO_SESSION, TRIED_MAX, Gateway

_HELD_WEIGHT = 0.1  # these as live
_LEARN_EVERY_S = 0.02


@compiled
def choose(gateway: Gateway, request: int, now_s: float) -> int:
    """The replica that it is sent to, where it counts from now on; NOBODY where none listens."""
    placed = gateway.placed[request]
    number = gateway.queues.works[request].model
    model = gateway.models[number]
    placed.now_s, placed.turn = now_s, model.turn
    model.turn += 1
    chance = _draw(gateway)
    if model.listening == 0:
        return NOBODY
    placed.home = _home(gateway, model, placed.session)
    found = _longest(gateway, number, placed)
    if placed.tried == 0:
        count = model.ready if model.ready else model.listening
        able = gateway.views[model.first : model.first + count]
    else:
        able = _untried(gateway, model, placed)
    place = _place(gateway, able, placed, found, chance)
    _send(gateway, request, able[place].replica, found)
    return placed.replica


@inner
def _place(gateway: Gateway, able: Rows, placed: Row, found: int, chance: float) -> int:
    """The policy's choice."""
    policy, count = gateway.rules[0].policy, len(able)
    if policy == 2:
        return drawn_place(able, chance) if count > 1 else 0
    if policy == 3:
        return placed.turn % count
    totals, loads = gateway.scratch.totals[:count], gateway.scratch.loads[:count]
    if policy == 1:
        totals, choice = loads, least_loaded_place(able, loads)
    else:
        holders = 0
        if placed.prompt_bytes > 0 and (found > 0 or placed.home != NOBODY):
            holders = _known(gateway, able, placed, found)
        known = (gateway.scratch.places[:holders], gateway.scratch.spared[:holders])
        rows = (totals, loads)
        choice = predicted_place(able, placed, gateway.rules[0], known, rows)
    return its_turn(totals, loads, choice, placed.turn)


@inner
def _known(gateway: Gateway, able: Rows, placed: Row, found: int) -> int:
    """Fill in at which places a part of the prompt is, or may be; how many."""
    scratch = gateway.scratch
    count, needs_home = 0, placed.home != NOBODY
    for index in range(found):
        replica = scratch.holders[index]
        place = _place_of(gateway, able, placed, replica)
        if place != NOBODY:
            scratch.places[count] = place
            scratch.spared[count] = _believed(gateway, index)
            count += 1
            needs_home = needs_home and replica != placed.home
    place = _place_of(gateway, able, placed, placed.home) if needs_home else NOBODY
    if place != NOBODY:
        scratch.places[count] = place
        scratch.spared[count] = 0
        count += 1
    return count


@inner
def _place_of(gateway: Gateway, able: Rows, placed: Row, replica: int) -> int:
    """Among the candidates; NOBODY where it is none."""
    row = gateway.replicas[replica]
    if placed.tried == 0:
        place = row.row - gateway.models[row.model].first
    else:
        place = gateway.scratch.place_of[replica]
    is_there = 0 <= place < len(able) and able[place].replica == replica
    return place if is_there else NOBODY


@inner
def _untried(gateway: Gateway, model: Row, placed: Row) -> Rows:
    """Copies of the best kind of views: ready and untried, else ready, else untried, else all."""
    views = gateway.views[model.first : model.first + model.listening]
    for ready_only, untried_only in ((True, True), (True, False), (False, True), (False, False)):
        count = 0
        for view in views[: model.ready] if ready_only else views:
            if untried_only and _was_tried(placed, view.replica):
                continue
            gateway.scratch.able[count] = view
            gateway.scratch.place_of[view.replica] = count
            count += 1
        if count:
            break
    return gateway.scratch.able[:count]


@inner
def _was_tried(placed: Row, replica: int) -> bool:
    for index in range(min(placed.tried, TRIED_MAX)):
        if placed.tried_replicas[index] == replica:
            return True
    return False


@inner
def _longest(gateway: Gateway, model: int, placed: Row) -> int:
    """How many replicas hold a part of the prompt by the index; the scratch says which."""
    if placed.blocks_begin == placed.blocks_end:
        return 0
    scratch, hashes = gateway.scratch, gateway.blocks[placed.blocks_begin : placed.blocks_end]
    return prefixes.longest(gateway.prefixes, model, hashes, scratch.holders, scratch.indexed)


@inner
def _believed(gateway: Gateway, index: int) -> int:
    """Of what the index says that one holds, what its engine has lately confirmed."""
    held = gateway.scratch.indexed[index]
    replica = gateway.replicas[gateway.scratch.holders[index]]
    if not gateway.models[replica.model].tells_cached:
        return held
    return int(held * replica.held_share)


@inner
def _home(gateway: Gateway, model: Row, session: int) -> int:
    """The replica that this session prefers among the ready ones (else among all)."""
    home, closest = NOBODY, -1
    if session == NO_SESSION:
        return home
    count = model.ready if model.ready else model.listening
    for view in gateway.views[model.first : model.first + count]:
        close = closeness(session, gateway.replicas[view.replica].name)
        if close >= closest:  # by name: the last of equals
            home, closest = view.replica, close
    return home


@inner
def _send(gateway: Gateway, request: int, replica: int, found: int) -> None:
    """It counts there from now on."""
    placed, row = gateway.placed[request], gateway.replicas[replica]
    view = gateway.views[row.row]
    indexed = believed = 0
    for index in range(found):
        if gateway.scratch.holders[index] == replica:
            indexed, believed = gateway.scratch.indexed[index], _believed(gateway, index)
    to_read = max(0, placed.prompt_bytes - believed)
    placed.replica = replica
    placed.to_read_bytes = to_read
    placed.ahead_bytes = view.prefill_bytes_queued + to_read
    placed.turns_waited = turns_waited(view.requests_in_flight, view.slots)
    placed.indexed_bytes, placed.believed_bytes = indexed, believed
    placed.has_first = placed.has_read = False
    view.requests_in_flight += 1
    view.prefill_bytes_queued += to_read
    if gateway.rules[0].is_stale:
        row.requests_in_flight += 1
        row.prefill_bytes_queued += to_read


@compiled
def first_token(gateway: Gateway, request: int, now_s: float) -> None:
    """Its prompt has been read."""
    placed = gateway.placed[request]
    _is_read(gateway, placed)
    placed.has_first = True
    placed.ttft_s = now_s - placed.now_s
    _has_read(gateway, placed)


@compiled
def finished(gateway: Gateway, request: int, tokens: tuple[int, int, int], now_s: float) -> None:
    """It was answered, with tokens in, of these cached, and tokens out: what that teaches."""
    placed = gateway.placed[request]
    _has_read(gateway, placed)
    row = gateway.replicas[placed.replica]
    if now_s < row.learn_from_s:
        return
    row.learn_from_s = now_s + _LEARN_EVERY_S
    tokens_in, tokens_cached, tokens_out = tokens
    read_bytes = placed.ahead_bytes
    if tokens_cached > 0:
        row.tells_cached = True
        gateway.models[row.model].tells_cached = True
    if tokens_in > 0 and row.tells_cached:  # the engine knows better than the prefix index
        read_bytes += placed.believed_bytes - _confirmed(placed, row, tokens_in, tokens_cached)
    rates.observe(gateway, request, read_bytes, tokens_out, now_s)


@inner
def _confirmed(placed: Row, row: Row, tokens_in: int, tokens_cached: int) -> int:
    """Bytes that the engine says its cache spared."""
    cached_bytes = int(placed.prompt_bytes * tokens_cached / tokens_in)
    if placed.indexed_bytes > 0:
        share = min(1.0, cached_bytes / placed.indexed_bytes)
        row.held_share += (share - row.held_share) * _HELD_WEIGHT
    return cached_bytes


@compiled
def release(gateway: Gateway, request: int) -> None:
    """It is there no more, however it ended; nothing, where it was sent nowhere."""
    placed = gateway.placed[request]
    if placed.replica == NOBODY:
        return
    _is_read(gateway, placed)
    row = gateway.replicas[placed.replica]
    if gateway.rules[0].is_stale:
        row.requests_in_flight -= 1
    else:
        gateway.views[row.row].requests_in_flight -= 1
    placed.replica = NOBODY


@inner
def _is_read(gateway: Gateway, placed: Row) -> None:
    """Nobody waits for its prompt any more."""
    row = gateway.replicas[placed.replica]
    if gateway.rules[0].is_stale:
        row.prefill_bytes_queued -= placed.to_read_bytes
    else:
        gateway.views[row.row].prefill_bytes_queued -= placed.to_read_bytes
    placed.to_read_bytes = 0


@inner
def _has_read(gateway: Gateway, placed: Row) -> None:
    """Now, not when it was sent: what is still being read spares nobody anything."""
    if not placed.has_read and placed.blocks_begin < placed.blocks_end:
        hashes = gateway.blocks[placed.blocks_begin : placed.blocks_end]
        prefixes.insert(gateway.prefixes, placed.replica, hashes)
    placed.has_read = True


@compiled
def refresh(gateway: Gateway) -> None:
    """Stale views see what is true now; exact ones always do."""
    if not gateway.rules[0].is_stale:
        return
    for row in gateway.replicas:
        view = gateway.views[row.row]
        view.requests_in_flight = row.requests_in_flight
        view.prefill_bytes_queued = row.prefill_bytes_queued


@inner
def _draw(gateway: Gateway) -> float:
    """Uniform in [0, 1), by SplitMix64 (Steele, Lea, Flood 2014); one for each choice."""
    rules = gateway.rules[0]
    rules.chance += np.uint64(0x9E3779B97F4A7C15)
    mixed = rules.chance
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return np.float64(mixed >> np.uint64(11)) * 2.0**-53
