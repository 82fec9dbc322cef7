"""Puts a user's own measurements on top of a calibration: a rung above, without the tables below.

What the calibration's answers leave over on the user's rows is carried to cases near them, exactly
as the shipped residual is. Errors for the intervals come from leaving out one row at a time: a user
measures few configurations, and asks about those.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.perf.answers import Answers
from argosy.perf.calibration import Calibration
from argosy.perf.fit.kernels import APART, TOGETHER
from argosy.perf.fit.residual import Side, errors_left_out, neighbours_of, solve
from argosy.perf.measured_rows import MeasuredRow
from argosy.perf.nearness import Neighbours, features_of

Array = NDArray[np.float64]


def with_telemetry(learned: Calibration, rows: Sequence[MeasuredRow]) -> Calibration:
    """The calibration with these rows on top; rows that were on top before are replaced."""
    bare = msgspec.structs.replace(learned, telemetry_together=None, telemetry_apart=None)
    answers = Answers(bare)
    together = [row for row in rows if row.case.prefill is None]
    apart = [row for row in rows if row.case.prefill is not None]
    return msgspec.structs.replace(
        bare,
        made_from=(*bare.made_from, f"own rows: {len(rows)}"),
        telemetry_together=_on_top(answers, together, TOGETHER),
        telemetry_apart=_on_top(answers, apart, APART),
    )


def _on_top(
    answers: Answers, rows: Sequence[MeasuredRow], sides: tuple[Side, Side]
) -> Neighbours | None:
    if not rows:
        return None
    cases = [row.case for row in rows]
    columns = features_of(cases)
    found = answers.of(cases)
    measured = np.log([[row.ttft_s, row.tpot_s] for row in rows])
    residuals = measured - np.log([[answer.ttft_s, answer.tpot_s] for answer in found])
    alone = [np.array([at], dtype=np.int64) for at in range(len(rows))]
    weights: list[Array] = []
    errors: list[Array] = []
    for side in range(2):
        solved = solve(columns, residuals[:, side], sides[side])
        weights.append(solved.weights)
        errors.append(errors_left_out(solved, residuals[:, side], alone))
    return neighbours_of(cases, sides, (weights[0], weights[1]), (errors[0], errors[1]))
