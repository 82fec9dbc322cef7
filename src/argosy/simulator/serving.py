"""A fleet answers a trace in virtual time: what came of every request, and how it stood meanwhile.

Owns the making of the arrays and the feeding of a trace's windows, with losses between them.
Memory is that of a window, of the requests alive and of the tallies, however long the trace.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.policies.admission.bounds import BYTES_PER_TOKEN
from argosy.simulator import driver
from argosy.simulator.driver import ALIVE, LOST_REQUEST, MARKS, SAMPLE, SAMPLES_MAX, TODO, Columns
from argosy.simulator.engine import (
    Account,
    EngineRefusedError,
    ReplicaGroup,
    State,
    account,
    build,
    itl_counts,
    use_hashes,
)
from argosy.simulator.engine.state import STEPPING
from argosy.simulator.gateway.state import Gateway, Limits, SimulatedReplica, gateway_of, rules_of
from argosy.simulator.outcomes import RESULT
from argosy.simulator.scaling import Scaled, Scaler, Scaling, at_most
from argosy.simulator.scenario import Group, Scenario, ScenarioError, slowed
from argosy.simulator.tally import Tally
from argosy.simulator.traces.window import Trace, Window

DETECT_S = 1.5  # until a dead replica is noticed: what the live prober takes at most
DRAIN_S_MAX = 4 * 3600.0  # after the last arrival; who is not done by then ends unserved
SAMPLE_S = 1.0  # at first; wider as the simulation gets longer
_SLOTS_SPARE = 4096
_NO_ROWS = np.zeros(0, np.int64)
_NO_HASHES = np.zeros(0, np.uint64)

Case = Literal["expected", "fast", "slow"]
Progress = Callable[[float, int], None]  # seconds of the trace, requests fed so far


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """All that a simulation leaves."""

    scenario: Scenario
    tally: Tally
    samples: NDArray[np.void]  # driver.SAMPLE [time, group]
    accounts: tuple[Account, ...]  # by group
    itl: tuple[NDArray[np.int64], ...]  # gaps by bin, by group
    end_s: float  # virtual, of the last answer
    fed_s: float  # of the last arrival
    requests: int
    busy_s_arriving: tuple[float, ...] | None = None  # by group, up to the last arrival
    scaled: tuple[Scaled, ...] | None = None  # by group, where a scaler set how many replicas
    origins: tuple[str, ...] = ()  # of the trace


class _Change(msgspec.Struct, frozen=True, kw_only=True):
    at_s: float
    kind: int  # 0 dies, 1 is noticed, 2 joins
    replicas: NDArray[np.int64]


def simulate(
    scenario: Scenario,
    trace: Trace,
    *,
    case: Case = "expected",
    seed: int = 0,
    progress: Progress | None = None,
    scaler: Scaler | None = None,
) -> Ran:
    """Replay `trace` on the fleet, its steps as predicted or at an end of their 80 % interval.

    With a scaler, groups that have `autoscale` follow its decisions within these bounds.

    Raises ScenarioError where the trace asks for what the fleet does not have, TraceError where it
    cannot be read.
    """
    run = Run(scenario, trace, case=case, seed=seed, scaler=scaler)
    for window in trace.windows():
        run.feed(window)
        if progress is not None:
            progress(run.fed_s, run.requests)
    return run.finish()


def is_compiled(*, with_losses: bool = False) -> bool:
    """Whether the driver's machine code is kept on this disk; else a minute passes before it is.

    What only scaling calls is left out: a run may never need it, and would never have it compiled.
    """
    functions = [driver.feed, driver.drain, driver.replicas_join]
    if with_losses:
        functions += [driver.replicas_die, driver.deaths_are_noticed]
    for function in functions:
        cache = getattr(function, "_cache", None)  # none where numba is told to compile nothing
        file = getattr(cache, "_cache_file", None)
        # numba forgets what is kept of another text, of another numba or of another Python
        if file is not None and not file._load_index():
            return False
    return True


class Run:
    """One simulation under way: `simulate` by hand, for who wants to look inside."""

    def __init__(
        self,
        scenario: Scenario,
        trace: Trace,
        *,
        case: Case = "expected",
        seed: int = 0,
        scaler: Scaler | None = None,
    ) -> None:
        begins = tuple(group.replicas for group in scenario.groups)
        self.scenario = scenario = scenario if scaler is None else at_most(scenario)
        self.requests, self.fed_s = 0, 0.0
        self._origins = trace.origins
        self._maps = _maps(scenario, trace)
        self.tally = Tally(slos_s(scenario))
        self.sim = _sim(scenario, trace, case=case, seed=seed)
        self._group_of = self.sim.engine.replicas["group"]
        self._scaling = None if scaler is None else Scaling(scaler, scenario, self.sim, begins)
        everything = np.arange(self._group_of.size)
        if self._scaling is not None:
            everything = self._scaling.standing()
        driver.replicas_join(self.sim, everything, 0.0)
        self._changes = sorted(self._losses(), key=lambda change: (change.at_s, change.kind))

    def _losses(self) -> Iterator[_Change]:
        for place in range(len(self.scenario.groups)):
            replicas = np.flatnonzero(self._group_of == place)
            for gone_s, back_s in outages(self.scenario, place):
                yield _Change(at_s=gone_s, kind=0, replicas=replicas)
                noticed_s = gone_s + DETECT_S if gone_s > 0 else 0.0  # at 0 it never was there
                yield _Change(at_s=noticed_s, kind=1, replicas=replicas)
                if back_s < math.inf:
                    yield _Change(at_s=back_s, kind=2, replicas=replicas)

    def feed(self, window: Window) -> None:
        """A window's arrivals, and what changes meanwhile."""
        rows = window.rows
        if not rows:
            return
        self._make_room(rows)
        columns = self._columns(window)
        begin = 0
        last_s = float(window.arrival_s[rows - 1])
        while (at_s := self._next_s()) <= last_s:
            end = int(np.searchsorted(window.arrival_s, at_s))
            driver.feed(self.sim, columns, begin, end)
            self._see(columns, begin, end)
            begin = end
            self._change()
        driver.feed(self.sim, columns, begin, rows)
        self._see(columns, begin, rows)
        self.requests += rows
        self.fed_s = last_s
        self.read_results()

    def _next_s(self) -> float:
        """When replicas are gone, noticed, back, or looked at by the scaler."""
        change_s = self._changes[0].at_s if self._changes else math.inf
        return change_s if self._scaling is None else min(change_s, self._scaling.next_s)

    def _see(self, columns: Columns, begin: int, end: int) -> None:
        """What a scaler may know of the requests that came."""
        if self._scaling is not None and end > begin:
            self._scaling.arrive(columns, begin, end)

    def _change(self) -> None:
        """The next of them; a loss before the scaler's look at the same second."""
        at_s, scaling = self._next_s(), self._scaling
        driver.run_until(self.sim, at_s)
        if not self._changes or self._changes[0].at_s > at_s:
            assert scaling is not None, "nobody else looks"
            scaling.tick(at_s)
            return
        change = self._changes.pop(0)
        replicas = change.replicas
        if scaling is not None:
            replicas = scaling.lost_or_back(replicas, change.kind, at_s)
        act = (driver.replicas_die, driver.deaths_are_noticed, driver.replicas_join)[change.kind]
        act(self.sim, replicas, at_s)

    def finish(self) -> Ran:
        """Let all that is under way end."""
        marks = self.sim.book.marks[0]
        busy_s = self._busy_s()
        end_s = math.inf if self._scaling is None else self.fed_s + DRAIN_S_MAX  # it never ends
        while (at_s := self._next_s()) < math.inf and at_s <= end_s and marks["alive"]:
            driver.drain(self.sim, at_s)
            if marks["alive"]:
                self._change()
            self.read_results()
        driver.drain(self.sim, self.fed_s + DRAIN_S_MAX)
        driver.give_up(self.sim)
        self.read_results()
        engine, book = self.sim.engine, self.sim.book
        groups = range(len(self.scenario.groups))
        return Ran(
            scenario=self.scenario,
            tally=self.tally,
            samples=book.samples[: int(marks["samples"])].copy(),
            accounts=tuple(account(engine, self._group_of == place) for place in groups),
            itl=tuple(itl_counts(engine, place) for place in groups),
            end_s=float(marks["now_s"]),
            fed_s=self.fed_s,
            requests=self.requests,
            busy_s_arriving=busy_s,
            origins=self._origins,
            scaled=None if self._scaling is None else self._scaling.scaled(self.fed_s),
        )

    def _busy_s(self) -> tuple[float, ...]:
        """Of each group until now, with what has passed of the steps in flight."""
        rows = self.sim.engine.replicas
        begun_s = self.sim.book.marks[0]["now_s"] - rows["start_s"]
        busy_s = rows["busy_s"] + np.where(rows["phase"] == STEPPING, begun_s, 0.0)
        groups = len(self.scenario.groups)
        return tuple(np.bincount(self._group_of, busy_s, minlength=groups).tolist())

    def _columns(self, window: Window) -> Columns:
        models, tenants, origins = self._maps
        offsets = _NO_ROWS
        if window.block_offsets is not None and window.block_hashes is not None:
            kept = self._keep_hashes(window.block_hashes)
            offsets = window.block_offsets + kept
        return Columns(
            window.arrival_s,
            window.prompt_tokens,
            window.output_tokens,
            models[window.model],
            window.tier,
            tenants[window.tenant],
            origins[window.origin],
            window.session,
            offsets,
        )

    def _keep_hashes(self, hashes: NDArray[np.uint64]) -> int:
        """Those of the requests alive first, then these; where these begin."""
        engine, gateway, book = self.sim
        slots = np.flatnonzero(book.alive["is_alive"])
        alive = book.alive
        begins, counts = alive["hash_from"][slots], alive["hash_until"][slots]
        counts = counts - begins
        total = int(counts.sum())
        moved = np.cumsum(counts) - counts
        places = np.repeat(begins - moved, counts) + np.arange(total)
        kept = np.concatenate([engine.hashes[places], hashes]) if total else hashes
        alive["hash_from"][slots], alive["hash_until"][slots] = moved, moved + counts
        engine.requests["hash_from"][slots] = moved
        gateway.placed["blocks_begin"][slots] = moved
        gateway.placed["blocks_end"][slots] = moved + counts
        gateway.replace(blocks=kept)
        use_hashes(engine, kept)
        return total

    def _make_room(self, rows: int) -> None:
        """A window may end all that is alive and all of its own rows."""
        marks = self.sim.book.marks[0]
        if int(marks["free"]) < rows:
            raise ScenarioError(
                f"{int(marks['alive'])} requests are under way at once, more than the fleet's "
                "slots and queues can hold; this is a mistake of the simulator."
            )

    def read_results(self) -> None:
        marks = self.sim.book.marks[0]
        if self._scaling is not None:
            self._scaling.read_results()
        self.tally.absorb(self.sim.book.results[: int(marks["ended"])])
        marks["ended"] = 0


def outages(scenario: Scenario, place: int) -> list[tuple[float, float]]:
    """When a group is gone and when it is ready again (inf: never), apart from each other.

    Losses that overlap are one: who is back from the first while its cloud is still gone is not.
    """
    group = scenario.groups[place]
    spans: list[tuple[float, float]] = []
    for loss in sorted(scenario.losses, key=lambda loss: loss.at_s):
        if group.domain(loss.kind) != loss.name:
            continue
        back_s = math.inf
        if loss.until_s is not None:
            back_s = max(loss.until_s + group.start_s, loss.at_s + DETECT_S)
        if spans and loss.at_s <= spans[-1][1]:
            gone_s, other_s = spans.pop()
            spans.append((gone_s, max(other_s, back_s)))
        else:
            spans.append((loss.at_s, back_s))
    return spans


def _maps(scenario: Scenario, trace: Trace) -> tuple[NDArray[np.int64], ...]:
    """From the trace's numbers of models, tenants and origins to the fleet's."""
    models: Sequence[str] = scenario.models
    if trace.models == ("unnamed",) and len(models) == 1:
        wanted = [0]
    else:
        unknown = sorted(set(trace.models) - set(models))
        if unknown:
            raise ScenarioError(
                f"the trace asks for {', '.join(unknown)}; this fleet has {', '.join(models)}. "
                "Say which model it is: --model NAME"
            )
        wanted = [models.index(name) for name in trace.models]
    tenants = _tenants(scenario, trace)
    return (
        np.array(wanted, np.int64),
        np.array([tenants.index(name) for name in trace.tenants], np.int64),
        np.arange(len(trace.origins), dtype=np.int64),
    )


def _tenants(scenario: Scenario, trace: Trace) -> list[str]:
    return sorted({*trace.tenants, *(tenant.name for tenant in scenario.fleet.tenants)})


def slos_s(scenario: Scenario) -> NDArray[np.float64]:
    """TTFT and ITL promised of each model, inf where nothing is: [model, 2]."""
    rows = [(slo.ttft_s_p95, slo.itl_s_p99) for slo in scenario.slos]
    return np.array([[np.inf if value is None else value for value in row] for row in rows])


def _sim(scenario: Scenario, trace: Trace, *, case: Case, seed: int) -> driver.Sim:
    groups = scenario.groups
    slots = sum(group.replicas * group.engine.requests_max for group in groups)
    waiting = len(scenario.models) * 2 * scenario.fleet.gateway.waiting_max
    # Pages that are never touched cost nothing, so room for all that could be is no waste.
    room = slots + waiting + _SLOTS_SPARE + 2 * 65_536
    engine = _engine(groups, trace, case=case, room=room)
    gateway = _gateway(scenario, trace, room=room, seed=seed)
    return driver.Sim(engine, gateway, _book(scenario, trace, room))


def _engine(groups: Sequence[Group], trace: Trace, *, case: Case, room: int) -> State:
    try:
        return build(
            [
                ReplicaGroup(
                    count=group.replicas,
                    step_time=slowed(group.perf.step_time, _slowness(group, case)),
                    kv_tokens=group.perf.kv_tokens,
                    settings=group.engine,
                )
                for group in groups
            ],
            requests_max_alive=room,
            hash_tokens=trace.block_tokens or 0,
            hashes=_NO_HASHES,
        )
    except EngineRefusedError as error:
        names = ", ".join(f"{place} is {group.name}" for place, group in enumerate(groups))
        raise ScenarioError(f"{error} ({names})") from error


def _slowness(group: Group, case: Case) -> float:
    if case == "expected":
        return 1.0
    interval = group.perf.interval
    return interval.tpot_low if case == "fast" else interval.tpot_high


def _gateway(scenario: Scenario, trace: Trace, *, room: int, seed: int) -> Gateway:
    replicas = [
        SimulatedReplica(
            name=f"{group.name}-{number:06d}",
            model=group.model,
            pool=place,
            slots=group.engine.requests_max,
            price_usd_per_hour=group.price_usd_per_hour or 0.0,
        )
        for place, group in enumerate(scenario.groups)
        for number in range(group.replicas)
    ]
    return gateway_of(
        replicas,
        tenants=_tenants(scenario, trace),
        rules=rules_of(scenario.fleet, seed=seed),
        limits=Limits(
            requests_max=room,
            block_bytes=(trace.block_tokens or 512) * BYTES_PER_TOKEN,
            blocks_max=4096,
        ),
    )


def _book(scenario: Scenario, trace: Trace, room: int) -> driver.Book:
    marks = np.zeros(1, MARKS)
    marks["next_sweep_s"] = driver.SWEEP_S
    marks["sample_s"] = SAMPLE_S
    marks["free"] = room
    attempts_max = scenario.fleet.gateway.attempts_max
    marks["attempts_max"] = attempts_max
    trips = [
        [_trip_s(scenario, origin, group) for group in scenario.groups] for origin in trace.origins
    ]
    return driver.Book(
        marks=marks,
        alive=np.zeros(room, ALIVE),
        slots=np.arange(room - 1, -1, -1, dtype=np.int32),
        results=np.zeros(2 * room, RESULT),
        todo=np.zeros(attempts_max * room, TODO),
        lost=np.zeros(room, LOST_REQUEST),
        killed=np.zeros((room, 2), np.int64),
        samples=np.zeros((SAMPLES_MAX, len(scenario.groups)), SAMPLE),
        trip_s=np.array(trips),
        refusals=np.zeros(sum(group.replicas for group in scenario.groups), np.int64),
        context_tokens=np.array(
            [
                max(group.context_tokens for group in scenario.groups if group.model == model)
                for model in range(len(scenario.models))
            ],
            np.int64,
        ),
    )


def _trip_s(scenario: Scenario, origin: str, group: Group) -> float:
    trip_s = 0.0 if origin == "unnamed" else scenario.round_trip_s(origin, group.region)
    return trip_s + group.perf.overhead_s
