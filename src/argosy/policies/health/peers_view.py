"""What the comparison of like replicas is told of one window, and what it answers. Pure data."""

from typing import Literal

import msgspec

Kind = Literal["replica", "node", "pool"]
Signal = Literal["pace", "ttft", "errors"]


class PeerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that is ready, as the gateway saw it in one window; all gateway processes together.

    `like` names the replicas that ought to be equally fast: deployment and generation. A generation
    is of one pool; where several pools have the same nodes, a name that leaves the pool out lets
    pools be compared too.
    """

    replica: str
    deployment: str
    like: str
    pool: str
    node: str | None = None
    age_s: float  # since it became ready
    out: Kind | None = None  # what is quarantined now: it, its node or its pool
    running_mean: float = 0.0  # requests that have had a first token and not the last
    in_flight_mean: float = 0.0  # all that it has, without a first token too
    tokens_out: int = 0
    first_tokens: int = 0  # requests that `ttft_s_p50` is of
    ttft_s_p50: float | None = None
    requests_ended: int = 0  # with or without a fault
    requests_failed: int = 0  # by a fault of the replica: never what a caller did, nor a cancel


class OutSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A node or pool that is in quarantine, whether or not a replica is left on it."""

    kind: Literal["node", "pool"]
    name: str
    pool: str


class PeersView(msgspec.Struct, frozen=True, kw_only=True):
    """All ready replicas in the window that ended at `now_s`; windows do not overlap."""

    now_s: float
    window_s: float
    replicas: tuple[PeerSeen, ...]
    outs: tuple[OutSeen, ...] = ()
    needed: dict[str, int] = {}  # by deployment; of one that is not named none is quarantined


class PeerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How unlike is too unlike, and for how long. Ratios are to the peers' median, at like load."""

    warm_s: float = 120.0  # younger ones are not judged: slow start, cold caches
    request_s_min: float = 20.0  # running requests x seconds of a window, for a verdict on pace
    first_tokens_min: int = 5  # in a window, for a verdict on TTFT
    requests_min: int = 5  # ended in a window, for a verdict on errors
    pace_ratio_max: float = 0.75  # tokens/s of a running request: unlike from there down
    ttft_ratio_min: float = 3.0  # unlike from there up: prefix caches make for luck
    errors_share_min: float = 0.05  # more than the peers' share
    errors_min: int = 3  # in a window
    deviations_min: float = 2.0  # robust standard deviations too, in a window
    deviations_few: float = 0.1  # more of them for each peer that lacks
    peers_enough: int = 7  # others, from which on none lacks
    pace_deviation_min: float = 0.1  # of the logarithm: peers that agree by chance are no ruler
    ttft_deviation_min: float = 0.3
    load_alike: float = 1.1  # TTFT is compared with replicas that have its load, or so much less
    ttft_others_min: int = 3  # of these
    windows_paced: int = 3  # whose mean is a window's pace: less noise, found a little later
    windows: int = 9  # the last that were judged
    windows_unlike: int = 7  # of these, for quarantine
    windows_leaning: int = 4  # of these, to speak against its node
    windows_like: int = 5  # the last ones, all of them, for release
    domain_share_min: float = 0.5  # more than this of a node's or pool's replicas are unlike
    domain_others_max: float = 0.25  # and no more than this of the others
    quarantine_s: float = 300.0  # then it is tried again, where nothing speaks against it; doubles
    quarantine_s_max: float = 3600.0
    forget_s: float = 7200.0  # in use for so long: its earlier quarantines are forgotten


class Quarantine(msgspec.Struct, frozen=True, kw_only=True):
    """Send these no requests (and start none on that node or pool); keep them running.

    Said anew in each window until the view says that it is out: the budget may put it off.
    """

    kind: Kind
    name: str  # of the replica, node or pool
    pool: str
    replicas: tuple[str, ...]
    signal: Signal
    reason: str


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Send these requests again, on probation."""

    kind: Kind
    name: str
    pool: str
    replicas: tuple[str, ...]
    is_trial: bool  # True: nothing is known that speaks for it; its time is over
    reason: str
