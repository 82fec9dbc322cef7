"""What a simulation says, as plain data: by model and tier, by group of replicas, and over time.

Costs are those of all replicas, busy or not, while requests arrive (of a deployment that is scaled,
of those that are up, starting or draining), and of those that still answer after the last one.
Energy is the chips' (idle power for that time, and what work adds to it) times the region's PUE.
Both are None where a price, a chip's power or a region's carbon is not known; the sums, and what
they are divided by, then cover the others alone.
"""

from collections.abc import Iterable

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.fleet.catalogue import Offer
from argosy.fleet.demand import Slo
from argosy.policies.admission.work import TIERS
from argosy.simulator.binding import Bound, first_bounds
from argosy.simulator.engine.histogram import quantile_s
from argosy.simulator.outcomes import DONE, OUTCOMES
from argosy.simulator.scaling import Changed
from argosy.simulator.scenario import Group
from argosy.simulator.serving import Ran
from argosy.simulator.tally import share_within

_J_PER_KWH = 3.6e6
_SECONDS_MIN = 1e-9  # of a trace whose requests all come at second 0
TIMES = 96  # points of the report over time, at most


class TierReport(msgspec.Struct, frozen=True, kw_only=True):
    """One model's requests of one tier."""

    model: str
    tier: str
    requests: int
    outcomes: dict[str, int]
    slo_met_share: float  # of all requests, those refused included
    ttft_s_p50: float | None
    ttft_s_p95: float | None
    ttft_s_p99: float | None
    tpot_s_p50: float | None
    tpot_s_p95: float | None
    waited_s_mean: float  # at the gateway, for a slot
    tokens_in: int
    tokens_out: int


class ModelReport(msgspec.Struct, frozen=True, kw_only=True):
    """One model."""

    model: str
    slo: Slo
    requests_per_s: float
    goodput_per_s: float  # requests that met the SLO
    slo_met_share: float
    ttft_s_p95: float | None
    itl_s_p50: float | None
    itl_s_p99: float | None
    keeps_slo: bool | None  # None: nothing is promised


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a group stood at one time."""

    at_s: float
    listening: int  # replicas
    running_share: float  # of the slots of all its replicas, those that are gone included
    waiting: int  # in the engines
    kv_used_share: float


class ScalingReport(msgspec.Struct, frozen=True, kw_only=True):
    """How many replicas a deployment had while requests arrived; it pays for all of them."""

    replicas_min: int  # that are allowed
    replicas_max: int
    replicas_mean: float  # up, starting or draining
    replicas_most: int
    replica_hours: float
    started: int
    stopped: int
    start_s: float  # from asking for one to its being ready
    decisions: tuple[Changed, ...]  # each that changed how many there are to be


class GroupReport(msgspec.Struct, frozen=True, kw_only=True):
    """Like replicas: one deployment."""

    deployment: str
    replicas: int  # at most, where it is scaled
    chips: int
    chip: str
    region: str
    rung: str
    is_uncalibrated: bool
    busy_share: float  # of the time in which requests arrived: in steps
    running_mean: float  # requests together on a replica while it was busy
    kv_used_share_max: float  # of all the group's KV cache, at a sample
    requests: int
    tokens_in: int
    tokens_out: int
    spared_share: float  # of prompt tokens, by prefix caches
    preemptions: int
    paid_s: float  # of all its replicas together
    cost_usd: float | None
    price_source: str
    price_offer: Offer | None  # of a list; None: the fleet file's price, or none
    energy_kwh: float | None
    co2_kg: float | None
    load: tuple[LoadReport, ...]
    scaling: ScalingReport | None = None  # None: always as many


class TimeReport(msgspec.Struct, frozen=True, kw_only=True):
    """One stretch of time."""

    at_s: float
    model: str
    requests_per_s: float
    tokens_out_per_s: float
    slo_met_share: float | None
    ttft_s_p95: float | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole simulation."""

    fleet: str
    trace: str
    policy: str
    losses: tuple[str, ...]
    losses_too_late: tuple[str, ...]  # of these: after the last answer
    seconds: float  # of arrivals
    requests: int
    refused: int  # that had any outcome but done
    goodput_per_s: float
    slo_met_share: float
    tiers: tuple[TierReport, ...]
    models: tuple[ModelReport, ...]
    groups: tuple[GroupReport, ...]
    over_time: tuple[TimeReport, ...]
    bounds: tuple[Bound, ...]  # what bound first, by model
    cost_usd: float | None
    usd_per_mtok_out: float | None
    energy_kwh: float | None
    j_per_token_out: float | None
    co2_kg: float | None
    unknown: tuple[str, ...]  # what the sums leave out


def report_of(ran: Ran, *, trace: str) -> Report:
    """The report of one simulation."""
    tally, scenario = ran.tally, ran.scenario
    seconds = max(ran.fed_s, _SECONDS_MIN)
    groups = tuple(_group(ran, place) for place in range(len(scenario.groups)))
    models = tuple(_model(ran, place, seconds) for place in range(len(scenario.models)))
    all_, met = int(tally.outcomes.sum()), int(tally.met.sum())
    tokens_out = int(tally.tokens_out.sum())
    cost_usd = _sum(group.cost_usd for group in groups)
    energy_kwh = _sum(group.energy_kwh for group in groups)
    return Report(
        fleet=scenario.fleet.fleet,
        trace=trace,
        policy=scenario.fleet.gateway.routing,
        losses=tuple(loss.text for loss in scenario.losses),
        losses_too_late=tuple(loss.text for loss in scenario.losses if loss.at_s > ran.end_s),
        seconds=ran.fed_s,
        requests=all_,
        refused=all_ - int(tally.outcomes[:, :, DONE].sum()),
        goodput_per_s=met / seconds,
        slo_met_share=met / max(1, all_),
        tiers=tuple(_tiers(ran)),
        models=models,
        groups=groups,
        over_time=tuple(_over_time(ran)),
        bounds=first_bounds(ran),
        cost_usd=cost_usd,
        usd_per_mtok_out=_per_token(
            tokens_out, ((group.cost_usd, group.tokens_out) for group in groups), 1e6
        ),
        energy_kwh=energy_kwh,
        j_per_token_out=_per_token(
            tokens_out, ((group.energy_kwh, group.tokens_out) for group in groups), _J_PER_KWH
        ),
        co2_kg=_sum(group.co2_kg for group in groups),
        unknown=tuple(_unknown(groups)),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _per_token(
    tokens_out: int, parts: Iterable[tuple[float | None, int]], scale: float
) -> float | None:
    """What is known of the groups, by the share of `tokens_out` that was written by these."""
    rows = list(parts)
    known = [(value, tokens) for value, tokens in rows if value is not None]
    of_known, of_all = sum(tokens for _, tokens in known), sum(tokens for _, tokens in rows)
    if not of_known or not tokens_out:
        return None
    return sum(value for value, _ in known) * scale / (tokens_out * of_known / of_all)


def _tiers(ran: Ran) -> Iterable[TierReport]:
    tally = ran.tally
    for model, name in enumerate(ran.scenario.models):
        for tier, tier_name in enumerate(TIERS):
            outcomes = tally.outcomes[model, tier]
            requests = int(outcomes.sum())
            if not requests:
                continue
            ttft, tpot = tally.ttft[model, tier], tally.tpot[model, tier]
            yield TierReport(
                model=name,
                tier=tier_name,
                requests=requests,
                outcomes={
                    word: int(count)
                    for word, count in zip(OUTCOMES, outcomes, strict=True)
                    if count
                },
                slo_met_share=int(tally.met[model, tier]) / requests,
                ttft_s_p50=quantile_s(ttft, 0.5),
                ttft_s_p95=quantile_s(ttft, 0.95),
                ttft_s_p99=quantile_s(ttft, 0.99),
                tpot_s_p50=quantile_s(tpot, 0.5),
                tpot_s_p95=quantile_s(tpot, 0.95),
                waited_s_mean=float(tally.waited_s[model, tier]) / requests,
                tokens_in=int(tally.tokens_in[model, tier]),
                tokens_out=int(tally.tokens_out[model, tier]),
            )


def _model(ran: Ran, model: int, seconds: float) -> ModelReport:
    tally, slo = ran.tally, ran.scenario.slos[model]
    ttft = tally.ttft[model].sum(axis=0)
    itl: NDArray[np.int64] = np.zeros_like(ran.itl[0])
    for place, group in enumerate(ran.scenario.groups):
        if group.model == model:
            itl = itl + ran.itl[place]
    requests, met = int(tally.outcomes[model].sum()), int(tally.met[model].sum())
    return ModelReport(
        model=ran.scenario.models[model],
        slo=slo,
        requests_per_s=requests / seconds,
        goodput_per_s=met / seconds,
        slo_met_share=met / max(1, requests),
        ttft_s_p95=quantile_s(ttft, 0.95),
        itl_s_p50=quantile_s(itl, 0.5),
        itl_s_p99=quantile_s(itl, 0.99),
        keeps_slo=_keeps(ran, model, ttft, itl),
    )


def _keeps(ran: Ran, model: int, ttft: NDArray[np.int64], itl: NDArray[np.int64]) -> bool | None:
    """95 % of all requests had their first token in time, 99 % of the gaps were short enough."""
    slo, requests = ran.scenario.slos[model], int(ran.tally.outcomes[model].sum())
    if (slo.ttft_s_p95 is None and slo.itl_s_p99 is None) or not requests:
        return None
    is_kept = True
    if slo.ttft_s_p95 is not None:
        in_time = (share_within(ttft, slo.ttft_s_p95) or 0.0) * int(ttft.sum())
        is_kept &= in_time >= 0.95 * requests
    if slo.itl_s_p99 is not None and itl.sum():
        is_kept &= (share_within(itl, slo.itl_s_p99) or 0.0) >= 0.99
    return is_kept


def _group(ran: Ran, place: int) -> GroupReport:
    group, did = ran.scenario.groups[place], ran.accounts[place]
    scaling = _scaling(ran, place)
    arriving_s = group.replicas * max(ran.fed_s, _SECONDS_MIN)
    if scaling is not None:
        arriving_s = max(scaling.replica_hours * 3600, _SECONDS_MIN)
    busy_s = did.busy_s if ran.busy_s_arriving is None else ran.busy_s_arriving[place]
    paid_s = arriving_s + did.busy_s - busy_s
    price = group.price_usd_per_hour
    energy_kwh = _energy_kwh(group, busy_s=did.busy_s, all_s=paid_s)
    carbon = group.carbon_g_per_kwh
    read = did.tokens_prefilled + did.tokens_spared
    samples = ran.samples[:, place] if len(ran.samples) else None
    blocks = group.replicas * (group.perf.kv_tokens // group.engine.block_tokens)
    return GroupReport(
        deployment=group.name,
        replicas=group.replicas,
        chips=group.replicas * group.perf.chips,
        chip=group.chip,
        region=group.region,
        rung=group.perf.rung,
        is_uncalibrated=group.perf.uncalibrated,
        busy_share=min(1.0, busy_s / arriving_s),
        running_mean=did.batch_s / max(did.busy_s, 1e-9),
        kv_used_share_max=0.0 if samples is None else float(samples["blocks_used"].max()) / blocks,
        requests=did.finished,
        tokens_in=read,
        tokens_out=did.tokens_out,
        spared_share=did.tokens_spared / max(1, read),
        preemptions=did.preemptions,
        paid_s=paid_s,
        cost_usd=None if price is None else price * paid_s / 3600,
        price_source=group.price_source,
        price_offer=group.price_offer,
        energy_kwh=energy_kwh,
        co2_kg=None if energy_kwh is None or carbon is None else energy_kwh * carbon / 1000,
        load=tuple(_load(ran, place, blocks)),
        scaling=scaling,
    )


def _scaling(ran: Ran, place: int) -> ScalingReport | None:
    group = ran.scenario.groups[place]
    if ran.scaled is None or group.autoscale is None:
        return None
    scaled = ran.scaled[place]
    return ScalingReport(
        replicas_min=group.autoscale.min,
        replicas_max=group.autoscale.max,
        replicas_mean=scaled.replicas_mean,
        replicas_most=scaled.replicas_max,
        replica_hours=scaled.replica_s / 3600,
        started=scaled.started,
        stopped=scaled.stopped,
        start_s=group.start_s,
        decisions=scaled.decisions,
    )


def _load(ran: Ran, place: int, blocks: int) -> Iterable[LoadReport]:
    group = ran.scenario.groups[place]
    within = ran.samples[ran.samples["at_s"][:, 0] <= ran.fed_s] if len(ran.samples) else ()
    for row in within[:: max(1, -(-len(within) // TIMES))]:
        one = row[place]
        yield LoadReport(
            at_s=float(one["at_s"]),
            listening=int(one["listening"]),
            running_share=int(one["running"]) / (group.replicas * group.engine.requests_max),
            waiting=int(one["waiting"]),
            kv_used_share=int(one["blocks_used"]) / blocks,
        )


def _energy_kwh(group: Group, *, busy_s: float, all_s: float) -> float | None:
    idle_w, busy_w = group.perf.power_w_idle, group.perf.power_w_busy
    if idle_w is None or busy_w is None:
        return None
    return (idle_w * all_s + (busy_w - idle_w) * busy_s) * group.pue / _J_PER_KWH


def _unknown(groups: Iterable[GroupReport]) -> Iterable[str]:
    for group in groups:
        missing = [
            noun
            for noun, value in (
                ("price", group.cost_usd), ("power", group.energy_kwh), ("carbon", group.co2_kg)
            )
            if value is None
        ]  # fmt: skip
        if missing:
            yield f"{group.deployment}: {', '.join(missing)}"


def _over_time(ran: Ran) -> Iterable[TimeReport]:
    tally = ran.tally
    stretches = list(_stretches(ran.fed_s, tally.bucket_s))
    for model, name in enumerate(ran.scenario.models):
        for part, width_s in stretches:
            arrived = int(tally.over_time["arrived"][part, model].sum())
            met = int(tally.over_time["met"][part, model].sum())
            yield TimeReport(
                at_s=part.start * tally.bucket_s,
                model=name,
                requests_per_s=arrived / width_s,
                tokens_out_per_s=int(tally.over_time["tokens_out"][part, model].sum()) / width_s,
                slo_met_share=met / arrived if arrived else None,
                ttft_s_p95=tally.ttft_s_in(model, part, 0.95),
            )


def _stretches(fed_s: float, bucket_s: float) -> Iterable[tuple[slice, float]]:
    """Buckets that are one point, and their seconds; a last one of less than half joins it."""
    buckets = int(fed_s / bucket_s) + 1
    together = max(1, -(-buckets // TIMES))
    width_s = together * bucket_s
    count = max(1, round(fed_s / width_s))
    for number in range(count):
        first, is_last = number * together, number == count - 1
        until = buckets if is_last else first + together
        seconds = fed_s - first * bucket_s if is_last else width_s
        yield slice(first, until), max(seconds, 0.5 * bucket_s)
