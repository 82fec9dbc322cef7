"""Rates of one replica and one length class, with their interval, and what they depend on."""

import hashlib

import msgspec

from argosy.fleet.config import Fleet, Model
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.replica import ReplicaModel
from argosy.planner.capacity.sustain import SEED, Drawn, Limits, OneReplica
from argosy.simulator.compiled import digest_of

_TEXTS = ("simulator/engine", "simulator/traces", "planner/capacity/sustain.py")
_VERSION = digest_of(_TEXTS)
_STEEP = 1.4  # rates fall faster than steps get slower, by about this power


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


def measured(one: OneReplica, drawn: Drawn, limits: Limits, perf: ReplicaModel) -> Rates:
    """Expected, and at both ends of the interval; a slower case never has the higher rate."""
    expected = one.rate(drawn, limits)
    most, seen = expected.requests_per_s, expected.at

    def at(slowness: float) -> float:
        guess = most / slowness**_STEEP or None
        return one.rate(drawn, limits, slowness=slowness, guess=guess).requests_per_s

    return Rates(
        requests_per_s=most,
        low=min(most, at(perf.interval.tpot_high)) if most else 0.0,
        high=max(most, at(perf.interval.tpot_low)),
        binds=expected.binds,
        ttft_s_p95=seen.ttft_s_p95,
        itl_s_p99=seen.itl_s_p99,
        busy_share=seen.busy_share,
        batch_mean=seen.batch_mean,
        spared_share=seen.spared_share,
    )


def key_of(perf: ReplicaModel, settings: EngineSettings, drawn: Drawn, limits: Limits) -> str:
    """Of all that the answer depends on."""
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
    )
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()
