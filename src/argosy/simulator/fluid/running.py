"""A fleet and a flow of demand: what came of a billion requests, from some million simulated ones.

    flow -> mixes to measure -> surfaces (exact, of a cell) -> course over time -> sums (`Ran`)

Memory is that of the surfaces and of some hundred bytes for each stretch of time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from argosy.simulator.fluid.cell import CROWDED_MAX, REPLICAS_MAX, Cell, cell_of
from argosy.simulator.fluid.course import Course, Stretch, course_of
from argosy.simulator.fluid.fill import Filling, Part
from argosy.simulator.fluid.flow import Flow, bucket_s_of
from argosy.simulator.fluid.mixes import Floats, Mixed, mixed
from argosy.simulator.fluid.probe import Asked, Cells, Told, measure
from argosy.simulator.fluid.surface import Blend, Surface, blended
from argosy.simulator.scenario import Scenario, ScenarioError
from argosy.simulator.serving import Case, Ran, outages

_ROOM = 1.05  # a surface is measured to a little more than the highest rate


class Surfaces:
    """What was measured, for more than one run: sweeps ask the same cells."""

    def __init__(self, *, replicas_max: int = REPLICAS_MAX, told: Told | None = None) -> None:
        self.replicas_max = replicas_max
        self._told = told
        self._known: dict[tuple[object, ...], Surface] = {}

    def of(
        self, cells: Cells, asked: Asked, requests_per_s_max: float, *, case: Case, seed: int
    ) -> Surface:
        """Measured now, or before."""
        scenario = cells.free.scenario
        key = (scenario.groups, scenario.slos, scenario.fleet.gateway, asked, case, seed)
        surface = self._known.get(key)
        if surface is None or surface.requests_per_s[-1] < requests_per_s_max:
            surface = measure(
                cells,
                asked,
                requests_per_s_max=requests_per_s_max * _ROOM,
                case=case,
                seed=seed,
                told=self._told,
            )
            self._known[key] = surface
        return surface


class _Times(NamedTuple):
    """A flow cut where replicas come and go."""

    at_s: Floats
    seconds: Floats
    requests: Floats  # [stretch, stream]
    gone: tuple[frozenset[int], ...]  # groups, by stretch


def simulate_fluid(
    scenario: Scenario,
    flow: Flow,
    *,
    case: Case = "expected",
    seed: int = 0,
    surfaces: Surfaces | None = None,
) -> Ran:
    """As `serving.simulate`, of rates. Raises ScenarioError where it asks for an unknown model."""
    unknown = sorted({stream.model for stream in flow.streams} - set(scenario.models))
    if unknown:
        raise ScenarioError(
            f"the trace asks for {', '.join(unknown)}; this fleet has "
            f"{', '.join(scenario.models)}. Say which model it is: --model NAME"
        )
    surfaces = surfaces or Surfaces()
    times = _cut(scenario, flow)
    filling = Filling(scenario, seconds=flow.seconds, bucket_s=bucket_s_of(flow.seconds))
    for model, name in enumerate(scenario.models):
        kinds = [place for place, stream in enumerate(flow.streams) if stream.model == name]
        if kinds and times.requests[:, kinds].sum() > 0:
            part = _Model(scenario, flow, times, model, kinds)
            part.measure(surfaces, case=case, seed=seed)
            filling.add(part.part())
    return filling.ran()


class _Model:
    """One model of one run."""

    def __init__(
        self, scenario: Scenario, flow: Flow, times: _Times, model: int, kinds: Sequence[int]
    ) -> None:
        self._scenario, self._flow, self._times = scenario, flow, times
        self._model, self._kinds = model, list(kinds)
        self._requests = times.requests[:, self._kinds]
        self._mixed: Mixed = mixed(self._requests)
        own = frozenset(
            place for place, group in enumerate(scenario.groups) if group.model == model
        )
        self._gone = [gone & own for gone in times.gone]
        self._cells: dict[frozenset[int], Cells | None] = {}
        self._surfaces: dict[tuple[frozenset[int], int], Surface] = {}

    def measure(self, surfaces: Surfaces, *, case: Case, seed: int) -> None:
        """All cells and mixes that occur."""
        rates = self._requests.sum(axis=1) / self._times.seconds
        most: dict[tuple[frozenset[int], int], float] = {}
        for number, gone in enumerate(self._gone):
            for mix in (int(self._mixed.one[number]), int(self._mixed.other[number])):
                most[gone, mix] = max(most.get((gone, mix), 0.0), float(rates[number]))
        for (gone, mix), rate in most.items():
            if gone not in self._cells:
                self._cells[gone] = self._cells_of(gone, surfaces.replicas_max)
            cells = self._cells[gone]
            if cells is not None:
                self._surfaces[gone, mix] = surfaces.of(
                    cells, self._asked(mix), rate / cells.free.times, case=case, seed=seed
                )

    def _cells_of(self, gone: frozenset[int], replicas_max: int) -> Cells | None:
        sizes = (replicas_max, min(replicas_max, CROWDED_MAX))
        free, crowded = (
            cell_of(self._scenario, model=self._model, gone=gone, replicas_max=size)
            for size in sizes
        )
        return None if free is None or crowded is None else Cells(free, crowded)

    def _asked(self, mix: int) -> Asked:
        streams = tuple(self._flow.streams[kind] for kind in self._kinds)
        shares = tuple(round(float(share), 4) for share in self._mixed.mixes[mix])
        has_chats = any(stream.chats is not None for stream in streams)
        return Asked(streams, shares, self._flow.block_tokens if has_chats else None)

    def _blend(self, number: int) -> Blend | None:
        gone = self._gone[number]
        cells = self._cells[gone]
        if cells is None:
            return None
        one, other = int(self._mixed.one[number]), int(self._mixed.other[number])
        share = float(self._mixed.share[number])
        return blended(
            self._surfaces[gone, one], self._surfaces[gone, other], share, cells.free.times
        )

    def part(self) -> Part:
        """What fills the report."""
        times = self._times
        stretches = [
            Stretch(
                float(times.at_s[number]),
                float(times.seconds[number]),
                float(self._requests[number].sum() / times.seconds[number]),
                self._blend(number),
            )
            for number in range(len(times.at_s))
        ]
        course: Course = course_of(stretches)
        gone = [*self._gone, *[self._gone[-1]] * (len(course.stretches) - len(stretches))]
        return Part(
            model=self._model,
            course=course,
            cells=tuple(self._free_cell(one) for one in gone),
            tiers=tuple(self._flow.streams[kind].tier for kind in self._kinds),
            requests=self._requests,
            origins=tuple(self._flow.streams[kind].origin for kind in self._kinds),
        )

    def _free_cell(self, gone: frozenset[int]) -> Cell | None:
        cells = self._cells[gone]
        return None if cells is None else cells.free


def _cut(scenario: Scenario, flow: Flow) -> _Times:
    gone_s = [
        (place, begin_s, end_s)
        for place in range(len(scenario.groups))
        for begin_s, end_s in outages(scenario, place)
    ]
    changes = {at_s for _, begin_s, end_s in gone_s for at_s in (begin_s, end_s)}
    inner = [at_s for at_s in changes if 0.0 < at_s < flow.seconds]
    edges = np.unique(np.concatenate([flow.edges_s, np.array(inner, np.float64)]))
    at_s, seconds = edges[:-1], np.diff(edges)
    whole = np.searchsorted(flow.edges_s, at_s + seconds / 2) - 1
    shares = seconds / np.diff(flow.edges_s)[whole]
    gone = tuple(
        frozenset(place for place, begin_s, end_s in gone_s if begin_s <= middle_s < end_s)
        for middle_s in at_s + seconds / 2
    )
    return _Times(at_s, seconds, flow.requests[whole] * shares[:, None], gone)
