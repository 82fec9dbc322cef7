"""What the comparison of like replicas remembers, and what it says of one replica."""

import msgspec

from argosy.policies.health.peers_view import Kind, PeerSeen, PeerSettings, Signal
from argosy.policies.health.unlike import Learned, Mark


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """A replica's verdicts by one signal, the oldest first."""

    at_s: tuple[float, ...] = ()
    levels: tuple[int, ...] = ()
    last: Mark | None = None  # the last that was unlike


class Paced(msgspec.Struct, frozen=True, kw_only=True):
    """What pace is made of, in one window."""

    running_mean: float
    tokens_out: int


class Out(msgspec.Struct, frozen=True, kw_only=True):
    """A replica's, node's or pool's time in quarantine."""

    since_s: float | None = None  # None: it is in use
    times: int = 0
    in_use_since_s: float | None = None
    signal: Signal | None = None  # why it was wished for; None: not by us


class PeersState(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered from window to window."""

    marked_s: float | None = None
    learned: dict[str, Learned] = {}  # by `like`
    late: dict[str, tuple[Paced, ...]] = {}  # by replica, the last windows
    marks: dict[str, dict[Signal, Marks]] = {}  # by replica
    outs: dict[str, Out] = {}  # by "replica NAME", "node POOL/NODE", "pool POOL"


def key_for(kind: Kind, pool: str, name: str) -> str:
    """Of a replica, node or pool in `PeersState.outs`."""
    return f"node {pool}/{name}" if kind == "node" else f"{kind} {name}"


def key_of(one: PeerSeen, kind: Kind) -> str:
    """Of a replica itself, its node or its pool."""
    if kind == "replica":
        return f"replica {one.replica}"
    return f"node {one.pool}/{one.node}" if kind == "node" else f"pool {one.pool}"


def worst_of(state: PeersState, name: str) -> tuple[int, Signal | None]:
    """In how many of the last windows it was unlike, and by which signal."""
    most, worst = 0, None
    for signal, marks in state.marks.get(name, {}).items():
        if (count := sum(level == 2 for level in marks.levels)) > most:
            most, worst = count, signal
    return most, worst


def is_judged(state: PeersState, name: str, settings: PeerSettings) -> bool:
    """Windows enough were judged to speak for or against its node."""
    marks = state.marks.get(name, {})
    return any(len(one.levels) >= settings.windows_leaning for one in marks.values())


def is_like(state: PeersState, name: str, signal: Signal | None, settings: PeerSettings) -> bool:
    """Like its peers in the last windows, by all signals that are known, and by this one."""
    marks = state.marks.get(name, {})
    asked = [marks[signal]] if signal in marks else [] if signal is not None else marks.values()
    is_known = any(len(one.levels) >= settings.windows_like for one in asked)
    tails = (one.levels[-settings.windows_like :] for one in marks.values())
    return is_known and not any(any(tail) for tail in tails)
