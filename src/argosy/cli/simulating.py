"""The runs behind `argosy simulate`: what was asked, as scenarios and traces, and their reports.

Progress goes to stderr. An answer is a run with the predicted step times and, for the interval,
one with each end of it; a sweep is a run for each scale.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec.structs import replace

from argosy.fleet.config import Fleet
from argosy.policies.routing import POLICIES
from argosy.simulator.demanded import busiest_hour, trace_of_demand
from argosy.simulator.report import Report, report_of
from argosy.simulator.scenario import (
    Scenario,
    ScenarioError,
    loss_of,
    refuse_impossible,
    scenario_of,
)
from argosy.simulator.serving import Case, simulate
from argosy.simulator.traces import (
    UNNAMED,
    Trace,
    TraceError,
    assign,
    open_trace,
    scale,
    until,
)

REFUSALS = (ScenarioError, TraceError)
DEMAND_S = 3600.0  # of the fleet file's demand, where nothing else is asked
SWEEP_REQUESTS = 1_000_000  # of one row, about: the more users, the shorter the time
SWEEP_S_MIN, SWEEP_S_MAX = 120.0, 3600.0

_Told = Callable[[float, int], None]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the command."""

    file: str
    trace: Path | None
    model: str | None
    origin: str | None
    scale: float
    lose: tuple[str, ...]
    until_s: float | None
    from_hour: int | None
    policy: str | None
    seed: int


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be simulated."""

    asked: Asked
    scenario: Scenario
    from_hour: int | None  # of the demand; None: a trace


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The reports; `fast` and `slow` are the ends of the step times' 80 % interval."""

    expected: Report
    fast: Report | None = None
    slow: Report | None = None


class SweepRow(msgspec.Struct, frozen=True, kw_only=True):
    """One scale of a sweep."""

    scale: float
    report: Report


def question_of(fleet: Fleet, asked: Asked) -> Question:
    """Raises ScenarioError and TraceError where it cannot be answered."""
    if asked.policy is not None:
        if asked.policy not in POLICIES:
            raise ScenarioError(
                f'--policy "{asked.policy}" is no routing policy. They are: {", ".join(POLICIES)}'
            )
        fleet = replace(fleet, gateway=replace(fleet.gateway, routing=asked.policy))
    if asked.until_s is not None and not asked.until_s > 0:
        raise ScenarioError(f"--until {asked.until_s:g} is no time. Write seconds above 0.")
    if not 0 < asked.scale < 1e6:
        raise ScenarioError(f"--scale {asked.scale:g} is not possible. Write a number above 0.")
    if asked.trace is None and not fleet.demand:
        raise ScenarioError(
            f"fleet {fleet.fleet} has no demand section, so there is nothing to replay. Name a "
            "trace (--trace FILE), or write what clients ask for under demand:"
        )
    scenario = scenario_of(fleet)
    scenario = replace(scenario, losses=tuple(loss_of(text, scenario) for text in asked.lose))
    from_hour = None
    if asked.trace is None:
        from_hour = busiest_hour(fleet) if asked.from_hour is None else asked.from_hour
    question = Question(asked=asked, scenario=scenario, from_hour=from_hour)
    _check_promises(question)
    return question


def _check_promises(question: Question) -> None:
    """A promise that an idle replica breaks is a mistake, not a result."""
    fleet = question.scenario.fleet
    for model in fleet.models:
        asked = [one for one in fleet.demand if one.model == model.name]
        told = refuse_impossible(
            question.scenario,
            model=model.name,
            prompt_tokens=min((one.prompt_tokens.mean for one in asked), default=1.0),
            origins=[one.origin for one in asked],
        )
        if told:
            raise ScenarioError(told)


def trace_of(question: Question, *, scaled: float, seconds: float | None) -> Trace:
    """The demand to replay."""
    asked, fleet = question.asked, question.scenario.fleet
    if asked.trace is None:
        return trace_of_demand(
            fleet,
            seed=asked.seed,
            until_s=seconds or DEMAND_S,
            from_hour=question.from_hour or 0,
            scale=scaled,
        )
    trace = _named(question, open_trace(asked.trace, seed=asked.seed))
    if seconds is not None:
        trace = until(trace, seconds)
    return trace if scaled == 1.0 else scale(trace, scaled, seed=asked.seed)


def _named(question: Question, trace: Trace) -> Trace:
    """Names for what the trace does not say."""
    asked, scenario = question.asked, question.scenario
    model = asked.model or (scenario.models[0] if len(scenario.models) == 1 else None)
    if asked.model is not None and asked.model not in scenario.models:
        raise ScenarioError(
            f'--model "{asked.model}" is not a model of this fleet, which has '
            f"{', '.join(scenario.models)}."
        )
    if trace.models == (UNNAMED,) and model is None:
        raise ScenarioError(
            f"{trace.found}: it does not say which model, and this fleet has "
            f"{', '.join(scenario.models)}. Say it: --model {scenario.models[0]}"
        )
    if model is not None and (trace.models == (UNNAMED,) or asked.model is not None):
        trace = assign(trace, seed=asked.seed, models={model: 1.0})
    if trace.tenants == (UNNAMED,):
        first = next(
            (one for one in scenario.fleet.tenants if one.tier == "consumer"),
            scenario.fleet.tenants[0],
        )
        trace = assign(trace, seed=asked.seed, tenants={first.name: 1.0})
    if trace.origins == (UNNAMED,):
        origin = asked.origin or scenario.groups[0].region
        trace = assign(trace, seed=asked.seed, origins={origin: 1.0})
    return trace


def answer(question: Question, *, with_interval: bool) -> Answer:
    """One run, or three."""
    expected = _run(question, "expected", "simulating")
    if not with_interval:
        return Answer(expected=expected)
    return Answer(
        expected=expected,
        fast=_run(question, "fast", "with the fastest steps of the interval"),
        slow=_run(question, "slow", "with the slowest steps of the interval"),
    )


def _run(question: Question, case: Case, words: str) -> Report:
    asked = question.asked
    trace = trace_of(question, scaled=asked.scale, seconds=asked.until_s)
    total_s = (asked.until_s or DEMAND_S) if asked.trace is None else asked.until_s
    with _progress(words, total_s) as told:
        ran = simulate(question.scenario, trace, case=case, seed=asked.seed, progress=told)
    return report_of(ran, trace=trace.found)


def sweep(question: Question, scales: Sequence[float]) -> tuple[SweepRow, ...]:
    """The fleet as it is under so many times the demand."""
    rows: list[SweepRow] = []
    for scaled in scales:
        seconds = question.asked.until_s or _sweep_s(question, scaled)
        trace = trace_of(question, scaled=scaled, seconds=seconds)
        with _progress(f"scale {scaled:g}", seconds) as told:
            ran = simulate(question.scenario, trace, seed=question.asked.seed, progress=told)
        rows.append(SweepRow(scale=scaled, report=report_of(ran, trace=trace.found)))
    return tuple(rows)


def _sweep_s(question: Question, scaled: float) -> float | None:
    if question.asked.trace is not None:
        return None
    per_s = sum(one.requests_per_s for one in question.scenario.fleet.demand) * scaled
    return min(SWEEP_S_MAX, max(SWEEP_S_MIN, SWEEP_REQUESTS / per_s))


def scales_of(text: str) -> tuple[float, ...]:
    """`scale=1,2,5` as numbers. Raises ScenarioError."""
    name, _, values = text.partition("=")
    try:
        scales = tuple(float(value) for value in values.split(","))
    except ValueError:
        scales = ()
    if name != "scale" or not scales or not all(0 < value < 1e6 for value in scales):
        raise ScenarioError(f'--sweep "{text}" is not a sweep. Write: --sweep scale=1,2,5,10')
    return scales


@contextmanager
def _progress(words: str, total_s: float | None) -> Iterator[_Told]:
    """A bar of the trace's seconds, where stderr is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr)
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
    )  # fmt: skip
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        first = "compiling, the first time about a minute"
        task = bar.add_task(words, total=total_s, told=first)
        yield lambda at_s, requests: bar.update(
            task, completed=at_s, told=f"{at_s:,.0f} s, {requests:,} requests"
        )
