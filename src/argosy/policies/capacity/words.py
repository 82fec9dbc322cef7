"""Why a deployment has more or fewer replicas, as a person reads it."""

from collections.abc import Sequence
from typing import NamedTuple

from argosy.policies.autoscaling import Ask
from argosy.policies.capacity.ticks import Place
from argosy.policies.placement import Change, ChangeCode

_NAMED_MAX = 3  # cheaper deployments that are passed over


class Outcome(NamedTuple):
    """Of one model; by its deployments."""

    ask: Ask
    places: Sequence[Place]
    best: Sequence[int]  # what the placement wants in the end
    counts: Sequence[int]  # what is told now
    residency: str | None  # where it must stay, in words


def why(outcome: Outcome, at: int, change: Change | None) -> str:
    """Of the deployment at that place. Empty where nothing changes or is in the way."""
    ask, places, best, counts, residency = outcome
    one, count = places[at], counts[at]
    before = one.part.replicas
    if not one.site.may_serve:
        return f"{ask.model} must stay in {residency}"
    if one.closed is not None and one.closed.is_left:
        return one.closed.why
    if count > best[at]:
        return _beyond(one, before, count)
    if count == before:
        return "" if one.closed is None else one.closed.why
    if count > before:
        if count == one.low:
            return f"{count} are kept in any case"
        return _grows(outcome, at, None if change is None else change.code)
    if before > one.part.max:
        return f"{one.part.max} is the most"
    return _shrinks(change)


def _beyond(one: Place, before: int, count: int) -> str:
    if count > before and one.closed is not None:
        return f"{one.closed.why}; it is asked again, for nothing else has room"
    return "what is to do its work is not ready yet"


def _shrinks(change: Change | None) -> str:
    match None if change is None else change.code:
        case "saves":
            return "others do it for less"
        case "room":
            return "its chips are worth more to another model"
        case "chips":
            return "the pool has no more chips for it"
        case _:
            return "the others suffice"


def _grows(outcome: Outcome, at: int, code: ChangeCode | None) -> str:
    ask, places, _, counts, residency = outcome
    one = places[at]
    if code == "saves":
        said = "does the same for less"
    elif code == "room":
        said = "leaves chips to another model"
    else:
        said = "cheapest"
    if residency is not None:
        said += f" within {residency}"
    kinds = [kind for kind in ask.survive if len({each.domain(kind) for each in places}) > 1]
    if code == "survive" and kinds:
        said += f" that survives the loss of {_largest(places, kinds[0])}"
    elif code == "spread":
        said += " within the share of any one domain"
    passed = [
        f"{other.part.name} ({_why_not(other, counts[place])})"
        for place, other in enumerate(places)
        if place != at and _rank(other, place) < _rank(one, at) and other.site.may_serve
    ]
    if passed:
        more = f" and {len(passed) - _NAMED_MAX} more" if len(passed) > _NAMED_MAX else ""
        said += f", after {', '.join(passed[:_NAMED_MAX])}{more}"
    return said


def _rank(one: Place, at: int) -> tuple[float, int]:
    return one.usd_per_capacity, at


def _why_not(one: Place, count: int) -> str:
    if one.closed is not None:
        return one.closed.why
    if not one.high:
        return "cannot be had"
    if count >= one.high:
        return f"has its {one.high}" if one.part.may_grow else "gave none of late"
    return f"has {count}"


def _largest(places: Sequence[Place], kind: str) -> str:
    """The domain of that kind that has most of the model now."""
    sizes: dict[str, float] = {}
    for one in places:
        name = one.domain(kind)
        sizes[name] = sizes.get(name, 0.0) + one.part.replicas * one.part.capacity
    return max(sorted(sizes), key=lambda name: sizes[name])
