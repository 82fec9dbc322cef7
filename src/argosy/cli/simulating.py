"""The runs behind `argosy simulate`: what was asked, as scenarios and traces, and their reports.

Progress goes to stderr. An answer is a run with the predicted step times and, for the interval,
one with each end of it; a sweep is a run for each scale.
"""

import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import typer
from msgspec.structs import replace

from argosy.cli.state import default_state_dir
from argosy.fleet.config import Fleet
from argosy.perf.local import FILE, UnreadableLocalCalibrationError, load_local
from argosy.planner.capacity.sustained import sustained
from argosy.policies.routing import POLICIES
from argosy.simulator.demanded import busiest_hour, trace_of_demand
from argosy.simulator.fluid.flow import Flow, flow_of_demand, flow_of_trace
from argosy.simulator.fluid.running import Surfaces, simulate_fluid
from argosy.simulator.local import shares_a_machine, simulate_shared
from argosy.simulator.report import Report, report_of
from argosy.simulator.scaling import PolicyScaler
from argosy.simulator.scenario import (
    ROUND_TRIP_S_ASSUMED,
    START_S_ASSUMED,
    Scenario,
    ScenarioError,
    loss_of,
    refuse_impossible,
    round_trips_assumed,
    scenario_of,
)
from argosy.simulator.serving import Case, is_compiled, simulate
from argosy.simulator.traces import (
    UNNAMED,
    Trace,
    TraceError,
    assign,
    open_trace,
    scale,
    until,
)

REFUSALS = (ScenarioError, TraceError, UnreadableLocalCalibrationError)
SCALE_MAX = 1e6
DEMAND_S = 3600.0  # of the fleet file's demand, where nothing else is asked
SWEEP_REQUESTS = 300_000  # of one row, about: the more users, the shorter the time
SWEEP_S_MIN, SWEEP_S_MAX = 120.0, 3600.0

_NAMED_MAX = 3
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
    is_sorted: bool = True  # the trace
    zero_as_one: bool = False  # its answers of no token
    is_fluid: bool = False  # measured loads and rates between them, not every request


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
    remarks: tuple[str, ...] = ()  # what was assumed


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
    _check_options(asked)
    scenario = scenario_of(fleet, local=load_local(default_state_dir() / FILE))
    if shares_a_machine(scenario) and (asked.lose or asked.is_fluid):
        raise ScenarioError(
            "replicas that share this machine are simulated request by request, without losses "
            "and not as a fluid. Leave out --lose and --mode."
        )
    if asked.is_fluid and _is_scaled(scenario):
        raise ScenarioError(
            "--mode fluid knows no autoscaling: its replicas stay as many. Leave out --mode, or "
            "remove autoscale from the deployments."
        )
    if asked.trace is None and not fleet.demand:
        raise ScenarioError(
            f"fleet {fleet.fleet} has no demand section, so there is nothing to replay. Name a "
            "trace (--trace FILE), or write what clients ask for under demand:"
        )
    scenario = replace(scenario, losses=tuple(loss_of(text, scenario) for text in asked.lose))
    _check_losses(scenario, asked)
    from_hour = None
    if asked.trace is None:
        from_hour = busiest_hour(fleet) if asked.from_hour is None else asked.from_hour
    question = Question(asked=asked, scenario=scenario, from_hour=from_hour)
    _check_promises(question)
    return question


def _check_options(asked: Asked) -> None:
    if asked.until_s is not None and not 0 < asked.until_s < math.inf:
        raise ScenarioError(f"--until {asked.until_s:g} is no time. Write seconds above 0.")
    if not 0 < asked.scale < SCALE_MAX:
        raise ScenarioError(
            f"--scale {asked.scale:g} is not possible. Write a number above 0 and below "
            f"{SCALE_MAX:,.0f}."
        )
    if asked.origin is not None and not re.fullmatch(r"[^/\s]+/[^/\s]+", asked.origin):
        raise ScenarioError(
            f'--origin "{asked.origin}" is no region. Write cloud/region, aws/us-east-1 say.'
        )
    if asked.trace is not None:
        if asked.from_hour is not None:
            raise ScenarioError(
                "--from-hour is about the fleet file's demand; --trace has times of its own. "
                "Remove one of them."
            )
        return
    for name, value in (("--model", asked.model), ("--origin", asked.origin)):
        if value is not None:
            raise ScenarioError(
                f"{name} says whose requests a trace's are; the fleet file's demand says it "
                "itself. Name a trace (--trace FILE), or remove it."
            )
    if not asked.is_sorted:
        raise ScenarioError("--sort is about a trace. Name one (--trace FILE), or remove it.")
    if asked.zero_as_one:
        raise ScenarioError("--zero-as-one is about a trace. Name one (--trace FILE).")


def check_sweep(asked: Asked, *, has_plot: bool) -> None:
    """What a sweep has no use for. Raises ScenarioError."""
    if asked.scale != 1.0:
        raise ScenarioError(
            f"--sweep has scales of its own, and --scale {asked.scale:g} is another. Remove one."
        )
    if has_plot:
        raise ScenarioError(
            "--plot draws one run, and --sweep makes many. Remove one, or draw a scale: --scale 10"
        )


def _check_losses(scenario: Scenario, asked: Asked) -> None:
    """A loss after the end would change nothing; of a whole trace, the end is not known yet."""
    end_s = asked.until_s
    if end_s is None and asked.trace is None:
        end_s = DEMAND_S
    for loss in scenario.losses:
        if end_s is not None and loss.at_s >= end_s:
            raise ScenarioError(
                f"--lose {loss.text} begins when all is over: the last requests come at "
                f"{end_s:g} s. Begin sooner, or simulate longer (--until SECONDS)."
            )


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
    trace = open_trace(
        asked.trace,
        sort=not asked.is_sorted,
        zero_output_as_one=asked.zero_as_one,
        seed=asked.seed,
    )
    trace = _named(question, trace)
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
    if trace.origins == (UNNAMED,) or asked.origin is not None:
        origin = asked.origin or scenario.groups[0].region
        trace = assign(trace, seed=asked.seed, origins={origin: 1.0})
    return trace


def answer(question: Question, *, with_interval: bool) -> Answer:
    """One run, or three."""
    _say_if_it_compiles(question)
    trace = trace_of(question, scaled=question.asked.scale, seconds=question.asked.until_s)
    remarks = (*_far(question.scenario, trace), *_starts(question.scenario))
    expected = _run(question, trace, "expected", "simulating")
    if not with_interval or shares_a_machine(question.scenario):
        return Answer(expected=expected, remarks=remarks)
    return Answer(
        expected=expected,
        remarks=remarks,
        fast=_run(question, trace, "fast", "with the fastest steps of the interval"),
        slow=_run(question, trace, "slow", "with the slowest steps of the interval"),
    )


def _far(scenario: Scenario, trace: Trace) -> Iterator[str]:
    pairs = round_trips_assumed(scenario, trace.origins)
    if pairs:
        more = f" and {len(pairs) - _NAMED_MAX:,} more" if len(pairs) > _NAMED_MAX else ""
        yield (
            f"Assumed: a round trip of {ROUND_TRIP_S_ASSUMED:g} s for "
            f"{', '.join(pairs[:_NAMED_MAX])}{more}. Yours go into the fleet file: links."
        )


def _starts(scenario: Scenario) -> Iterator[str]:
    for loss in scenario.losses:
        if loss.until_s is None:
            continue
        starts_s = {
            group.start_s for group in scenario.groups if group.domain(loss.kind) == loss.name
        }
        told = f"{min(starts_s):g}" + (f" to {max(starts_s):g}" if len(starts_s) > 1 else "")
        yield (
            f"After {loss.text} replicas start anew, in {told} s: the pool's start_s, "
            f"{START_S_ASSUMED:g} where it has none."
        )


def _run(question: Question, trace: Trace, case: Case, words: str) -> Report:
    asked = question.asked
    if asked.is_fluid:
        with _fluid_progress(words) as surfaces:
            return _run_fluid(question, asked.scale, asked.until_s, case, surfaces)
    total_s = (asked.until_s or DEMAND_S) if asked.trace is None else asked.until_s
    if shares_a_machine(question.scenario):
        ran = simulate_shared(question.scenario, trace, seed=asked.seed).ran
        return report_of(ran, trace=_found(question, trace))
    with _progress(words, total_s) as told:
        ran = simulate(
            question.scenario,
            trace,
            case=case,
            seed=asked.seed,
            progress=told,
            scaler=_scaler(question.scenario, trace),
        )
    return report_of(ran, trace=_found(question, trace))


def _is_scaled(scenario: Scenario) -> bool:
    return any(group.autoscale is not None for group in scenario.groups)


def _scaler(scenario: Scenario, trace: Trace) -> PolicyScaler | None:
    """The autoscaling policy, where a deployment has bounds, with what its replicas sustain."""
    return PolicyScaler(sustained(scenario, trace)) if _is_scaled(scenario) else None


def _run_fluid(
    question: Question, scaled: float, seconds: float | None, case: Case, surfaces: Surfaces
) -> Report:
    flow, seed = _flow_of(question, scaled, seconds), question.asked.seed
    ran = simulate_fluid(question.scenario, flow, case=case, seed=seed, surfaces=surfaces)
    return report_of(ran, trace=_found(question, flow))


def _flow_of(question: Question, scaled: float, seconds: float | None) -> Flow:
    if question.asked.trace is not None:
        trace = trace_of(question, scaled=1.0, seconds=seconds)
        return flow_of_trace(trace, scale=scaled, seed=question.asked.seed)
    hour, until_s = question.from_hour or 0, seconds or DEMAND_S
    return flow_of_demand(question.scenario.fleet, until_s=until_s, from_hour=hour, scale=scaled)


def _found(question: Question, demand: Trace | Flow) -> str:
    hour, found = question.from_hour, demand.found
    since = "" if hour is None else f", from {hour:02}:00 UTC"
    how = "fluid: samples and rates" if isinstance(demand, Flow) else "exact: every request"
    return f"{found}{since}; {how}"


def sweep(question: Question, scales: Sequence[float]) -> tuple[SweepRow, ...]:
    """The fleet as it is under so many times the demand."""
    _say_if_it_compiles(question)
    if question.asked.is_fluid:
        return _sweep_fluid(question, scales)
    rows: list[SweepRow] = []
    for scaled in scales:
        seconds = question.asked.until_s or _sweep_s(question, scaled)
        trace = trace_of(question, scaled=scaled, seconds=seconds)
        if shares_a_machine(question.scenario):
            ran = simulate_shared(question.scenario, trace, seed=question.asked.seed).ran
        else:
            with _progress(f"scale {scaled:g}", seconds) as told:
                scaler = _scaler(question.scenario, trace)
                ran = simulate(
                    question.scenario,
                    trace,
                    seed=question.asked.seed,
                    progress=told,
                    scaler=scaler,
                )
        rows.append(SweepRow(scale=scaled, report=report_of(ran, trace=_found(question, trace))))
    return tuple(rows)


def _sweep_fluid(question: Question, scales: Sequence[float]) -> tuple[SweepRow, ...]:
    """The largest first: what is measured for it serves the others."""
    reports: dict[float, Report] = {}
    seconds = question.asked.until_s
    with _fluid_progress("measuring") as surfaces:
        for scaled in sorted(scales, reverse=True):
            reports[scaled] = _run_fluid(question, scaled, seconds, "expected", surfaces)
    return tuple(SweepRow(scale=scaled, report=reports[scaled]) for scaled in scales)


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
    if name != "scale" or not scales or not all(0 < value < SCALE_MAX for value in scales):
        raise ScenarioError(f'--sweep "{text}" is not a sweep. Write: --sweep scale=1,2,5,10')
    return scales


def _say_if_it_compiles(question: Question) -> None:
    """A word before a long silence, into a log as well."""
    if not is_compiled(with_losses=bool(question.scenario.losses)):
        typer.echo("compiling the simulator: about a minute, the first time only", err=True)


@contextmanager
def _fluid_progress(words: str) -> Iterator[Surfaces]:
    """What is being measured, where stderr is a terminal."""
    from rich.console import Console

    with Console(file=sys.stderr).status(words) as status:
        yield Surfaces(told=lambda told: status.update(f"{words}: {told}"))


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
        task = bar.add_task(words, total=total_s, told="")
        yield lambda at_s, requests: bar.update(
            task, completed=at_s, told=f"{at_s:,.0f} s, {requests:,} requests"
        )
