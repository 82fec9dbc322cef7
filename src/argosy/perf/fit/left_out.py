"""What the answers to configurations, chips and models would have been, had they not been measured.

Configurations are left out by quarters, chips and models one by one; physics is fitted anew for
each (a third of the rows is enough for its few parameters), the neighbours' weights follow in
closed form. Rows that are the same measurement under two names are one configuration.
"""

import zlib
from collections.abc import Callable, Hashable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from argosy.perf.answers import nearness
from argosy.perf.case import Case, shape_name
from argosy.perf.fit.physics import ChipFactors, Physics, fit_physics
from argosy.perf.fit.residual import Side, Solved, errors_left_out, solve
from argosy.perf.load_test import LoadTests
from argosy.perf.measured_rows import MeasuredRow
from argosy.perf.nearness import features_of

Array = NDArray[np.float64]
What = Literal["configuration", "chip", "model"]
FOLDS = 4
_PHYSICS_ROWS, _PHYSICS_STEPS = 900, 8
_LEFT_OUT_ROWS, _LEFT_OUT_STEPS = 700, 6  # enough for some seventy parameters, and twenty fits
_CHIPS_SANE = 8  # of one aggregated replica: beyond, the table means a whole deployment
_CLIENTS_SANE = 1024  # of a disaggregated deployment: beyond, the recurrence costs too much here


class Rows(NamedTuple):
    """Measurements of one way of serving, ready to fit."""

    rows: list[MeasuredRow]
    tests: LoadTests
    log_measured: Array  # (rows, 2): TTFT, TPOT
    configuration: NDArray[np.int64]  # of each row, a number

    def groups(self, what: What) -> list[NDArray[np.int64]]:
        """The rows' places, by what is left out together."""
        if what == "configuration":
            names: Sequence[Hashable] = self.configuration.tolist()
        elif what == "chip":
            names = [row.case.chip.name for row in self.rows]
        else:
            names = [shape_name(row.case.model) for row in self.rows]
        return [
            np.array([at for at, name in enumerate(names) if name == one], dtype=np.int64)
            for one in dict.fromkeys(names)
        ]


class LeftOut(NamedTuple):
    """Errors of left-out rows, and what an interval would have been made of."""

    what: What
    errors: Array  # (rows, 2), log answer - log measured
    likeness: Array  # (rows, 2)
    usual: Array  # (rows, 2), the neighbours' errors


def ready(rows: Sequence[MeasuredRow]) -> Rows:
    """Without exact repetitions."""
    once: dict[Hashable, MeasuredRow] = {}
    for row in rows:
        case = row.case
        once.setdefault((case.configuration, case.clients, row.ttft_s, row.tpot_s), row)
    kept = list(once.values())
    measured = np.log([[row.ttft_s, row.tpot_s] for row in kept]).reshape(-1, 2)
    tests = LoadTests([row.case for row in kept])
    return Rows(kept, tests, measured, _configurations(kept))


def fit_on(
    targets: Sequence[Rows],
    allowed: Sequence[NDArray[np.bool_]],
    chip_factors: ChipFactors,
    say: Callable[[str], None],
    *,
    is_final: bool = False,
) -> Physics:
    """Physics from a spread part of the allowed rows, those whose deployment is well known."""
    most, steps = (_PHYSICS_ROWS, _PHYSICS_STEPS) if is_final else (_LEFT_OUT_ROWS, _LEFT_OUT_STEPS)
    cases: list[Case] = []
    measured: list[Array] = []
    for rows, usable in zip(targets, allowed, strict=True):
        sane = np.array([_is_sane(row.case) for row in rows.rows], dtype=bool)
        places = np.flatnonzero(usable & sane)
        order = sorted(places, key=lambda at: zlib.crc32(f"{rows.rows[at].name},{at}".encode()))
        some = sorted(order[:most])
        cases += [rows.rows[at].case for at in some]
        measured.append(rows.log_measured[some])
    return fit_physics(cases, np.concatenate(measured), chip_factors, steps=steps, say=say)


def _is_sane(case: Case) -> bool:
    if case.prefill is None:
        return case.decode.layout.chips <= _CHIPS_SANE
    is_known = case.prefill.replicas is not None and case.decode.replicas is not None
    return is_known and case.clients <= _CLIENTS_SANE


def leave_out(
    what: What,
    targets: Sequence[tuple[Rows, tuple[Side, Side]]],
    solved: Sequence[tuple[Solved, Solved]],
    chip_factors: ChipFactors,
    say: Callable[[str], None],
) -> list[LeftOut]:
    """For each target: aggregated, disaggregated."""
    found = [
        LeftOut(what, *(np.full(rows.log_measured.shape, np.nan) for _ in range(3)))
        for rows, _ in targets
    ]
    all_rows = [rows for rows, _ in targets]
    parts = _parts(what, all_rows)
    for number, (allowed, groups) in enumerate(parts):
        physics = fit_on(all_rows, allowed, chip_factors, lambda _: None)
        for target, (rows, sides) in enumerate(targets):
            residuals = rows.log_measured - physics.log_seconds(rows.tests)
            for side in range(2):
                _one_side(
                    found[target],
                    side,
                    sides[side],
                    solved[target][side],
                    residuals,
                    groups[target],
                )
        say(f"left out by {what}: {number + 1} of {len(parts)}")
    return found


def solve_sides(rows: Rows, physics: Physics, sides: tuple[Side, Side]) -> tuple[Solved, Solved]:
    """Both regressions on all rows."""
    columns = features_of([row.case for row in rows.rows])
    residuals = rows.log_measured - physics.log_seconds(rows.tests)
    return solve(columns, residuals[:, 0], sides[0]), solve(columns, residuals[:, 1], sides[1])


def _one_side(
    found: LeftOut,
    side: int,
    kernels: Side,
    solved: Solved,
    residuals: Array,
    groups: list[NDArray[np.int64]],
) -> None:
    """Fills in one figure of the groups that were left out."""
    errors = errors_left_out(solved, residuals[:, side], groups)
    for group in groups:
        found.errors[group, side] = errors[group]


def with_nearness(
    found: LeftOut,
    rows: Rows,
    sides: tuple[Side, Side],
    solved: tuple[Solved, Solved],
    usual: Array,
) -> LeftOut:
    """The same with likeness and the neighbours' errors `usual`, the own group left out."""
    for side in range(2):
        for group in rows.groups(found.what):
            closeness = solved[side].closeness[group].copy()
            closeness[:, group] = 0.0
            near = nearness(closeness, sides[side].kernels, usual[:, side])
            found.likeness[group, side], found.usual[group, side] = near
    return found


class _Part(NamedTuple):
    """What is left out at a time; both lists run over the targets."""

    allowed: list[NDArray[np.bool_]]  # the rows that remain
    groups: list[list[NDArray[np.int64]]]  # those left out


def _parts(what: What, targets: list[Rows]) -> list[_Part]:
    grouped = [rows.groups(what) for rows in targets]
    keys = [
        [_key(what, rows, group) for group in groups]
        for rows, groups in zip(targets, grouped, strict=True)
    ]
    parts: list[_Part] = []
    for key in sorted({one for some in keys for one in some}):
        chosen = [
            [group for group, own in zip(groups, some, strict=True) if own == key]
            for groups, some in zip(grouped, keys, strict=True)
        ]
        allowed = [np.ones(len(rows.rows), dtype=bool) for rows in targets]
        for remains, groups in zip(allowed, chosen, strict=True):
            for group in groups:
                remains[group] = False
        parts.append(_Part(allowed, chosen))
    return parts


def _key(what: What, rows: Rows, group: NDArray[np.int64]) -> str:
    first = rows.rows[int(group[0])].case
    if what == "chip":
        return first.chip.name
    if what == "model":
        return shape_name(first.model)
    return str(zlib.crc32(repr(first.configuration).encode()) % FOLDS)


def _configurations(rows: Sequence[MeasuredRow]) -> NDArray[np.int64]:
    """One number for all rows that share a configuration, or are the same measurement."""
    parent = list(range(len(rows)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for names in (
        [row.case.configuration for row in rows],
        [(round(row.ttft_s, 6), round(row.tpot_s, 7)) for row in rows],
    ):
        first: dict[Hashable, int] = {}
        for at, name in enumerate(names):
            parent[root(at)] = root(first.setdefault(name, at))
    return np.array([root(at) for at in range(len(rows))])
