"""Makes a calibration: physics, neighbours, and the widths of intervals from what was left out.

The same table gives the same bytes: nothing here is drawn by chance. Six to ten minutes.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.perf.calibration import Calibration, WayOfServing, Widths
from argosy.perf.fit.kernel_tables import CHIPS, KERNEL_FILES, chip_factors
from argosy.perf.fit.kernels import APART, TOGETHER
from argosy.perf.fit.left_out import (
    LeftOut,
    Rows,
    What,
    fit_on,
    leave_out,
    ready,
    solve_sides,
    with_nearness,
)
from argosy.perf.fit.physics import ChipFactors
from argosy.perf.fit.residual import Side, Solved, neighbours_of
from argosy.perf.measured_rows import MeasuredRow, read_table

Array = NDArray[np.float64]
_COVERED = 0.80
_BANDS = 8
_DIGITS = 6
_STEPS = 28  # of physics 8, of leaving out 4 + 5 + 10, and one between: for the bar alone


class Made(NamedTuple):
    """The calibration, and the left-out errors that the report is written from."""

    calibration: Calibration
    rows: tuple[Rows, Rows]  # aggregated, disaggregated
    left_out: tuple[dict[What, LeftOut], dict[What, LeftOut]]

    def encoded(self) -> bytes:
        """The calibration as its file's bytes."""
        return msgspec.json.encode(self.calibration)


def make_from_folder(folder: Path, say: Callable[[str, float], None]) -> Made:
    """From the repository's `measurements/`; `say` is told what is done and which share is."""
    table = folder / "silicon_ttft_tpot.csv.gz"
    rows, refused = read_table(table)
    done = 0

    def count(what: str) -> None:
        nonlocal done
        done += 1
        say(what, min(1.0, done / _STEPS))

    return make_calibration(
        rows,
        made_from=(f"{table.name}: {len(rows)} rows, {len(refused)} refused", *KERNEL_FILES),
        chip_factors=chip_factors(folder),
        say=count,
    )


def make_calibration(
    measured: Sequence[MeasuredRow],
    *,
    made_from: tuple[str, ...],
    chip_factors: ChipFactors,
    say: Callable[[str], None],
) -> Made:
    """From measured rows and the kernel tables' factors."""
    together = ready([row for row in measured if row.case.prefill is None])
    apart = ready([row for row in measured if row.case.prefill is not None])
    everything = [np.ones(len(rows.rows), dtype=bool) for rows in (together, apart)]
    physics = fit_on((together, apart), everything, chip_factors, say, is_final=True)
    targets: list[tuple[Rows, tuple[Side, Side]]] = [(together, TOGETHER), (apart, APART)]
    say("neighbours: solving")
    solved = [solve_sides(rows, physics, sides) for rows, sides in targets]
    left: tuple[dict[What, LeftOut], dict[What, LeftOut]] = ({}, {})
    kinds: tuple[What, ...] = ("configuration", "chip", "model")
    for what in kinds:
        found = leave_out(what, targets, solved, chip_factors, say)
        for target, (rows, sides) in enumerate(targets):
            usual = (
                found[target].errors
                if what == "configuration"
                else left[target]["configuration"].errors
            )
            left[target][what] = with_nearness(found[target], rows, sides, solved[target], usual)
    ways = [
        _way(rows, sides, solved[target], left[target])
        for target, (rows, sides) in enumerate(targets)
    ]
    calibration = Calibration(
        made_from=made_from,
        efficiency=_rounded(physics.general),
        engines={name: _rounded(parts) for name, parts in physics.engines.items()},
        offsets={kind: _rounded(parts) for kind, parts in physics.offsets.items()},
        offsets_ttft={kind: _rounded(parts) for kind, parts in physics.offsets_ttft.items()},
        chip_factors=chip_factors,
        chips_kernel_tables=CHIPS,
        chips_end_to_end=tuple(sorted({row.case.chip.name for row in measured})),
        together=ways[0],
        apart=ways[1],
    )
    return Made(calibration, (together, apart), left)


def widths_from(records: Sequence[LeftOut], side: int) -> Widths:
    """The factors that put four of five left-out rows inside, in bands of equal likeness."""
    likeness = np.concatenate([record.likeness[:, side] for record in records])
    ratio = np.concatenate(
        [np.abs(record.errors[:, side]) / record.usual[:, side] for record in records]
    )
    edges = np.quantile(likeness, np.arange(1, _BANDS) / _BANDS)
    band = np.searchsorted(edges, likeness)
    factors = [float(np.quantile(ratio[band == one], _COVERED)) for one in range(_BANDS)]
    return Widths(
        likeness=tuple(round(float(edge), 5) for edge in edges),
        factors=tuple(round(factor, 3) for factor in factors),
    )


def _way(
    rows: Rows, sides: tuple[Side, Side], solved: tuple[Solved, Solved], left: dict[What, LeftOut]
) -> WayOfServing:
    errors = left["configuration"].errors
    records = list(left.values())
    return WayOfServing(
        neighbours=neighbours_of(
            [row.case for row in rows.rows],
            sides,
            (solved[0].weights, solved[1].weights),
            (errors[:, 0], errors[:, 1]),
        ),
        widths_ttft=widths_from(records, 0),
        widths_tpot=widths_from(records, 1),
        half_ttft_of_unseen_chip=_covering(left["chip"].errors[:, 0]),
        half_tpot_of_unseen_chip=_covering(left["chip"].errors[:, 1]),
    )


def _covering(errors: Array) -> float:
    return round(float(np.quantile(np.abs(errors), _COVERED)), 4)


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.{_DIGITS}g}") for name, value in values.items()}
