"""Answers held against measurements: errors, and how many fell into their intervals."""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.perf.answers import Answer, Answers
from argosy.perf.load_test import UnknownFigures
from argosy.perf.measured_rows import MeasuredRow, RefusedRow

Array = NDArray[np.float64]


class Errors(msgspec.Struct, frozen=True, kw_only=True):
    """Of some rows: |answer / measurement - 1|, and shares of rows inside their 80 % intervals."""

    rows: int
    tpot_median_error: float
    tpot_mean_error: float
    tpot_p90_error: float
    ttft_median_error: float
    ttft_mean_error: float
    ttft_p90_error: float
    interval_coverage: float  # of both figures together
    tpot_interval_coverage: float
    ttft_interval_coverage: float


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """Of a whole table."""

    rows_answered: int
    rows_refused: int
    rows_measured: int  # of the answered, those that the calibration itself was made from
    refused: dict[str, int]  # how many, by reason
    errors: Errors | None  # None: nothing was answered
    by_chip: dict[str, Errors]
    by_engine: dict[str, Errors]
    by_way: dict[str, Errors]  # aggregated, disaggregated


def check(rows: Sequence[MeasuredRow], refused: Sequence[RefusedRow], answers: Answers) -> Check:
    """Answers every row as if it had not been measured by anyone; 1 ms a row."""
    reasons: dict[str, int] = {}
    for row in refused:
        reasons[row.reason] = reasons.get(row.reason, 0) + 1
    kept: list[MeasuredRow] = []
    found: list[Answer] = []
    for row, answer in zip(rows, _answers(rows, answers, reasons), strict=True):
        if answer is not None:
            kept.append(row)
            found.append(answer)
    ways = ["disaggregated" if row.case.prefill else "aggregated" for row in kept]
    return Check(
        rows_answered=len(kept),
        rows_refused=len(refused) + len(rows) - len(kept),
        rows_measured=sum(answers.are_measured([row.case for row in kept])),
        refused=dict(sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))),
        errors=errors_of(kept, found) if kept else None,
        by_chip=_by([row.case.chip.name for row in kept], kept, found),
        by_engine=_by([row.case.engine for row in kept], kept, found),
        by_way=_by(ways, kept, found),
    )


def errors_of(rows: Sequence[MeasuredRow], answers: Sequence[Answer]) -> Errors:
    """Of answered rows; at least one."""
    measured = np.array([[row.tpot_s, row.ttft_s] for row in rows])
    answered = np.array([[answer.tpot_s, answer.ttft_s] for answer in answers])
    low = np.array([[one.interval.tpot_low, one.interval.ttft_low] for one in answers]) * answered
    high = (
        np.array([[one.interval.tpot_high, one.interval.ttft_high] for one in answers]) * answered
    )
    inside = (low <= measured) & (measured <= high)
    return summary(np.abs(answered / measured - 1), inside)


def summary(errors: Array, inside: NDArray[np.bool_]) -> Errors:
    """Both (rows, 2): TPOT first, then TTFT."""
    median, mean = np.median(errors, axis=0), errors.mean(axis=0)
    p90 = np.quantile(errors, 0.9, axis=0)
    return Errors(
        rows=len(errors),
        tpot_median_error=round(float(median[0]), 5),
        tpot_mean_error=round(float(mean[0]), 5),
        tpot_p90_error=round(float(p90[0]), 5),
        ttft_median_error=round(float(median[1]), 5),
        ttft_mean_error=round(float(mean[1]), 5),
        ttft_p90_error=round(float(p90[1]), 5),
        interval_coverage=round(float(inside.mean()), 5),
        tpot_interval_coverage=round(float(inside[:, 0].mean()), 5),
        ttft_interval_coverage=round(float(inside[:, 1].mean()), 5),
    )


def _answers(
    rows: Sequence[MeasuredRow], answers: Answers, reasons: dict[str, int]
) -> list[Answer | None]:
    """All at once; where a chip lacks figures, without its rows."""
    able = [row.case.chip.memory_bytes_per_s is not None for row in rows]
    for row, is_able in zip(rows, able, strict=True):
        if not is_able:
            reason = str(UnknownFigures(f"the catalogue has no figures of {row.case.chip.name}"))
            reasons[reason] = reasons.get(reason, 0) + 1
    found = iter(answers.of([row.case for row, yes in zip(rows, able, strict=True) if yes]))
    return [next(found) if yes else None for yes in able]


def _by(
    names: Sequence[str], rows: Sequence[MeasuredRow], answers: Sequence[Answer]
) -> dict[str, Errors]:
    found: dict[str, Errors] = {}
    for name in sorted(set(names)):
        places = [at for at, own in enumerate(names) if own == name]
        found[name] = errors_of([rows[at] for at in places], [answers[at] for at in places])
    return found
