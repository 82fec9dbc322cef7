"""python -m bench.planner.servegen: a real week planned, and each plan replayed on that week.

Examples: python -m bench.planner.servegen                      # plans, baselines, nine hours
          python -m bench.planner.servegen --alone --headroom 0.8 --scale 2

Demand: ServeGen's week 1 (`traces/`), five models of Alibaba's service. They are planned as open
models of a similar size (the paper's sizes, as remembered: 14 B, 72 B, 310 B, 72 B with images,
671 B); images count as the prompt tokens that they became. The planner sees what `argosy plan
--demand` sees of it: of each hour of the day a high quantile over the days, which of seven days is
the XX `deepseek-r1` and `mm-image` one day
was published: it stands for each of the seven.

The replay is of the recording: the requests that `open_trace` draws for ten minutes of an hour
(from its half on; `--busiest`: the ten with the most), each client with its own irregular gaps and
lengths, sent where the plan's routes say.
Hours, as `planner/replay` chooses them: the week's peak of each model (PEAKS), and some evenly over
the week (BETWEEN), at different hours of the day. A request meets its SLO by its own TTFT and mean
gap; one that is refused missed it. BROKEN counts models in a region and hour of which fewer than
95 % of first tokens or 99 % of gaps are in time.
"""

import argparse
import io
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from pyarrow import compute, parquet

from argosy.cli.planning.asking import kept_rates
from argosy.fleet import load
from argosy.fleet.config import Deployment, Fleet, Model, VllmEngine
from argosy.fleet.contracts import CommittedSpend
from argosy.fleet.demand import Slo
from argosy.fleet.layout import Layout
from argosy.planner.capacity.table import Capacity, capacity_of
from argosy.planner.framing.forecast import Names, demand_of_file
from argosy.planner.framing.frame import Framed, frame
from argosy.planner.plan import Plan
from argosy.planner.questions.baselines import baselines
from argosy.planner.questions.changed import Solving, without_survivals
from argosy.planner.replay.cells import Ground, RegionCell, Replicas, Scene, cells_of
from argosy.planner.replay.runs import How, judged_of, ran
from argosy.planner.solving.solve import solve
from argosy.simulator.demanded import tenant_of_tier
from argosy.simulator.scenario import Scenario
from argosy.simulator.traces import Trace, Window
from argosy.simulator.traces.files import TraceFile
from argosy.simulator.traces.servegen import STEP_S, read_servegen
from argosy.simulator.traces.window import joined, take, window_of

ROOT = Path(__file__).parents[2]
RATES = ROOT / "traces" / "servegen_client_rates_week1.parquet"
TOKENS = ROOT / "traces" / "servegen_client_token_quantiles_week1.parquet"
ORIGIN = "aws/us-east-2"  # the recording has none; the nearest to the other regions
SCALE = 1.5
SLOWER = 1.5
PREFILL_TOKENS = 512  # of a step: with more, steps of 1.5 times the time break the gaps promised
DAY_S = 86_400
FEW_PER_S = 100.0


class Stand(NamedTuple):
    """What stands for a model of the recording."""

    name: str
    architecture: str
    ttft_s_p95: float
    itl_s_p99: float
    survives_a_cloud: bool
    context_tokens: int = 32_768


STANDS = (
    Stand("m-small", "Qwen3-14B", 1.0, 0.05, True),
    Stand("m-mid", "Llama-3.1-70B", 2.0, 0.1, True),
    Stand("m-large", "Qwen3-235B-A22B", 2.0, 0.1, True),
    Stand("mm-image", "Llama-3.1-70B", 3.0, 0.1, False),
    Stand("deepseek-r1", "DeepSeek-R1", 4.0, 0.1, False, 65_536),
)


class Hour(NamedTuple):
    """An hour of the week to replay, and why."""

    begin_s: int  # of the ten minutes that are replayed, from the recording's first midnight
    why: str
    is_peak: bool


@dataclass(frozen=True, kw_only=True)
class Named:
    """A plan, as the table names it."""

    name: str
    plan: Plan
    gives_up: str = ""


@dataclass(kw_only=True)
class Outcome:
    """What a plan's replay was, at one speed."""

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


Found = dict[tuple[str, float, bool], Outcome]  # by plan, slowness, and whether of a peak


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
    parser.add_argument("--alone", action="store_true", help="without the baselines")
    parser.add_argument("--busiest", action="store_true", help="the busiest ten minutes of an hour")
    asked = parser.parse_args()
    told = Told()
    fleet = fleet_of(asked.scale, asked.prefill)
    fleet = replace(fleet, plan=replace(fleet.plan, headroom=asked.headroom))
    capacity, framed = framed_of(fleet, asked.requests, told)
    plans = list(plans_of(framed, asked.seconds, told, alone=asked.alone))
    week = Week(seed=0)
    hours = list(hours_of(week, asked.between, busiest=asked.busiest))
    how = How(minutes=asked.minutes, warm_s=asked.warm, with_interval=False, with_losses=False)
    ground = Ground(fleet=fleet, classes=capacity.classes)
    found: Found = {
        (one.name, slowness, is_peak): Outcome()
        for one in plans
        for slowness in (1.0, SLOWER)
        for is_peak in (True, False)
    }
    for hour in hours:
        told(f"replay of {text_of(hour)}")
        for one in plans:
            for slowness in (1.0, SLOWER):
                into = found[one.name, slowness, hour.is_peak]
                replayed(one.plan, ground, (week, hour), how, slowness, into)
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


def fleet_of(scale: float, prefill_tokens: int = PREFILL_TOKENS) -> Fleet:
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


def deployment_of(stand: Stand, prefill_tokens: int) -> Deployment:
    """How it is served anywhere: what the planner takes dtype and engine from."""
    return Deployment(
        model=stand.name,
        pool="azure-h100",
        engine=VllmEngine(prefill_tokens_max=prefill_tokens, context_tokens=stand.context_tokens),
        layout=Layout(tp=8, dtype="fp8"),
    )


def framed_of(fleet: Fleet, requests: int, told: Told) -> tuple[Capacity, Framed]:
    """The week's demand, rates for it, the problem."""
    told("the week's demand")
    names = Names(origin=ORIGIN)
    demand = demand_of_file(RATES, fleet, names=names, kind="servegen")
    for one in demand:
        peak = one.requests_per_s * max(one.hourly, default=1.0)
        print(f"  {one.model:12} {one.requests_per_s:8,.1f} requests/s planned for, {peak:8,.1f} "
              f"at the peak; prompts {one.prompt_tokens.mean:,.0f}, answers "
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
        yield Named(name="this plan, no loss survived", plan=bare, gives_up="surviving losses")
    for one in baselines(framed.problem, solving):
        if isinstance(one.answer, Plan):
            given = "; ".join(lost.text for lost in one.gives_up)
            yield Named(name=one.name, plan=one.answer, gives_up=given)
        else:
            print(f"  no plan for {one.name}: {'; '.join(one.answer.constraints)}")


class Week:
    """The recording: how much is asked when, and the requests of any ten minutes."""

    def __init__(self, *, seed: int) -> None:
        self._table, self._seed = parquet.read_table(RATES), seed
        self._known: dict[tuple[str, int], Window] = {}
        self.rates: dict[str, NDArray[np.float64]] = {}  # requests/s, by steps of STEP_S
        for stand in STANDS:
            rows = self._table.filter(compute.equal(self._table["model"], stand.name))
            steps = rows["t_s"].to_numpy() // STEP_S
            self.rates[stand.name] = np.bincount(steps, rows["rate_rps"].to_numpy())

    def step_s(self, model: str, begin_s: int) -> int:
        """That second as the model's recording has it: the one day that there is, if it is one."""
        days = max(1, self.rates[model].size * STEP_S // DAY_S)
        return begin_s % (days * DAY_S)

    def rate(self, model: str, begin_s: int) -> float:
        """Requests per second in these ten minutes."""
        return float(self.rates[model][self.step_s(model, begin_s) // STEP_S])

    def hourly(self, model: str) -> NDArray[np.float64]:
        """Requests per second by hour."""
        rates = self.rates[model]
        return rates[: rates.size // 6 * 6].reshape(-1, 6).mean(axis=1)

    def step_of(self, hour: int, *, busiest: bool) -> int:
        """The second at which an hour's busiest ten minutes begin, or those after its half."""
        steps = range(hour * 3600, (hour + 1) * 3600, STEP_S)
        if not busiest:
            return steps[3]
        return max(steps, key=lambda at: sum(self.rate(one.name, at) for one in STANDS))

    def requests(self, model: str, begin_s: int) -> Window:
        """All of them, from second 0 on."""
        at_s = self.step_s(model, begin_s)
        if (model, at_s) not in self._known:
            wanted = compute.and_(
                compute.equal(self._table["model"], model), compute.equal(self._table["t_s"], at_s)
            )
            packed = io.BytesIO()
            parquet.write_table(self._table.filter(wanted), packed)
            tokens = TraceFile(TOKENS)
            trace = read_servegen(TraceFile(packed), seed=self._seed, tokens=tokens, models=[model])
            window = joined(list(trace.windows()))
            self._known[model, at_s] = window._replace(arrival_s=window.arrival_s - at_s)
        return self._known[model, at_s]

    def forget(self) -> None:
        """The requests that were drawn."""
        self._known.clear()


def hours_of(week: Week, between: int, *, busiest: bool = False) -> Iterator[Hour]:
    """Each model's peak of the week, and so many evenly over it."""
    found: dict[int, str] = {}
    for stand in STANDS:
        hour = int(np.argmax(week.hourly(stand.name)))
        found[hour] = f"{found[hour]}, {stand.name}" if hour in found else f"peak of {stand.name}"
    for hour, why in found.items():
        yield Hour(week.step_of(hour, busiest=busiest), why, is_peak=True)
    for number in range(between):
        hour = (2 * number + 1) * 168 // (2 * between)
        yield Hour(week.step_of(hour, busiest=busiest), "between", is_peak=False)


def text_of(hour: Hour) -> str:
    """Day 3, 14:20."""
    day, second = divmod(hour.begin_s, DAY_S)
    return f"day {day + 1}, {second // 3600:02}:{second % 3600 // 60:02} ({hour.why})"


class Recorded(NamedTuple):
    """A cell of the plan, asked by the recording; it takes the place of `RegionCell`."""

    scenario: Scenario
    window: Window
    tenant: str

    @property
    def requests_per_s(self) -> float:
        """On average over what was recorded."""
        return max(1e-9, self.window.rows / STEP_S)

    def trace(self, *, seed: int, until_s: float, share: float = 1.0) -> Trace:
        """Its requests until then; all of them, whatever the seed."""
        del seed, share
        rows = int(self.window.arrival_s.searchsorted(until_s))
        window = take(self.window, np.arange(rows))
        return Trace(
            pieces=lambda: iter([window]),
            found="ServeGen",
            models=self.scenario.models,
            tenants=(self.tenant,),
            origins=(ORIGIN,),
        )


def replayed(
    plan: Plan,
    ground: Ground,
    when: tuple[Week, Hour],
    how: How,
    slowness: float,
    into: Outcome,
) -> None:
    """One hour of a plan, on what was asked in it."""
    week, hour = when
    slot = slot_of(plan, hour)
    cells = cells_of(Scene(plan, ground, Replicas(ground), slot, None, slowness)).cells
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
            counted = ran(one, _how(how, asked), "expected")  # type: ignore[arg-type]  # all that it asks of it
            verdict = judged_of(cell, counted)
            requests, met = int(counted.requests.sum()), int(counted.met.sum())
            into.requests += requests
            into.cells += 1
            into.met[stand.name] += asked * cell.times * part * (met / max(1, requests))
            if verdict.judged == "broken":
                into.broken.append(
                    said(cell, verdict.ttft_in_time_share, verdict.itl_in_time_share)
                )


def _how(how: How, requests_per_s: float) -> How:
    """Models that are asked little have long answers: more minutes, and all their batches full."""
    return replace(how, warm_s=180.0, minutes=5.0) if requests_per_s < FEW_PER_S else how


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


def thinned(window: Window, rows: NDArray[np.int64]) -> Window:
    """These requests, all of one tenant and one model."""
    columns: dict[str, object] = {
        "arrival_s": window.arrival_s[rows],
        "prompt_tokens": window.prompt_tokens[rows],
        "output_tokens": window.output_tokens[rows],
    }
    return window_of(columns, rows=rows.size)


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
    speeds = "".join(
        f"{f'STEPS x{slowness:g}: PEAKS':>18}{'BETWEEN':>9}{'BROKEN':>8}"
        for slowness in (1.0, SLOWER)
    )
    print(f"\n{'PLAN':<50}{'USD/h':>7}{'TIMES':>7}{speeds}")
    for one in plans:
        times = one.plan.usd_per_hour / ours.usd_per_hour
        cells = "".join(_cells(found, one.name, slowness) for slowness in (1.0, SLOWER))
        print(f"{one.name[:49]:<50}{one.plan.usd_per_hour:>7,.0f}{times:>6.2f}x{cells}")
    for one in plans[1:]:
        print(f"  {one.name} gives up: {one.gives_up or 'nothing'}")
    print(f"\n{'SLO MET BY MODEL, PEAKS / BETWEEN':<46}" + "".join(f"{s.name:>17}" for s in STANDS))
    for one in plans:
        for slowness in (1.0, SLOWER):
            both = [found[one.name, slowness, is_peak] for is_peak in (True, False)]
            row = "".join(
                f"{' / '.join(f'{part.share(stand.name):.1%}' for part in both):>17}"
                for stand in STANDS
            )
            print(f"{one.name[:38]:<39} x{slowness:<5g}{row}")
    for slowness in (1.0, SLOWER):
        for is_peak in (True, False):
            for text in found[plans[0].name, slowness, is_peak].broken[:6]:
                print(f"  broken in this plan, steps x{slowness:g}: {text}")
    requests = sum(one.requests for one in found.values())
    print(f"\n{requests:,} requests simulated and counted, in {told.seconds:.0f} s")


def _cells(found: Found, name: str, slowness: float) -> str:
    peaks, between = (found[name, slowness, is_peak] for is_peak in (True, False))
    broken = len(peaks.broken) + len(between.broken)
    of = f"{broken}/{peaks.cells + between.cells}"
    return f"{peaks.share():>18.2%}{between.share():>9.2%}{of:>8}"


if __name__ == "__main__":
    main()
