"""Which of the able views each policy takes: the arithmetic alone, pure, one text with two bodies.

Live it runs as Python over `ReplicaView`s and lists; the simulator compiles this very text over
rows of an array with the same field names. So it keeps to what both understand: no words, no dicts,
no objects made; what it fills in is given to it (`scratch`). In the rows an unknown `slots` is 0,
`ready_since_s` is -inf where it was long ago, and names are numbers in the order of the names.

A place is an index into `able`, which holds one view at least.
"""

import math
from collections.abc import Sequence
from typing import Protocol

SLOTS_ASSUMED = 16  # where unknown: fewer than a vLLM batch takes, so it errs towards spreading
TIE_SHARE, TIE_S = 1.05, 0.001  # how near to the best a prediction is called equal
BYTES_PER_TOKEN = 4  # of English, for the price of an API alone
TOKENS_OUT_ASSUMED = 256

_GOLDEN = 0x9E3779B9  # 2^32 / golden ratio: multiples of it are spread evenly
_BITS_32 = 0xFFFFFFFF


class View(Protocol):
    """What is read of a replica: a `ReplicaView`, or a row of the simulator's."""

    @property
    def replica(self) -> str: ...
    @property
    def requests_in_flight(self) -> int: ...
    @property
    def slots(self) -> int | None: ...
    @property
    def ready_since_s(self) -> float | None: ...
    @property
    def prefill_bytes_queued(self) -> int: ...
    @property
    def prefill_s_per_byte(self) -> float: ...
    @property
    def base_s(self) -> float: ...
    @property
    def service_s(self) -> float: ...
    @property
    def price_usd_per_hour(self) -> float: ...
    @property
    def price_usd_per_mtok(self) -> float: ...


class Shape(Protocol):
    """What is read of a request."""

    @property
    def prompt_bytes(self) -> int: ...
    @property
    def home(self) -> str | None: ...
    @property
    def turn(self) -> int: ...
    @property
    def now_s(self) -> float: ...


class Tuned(Protocol):
    """What is read of the tuning."""

    @property
    def affinity_load_max(self) -> float: ...
    @property
    def slow_start_s(self) -> float: ...
    @property
    def price_weight_s_per_usd(self) -> float: ...


Known = tuple[Sequence[int], list[int]]  # places; prompt bytes cached there, then those spared
# The first place of the best, how many are equal to it (as little load), and the most that one of
# these has of what comes before load: predicted seconds, or again load.
Choice = tuple[int, int, float]
Scratch = tuple[list[float], list[float]]  # by place: predicted seconds, requests per slot


def predicted_place(
    able: Sequence[View], request: Shape, tuning: Tuned, known: Known, scratch: Scratch
) -> Choice:
    """Where `predicted` (whose module says why) sends it.

    What it predicts is left in `scratch`. `known` names each place once where a part of the prompt
    is cached, and the home's; the bytes that count as spared there are left in it.
    """
    totals, loads = scratch
    soonest_s, load_least = predict(able, request, tuning, totals, loads)
    if len(known[0]) > 0:
        load_max = load_least + tuning.affinity_load_max
        soonest_s = spare(able, request, known, scratch, load_max, soonest_s)
    near_s = soonest_s * TIE_SHARE + TIE_S
    best, least, equals = 0, math.inf, 0
    for place, total in enumerate(totals):  # nearly soonest, then least loaded
        if total <= near_s:
            load = loads[place]
            if load < least:
                best, least, equals = place, load, 1
            elif load == least:
                equals += 1
    return best, equals, near_s


def predict(
    able: Sequence[View],
    request: Shape,
    tuning: Tuned,
    totals: list[float],
    loads: list[float],
) -> tuple[float, float]:
    """Fill in what each place's prediction and load are, caches aside; the least of both."""
    prompt_bytes, price_weight = request.prompt_bytes, tuning.price_weight_s_per_usd
    soonest_s = load_least = math.inf
    for place, view in enumerate(able):
        slots = view.slots or SLOTS_ASSUMED
        if view.ready_since_s is not None:
            slots = slots_so_far(slots, request.now_s - view.ready_since_s, tuning.slow_start_s)
        in_flight = view.requests_in_flight
        total = view.base_s + (view.prefill_bytes_queued + prompt_bytes) * view.prefill_s_per_byte
        if in_flight >= slots:
            total += (in_flight - slots + 1) * view.service_s / slots
        if price_weight:
            total += price_usd(view, prompt_bytes) * price_weight
        totals[place] = total
        loads[place] = load = in_flight / slots
        if total < soonest_s:
            soonest_s = total
        if load < load_least:
            load_least = load
    return soonest_s, load_least


def spare(  # its parameters are what it needs: no object is made on this path
    able: Sequence[View],
    request: Shape,
    known: Known,
    scratch: Scratch,
    load_max: float,
    soonest_s: float,
) -> float:
    """Take off what the caches spare where the load allows it; the least prediction then."""
    holders, spared = known
    totals, loads = scratch
    prompt_bytes, home = request.prompt_bytes, request.home
    for index, place in enumerate(holders):
        if loads[place] > load_max:
            spared[index] = 0
            continue
        view, held = able[place], spared[index]
        if held > prompt_bytes:
            spared[index] = held = prompt_bytes
        elif view.replica == home:
            spared[index] = held = held + (prompt_bytes - held) // 2
        if held:
            totals[place] = total = totals[place] - held * view.prefill_s_per_byte
            if total < soonest_s:
                soonest_s = total
    return soonest_s


def least_loaded_place(able: Sequence[View], loads: list[float]) -> Choice:
    """Where the fewest are in flight per slot; fills in `loads`."""
    best, least, equals = 0, math.inf, 0
    for place, view in enumerate(able):
        loads[place] = load = view.requests_in_flight / (view.slots or 1)
        if load < least:
            best, least, equals = place, load, 1
        elif load == least:
            equals += 1
    return best, equals, least


def drawn_place(ranked: Sequence[View], chance: float) -> int:
    """The less loaded of two drawn among two or more, the first drawn where they are equal.

    `ranked` is by name. Every ordered pair is drawn alike by a `chance` in [0, 1).
    """
    count = len(ranked)
    drawn = int(chance * count * (count - 1))
    first, second = drawn // (count - 1), drawn % (count - 1)
    if second >= first:
        second += 1
    one, other = ranked[first], ranked[second]
    load = one.requests_in_flight / (one.slots or 1)
    return second if other.requests_in_flight / (other.slots or 1) < load else first


def nth_of(turn: int, count: int) -> int:
    """Whose turn it is of so many equals: another each turn, the first at turn 0.

    Not `turn % n`: where every second request finds equals, that would always be the same one.
    """
    return ((turn * _GOLDEN & _BITS_32) * count) >> 32


def its_turn(totals: list[float], loads: list[float], choice: Choice, turn: int) -> int:
    """Whose turn it is of the equals, where places are in the order of the names."""
    best, equals, near_s = choice
    nth, found, least = nth_of(turn, equals), 0, loads[best]
    for place in range(best, len(loads)):
        if loads[place] == least and totals[place] <= near_s:
            if found == nth:
                return place
            found += 1
    return best


def turn_by_name(
    able: Sequence[View],
    totals: list[float],
    loads: list[float],
    choice: Choice,
    turn: int,
) -> int:
    """The same where places may be in any order; the gateway's and the simulator's are not."""
    best, equals, near_s = choice
    least = loads[best]
    places = [
        place for place, total in enumerate(totals) if loads[place] == least and total <= near_s
    ]
    names = [able[place].replica for place in places]
    name = sorted(names)[nth_of(turn, equals)]
    return places[names.index(name)]


def slots_so_far(slots: float, age_s: float, slow_start_s: float) -> float:
    """What a replica of that age counts as having."""
    if age_s >= slow_start_s:
        return slots
    return max(1.0, slots * max(0.0, age_s) / slow_start_s)


def price_usd(view: View, prompt_bytes: int) -> float:
    """What the request is expected to cost there: a slot's share of the hour, or its tokens."""
    slot_hours = view.service_s / 3600 / (view.slots or SLOTS_ASSUMED)
    mtok = (prompt_bytes / BYTES_PER_TOKEN + TOKENS_OUT_ASSUMED) / 1e6
    return slot_hours * view.price_usd_per_hour + mtok * view.price_usd_per_mtok


def turns_waited(in_flight: int, slots: int | None) -> float:
    """Services that a request has to wait for a slot: 0 where one is free, or not known."""
    if slots and in_flight >= slots:
        return (in_flight - slots + 1) / slots
    return 0.0
