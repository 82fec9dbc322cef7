"""Which replicas, nodes or pools come out of quarantine, from what is remembered of them."""

from collections import Counter

import msgspec

from argosy.policies.health.peers_state import (
    Out,
    PeersState,
    is_like,
    key_for,
    key_of,
    worst_of,
)
from argosy.policies.health.peers_view import (
    Kind,
    OutSeen,
    PeerSeen,
    PeerSettings,
    PeersView,
    Release,
)

_DOUBLINGS_MAX = 60


class _Group(msgspec.Struct, frozen=True, kw_only=True):
    """What goes into and out of quarantine together."""

    kind: Kind
    name: str
    pool: str
    members: list[PeerSeen]


def _groups(view: PeersView) -> dict[str, _Group]:
    groups = {key_for(one.kind, one.pool, one.name): _empty(one) for one in view.outs}
    for one in sorted(view.replicas, key=lambda one: one.replica):
        if one.out is None:
            continue
        names: dict[Kind, str] = {"replica": one.replica, "node": one.node or "", "pool": one.pool}
        group = _Group(kind=one.out, name=names[one.out], pool=one.pool, members=[])
        groups.setdefault(key_of(one, one.out), group).members.append(one)
    return dict(sorted(groups.items()))


def _empty(one: OutSeen) -> _Group:
    return _Group(kind=one.kind, name=one.name, pool=one.pool, members=[])


def released(state: PeersState, view: PeersView, settings: PeerSettings) -> list[Release]:
    """Whoever is like its peers again, was long enough out, or is needed."""
    groups = _groups(view)
    released = {
        key: release
        for key, group in groups.items()
        if (release := _again(state.outs[key], group, state, view.now_s, settings)) is not None
    }
    kept = [group for key, group in groups.items() if key not in released]
    return [*released.values(), *_needed(kept, list(released.values()), state, view)]


def _again(
    out: Out, group: _Group, state: PeersState, now_s: float, settings: PeerSettings
) -> Release | None:
    """Released for what its last windows say, or on trial."""
    names = [one.replica for one in group.members]
    like = sum(is_like(state, name, out.signal, settings) for name in names)
    known = sum(bool(state.marks.get(name)) for name in names)
    if like > settings.domain_share_min * known:
        who = "like its peers" if len(names) == 1 else f"{like} of {known} like their peers"
        reason = f"{who} in the last {settings.windows_like} windows"
        return _release(group, is_trial=False, reason=reason)
    assert out.since_s is not None, "it is out"
    doublings = min(max(0, out.times - 1), _DOUBLINGS_MAX)
    wait_s = min(settings.quarantine_s_max, settings.quarantine_s * 2.0**doublings)
    out_s = now_s - out.since_s
    if out_s < wait_s or any(worst_of(state, name)[0] for name in names):
        return None
    reason = f"on trial after {out_s:.0f} s, for the {out.times}. time: nothing speaks against it"
    return _release(group, is_trial=True, reason=reason)


def _needed(
    groups: list[_Group], released: list[Release], state: PeersState, view: PeersView
) -> list[Release]:
    """What a deployment lacks comes back, the least bad first."""
    back = {name for one in released for name in one.replicas}
    have = Counter(
        one.deployment for one in view.replicas if one.out is None or one.replica in back
    )
    more: list[Release] = []

    def order(group: _Group) -> tuple[float, str, str]:
        worst = max((worst_of(state, one.replica)[0] for one in group.members), default=0)
        return worst, group.pool, group.name

    for group in sorted(groups, key=order):
        owners = sorted({one.deployment for one in group.members})
        short = next((one for one in owners if have[one] < view.needed.get(one, 0)), None)
        if short is None:
            continue
        reason = f"{short} needs {view.needed[short]} replicas and has {have[short]}"
        more.append(_release(group, is_trial=True, reason=reason))
        have.update(one.deployment for one in group.members)
    return more


def _release(group: _Group, *, is_trial: bool, reason: str) -> Release:
    return Release(
        kind=group.kind,
        name=group.name,
        pool=group.pool,
        replicas=tuple(one.replica for one in group.members),
        is_trial=is_trial,
        reason=reason,
    )
