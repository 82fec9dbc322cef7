"""The decision: what exists and what is wanted come in, whom to create and to remove goes out.

Make before break: a ready replica goes only where as many others of its model are ready as are
wanted. So a rollout, a move to another pool and a drained node are one rule. What serves nobody
goes at once; what cannot be seen never goes; and of a model's ready replicas no more than a share
goes in an interval, whoever asked for it, for the asker may be wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from argosy.policies.lifecycle.views import (
    Create,
    Decision,
    Lifecycle,
    Peak,
    Remove,
    ReplicaView,
    Settings,
    View,
    Wanted,
)


def decide(
    state: Lifecycle, view: View, settings: Settings | None = None
) -> tuple[Lifecycle, Decision]:
    """Whom to create and whom to remove now. The order of what is given changes nothing."""
    settings = settings or Settings()
    staying = [one for one in view.replicas if not one.is_leaving]
    ready = Counter(one.model for one in staying if one.is_ready)
    state = _remembered(state, view.now_s, ready, settings)
    of_deployment: defaultdict[str, list[ReplicaView]] = defaultdict(list)
    for one in staying:
        of_deployment[one.deployment].append(one)
    create: list[Create] = []
    go: list[_Goer] = []
    for wanted in sorted(view.wanted, key=lambda one: one.deployment):
        sides = _sides(of_deployment.pop(wanted.deployment, []), wanted)
        create += _missing(sides, wanted, settings)
        go += _superfluous(sides, wanted, settings)
    for others in of_deployment.values():
        go += (_Goer(replica=one, reason="nobody wants its deployment any more") for one in others)
    removing = _Removing(view.wanted, ready, state, settings)
    remove, waits = removing.let_go(sorted(go, key=_order))
    return state, Decision(create=tuple(create), remove=tuple(remove), waits=tuple(waits))


class _Goer(msgspec.Struct, frozen=True, kw_only=True):
    replica: ReplicaView
    reason: str


class _Sides(msgspec.Struct, frozen=True, kw_only=True):
    """A deployment's replicas: as it is wanted now, to be replaced, and out of sight for long."""

    current: list[ReplicaView]
    old: list[ReplicaView]
    lost: list[ReplicaView]


def _sides(replicas: Iterable[ReplicaView], wanted: Wanted) -> _Sides:
    sides = _Sides(current=[], old=[], lost=[])
    for one in replicas:
        if one.is_lost:
            sides.lost.append(one)
        elif one.generation == wanted.generation and not one.is_unwelcome:
            sides.current.append(one)
        else:
            sides.old.append(one)
    return sides


def _missing(sides: _Sides, wanted: Wanted, settings: Settings) -> Iterator[Create]:
    missing = wanted.replicas - len(sides.current)
    if missing <= 0 or not wanted.is_open:
        return
    kept = _kept(sides, wanted, settings)
    standing = sum(  # the rest goes at once
        one.is_serving or not one.is_seen or one.name in kept for one in sides.old
    )
    surge = settings.surge if wanted.has_room else 0
    room = wanted.replicas + surge - len(sides.current) - standing
    reason = f"{wanted.replicas} wanted, {len(sides.current)} there"
    if sides.old:
        reason += f", {len(sides.old)} to be replaced"
    if sides.lost:
        reason += f", {len(sides.lost)} out of sight"
    for _ in range(min(missing, room)):
        yield Create(deployment=wanted.deployment, reason=reason)


def _superfluous(sides: _Sides, wanted: Wanted, settings: Settings) -> Iterator[_Goer]:
    kept = _kept(sides, wanted, settings)
    for one in sides.old:
        if one.name in kept:
            continue
        why = (
            one.why_unwelcome
            if one.is_unwelcome
            else f"of generation {one.generation}; {wanted.generation} is wanted"
        )
        yield _Goer(replica=one, reason=why)
    surplus = len(sides.current) - wanted.replicas
    if surplus > 0:
        for one in sorted(sides.current, key=_first_to_go)[:surplus]:
            why = f"{wanted.replicas} wanted, {len(sides.current)} there"
            yield _Goer(replica=one, reason=why)


def _kept(sides: _Sides, wanted: Wanted, settings: Settings) -> set[str]:
    """Old ones that serve nobody now and may again, while what is wanted does not come up.

    Else each that ends would be one less for good: what comes in its place is in a crash loop.
    """
    is_stuck = any(one.is_crash_looping for one in sides.current)
    if not is_stuck or any(one.is_ready for one in sides.current):
        return set()
    room = max(0, wanted.replicas + settings.surge - len(sides.current))
    before = sorted(sides.old, key=_first_to_go, reverse=True)[:room]
    return {one.name for one in before if not (one.is_serving or one.is_unwelcome)}


def _first_to_go(one: ReplicaView) -> tuple[bool, bool, int, float, int]:
    """Who serves nobody, then with the least to end, then the newest: old ones have warm caches."""
    in_flight = 0 if one.requests_in_flight is None else one.requests_in_flight
    return one.is_serving, one.is_ready, in_flight, -one.created_at_s, -one.number


def _order(goer: _Goer) -> tuple[bool, bool, int, float, int]:
    return _first_to_go(goer.replica)


class _Removing:
    """Counts down what is ready while replicas are let go."""

    def __init__(
        self,
        wanted: Sequence[Wanted],
        ready: Counter[str],
        state: Lifecycle,
        settings: Settings,
    ) -> None:
        self._ready = ready.copy()
        self._models = {one.model for one in wanted}
        self._needed: Counter[str] = Counter()
        for one in wanted:
            if one.is_open or one.is_kept:
                self._needed[one.model] += one.replicas
        for one in wanted:
            if one.is_open and not one.has_room and self._needed[one.model] > 1:
                self._needed[one.model] -= 1  # no room to make before break: one at a time
        most: Counter[str] = Counter()
        for peak in state.peaks:
            most[peak.model] = max(most[peak.model], peak.ready)
        self._least = {
            model: count - max(1, int(count * settings.removal_share_max))
            for model, count in most.items()
        }

    def let_go(self, goers: Iterable[_Goer]) -> tuple[list[Remove], list[str]]:
        remove: list[Remove] = []
        waits: list[str] = []
        for goer in goers:
            why_not = self._why_not(goer.replica)
            if why_not is None:
                remove.append(Remove(replica=goer.replica.name, reason=goer.reason))
                self._ready[goer.replica.model] -= goer.replica.is_ready
            else:
                waits.append(f"{goer.replica.name} stays for now ({goer.reason}): {why_not}")
        return remove, waits

    def _why_not(self, one: ReplicaView) -> str | None:
        if not one.is_seen:
            return "its pool or node cannot be seen"
        if not one.is_serving or one.model not in self._models:
            return None
        left, needed = self._ready[one.model] - one.is_ready, self._needed[one.model]
        if left < needed:
            return f"{needed} of {one.model} are wanted and {left} others are ready"
        if left < self._least.get(one.model, 0):
            return "enough of its model went in this interval"
        return None


def _remembered(
    state: Lifecycle, now_s: float, ready: Counter[str], settings: Settings
) -> Lifecycle:
    """The peaks of the interval; a lower one after a higher one says nothing."""
    until_s = now_s + settings.removal_interval_s
    kept = [
        peak
        for peak in state.peaks
        if peak.until_s > now_s and peak.ready > ready.get(peak.model, 0)
    ]
    now = [Peak(model=model, until_s=until_s, ready=count) for model, count in ready.items()]
    return Lifecycle(peaks=(*kept, *now))
