"""Rates of one replica and one length class, with their interval, and what they depend on."""

import hashlib

import msgspec

from argosy.fleet.config import Fleet, Model
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.replica import ReplicaModel
from argosy.planner.capacity.sustain import (
    ROUGHLY,
    SEED,
    Drawn,
    Limits,
    OneReplica,
    Rate,
    Start,
)
from argosy.simulator.compiled import digest_of

_TEXTS = (
    "simulator/engine",
    "simulator/traces",
    "planner/capacity/rates.py",
    "planner/capacity/sustain.py",
)
_VERSION = digest_of(_TEXTS)
_STEEP = 1.2  # rates fall faster than steps get slower, by about this power
_WIDEN_NEAR = 1.2  # between two tries where a like replica's rate is known
_WIDEN_SAME = 1.05  # where fewer requests said it of the same replica


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Of one replica and one length class; rates are 0 where the SLO cannot be kept."""

    requests_per_s: float
    low: float  # with every step at the slow end of its 80 % interval
    high: float  # at the fast end
    binds: tuple[str, ...]  # of the SLO, what breaks beyond the rate
    ttft_s_p95: float  # at that rate, from when a request reaches the replica
    itl_s_p99: float | None
    busy_share: float
    batch_mean: float
    spared_share: float  # of prompt tokens, by the prefix cache


def limits_of(fleet: Fleet, model: Model, perf: ReplicaModel) -> Limits:
    """What the model's SLO leaves to a replica, when the way there and its overhead are off.

    Where no TTFT is promised it is what the gateway lets a consumer's request wait: beyond some
    rate requests only queue up.
    """
    ttft_s = model.slo.ttft_s_p95
    if ttft_s is None:
        ttft_s = fleet.gateway.queue_timeout_s.consumer
    else:
        ttft_s *= 1.0 - fleet.plan.network_share_max
    return Limits(ttft_s_p95=max(0.0, ttft_s - perf.overhead_s), itl_s_p99=model.slo.itl_s_p99)


def measured(
    one: OneReplica,
    drawn: Drawn,
    limits: Limits,
    perf: ReplicaModel,
    *,
    guess: float | None = None,
) -> Rates:
    """Expected, and at both ends of the interval; a slower case never has the higher rate.

    Fewer requests say where the rate is, and how many times it the ends are; all of them are
    tried for the expected rate alone, near there.
    """
    rough, start = drawn.roughly, Start()
    about: float | None = None
    if rough is not drawn:
        about = one.rate(rough, limits, start=_near(guess)).requests_per_s
        start = Start(requests_per_s=about, widen=_WIDEN_SAME)
        drawn = drawn.lasting(about)
    expected = one.rate(drawn, limits, start=start)
    most = expected.requests_per_s
    scale = most / about if most and about else 1.0

    def at(slowness: float) -> float:
        near = faster(about or most, 1.0 / slowness)
        return scale * one.rate(rough, limits, slowness=slowness, start=_near(near)).requests_per_s

    low = min(most, at(perf.interval.tpot_high)) if most else 0.0
    return _rates(expected, low=low, high=max(most, at(perf.interval.tpot_low)))


def faster(requests_per_s: float, times: float) -> float:
    """About the rate where steps are so many times as fast: a guess."""
    return requests_per_s * times**_STEEP


def measured_roughly(
    one: OneReplica, drawn: Drawn, limits: Limits, *, slowness: float, guess: float | None
) -> Rates:
    """Where every step takes `slowness` times as long; to be compared, not to be planned with.

    It has no interval: its low and its high are itself.
    """
    found = one.rate(drawn.roughly, limits, slowness=slowness, start=_near(guess))
    return _rates(found, low=found.requests_per_s, high=found.requests_per_s)


def kept_at(
    requests_per_s: float, one: OneReplica, drawn: Drawn, limits: Limits, *, slowness: float
) -> Rates:
    """Of one try at that rate, roughly: `binds` is what breaks there, () where it is kept."""
    at = one.tried(drawn.roughly, limits, requests_per_s, slowness=slowness)
    found = Rate(requests_per_s=requests_per_s, binds=at.broken, at=at)
    return _rates(found, low=requests_per_s, high=requests_per_s)


def _near(guess: float | None) -> Start:
    if not guess:
        return Start(exact_to=ROUGHLY)
    return Start(requests_per_s=guess, widen=_WIDEN_NEAR, exact_to=ROUGHLY)


def _rates(found: Rate, *, low: float, high: float) -> Rates:
    seen = found.at
    return Rates(
        requests_per_s=found.requests_per_s,
        low=low,
        high=high,
        binds=found.binds,
        ttft_s_p95=seen.ttft_s_p95,
        itl_s_p99=seen.itl_s_p99,
        busy_share=seen.busy_share,
        batch_mean=seen.batch_mean,
        spared_share=seen.spared_share,
    )


def key_of(
    perf: ReplicaModel, settings: EngineSettings, drawn: Drawn, limits: Limits, *how: float | None
) -> str:
    """Of all that the answer depends on; `how`: its slowness and its guess."""
    asked = drawn.asked
    parts = (
        perf.step_time,
        perf.kv_tokens,
        (perf.interval.tpot_low, perf.interval.tpot_high),
        settings,
        asked.lengths,
        asked.chats,
        asked.slots_share,
        limits,
        (drawn.requests, SEED, _VERSION),
        how,
    )
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()
