"""How unlike each replica is to those that ought to be like it, in one window. Pure statistics.

Pace is seconds per token of a running request, TTFT its median, errors their share. Pace and TTFT
are compared as logarithms with the median of the others, in robust standard deviations. The others
are those outside of its node, or its pool where the like ones are on several, so that a bad node is
not held against itself; replicas in quarantine are compared and are no ruler.

Learned from window to window, for few replicas tell little in one: the standard deviation, as the
median absolute deviation of the others (x 1.4826 as of a normal, and Croux and Rousseeuw's factors
of 1992 for few), and how pace falls with load: `seconds per token ~ running ** elasticity`, between
0 (all the time is spent on reading weights) and 1 (all of it on the requests). The latter by
Theil's incomplete method (1950): the lower half of the loads is paired with the upper half, and the
median of the slopes taken.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

from argosy.policies.health.peers_view import PeerSeen, PeerSettings, PeersView, Signal

_PAIRS_MIN, _PAIR_LOAD_MIN = 3, 0.1  # a slope wants so many, so far apart (logarithm)
_LEARNED = 0.1  # of a window's slope and deviation
_USUAL, _USUAL_MAX = 0.01, 0.1  # of a window's; and no more is ever forgiven
_FEWEST = 3  # replicas, for a deviation
_MAD_FEW = (1.0, 1.0, 1.196, 1.495, 1.363, 1.206, 1.200, 1.140, 1.129, 1.107)  # of so many
_LOAD_CLAMP = math.log(4.0)  # no more is made of a difference in load
_MANY, _SMALL = 32, 8  # of so many, a node with at most an eighth is left in the median
_ERRORS_USUAL = 0.01  # peers that had none by chance are no ruler
_ERRORS_DEVIATIONS = 2.0  # times those of pace: errors come in bursts


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict on one window: 2 unlike its peers, 0 like them, 1 between."""

    signal: Signal
    level: int
    by: float  # how far beyond the bound, for the order; 0 is on it
    words: str


class Learned(msgspec.Struct, frozen=True, kw_only=True):
    """What the windows before said of like replicas; the defaults are assumed at first."""

    elasticity: float = 0.4
    pace_deviation: float = 0.15  # of the logarithms
    ttft_deviation: float = 0.5
    usual: dict[str, float] = {}  # by replica: how much slower than its peers it is of old


class Ruler(msgspec.Struct, frozen=True, kw_only=True):
    """What the others do in this window."""

    middle: float  # the median
    others: int


Valued = Sequence[tuple[PeerSeen, float]]


def learned(
    before: Learned, peers: Sequence[PeerSeen], view: PeersView, settings: PeerSettings
) -> Learned:
    """What is believed of like replicas after this window."""
    paced = [one for one in peers if has_pace(one, view, settings) and one.out is None]
    valued = _at_usual_load(paced, before, view)
    ttft = [value for one, value in _ttfts(peers, settings) if one.out is None]
    return Learned(
        elasticity=_towards(before.elasticity, _slope(paced, view)),
        pace_deviation=_towards(before.pace_deviation, _deviation_of(valued)),
        ttft_deviation=_towards(before.ttft_deviation, _deviation(ttft)),
        usual=_usual(before, peers, valued),
    )


def _usual(before: Learned, peers: Sequence[PeerSeen], valued: "Valued") -> dict[str, float]:
    """Chips, hosts and callers differ for good: a little of it is forgiven, slowly learned."""
    usual = {one.replica: before.usual.get(one.replica, 0.0) for one in peers}
    for one, own, ruler in _ruled(valued):
        more = min(_USUAL_MAX, max(-_USUAL_MAX, own - ruler.middle))
        learned_so_far = usual[one.replica] + _USUAL * more
        usual[one.replica] = min(_USUAL_MAX, max(-_USUAL_MAX, learned_so_far))
    return usual


def _towards(before: float, seen: float | None) -> float:
    return before if seen is None else before + _LEARNED * (seen - before)


def _deviation(values: list[float]) -> float | None:
    """As of a normal; None: so few tell nothing, for one of them may be the odd one."""
    n = len(values)
    if n < _FEWEST:
        return None
    middle = median(values)
    few = _MAD_FEW[n] if n < len(_MAD_FEW) else n / (n - 0.8)
    return 1.4826 * few * median(abs(value - middle) for value in values)


def _deviation_of(valued: "Valued") -> float | None:
    """Of all, or within their nodes or pools where that is less: a bad one widens but the whole."""
    whole = _deviation([own for _, own in valued])
    is_pools = len({one.pool for one, _ in valued}) > 1
    homes: dict[str, list[float]] = {}
    for one, own in valued:
        homes.setdefault(one.pool if is_pools else one.node or one.replica, []).append(own)
    within = [found for some in homes.values() if (found := _deviation(some)) is not None]
    if whole is None or len(within) < 2:
        return whole
    return min(whole, median(within))


def _slope(peers: Sequence[PeerSeen], view: PeersView) -> float | None:
    points = sorted((_load(one), _pace(one, view)) for one in peers if one.out is None)
    half = (len(points) + 1) // 2
    slopes = [
        (high[1] - low[1]) / (high[0] - low[0])
        for low, high in zip(points, points[half:], strict=False)
        if high[0] - low[0] >= _PAIR_LOAD_MIN
    ]
    return min(1.0, max(0.0, median(slopes))) if len(slopes) >= _PAIRS_MIN else None


def has_pace(one: PeerSeen, view: PeersView, settings: PeerSettings) -> bool:
    """Enough ran on it in this window, and it is warm."""
    return is_warm(one, settings) and one.running_mean * view.window_s >= settings.request_s_min


def is_warm(one: PeerSeen, settings: PeerSettings) -> bool:
    """Old enough to be judged."""
    return one.age_s >= settings.warm_s


def pace_marks(
    peers: Sequence[PeerSeen], known: Learned, view: PeersView, settings: PeerSettings
) -> dict[str, Mark]:
    """On the tokens/s of a running request, at like load."""
    paced = [one for one in peers if has_pace(one, view, settings)]
    deviation = max(known.pace_deviation, settings.pace_deviation_min)
    marks: dict[str, Mark] = {}
    for one, value, ruler in _ruled(_at_usual_load(paced, known, view)):
        least = -math.log(settings.pace_ratio_max)
        bound = max(least, deviation * _deviations(ruler.others, settings))
        excess = value - ruler.middle
        words = f"{math.exp(-excess):.2f} x the tokens/s of a running request of {ruler.others}"
        marks[one.replica] = _mark("pace", excess, bound, f"{words} like it")
    return marks


def _at_usual_load(peers: Sequence[PeerSeen], known: Learned, view: PeersView) -> "Valued":
    """Pace as it would be if all had the median load, less what is usual."""
    if not peers:
        return []
    middle = median(_load(one) for one in peers)

    def pace(one: PeerSeen) -> float:
        apart = min(_LOAD_CLAMP, max(-_LOAD_CLAMP, _load(one) - middle))
        return _pace(one, view) - known.elasticity * apart - known.usual.get(one.replica, 0.0)

    return [(one, pace(one)) for one in peers]


def ttft_marks(
    peers: Sequence[PeerSeen], known: Learned, settings: PeerSettings
) -> dict[str, Mark]:
    """On the TTFT's median, beside replicas that are as loaded or more: a queue is no line."""
    valued = _ttfts(peers, settings)
    if len(valued) < 2:
        return {}
    deviation = max(known.ttft_deviation, settings.ttft_deviation_min)
    marks: dict[str, Mark] = {}
    least = math.log(settings.ttft_ratio_min)
    usual = median(value for _, value in valued)
    for one, value in valued:
        if value < usual + least / 2:  # most are: no ruler is laid
            marks[one.replica] = _mark("ttft", value - usual, least, "like its peers' TTFT")
            continue
        alike = [pair for pair in valued if _is_as_loaded(pair[0], one, settings)]
        for other, own, ruler in _ruled(alike, only=one):
            if ruler.others < settings.ttft_others_min:
                continue
            bound = max(least, deviation * _deviations(ruler.others, settings))
            excess = own - ruler.middle
            words = f"{math.exp(excess):.1f} x the TTFT of {ruler.others} as loaded as it"
            marks[other.replica] = _mark("ttft", excess, bound, words)
    return marks


def _ttfts(peers: Sequence[PeerSeen], settings: PeerSettings) -> "Valued":
    return [
        (one, math.log(max(1e-4, one.ttft_s_p50)))
        for one in peers
        if one.ttft_s_p50 is not None
        and one.first_tokens >= settings.first_tokens_min
        and is_warm(one, settings)
    ]


def error_marks(peers: Sequence[PeerSeen], settings: PeerSettings) -> dict[str, Mark]:
    """On the share of requests that failed, beside the median share of the others."""
    valued = [
        (one, one.requests_failed / one.requests_ended)
        for one in peers
        if one.requests_ended >= settings.requests_min and is_warm(one, settings)
    ]
    marks: dict[str, Mark] = {}
    for one, share, ruler in _ruled(valued):
        usual = min(0.99, max(_ERRORS_USUAL, ruler.middle))
        expected = usual * one.requests_ended
        deviations = _ERRORS_DEVIATIONS * _deviations(ruler.others, settings)
        most = expected + deviations * math.sqrt(expected * (1.0 - usual))
        least = (usual + settings.errors_share_min) * one.requests_ended
        bound = max(settings.errors_min, most, least)
        words = f"{share:.0%} of its requests failed, of {ruler.others} like it {ruler.middle:.0%}"
        excess = one.requests_failed - expected
        marks[one.replica] = _mark("errors", excess, bound - expected, words)
    return marks


def _mark(signal: Signal, excess: float, bound: float, words: str) -> Mark:
    level = 2 if excess >= bound else 0 if excess <= bound / 2 else 1
    return Mark(signal=signal, level=level, by=excess - bound, words=words)


def _deviations(others: int, settings: PeerSettings) -> float:
    """Stricter with few others, and by how uncertain their median is (pi/2 of a mean)."""
    lacking = max(0, settings.peers_enough - others)
    wanted = settings.deviations_min + settings.deviations_few * lacking
    return wanted * math.sqrt(1.0 + math.pi / 2 / others)


def _load(one: PeerSeen) -> float:
    return math.log(max(1.0, one.running_mean))


def _pace(one: PeerSeen, view: PeersView) -> float:
    """Logarithm of the seconds per token of a running request; one without a token has had one."""
    return math.log(one.running_mean * view.window_s / max(1, one.tokens_out))


def _is_as_loaded(other: PeerSeen, one: PeerSeen, settings: PeerSettings) -> bool:
    return (1.0 + other.in_flight_mean) * settings.load_alike >= 1.0 + one.in_flight_mean


# The ruler: the others, without those that share its fate.


def _ruled(valued: Valued, *, only: PeerSeen | None = None) -> list[tuple[PeerSeen, float, Ruler]]:
    """Each (or `only` one) with the ruler of the others; left out where there are none."""
    active = [pair for pair in valued if pair[0].out is None]
    inside = Counter(home for one, _ in active for home in _homes(one))
    laid: dict[_Home, Ruler] = {}
    ruled: list[tuple[PeerSeen, float, Ruler]] = []
    for one, own in valued:
        if only is not None and one is not only:
            continue
        home = _home(one, inside, len(active))
        if inside[home] == len(active):
            continue
        if len(active) >= _MANY and inside[home] * _SMALL <= len(active):
            home = _WHOLE
        if home not in laid:
            values = [value for other, value in active if home not in _homes(other)]
            laid[home] = Ruler(middle=median(values), others=len(values))
        ruled.append((one, own, laid[home]))
    return ruled


_Home = tuple[str, ...]
_WHOLE: _Home = ()


def _homes(one: PeerSeen) -> tuple[_Home, ...]:
    """What it shares its fate with, the widest first."""
    itself = ("replica", one.replica)
    if one.node is None:
        return ("pool", one.pool), itself
    return ("pool", one.pool), ("node", one.pool, one.node), itself


def _home(one: PeerSeen, inside: Mapping[_Home, int], active: int) -> _Home:
    """The widest of its homes outside of which are half of the others, and enough for a median."""
    homes = _homes(one)
    others = active - inside[homes[-1]]
    for home in homes[:-1]:
        outside = active - inside[home]
        if outside >= _FEWEST and outside * 2 >= others:
            return home
    return homes[-1]
