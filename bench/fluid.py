"""python -m bench.fluid: the fluid simulator beside the exact one, and how far the exact one goes.

Examples: python -m bench.fluid                       # the table of docs/FLUID.md: some minutes
          python -m bench.fluid --only alone          # the cases whose name has this in it
          python -m bench.fluid --day 100             # a day at 100 times the demand, fluid alone
          python -m bench.fluid --exact 10000000      # so many requests, exact, with and without
                                                      # the names of their prompts' blocks
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from argosy.fleet import load
from argosy.fleet.config import Fleet
from argosy.simulator.demanded import busiest_hour, trace_of_demand
from argosy.simulator.fluid.cell import cell_of
from argosy.simulator.fluid.flow import Flow, flow_of_demand, flow_of_trace
from argosy.simulator.fluid.probe import Asked, capacity_per_s
from argosy.simulator.fluid.running import Surfaces, simulate_fluid
from argosy.simulator.report import Report, report_of
from argosy.simulator.scenario import Scenario, loss_of, scenario_of
from argosy.simulator.serving import simulate
from argosy.simulator.traces import Trace, demand, without_blocks

FILE = "examples/five-makers.yaml"
SECONDS = 600.0


class Case(NamedTuple):
    """What both simulate."""

    name: str
    scenario: Scenario
    trace: Trace
    flow: Callable[[], Flow]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.fluid", description=__doc__)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--day", type=float, metavar="SCALE", help="only this, fluid alone")
    parser.add_argument("--exact", type=int, metavar="REQUESTS", help="only this, exact alone")
    asked = parser.parse_args()
    fleet = load.parse(Path(FILE).read_text(), source=FILE)
    if asked.day:
        day(fleet, asked.day)
    elif asked.exact:
        exact(fleet, asked.exact)
    else:
        table(fleet, asked.only)


def cases(fleet: Fleet) -> Iterator[Case]:
    scenario, hour = scenario_of(fleet), busiest_hour(fleet)

    def of_demand(name: str, scenario: Scenario, scale: float, seconds: float = SECONDS) -> Case:
        own = scenario.fleet
        trace = trace_of_demand(own, seed=0, until_s=seconds, from_hour=hour, scale=scale)
        flow = lambda: flow_of_demand(own, until_s=seconds, from_hour=hour, scale=scale)  # noqa: E731
        return Case(name, scenario, trace, flow)

    for scale, seconds in ((0.5, 600), (1, 1200), (2, 600), (3, 600), (5, 600), (20, 120)):
        yield of_demand(f"fleet, scale {scale:g}", scenario, scale, seconds)
    yield of_demand("fleet, scale 100", scenario, 100, 60)
    lost = replace(scenario, losses=(loss_of("cloud:azure@300", scenario),))
    yield of_demand("azure lost at 300 s, scale 1", lost, 1, 900)
    yield of_demand("azure lost at 300 s, scale 2", lost, 2, 900)
    back = replace(scenario, losses=(loss_of("cloud:azure@200-210", scenario),))
    yield of_demand("azure lost and back, scale 2", back, 2, 900)
    many = tuple(replace(one, replicas=one.replicas * 4) for one in scenario.groups)
    yield of_demand("4 times the fleet, scale 8", replace(scenario, groups=many), 8, 120)
    alone = scenario_of(_alone(fleet, "small", "azure-h100"))
    full = _capacity_per_s(alone)
    rate = sum(one.requests_per_s for one in alone.fleet.demand)
    for share in (0.5, 0.8, 0.95, 1.2):
        name = f"one group alone, {share:.0%}"
        yield of_demand(name, alone, share * full / rate)
    flow = flow_of_demand(alone.fleet, until_s=SECONDS)
    for share in (0.6, 0.9):
        rate = share * full / len(flow.streams)
        bursty = [replace(one, rate=rate, cv=6.0) for one in flow.streams]
        trace = demand(bursty, seed=0, until_s=SECONDS)
        name = f"one group alone, bursts, {share:.0%}"
        yield Case(name, alone, trace, lambda trace=trace: flow_of_trace(trace))


def _alone(fleet: Fleet, model: str, pool: str) -> Fleet:
    """One deployment, its model and who asks for it, on average."""
    return replace(
        fleet,
        models=tuple(one for one in fleet.models if one.name == model),
        deployments=tuple(
            one for one in fleet.deployments if (one.model, one.pool) == (model, pool)
        ),
        demand=tuple(replace(one, hourly=()) for one in fleet.demand if one.model == model),
    )


def _capacity_per_s(scenario: Scenario) -> float:
    """From which rate on requests wait at the gateway, about."""
    flow = flow_of_demand(scenario.fleet, until_s=1.0)
    cell = cell_of(scenario, model=0, gone=frozenset())
    assert cell is not None
    sums = flow.requests.sum(axis=0)
    asked = Asked(flow.streams, tuple(sums / sums.sum()), flow.block_tokens)
    return capacity_per_s(cell, asked, case="expected", seed=0) * cell.times


# One line a case.

HEADS = (
    "case", "requests", "exact s", "fluid s", "again s", "SLO met: exact, fluid", "worst tier",
    "goodput", "TTFT p50", "TTFT p95", "TPOT p50", "ITL p99", "not answered: exact, fluid", "busy",
)  # fmt: skip


def table(fleet: Fleet, only: str) -> None:
    print("| " + " | ".join(HEADS) + " |")
    print("| --- |" + " ---: |" * (len(HEADS) - 1))
    shared: dict[int, Surfaces] = {}
    for case in cases(fleet):
        if only not in case.name:
            continue
        own = shared.setdefault(id(case.scenario), Surfaces())
        begin_s = time.perf_counter()
        exactly = report_of(simulate(case.scenario, case.trace), trace="")
        exact_s, begin_s = time.perf_counter() - begin_s, time.perf_counter()
        fluid = report_of(simulate_fluid(case.scenario, case.flow(), surfaces=own), trace="")
        fluid_s, begin_s = time.perf_counter() - begin_s, time.perf_counter()
        simulate_fluid(case.scenario, case.flow(), surfaces=own)
        again_s = time.perf_counter() - begin_s
        times = (f"{exact_s:.1f}", f"{fluid_s:.1f}", f"{again_s:.1f}")
        cells = (case.name, f"{exactly.requests:,}", *times, *_errors(exactly, fluid))
        print("| " + " | ".join(cells) + " |", flush=True)


def _errors(exactly: Report, fluid: Report) -> tuple[str, ...]:
    tiers = list(zip(exactly.tiers, fluid.tiers, strict=True))
    tier, other = max(tiers, key=lambda two: abs(two[0].slo_met_share - two[1].slo_met_share))
    itl = [
        _ratio(one.itl_s_p99, two.itl_s_p99)
        for one, two in zip(exactly.models, fluid.models, strict=True)
    ]
    busy = [
        abs(one.busy_share - two.busy_share)
        for one, two in zip(exactly.groups, fluid.groups, strict=True)
    ]
    refused = [one.refused / one.requests for one in (exactly, fluid)]
    return (
        f"{exactly.slo_met_share:.1%}, {fluid.slo_met_share:.1%}",
        f"{other.slo_met_share - tier.slo_met_share:+.1%} ({tier.model} {tier.tier})",
        f"{fluid.goodput_per_s / max(exactly.goodput_per_s, 1e-9) - 1:+.1%}",
        _worst(_ratio(one.ttft_s_p50, two.ttft_s_p50) for one, two in tiers),
        _worst(_ratio(one.ttft_s_p95, two.ttft_s_p95) for one, two in tiers),
        _worst(_ratio(one.tpot_s_p50, two.tpot_s_p50) for one, two in tiers),
        _worst(iter(itl)),
        f"{refused[0]:.1%}, {refused[1]:.1%}",
        f"{max(busy):.1%}",
    )


def _ratio(exactly: float | None, fluid: float | None) -> float:
    return 0.0 if exactly is None or fluid is None else fluid / exactly - 1


def _worst(errors: Iterator[float]) -> str:
    return f"{max(errors, key=abs):+.0%}"


# How far each goes.


def day(fleet: Fleet, scale: float) -> None:
    flow = flow_of_demand(fleet, until_s=86_400.0, scale=scale)
    surfaces = Surfaces()
    for words in ("with the measuring", "again"):
        begin_s = time.perf_counter()
        report = report_of(simulate_fluid(scenario_of(fleet), flow, surfaces=surfaces), trace="")
        seconds = time.perf_counter() - begin_s
        print(f"{report.requests:,} requests in {seconds:.1f} s, {words}; {_rss()}", flush=True)


def exact(fleet: Fleet, requests: int) -> None:
    scale = 2.0
    rate = sum(one.requests_per_s for one in fleet.demand) * scale
    for words, change in (("without blocks", without_blocks), ("with blocks", lambda trace: trace)):
        trace = trace_of_demand(fleet, seed=0, until_s=requests / rate, scale=scale)
        begin_s = time.perf_counter()
        ran = simulate(scenario_of(fleet), change(trace))
        seconds = time.perf_counter() - begin_s
        print(
            f"{ran.requests:,} requests in {seconds:.1f} s, {words}: "
            f"{ran.requests / seconds:,.0f}/s; {_rss()}",
            flush=True,
        )


def _rss() -> str:
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB at the most"


if __name__ == "__main__":
    main()
