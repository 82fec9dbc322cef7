"""How full a model's replicas are over time: requests in the system as a fluid.

    d(in system)/dt = what comes x the share accepted - what is served

Both shares are those of the place on the measured surface at which a settled cell holds as many
requests (a pointwise stationary flow). So a rate that does not change ends at the surface's own
answer, and a change of rate or of replicas takes as long as requests take to gather or to leave.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from argosy.simulator.fluid.surface import Blend, between, place_of

_STEPS_OF_RELAXATION = 8  # parts of a relaxation time that one step of the sum takes
_STEP_S_MIN = 0.25
_SETTLED = 1e-4
_DRAINED = 0.5  # requests
_DRAIN_STEPS = 400

Floats = NDArray[np.float64]


class Stretch(NamedTuple):
    """A stretch of time in which rates are constant and no replica comes or goes."""

    at_s: float
    seconds: float
    requests_per_s: float
    blend: Blend | None  # None: the model has no replica


class Course(NamedTuple):
    """By stretch; behind the stretches that were asked for, those in which the last leave."""

    stretches: tuple[Stretch, ...]
    place_of_work: Floats  # on the surface, on average
    place: Floats  # as those that come see it
    place_of_answers: Floats  # while they are answered
    residence_s: Floats  # of those that are served
    lost_share: Floats  # of those that come in it and find no replica to go on


def course_of(stretches: Sequence[Stretch]) -> Course:
    """From an empty system on, until it is empty again."""
    todo, done = list(stretches), list[Stretch]()
    places, residences = list[float](), list[float]()
    outages = list[float]()
    in_system, number = 0.0, 0
    while number < len(todo):
        stretch = todo[number]
        if stretch.blend is None:
            if in_system:
                outages.append(stretch.at_s)
            in_system, place, residence_s = 0.0, 0.0, 0.0
        else:
            in_system, place = _run(stretch, stretch.blend, in_system)
            residence_s = _residence_s(stretch.blend, place)
        done.append(stretch)
        places.append(place)
        residences.append(residence_s)
        number += 1
        if number == len(todo) and in_system > _DRAINED and len(todo) < _limit(stretches):
            todo.append(_after(stretch, residence_s))
    place_of_work, residence_s = np.array(places), np.array(residences)
    place = np.array([_seen(stretch, place) for stretch, place in zip(done, places, strict=True)])
    return Course(
        tuple(done),
        place_of_work,
        place,
        _while_answered(done, place, residence_s),
        residence_s,
        _lost_shares(done, residence_s, outages),
    )


def _seen(stretch: Stretch, place: float) -> float:
    """Where more comes than can be served, prompts wait for prompts before the slots are full."""
    blend = stretch.blend
    if blend is None or not stretch.requests_per_s:
        return place
    beyond = place_of(blend.requests_per_s, stretch.requests_per_s) - blend.full
    return max(place, blend.full + min(1.0, beyond)) if beyond > 0.0 else place


def _limit(stretches: Sequence[Stretch]) -> int:
    return len(stretches) + _DRAIN_STEPS


def _after(last: Stretch, residence_s: float) -> Stretch:
    return Stretch(last.at_s + last.seconds, max(_STEP_S_MIN, residence_s / 6), 0.0, last.blend)


def _residence_s(blend: Blend, place: float) -> float:
    served = between(blend.served_per_s, max(place, 0.5))
    return between(blend.in_system, max(place, 0.5)) / served if served > 0.0 else 0.0


def _run(stretch: Stretch, blend: Blend, in_system: float) -> tuple[float, float]:
    """In the system at its end, and the mean place in it."""
    left_s, area = stretch.seconds, 0.0
    rate = stretch.requests_per_s
    place_end = place_of(blend.requests_per_s, rate)
    in_system_end = between(blend.in_system, place_end)
    while True:
        place = place_of(blend.in_system, in_system)
        gap = in_system_end - in_system
        if abs(gap) <= _SETTLED * max(in_system_end, 1.0):
            return in_system_end, (area + place_end * left_s) / stretch.seconds
        change = rate * blend.accepted_at(place) - between(blend.served_per_s, place)
        relaxation_s = gap / change if change * gap > 0.0 else 0.0
        step_s = min(left_s, max(_STEP_S_MIN, relaxation_s / _STEPS_OF_RELAXATION))
        closed = 1.0 - math.exp(-step_s / relaxation_s) if relaxation_s > 0.0 else 1.0
        in_system += gap * closed
        area += (place + place_of(blend.in_system, in_system)) / 2 * step_s
        left_s -= step_s
        if left_s <= 1e-9:
            return in_system, area / stretch.seconds


def _while_answered(stretches: Sequence[Stretch], place: Floats, residence_s: Floats) -> Floats:
    """The mean place from the middle of each stretch on for as long as an answer takes."""
    begins = np.array([stretch.at_s for stretch in stretches])
    widths = np.array([stretch.seconds for stretch in stretches])
    edges = np.append(begins, begins[-1] + widths[-1])
    area = np.append(0.0, np.cumsum(place * widths))
    from_s = begins + widths / 2
    until_s = np.minimum(from_s + np.maximum(residence_s, 1e-3), edges[-1])
    taken = np.interp(until_s, edges, area) - np.interp(from_s, edges, area)
    return np.where(until_s > from_s, taken / np.maximum(until_s - from_s, 1e-12), place)


def _lost_shares(
    stretches: Sequence[Stretch], residence_s: Floats, outages: Sequence[float]
) -> Floats:
    """Of those that came before the last replica went: those not yet answered then."""
    shares = np.zeros(len(stretches))
    for number, stretch in enumerate(stretches):
        for at_s in outages:
            before_s = at_s - (stretch.at_s + stretch.seconds / 2)
            if before_s > 0.0 and residence_s[number] > 0.0:
                shares[number] = max(shares[number], 1.0 - before_s / (2 * residence_s[number]))
    return shares
