"""The answer to a case: physics, times what its neighbours say, with an interval and a rung.

    seconds = physics x exp(residual of near cases), never below the datasheet's roofline

The interval is conformal: half its logarithm is the error that the neighbours had when they were
left out, times the factor that made four of five left-out measurements fall inside, at that
likeness. A chip of which no deployment was measured gets no less than what covered four of five
rows of chips that were left out; if it is not even of a measured generation, a fixed, wide one.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.fleet.catalogue import chip
from argosy.perf.calibration import Calibration, Interval, Widths, shipped
from argosy.perf.case import Case
from argosy.perf.groups import Rung, general_of, groups_of, offset_of, reached, rung_of
from argosy.perf.load_test import LoadTests
from argosy.perf.nearness import (
    FEATURES,
    Columns,
    Kernel,
    Neighbours,
    features_of,
    kernel_matrix,
    likeness_to_self,
)
from argosy.perf.roofline import IDEAL, Efficiency

Array = NDArray[np.float64]
# A chip of an unmeasured generation. An assumption: the shares of a datasheet that are reached, and
# the software, may each differ by half from what was measured on NVIDIA's.
_UNMEASURED_TPOT, _UNMEASURED_TTFT = 2.0, 3.0
_BATCH = 512
_LIKENESS_OF_OWN = 0.3  # to a user's own row: below, the answer stands on the shipped ones


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Mean TTFT and mean TPOT under the case's load; four of five lie within low and high."""

    ttft_s: float
    tpot_s: float
    interval: Interval
    rung: Rung
    uncalibrated: bool  # no measurement of this chip was ever seen


class _Carried(NamedTuple):
    """What neighbours say of cases, of one figure."""

    residual: Array  # logarithms
    likeness: Array
    usual: Array


class Answers:
    """Answers cases by one calibration. Made once: it lays the neighbours out as arrays."""

    def __init__(self, learned: Calibration) -> None:
        self.learned = learned
        self._columns = {
            False: learned.together.neighbours.columns(),
            True: learned.apart.neighbours.columns(),
        }

    def of(self, cases: Sequence[Case]) -> list[Answer]:
        """One answer a case, in order. Raises `UnknownFigures` for a chip without any."""
        found: dict[int, Answer] = {}
        for is_apart in (False, True):
            places = [at for at, case in enumerate(cases) if (case.prefill is not None) == is_apart]
            for start in range(0, len(places), _BATCH):
                some = places[start : start + _BATCH]
                answers = self._of_one_way([cases[at] for at in some], is_apart)
                found.update(zip(some, answers, strict=True))
        return [found[at] for at in range(len(cases))]

    def are_measured(self, cases: Sequence[Case]) -> list[bool]:
        """Whether the calibration was made from just these cases: such answers say little."""
        known = {row for columns in self._columns.values() for row in _rows_of(columns)}
        return [row in known for row in _rows_of(features_of(cases))]

    def physics(self, cases: Sequence[Case]) -> tuple[Array, Array]:
        """Log seconds without neighbours, and the roofline's: each (cases, 2)."""
        learned, tests = self.learned, LoadTests(list(cases))
        named = [
            groups_of(case.model, case.chip, case.decode.layout, case.engine) for case in cases
        ]
        slow = np.exp([offset_of(one, learned.offsets) for one in named])
        later = np.array([offset_of(one, learned.offsets_ttft) for one in named])
        factors = [learned.engine_factors(case.engine) for case in cases]
        engine = {name: np.array([one[name] for one in factors]) for name in factors[0]}
        general = general_of(
            learned.efficiency, learned.chip_factors, [case.chip.name for case in cases]
        )
        efficiency = reached(general, engine, slow)
        found = np.log(tests.seconds(efficiency, engine["ttft_s_fixed"]))
        found[:, 0] += later
        ideal = Efficiency(*map(partial(np.full, len(cases)), IDEAL))
        floor = np.log(tests.seconds(ideal, np.zeros(len(cases))))
        floor[[not _has_known_replicas(case) for case in cases]] = -np.inf
        return found, floor

    def corrections(self, cases: Sequence[Case]) -> Array:
        """What neighbours and TTFT's own offsets add to physics: logarithms, (cases, 2).

        Of aggregated cases alone.
        """
        near = self.learned.together.neighbours
        asked, known = features_of(cases), self._columns[False]
        ttft = kernel_matrix(asked, known, near.kernels_ttft) @ np.array(near.weights_ttft)
        tpot = kernel_matrix(asked, known, near.kernels_tpot) @ np.array(near.weights_tpot)
        named = [
            groups_of(case.model, case.chip, case.decode.layout, case.engine) for case in cases
        ]
        later = np.array([offset_of(one, self.learned.offsets_ttft) for one in named])
        return np.stack([ttft + later, tpot], axis=1)

    def _of_one_way(self, cases: list[Case], is_apart: bool) -> list[Answer]:
        way = self.learned.apart if is_apart else self.learned.together
        asked = features_of(cases)
        seconds, floor = self.physics(cases)
        halves = np.empty_like(seconds)
        is_own = np.zeros(len(cases), dtype=bool)
        layers = [(way.neighbours, self._columns[is_apart])]
        own = self.learned.telemetry_apart if is_apart else self.learned.telemetry_together
        if own is not None:
            layers.append((own, own.columns()))
        for side, widths in enumerate((way.widths_ttft, way.widths_tpot)):
            likeness, usual = np.zeros(len(cases)), np.zeros(len(cases))
            for depth, (near, known) in enumerate(layers):
                part = _carried(asked, known, near, side)
                seconds[:, side] += part.residual
                is_nearer = part.likeness >= likeness
                usual = np.where(is_nearer, part.usual, usual)
                likeness = np.maximum(likeness, part.likeness)
                is_own |= is_nearer & (depth == 1) & (part.likeness > _LIKENESS_OF_OWN)
            halves[:, side] = half_widths(likeness, usual, widths)
        seconds = np.exp(np.maximum(seconds, floor))
        return [
            self._answer(case, seconds[at], halves[at], is_own=bool(is_own[at]))
            for at, case in enumerate(cases)
        ]

    def _answer(self, case: Case, seconds: Array, halves: Array, *, is_own: bool) -> Answer:
        rung: Rung = "telemetry" if is_own else rung_of(case.chip, self.learned)
        later, slower = float(halves[0]), float(halves[1])
        if rung in ("spec sheet", "kernel tables"):
            later, slower = self._widened(case, later, slower)
        return Answer(
            ttft_s=float(seconds[0]),
            tpot_s=float(seconds[1]),
            interval=Interval(
                ttft_low=float(np.exp(-later)),
                ttft_high=float(np.exp(later)),
                tpot_low=float(np.exp(-slower)),
                tpot_high=float(np.exp(slower)),
            ),
            rung=rung,
            uncalibrated=rung == "spec sheet",
        )

    def _widened(self, case: Case, later: float, slower: float) -> tuple[float, float]:
        """Halves of an interval of a chip of which no deployment was measured: TTFT, TPOT."""
        learned = self.learned
        is_maker_measured = case.chip.maker in makers_measured(learned.chips_end_to_end)
        if case.chip.name not in learned.chip_factors or not is_maker_measured:
            return float(np.log(_UNMEASURED_TTFT)), float(np.log(_UNMEASURED_TPOT))
        way = learned.together if case.prefill is None else learned.apart
        return (
            max(later, way.half_ttft_of_unseen_chip),
            max(slower, way.half_tpot_of_unseen_chip),
        )


def _rows_of(columns: Columns) -> list[tuple[object, ...]]:
    """Every case's features; numbers to four digits, as they are shipped."""
    rounded = [
        [round(value, 4) if isinstance(value, float) else value for value in columns[name]]
        for name in FEATURES
    ]
    return list(zip(*rounded, strict=True))


def _has_known_replicas(case: Case) -> bool:
    """Of a guessed number of replicas there is no roofline to keep to."""
    is_known = case.prefill is None or case.prefill.replicas is not None
    return is_known and case.decode.replicas is not None


def _carried(asked: Columns, known: Columns, near: Neighbours, side: int) -> _Carried:
    kernels = (near.kernels_ttft, near.kernels_tpot)[side]
    weights = (near.weights_ttft, near.weights_tpot)[side]
    errors = (near.errors_ttft, near.errors_tpot)[side]
    closeness = kernel_matrix(asked, known, kernels)
    return _Carried(closeness @ np.array(weights), *nearness(closeness, kernels, np.array(errors)))


@cache
def answers_shipped() -> Answers:
    """By the calibration that came with this version."""
    return Answers(shipped())


@cache
def makers_measured(chips: tuple[str, ...]) -> frozenset[str]:
    """The makers of these chips."""
    return frozenset(chip(name).maker for name in chips)


def nearness(closeness: Array, kernels: Sequence[Kernel], errors: Array) -> tuple[Array, Array]:
    """Likeness to the nearest measured case (0 to 1), and how wrong near answers were."""
    shares = closeness / likeness_to_self(kernels)
    likeness = shares.max(axis=1, initial=0.0)
    weights = shares**2 + 1e-9
    return likeness, np.sqrt((weights * errors**2).sum(1) / weights.sum(1))


def half_widths(likeness: Array, usual: Array, widths: Widths) -> Array:
    """Half of the interval's logarithm."""
    factors = np.array(widths.factors)
    return factors[np.searchsorted(np.array(widths.likeness), likeness)] * usual
