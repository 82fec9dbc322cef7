"""Which replicas, nodes or pools are unlike their peers for long, and which like them again. Pure.

`compare` is called once a window. A replica that is unlike in 7 of the last 9 judged windows, by
one signal, is to be quarantined; its node (or pool) instead where most of its replicas are unlike
and few elsewhere are. Nobody is judged while it is young, or has next to nothing to do. Never are
fewer left than `needed`, and what is needed comes back, the least bad first. It is released when
the last 5 windows found it like its peers; or, where nobody knows, on trial after a time that
doubles.

How often it errs was measured on a simulated population: docs/HEALTH.md says what was assumed.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from argosy.policies.health import unlike
from argosy.policies.health.peers_state import (
    Marks,
    Out,
    Paced,
    PeersState,
    key_for,
    key_of,
)
from argosy.policies.health.peers_view import (
    Kind,
    PeerSeen,
    PeerSettings,
    PeersView,
    Quarantine,
    Release,
    Signal,
)
from argosy.policies.health.quarantine import taken
from argosy.policies.health.release import released
from argosy.policies.health.unlike import Learned, Mark

_SAME_WINDOW = 0.9  # of a window: a view that comes sooner says nothing new
_MEMORY = 2.0  # times `windows` x `window_s`: what is older says nothing of now


def compare(
    state: PeersState, view: PeersView, settings: PeerSettings
) -> tuple[PeersState, tuple[Quarantine | Release, ...]]:
    """What is to be taken out of use and what is to be taken back, with reasons.

    On the population of tests/policies/test_health_population.py (docs/HEALTH.md): with 4 to 64
    replicas 2 false quarantines in 3,600 replica-hours; a replica at 0.6 x the tokens/s is found
    within two minutes in 99 % of cases from 8 replicas on, in 78 % with 4, in 39 % with 3.
    """
    state = _with_outs(state, view, settings)
    if state.marked_s is None or view.now_s - state.marked_s >= _SAME_WINDOW * view.window_s:
        state = _marked(state, view, settings)
    back = released(state, view, settings)
    gone = taken(state, view, settings, {name for one in back for name in one.replicas})
    outs = dict(state.outs)
    for one in gone:
        key = key_for(one.kind, one.pool, one.name)
        outs[key] = replace(outs.get(key, Out()), signal=one.signal)
    return replace(state, outs=outs), (*back, *gone)


def _with_outs(state: PeersState, view: PeersView, settings: PeerSettings) -> PeersState:
    """Since when each is out, or in use again. Who goes either way is judged from then on."""
    now = {key_of(one, one.out) for one in view.replicas if one.out is not None}
    now |= {key_for(one.kind, one.pool, one.name) for one in view.outs}
    outs: dict[str, Out] = {}
    for key in [*state.outs, *(key for key in sorted(now) if key not in state.outs)]:
        out = state.outs.get(key, Out())
        if key in now and out.since_s is None:
            out = replace(out, since_s=view.now_s, times=out.times + 1, in_use_since_s=None)
        elif key not in now and out.since_s is not None:
            out = replace(out, since_s=None, in_use_since_s=view.now_s, signal=None)
        elif key not in now and view.now_s - (out.in_use_since_s or 0.0) >= settings.forget_s:
            continue
        outs[key] = out
    changed = {key for key, out in outs.items() if out.since_s == view.now_s}
    changed |= {key for key, out in outs.items() if out.in_use_since_s == view.now_s}
    kinds: tuple[Kind, ...] = ("replica", "node", "pool")
    kept = {
        one.replica
        for one in view.replicas
        if not any(key_of(one, kind) in changed for kind in kinds)
    }
    return replace(
        state,
        outs=outs,
        late={name: late for name, late in state.late.items() if name in kept},
        marks={name: marks for name, marks in state.marks.items() if name in kept},
    )


def _marked(state: PeersState, view: PeersView, settings: PeerSettings) -> PeersState:
    """The verdicts of this window beside the last ones."""
    late: dict[str, tuple[Paced, ...]] = {}
    groups: dict[str, list[PeerSeen]] = {}
    for one in sorted(view.replicas, key=lambda one: one.replica):
        paced = Paced(running_mean=one.running_mean, tokens_out=one.tokens_out)
        windows = (*state.late.get(one.replica, ()), paced)[-settings.windows_paced :]
        late[one.replica] = windows
        groups.setdefault(one.like, []).append(_smoothed(one, windows))
    known: dict[str, Learned] = {}
    new: dict[str, list[Mark]] = {}
    for like, peers in groups.items():
        before = state.learned.get(like, Learned())
        for marks in (
            unlike.pace_marks(peers, before, view, settings),
            unlike.ttft_marks(peers, before, settings),
            unlike.error_marks(peers, settings),
        ):
            for name, mark in marks.items():
                new.setdefault(name, []).append(mark)
        known[like] = unlike.learned(before, peers, view, settings)
    since_s = view.now_s - _MEMORY * settings.windows * view.window_s
    marked = {
        name: _remembered(
            state.marks.get(name, {}), new.get(name, ()), view.now_s, since_s, settings
        )
        for name in sorted({*state.marks, *new})
    }
    return replace(state, marked_s=view.now_s, learned=known, late=late, marks=marked)


def _smoothed(one: PeerSeen, late: tuple[Paced, ...]) -> PeerSeen:
    """The mean of its last windows, where pace is concerned."""
    return replace(
        one,
        running_mean=sum(paced.running_mean for paced in late) / len(late),
        tokens_out=round(sum(paced.tokens_out for paced in late) / len(late)),
    )


def _remembered(
    before: dict[Signal, Marks],
    new: Iterable[Mark],
    now_s: float,
    since_s: float,
    settings: PeerSettings,
) -> dict[Signal, Marks]:
    after: dict[Signal, Marks] = {}
    for signal, marks in before.items():
        first = sum(at_s <= since_s for at_s in marks.at_s)
        if first < len(marks.at_s):
            after[signal] = replace(marks, at_s=marks.at_s[first:], levels=marks.levels[first:])
    for mark in new:
        marks = after.get(mark.signal, Marks())
        after[mark.signal] = Marks(
            at_s=(*marks.at_s, now_s)[-settings.windows :],
            levels=(*marks.levels, mark.level)[-settings.windows :],
            last=mark if mark.level == 2 else marks.last,
        )
    return after
