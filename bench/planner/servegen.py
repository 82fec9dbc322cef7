"""python -m bench.planner.servegen: a real week planned, and each plan replayed on that week.

Examples: python -m bench.planner.servegen                      # plans, baselines, nine hours
          python -m bench.planner.servegen --alone --prefill 512 --share 0.95

Demand: ServeGen's week 1 (`traces/`), five models of Alibaba's service. They are planned as open
models of a similar size (the paper's sizes, as remembered: 14 B, 72 B, 310 B, 72 B with images,
671 B). The planner sees what `argosy plan --demand` sees of it: of each hour what all but
1 of 100 of its minutes ask for over the days (`--share`), with lengths as they are in such hours.

The recording itself is replayed (`week.py`): at the week's peak of each model (PEAKS), and in some
hours evenly over the week (BETWEEN). A request meets its SLO by its own TTFT and mean gap; one that
is refused missed it. BROKEN counts models in a region and hour of which fewer than 95 % of first
tokens or 99 % of gaps are in time. Each as believed, and in two stresses: with all rates 1.5 times
worse than believed (the plan's replicas get 1.5 times the requests), and, harsher, with every step
1.5 times as long: what is promised in seconds is then nearer too.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace

from argosy.cli.planning.asking import kept_rates
from argosy.fleet import load
from argosy.fleet.config import Deployment, Fleet, Model, VllmEngine
from argosy.fleet.contracts import CommittedSpend
from argosy.fleet.demand import HOURS, Slo
from argosy.fleet.layout import Layout
from argosy.planner.capacity.table import Capacity, capacity_of
from argosy.planner.framing.forecast import SHARE, Names, demand_of_file
from argosy.planner.framing.frame import Framed, frame
from argosy.planner.plan import Plan
from argosy.planner.questions.baselines import baselines
from argosy.planner.questions.changed import Solving, without_survivals
from argosy.planner.replay.cells import Ground, RegionCell, Replicas, Scene, cells_of
from argosy.planner.replay.runs import How, judged_of, ran
from argosy.planner.solving.solve import solve
from argosy.simulator.demanded import tenant_of_tier
from bench.planner.week import (
    DAY_S,
    ORIGIN,
    RATES,
    STANDS,
    Hour,
    Recorded,
    Stand,
    Week,
    hours_of,
    text_of,
    thinned,
)

ROOT = Path(__file__).parents[2]
SCALE = 2.5
PREFILL_TOKENS = None  # of a step: the planner chooses
FEW_PER_S = 100.0
WORSE = 1.5
REPLAYED = ("peak on demand", "cost-minimal")  # of the baselines


class Stress(NamedTuple):
    """How the world is worse than believed."""

    name: str
    share: float = 1.0  # of the requests that were recorded, in as much time
    slowness: float = 1.0  # every step takes so many times as long


STRESSES = (
    Stress("AS BELIEVED"),
    Stress(f"RATES {WORSE:g}x WORSE", share=WORSE),
    Stress(f"STEPS {WORSE:g}x SLOWER", slowness=WORSE),
)


@dataclass(frozen=True, kw_only=True)
class Named:
    """A plan, as the table names it."""

    name: str
    plan: Plan
    gives_up: str = ""
    is_replayed: bool = True


@dataclass(kw_only=True)
class Outcome:
    """What a plan's replay was, in one stress."""

    asked: dict[str, float] = field(default_factory=dict)  # requests/s by model, over all hours
    met: dict[str, float] = field(default_factory=dict)
    requests: int = 0  # simulated and counted
    cells: int = 0
    broken: list[str] = field(default_factory=list)

    def share(self, model: str | None = None) -> float:
        """Of the requests that met their SLO, hours by what is asked for in them."""
        names = self.asked if model is None else [model]
        if not self.asked:
            return float("nan")
        return sum(self.met[one] for one in names) / sum(self.asked[one] for one in names)


Found = dict[tuple[str, Stress, bool], Outcome]  # by plan, stress, and whether of a peak


def main() -> None:
    """Plan, replay, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.planner.servegen", description=__doc__)
    parser.add_argument("--scale", type=float, default=SCALE, help="times the example's nodes")
    parser.add_argument("--between", type=int, default=4, help="hours beside the models' peaks")
    parser.add_argument("--minutes", type=float, default=1.0, help="of each that are counted")
    parser.add_argument("--warm", type=float, default=20.0, help="seconds before them")
    parser.add_argument("--seconds", type=float, default=30.0, help="of a solve")
    parser.add_argument("--requests", type=int, default=10_000, help="at each rate that is tried")
    parser.add_argument("--prefill", type=int, default=PREFILL_TOKENS, help="tokens of a step")
    parser.add_argument("--headroom", type=float, default=0.5, help="of this plan")
    parser.add_argument("--share", type=float, default=SHARE, help="of the minutes planned for")
    parser.add_argument("--alone", action="store_true", help="without the baselines")
    parser.add_argument("--busiest", action="store_true", help="the busiest ten minutes of an hour")
    asked = parser.parse_args()
    told = Told()
    fleet = fleet_of(asked.scale, asked.prefill)
    fleet = replace(fleet, plan=replace(fleet.plan, headroom=asked.headroom))
    capacity, framed = framed_of(fleet, asked.share, asked.requests, told)
    plans = list(plans_of(framed, asked.seconds, told, alone=asked.alone))
    week = Week(seed=0)
    hours = list(hours_of(week, asked.between, busiest=asked.busiest))
    how = How(minutes=asked.minutes, warm_s=asked.warm, with_interval=False, with_losses=False)
    ground = Ground(fleet=fleet, classes=capacity.classes)
    found: Found = {
        (one.name, stress, is_peak): Outcome()
        for one in plans
        for stress in STRESSES
        for is_peak in (True, False)
    }
    for hour in hours:
        told(f"replay of {text_of(hour)}")
        for one in (one for one in plans if one.is_replayed):
            for stress in STRESSES:
                into = found[one.name, stress, hour.is_peak]
                replayed(one.plan, ground, (week, hour), how, stress, into)
        week.forget()
    report(plans, hours, found, told)


class Told:
    """What is being done, on stderr, with the seconds since the start."""

    def __init__(self) -> None:
        self._begun_s = time.perf_counter()
        self._last = ""

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begun_s

    def __call__(self, what: str, share: float = 0.0) -> None:
        """Each thing once."""
        del share
        what = what.split(":")[0] if what.startswith("commitments") else what
        if what != self._last:
            print(f"{self.seconds:6.0f} s  {what}", file=sys.stderr, flush=True)
        self._last = what


def fleet_of(scale: float, prefill_tokens: int | None = PREFILL_TOKENS) -> Fleet:
    """The example's supply, the recording's models."""
    file = ROOT / "examples" / "five-makers.yaml"
    fleet = load.parse(file.read_text("utf-8"), source=file.name)
    contracts = []
    for one in fleet.contracts:
        if isinstance(one, CommittedSpend):
            contracts.append(replace(one, units=scaled(one.units, scale)))
        elif hasattr(one, "nodes"):
            contracts.append(replace(one, nodes=scaled(one.nodes, scale)))
        else:
            contracts.append(replace(one, nodes_max=round(one.nodes_max * scale)))
    power = {name: kw * scale for name, kw in fleet.plan.power_kw_max.items()}
    return replace(
        fleet,
        fleet="servegen-week-1",
        pools=tuple(replace(pool, nodes=scaled(pool.nodes, scale)) for pool in fleet.pools),
        models=tuple(model_of(one) for one in STANDS),
        deployments=tuple(deployment_of(one, prefill_tokens) for one in STANDS),
        demand=(),
        contracts=tuple(contracts),
        plan=replace(fleet.plan, years=1, growth_per_year=1.0, power_kw_max=power, runs=()),
    )


def scaled(bounds, scale: float):
    """Nodes or units, so many times as many."""
    return replace(bounds, min=round(bounds.min * scale), max=round(bounds.max * scale))


def model_of(stand: Stand) -> Model:
    return Model(
        name=stand.name,
        architecture=stand.architecture,
        slo=Slo(ttft_s_p95=stand.ttft_s_p95, itl_s_p99=stand.itl_s_p99),
        survive=("any_one_cloud",) if stand.survives_a_cloud else (),
    )


def deployment_of(stand: Stand, prefill_tokens: int | None) -> Deployment:
    """How it is served anywhere: what the planner takes dtype and engine from."""
    return Deployment(
        model=stand.name,
        pool="azure-h100",
        engine=VllmEngine(prefill_tokens_max=prefill_tokens, context_tokens=stand.context_tokens),
        layout=Layout(tp=8, dtype="fp8"),
    )


def framed_of(fleet: Fleet, share: float, requests: int, told: Told) -> tuple[Capacity, Framed]:
    """The week's demand, rates for it, the problem."""
    told("the week's demand")
    names = Names(origin=ORIGIN)
    demand = demand_of_file(RATES, fleet, names=names, kind="servegen", share=share)
    for one in demand:
        peak = one.requests_per_s * max(one.hourly, default=1.0)
        hours = sum(factor > 0 for factor in one.hourly) or HOURS
        print(f"  {one.model:12} {one.requests_per_s:8,.1f} requests/s planned for, {peak:8,.1f} "
              f"at the peak, in {hours:2} hours; prompts {one.prompt_tokens.mean:,.0f}, answers "
              f"{one.output_tokens.mean:,.0f} tokens")  # fmt: skip
    with kept_rates() as known:
        capacity = capacity_of(fleet, demand=demand, known=known, told=told, requests=requests)
    framed = frame(fleet, rates=capacity)
    for one in framed.left_out:
        print(f"  left out: {one}")
    return capacity, framed


def plans_of(framed: Framed, seconds: float, told: Told, *, alone: bool) -> Iterator[Named]:
    """Ours, then the baselines that there are."""
    solving = Solving(solve=solve, gap=0.01, seconds_max=seconds, progress=told)
    told("the plan")
    ours = solving(framed.problem)
    if not isinstance(ours, Plan):
        raise SystemExit(f"no plan; these cannot hold together: {'; '.join(ours.constraints)}")
    yield Named(name="this plan", plan=ours)
    if alone:
        return
    told("the plan without survive")
    bare = solving(without_survivals(framed.problem))
    if framed.problem.survivals and isinstance(bare, Plan):
        name, lost = "this plan, no loss survived", "surviving losses"
        yield Named(name=name, plan=bare, gives_up=lost, is_replayed=False)
    for one in baselines(framed.problem, solving):
        if isinstance(one.answer, Plan):
            yield Named(
                name=one.name,
                plan=one.answer,
                gives_up="; ".join(lost.text for lost in one.gives_up),
                is_replayed=one.kind in REPLAYED,
            )
        else:
            print(f"  no plan for {one.name}: {'; '.join(one.answer.constraints)}")


def replayed(
    plan: Plan,
    ground: Ground,
    when: tuple[Week, Hour],
    how: How,
    stress: Stress,
    into: Outcome,
) -> None:
    """One hour of a plan, on what was asked in it."""
    week, hour = when
    slot = slot_of(plan, hour)
    cells = cells_of(Scene(plan, ground, Replicas(ground), slot, None, stress.slowness)).cells
    tenant = tenant_of_tier(ground.fleet, "consumer")
    for stand in STANDS:
        asked = week.rate(stand.name, hour.begin_s)
        into.asked[stand.name] = into.asked.get(stand.name, 0.0) + asked
        into.met.setdefault(stand.name, 0.0)
        own = [cell for cell in cells if cell.model == stand.name]
        sent = planned(plan, stand.name, slot)
        window = week.requests(stand.name, hour.begin_s)
        for number, cell in enumerate(own):
            part = cell.requests_per_s / sent  # of all requests, this smaller cell's
            kept = np.random.default_rng([number, slot]).random(window.rows) < part
            few = thinned(window, np.flatnonzero(kept))
            if not few.rows:
                continue
            one = Recorded(cell.scenario, few, tenant)
            counted = ran(one, _how(how, asked), "expected", share=stress.share)  # type: ignore[arg-type]  # all that it asks of it
            verdict = judged_of(cell, counted)
            requests, met = int(counted.requests.sum()), int(counted.met.sum())
            into.requests += requests
            into.cells += 1
            into.met[stand.name] += asked * cell.times * part * (met / max(1, requests))
            if verdict.judged == "broken":
                into.broken.append(
                    f"{text_of(hour)}, {asked:,.0f} requests/s of {sent:,.0f}: "
                    + said(cell, verdict.ttft_in_time_share, verdict.itl_in_time_share)
                )


def _how(how: How, requests_per_s: float) -> How:
    """Models that are asked little have long answers: more minutes, and all their batches full."""
    few = replace(how, warm_s=180.0, minutes=3.5)  # 1.5 times as fast, that is what was recorded
    return few if requests_per_s < FEW_PER_S else how


def said(cell: RegionCell, ttft: float | None, itl: float | None) -> str:
    """m-mid in aws/us-east-2: 93.0 % of first tokens, 98.0 % of gaps."""
    shares = [f"{0.0 if one is None else one:.1%}" for one in (ttft, itl)]
    return f"{cell.model} in {cell.region}: {shares[0]} of first tokens, {shares[1]} of gaps"


def slot_of(plan: Plan, hour: Hour) -> int:
    """The plan's hour of the day, or the one that it has for all."""
    wanted = hour.begin_s % DAY_S // 3600
    slots = plan.problem.slots
    return next((place for place, slot in enumerate(slots) if slot.hour == wanted), 0)


def planned(plan: Plan, model: str, slot: int) -> float:
    """Requests per second of the model that the plan's routes carry in that slot."""
    needs = plan.problem.needs
    return sum(
        route.requests_per_s[slot] for route in plan.routes if needs[route.need].model == model
    )


def report(
    plans: Sequence[Named],
    hours: Sequence[Hour],
    found: Found,
    told: Told,
) -> None:
    """The tables."""
    ours = plans[0].plan
    print(f"\n{ours.usd_per_hour:,.0f} USD an hour, within {ours.gap:.1%} of the best; replayed:")
    for hour in hours:
        print(f"  {text_of(hour)}")
    stresses = "".join(f"{f'{stress.name}: PEAKS':>26}{'BETWEEN':>9}" for stress in STRESSES)
    print(f"\n{'PLAN':<40}{'USD/h':>7}{'TIMES':>7}{stresses}{'BROKEN':>18}")
    for one in plans:
        times = one.plan.usd_per_hour / ours.usd_per_hour
        row = f"{one.name[:39]:<40}{one.plan.usd_per_hour:>7,.0f}{times:>6.2f}x"
        if one.is_replayed:
            row += "".join(_cells(found, one.name, stress) for stress in STRESSES)
            broken = ", ".join(_broken(found, one.name, stress) for stress in STRESSES)
            row += f"{broken:>18}"
        print(row)
    for one in plans[1:]:
        print(f"  {one.name} gives up: {one.gives_up or 'nothing'}")
    print(f"\n{'SLO MET BY MODEL, PEAKS / BETWEEN':<59}" + "".join(f"{s.name:>17}" for s in STANDS))
    for one in (one for one in plans if one.is_replayed):
        for stress in STRESSES:
            both = [found[one.name, stress, is_peak] for is_peak in (True, False)]
            row = "".join(
                f"{' / '.join(f'{part.share(stand.name):.1%}' for part in both):>17}"
                for stand in STANDS
            )
            print(f"{one.name[:38]:<39} {stress.name:<19}{row}")
    for stress in STRESSES:
        for is_peak in (True, False):
            for text in found[plans[0].name, stress, is_peak].broken[:6]:
                print(f"  broken in this plan, {stress.name}: {text}")
    requests = sum(one.requests for one in found.values())
    print(f"\n{requests:,} requests simulated and counted, in {told.seconds:.0f} s")


def _cells(found: Found, name: str, stress: Stress) -> str:
    peaks, between = (found[name, stress, is_peak].share() for is_peak in (True, False))
    return f"{peaks:>26.2%}{between:>9.2%}"


def _broken(found: Found, name: str, stress: Stress) -> str:
    both = [found[name, stress, is_peak] for is_peak in (True, False)]
    return f"{sum(len(one.broken) for one in both)}/{sum(one.cells for one in both)}"


if __name__ == "__main__":
    main()
