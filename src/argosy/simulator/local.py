"""Replicas of one machine in virtual time: each is slower while the others work.

`serving.simulate` takes every replica to have chips of its own. Replicas of one machine share its
cores, caches and memory; how much slower one is while all the others work is measured (`slowdown`
of a local calibration, in `Group.slowdown`). Here the speed of each follows what the others do,
from one event to the next; between none and all of them busy it changes in proportion. What
programs beside the fleet take of the cores can be given (`Background`): to replay what was measured
on a machine that was not idle. Losses are not simulated here.
"""

import bisect
import math
from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.simulator import driver
from argosy.simulator.engine import next_event_s, set_speed
from argosy.simulator.engine.heap import reschedule
from argosy.simulator.engine.kernels import kernel
from argosy.simulator.engine.state import DUE, STEPPING, State
from argosy.simulator.scenario import Scenario
from argosy.simulator.serving import Ran, Run
from argosy.simulator.traces.window import Trace, Window, part

_AFTER_S = 1e-9  # after an event, when what it starts has started
_CORES_LEFT_MIN = 0.1  # nobody is starved


class Background(msgspec.Struct, frozen=True, kw_only=True):
    """What programs beside the fleet took of the machine, measured while it ran."""

    cores: int  # of the machine
    threads: int  # of a replica
    until_s: tuple[float, ...]  # rises; each stretch ends there
    used_cores: tuple[float, ...]  # in each stretch, on average

    def slowness(self, at_s: float, replicas_busy: int) -> float:
        """Of each busy replica: together they have the cores that were left."""
        place = bisect.bisect_right(self.until_s, at_s)
        if place == len(self.until_s):
            return 1.0
        left = max(_CORES_LEFT_MIN, self.cores - self.used_cores[place])
        return max(1.0, replicas_busy * self.threads / left)

    def next_s(self, at_s: float) -> float:
        """When the stretch that holds at `at_s` ends."""
        place = bisect.bisect_right(self.until_s, at_s)
        return self.until_s[place] if place < len(self.until_s) else math.inf


class SharedRan(msgspec.Struct, frozen=True, kw_only=True):
    """What a simulation leaves, and every single result."""

    ran: Ran
    results: NDArray[np.void]  # outcomes.RESULT, in the order in which they ended
    on_core_s: float  # for which replicas had their cores, summed over replicas


def shares_a_machine(scenario: Scenario) -> bool:
    """Whether replicas of this fleet slow each other down."""
    return any(group.slowdown > 1.0 and group.replicas > 1 for group in scenario.groups)


def simulate_shared(
    scenario: Scenario, trace: Trace, *, background: Background | None = None, seed: int = 0
) -> SharedRan:
    """Replay `trace`. For small fleets: each event of a replica goes through Python."""
    run = Run(scenario, trace, seed=seed)
    machine = _Machine(run, background)
    results: list[NDArray[np.void]] = []
    for window in trace.windows():
        for one in _rows(window):
            machine.run_until(float(one.arrival_s[0]))
            results.append(_ended(run))
            run.feed(one)
            machine.share()
    while run.sim.book.marks[0]["alive"]:
        machine.run_until(run.sim.book.marks[0]["now_s"] + driver.SWEEP_S)
    results.append(_ended(run))
    return SharedRan(ran=run.finish(), results=np.concatenate(results), on_core_s=machine.on_core_s)


def _rows(window: Window) -> Iterator[Window]:
    for row in range(window.rows):
        yield part(window, row, row + 1)


def _ended(run: Run) -> NDArray[np.void]:
    """Results that have come since the last window was fed, which reads them."""
    book = run.sim.book
    return book.results[: int(book.marks[0]["ended"])].copy()


class _Machine:
    """All replicas, on one machine."""

    def __init__(self, run: Run, background: Background | None) -> None:
        self._sim = run.sim
        self._background = background
        groups = run.scenario.groups
        of = self._sim.engine.replicas["group"]
        self._most = np.array([group.slowdown for group in groups])[of]
        self._slowness = np.ones(of.size)
        self._since_s = self._on_core = 0.0  # replicas, each for the share that it has
        self.on_core_s = 0.0

    @property
    def _now_s(self) -> float:
        return float(self._sim.book.marks[0]["now_s"])

    def run_until(self, until_s: float) -> None:
        """All that happens up to then, each event at the speeds that hold until it."""
        while True:
            at_s = next_event_s(self._sim.engine) + _AFTER_S
            if self._background is not None:
                at_s = min(at_s, self._background.next_s(self._now_s))
            driver.run_until(self._sim, min(at_s, until_s))
            self.share()
            if at_s >= until_s:
                return

    def share(self) -> None:
        """Speeds as they are from now on."""
        rows = self._sim.engine.replicas
        is_busy = (rows["phase"] == STEPPING) | (rows["phase"] == DUE)
        others = (is_busy.sum() - is_busy) / max(1, rows.size - 1)
        wanted = 1.0 + (self._most - 1.0) * others
        now_s, starved = self._now_s, 1.0
        if self._background is not None:
            starved = self._background.slowness(now_s, int(is_busy.sum()))
        wanted *= starved
        self.on_core_s += self._on_core * (now_s - self._since_s)
        self._since_s, self._on_core = now_s, float(is_busy.sum()) / starved
        for replica in np.flatnonzero(wanted != self._slowness):
            _slow_down(self._sim.engine, replica, wanted[replica], now_s)
        self._slowness = wanted


@kernel
def _slow_down(state: State, replica: int, slowness: float, at_s: float) -> None:
    """It takes `slowness` times as long from now on; so does the rest of a step in flight.

    Of several decodes in flight, the one under way still ends as it began.
    """
    it = state.replicas[replica]
    before = it.slowness
    set_speed(state, replica, 1.0 / slowness, at_s)
    if it.phase == STEPPING and it.steps == 1 and it.chunk_tokens > 0 and it.end_s > at_s:
        it.end_s = at_s + (it.end_s - at_s) * slowness / before
        it.step_s = it.end_s - it.start_s
        reschedule(state, replica)
