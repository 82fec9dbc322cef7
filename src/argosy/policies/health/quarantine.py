"""Which replicas, nodes or pools go into quarantine, from what is remembered of them."""

from collections import Counter

from argosy.policies.health.peers_state import PeersState, is_judged, key_of, worst_of
from argosy.policies.health.peers_view import (
    Kind,
    PeerSeen,
    PeerSettings,
    PeersView,
    Quarantine,
)


def taken(
    state: PeersState, view: PeersView, settings: PeerSettings, back: set[str]
) -> list[Quarantine]:
    """Pools before nodes before replicas, the worst first, never below what is needed."""
    in_use = [one for one in view.replicas if one.out is None]
    worst = {one.replica: worst_of(state, one.replica) for one in in_use}
    convicted = [
        one
        for one in in_use
        if worst[one.replica][0] >= settings.windows_unlike and one.replica not in back
    ]
    if not convicted:
        return []
    spare = _spare(view)
    wishes: list[Quarantine] = []
    gone: set[str] = set()
    for kind in ("pool", "node"):
        for key in sorted({key_of(one, kind) for one in convicted if _has(one, kind)}):
            wish = _domain(kind, key, state, view, settings, gone)
            if wish is not None and _fits(wish.replicas, view, spare):
                wishes.append(wish)
                gone.update(wish.replicas)
    for one in sorted(convicted, key=lambda one: (*_badness(state, one.replica), one.replica)):
        wish = _alone(one, state, settings)
        if one.replica not in gone and _fits(wish.replicas, view, spare):
            wishes.append(wish)
    return wishes


def _has(one: PeerSeen, kind: Kind) -> bool:
    return kind != "node" or one.node is not None


def _badness(state: PeersState, name: str) -> tuple[float, float]:
    """Less is worse."""
    most, signal = worst_of(state, name)
    last = None if signal is None else state.marks[name][signal].last
    return -most, 0.0 if last is None else -last.by


def _alone(one: PeerSeen, state: PeersState, settings: PeerSettings) -> Quarantine:
    most, signal = worst_of(state, one.replica)
    assert signal is not None, "it is convicted by one"
    marks = state.marks[one.replica][signal]
    words = "" if marks.last is None else f": {marks.last.words}"
    return Quarantine(
        kind="replica",
        name=one.replica,
        pool=one.pool,
        replicas=(one.replica,),
        signal=signal,
        reason=f"unlike its peers in {most} of {len(marks.levels)} windows{words}",
    )


def _domain(
    kind: Kind,
    key: str,
    state: PeersState,
    view: PeersView,
    settings: PeerSettings,
    gone: set[str],
) -> Quarantine | None:
    """The whole node or pool, where most of what was judged on it is unlike and few others are."""
    inside = [one for one in view.replicas if _has(one, kind) and key_of(one, kind) == key]
    names = {one.replica for one in inside}
    judged = [one for one in inside if is_judged(state, one.replica, settings) or one.out]
    bad = [one for one in judged if one.out or _leans(state, one.replica, settings)]
    others = [
        one
        for one in view.replicas
        if one.replica not in names and is_judged(state, one.replica, settings)
    ]
    bad_others = sum(_leans(state, one.replica, settings) for one in others)
    if len(judged) < 2 or len(bad) <= settings.domain_share_min * len(judged):
        return None
    if kind == "pool" and len({one.node or one.replica for one in bad}) < 2:
        return None
    if not others or bad_others > settings.domain_others_max * len(others):
        return None
    left = tuple(sorted(one.replica for one in inside if not one.out and one.replica not in gone))
    bad_in_use = sorted((one for one in bad if not one.out), key=lambda one: one.replica)
    worst = min(bad_in_use, key=lambda one: _badness(state, one.replica))
    alone = _alone(worst, state, settings)
    reason = (
        f"{len(bad)} of {len(judged)} replicas on this {kind} are unlike their peers, elsewhere "
        f"{bad_others} of {len(others)}; the worst, {worst.replica}, is {alone.reason}"
    )
    name = inside[0].node if kind == "node" else inside[0].pool
    assert name is not None, "nodes have names"
    return Quarantine(
        kind=kind, name=name, pool=inside[0].pool, replicas=left, signal=alone.signal, reason=reason
    )


def _leans(state: PeersState, name: str, settings: PeerSettings) -> bool:
    return worst_of(state, name)[0] >= settings.windows_leaning


def _spare(view: PeersView) -> Counter[str]:
    """By deployment: how many may go and leave what is needed."""
    spare = Counter(one.deployment for one in view.replicas if one.out is None)
    for deployment in spare:
        spare[deployment] -= view.needed.get(deployment, spare[deployment])
    return spare


def _fits(names: tuple[str, ...], view: PeersView, spare: Counter[str]) -> bool:
    """Whether all of these may go; if so they are counted."""
    wanted = set(names)
    by = Counter(one.deployment for one in view.replicas if one.replica in wanted)
    if not by or any(spare[deployment] < count for deployment, count in by.items()):
        return False
    spare.subtract(by)
    return True
