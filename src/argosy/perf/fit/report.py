"""docs/accuracy.md: how wrong the answers are on rows that were left out, and where poor."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from argosy.perf import energy
from argosy.perf.answers import half_widths
from argosy.perf.calibration import WayOfServing
from argosy.perf.check import Errors, summary
from argosy.perf.fit.hardware_check import splitwise_errors
from argosy.perf.fit.left_out import LeftOut, What
from argosy.perf.fit.make import Made
from argosy.perf.measured_rows import MeasuredRow

Array = NDArray[np.float64]
_ROWS_MIN = 5  # of a line of its own
_KINDS: tuple[What, ...] = ("configuration", "chip", "model")
_HEAD = """# How accurate the performance model is

Made by `argosy calibrate --report`: do not edit. All numbers are |answer /
measurement - 1| on rows that were **left out** of the fit: physics was fitted anew without them,
and so were the neighbours' weights. A configuration is everything but the number of clients; rows
that are one measurement under two names count as one configuration. "Inside" is the share of
measurements inside their 80 % interval, with the widths as shipped (one factor in each of 8 bands
of likeness, so honest to a percent or two).

One thing is not left out: how much each unlikeness of two cases counts (`perf/fit/kernels.py`, some
150 numbers) was chosen by search on this same table. A search on one half of the aggregated rows
improved the other half's TTFT by a quarter of what it improved its own: expect rows from elsewhere
to be somewhat worse than these tables. Calibrated on three quarters of the configurations, drawn
by hash (twins of a row under another name in the other part, as in real use), the last quarter came
out at a median of 6.1 % for TPOT and 15.8 % for TTFT, 84 % of rows inside (993 rows, by hand, with
the search's previous weights).
"""
_TAIL = """
## What is poor, and why

- **Disaggregated rows.** 707 of 857 do not say how many replicas prefill and decode, and none says
  whether draft tokens were used (multi-token prediction halves TPOT). The same columns then stand
  for setups that differ by a factor of two: no model of those columns can be right on both.
- **TTFT** holds the client's start, queues and warm-up: a burst of prompts at the start, engines
  that compile on the first request (38 s at 4 clients, in one row). It is less certain than TPOT.
- **Draft tokens** are not modelled. Rows that used them cannot be told from those that did not.
- **GB200 aggregated**: a few rows, most of which describe whole racks as one replica.
- **Chips of makers other than NVIDIA** stand on datasheets (TPU v6e: on kernel tables, with no
  whole deployment to check). Their interval is fixed at a factor of 2 for TPOT and 3 for TTFT: an
  assumption, not a measurement. Every such answer says so (`rung`, `uncalibrated`).
- **Prompts that share a prefix**: the simulator counts them, no measurement here has any.
- **More clients, longer answers**: a replica's step time rises with tokens and contexts by
  construction; the mean TTFT and TPOT of a load test follow their measured neighbours, and may dip.
- Step times are averages: nothing is said of their spread.
"""


def report_text(made: Made, folder: Path) -> str:
    """The whole page."""
    ways = (made.calibration.together, made.calibration.apart)
    names = ("Aggregated", "Disaggregated")
    parts = [_HEAD, "\n## All rows\n\n", _table("left out", _overall(made))]
    for name, rows, left, way in zip(names, made.rows, made.left_out, ways, strict=True):
        parts.append(f"\n## {name}: {len(rows.rows)} rows\n\n")
        parts.append(_table("left out", [(what, _errors(left[what], way)) for what in _KINDS]))
        for what, by, key in _BREAKDOWNS:
            parts.append(f"\n{name}, {what} left out, by {by}:\n\n")
            parts.append(_table(by, _by(rows.rows, left[what], way, key)))
    parts += [_ladder(made), _power(folder), _TAIL]
    return "".join(parts)


_BREAKDOWNS: tuple[tuple[What, str, Callable[[MeasuredRow], str]], ...] = (
    ("configuration", "chip", lambda row: row.case.chip.name),
    ("configuration", "engine", lambda row: row.case.engine),
    ("configuration", "model", lambda row: row.case.model.name),
    ("chip", "chip", lambda row: row.case.chip.name),
    ("model", "model", lambda row: row.case.model.name),
)


def _overall(made: Made) -> list[tuple[str, Errors]]:
    ways = (made.calibration.together, made.calibration.apart)
    found: list[tuple[str, Errors]] = []
    for what in _KINDS:
        both = [_absolute(left[what], way) for left, way in zip(made.left_out, ways, strict=True)]
        errors = np.concatenate([one[0] for one in both])
        inside = np.concatenate([one[1] for one in both])
        found.append((what, summary(errors, inside)))
    return found


def _errors(left: LeftOut, way: WayOfServing, places: Sequence[int] | None = None) -> Errors:
    errors, inside = _absolute(left, way)
    chosen = slice(None) if places is None else list(places)
    return summary(errors[chosen], inside[chosen])


def _absolute(left: LeftOut, way: WayOfServing) -> tuple[Array, NDArray[np.bool_]]:
    """Errors and whether inside, TPOT first."""
    inside = np.empty(left.errors.shape, dtype=bool)
    sides = (
        (way.widths_ttft, way.half_ttft_of_unseen_chip),
        (way.widths_tpot, way.half_tpot_of_unseen_chip),
    )
    for side, (widths, least) in enumerate(sides):
        halves = half_widths(left.likeness[:, side], left.usual[:, side], widths)
        if left.what == "chip":
            halves = np.maximum(halves, least)  # as an answer about such a chip has it
        inside[:, side] = np.abs(left.errors[:, side]) <= halves
    return np.abs(np.expm1(left.errors))[:, ::-1], inside[:, ::-1]


def _by(
    rows: Sequence[MeasuredRow], left: LeftOut, way: WayOfServing, key: Callable[[MeasuredRow], str]
) -> list[tuple[str, Errors]]:
    names = [key(row) for row in rows]
    found: list[tuple[str, Errors]] = []
    for name in sorted(set(names)):
        places = [at for at, own in enumerate(names) if own == name]
        if len(places) >= _ROWS_MIN:
            found.append((name, _errors(left, way, places)))
    return found


def _table(first: str, lines: Iterable[tuple[str, Errors]]) -> str:
    heads = (first, "rows", "TPOT median", "p90", "inside", "TTFT median", "p90", "inside")
    text = f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}\n"
    for name, one in lines:
        shares = (
            one.tpot_median_error,
            one.tpot_p90_error,
            one.tpot_interval_coverage,
            one.ttft_median_error,
            one.ttft_p90_error,
            one.ttft_interval_coverage,
        )
        text += f"| {name} | {one.rows} | {' | '.join(f'{share:.1%}' for share in shares)} |\n"
    return text


def _ladder(made: Made) -> str:
    learned = made.calibration
    factors = ""
    for name, parts in sorted(learned.chip_factors.items()):
        listed = ", ".join(f"{part} {value:.2f}" for part, value in sorted(parts.items()))
        factors += f"| {name} | {listed} |\n"
    return (
        "\n## The rungs\n\n"
        f"- end to end: {', '.join(learned.chips_end_to_end)}\n"
        f"- kernel tables: {', '.join(learned.chips_kernel_tables)}\n"
        "- spec sheet (`uncalibrated`): every other chip\n"
        "- telemetry: cases like a user's own rows, after `argosy calibrate MY.csv`\n\n"
        "What kernel tables say of a chip's shares of peak, against those of H100:\n\n"
        f"| chip | factors |\n| --- | --- |\n{factors}"
    )


def _power(folder: Path) -> str:
    lines = "".join(
        f"| {name} | {rows} | {token:.1%} | {prompt:.1%} |\n"
        for name, rows, token, prompt in splitwise_errors(folder)
    )
    return (
        "\n## Old software on chips of lower rungs\n\n"
        "Llama-2-70B in 2023 (Splitwise), never fitted; median errors of one decoding step and\n"
        "of one prefill. The chips are the point: A100 stands on kernel tables.\n\n"
        f"| chip | rows | token time | prompt time |\n| --- | --- | --- | --- |\n{lines}"
        "\n## Power\n\n"
        f"Fitted on 76 powers of H100 and B200. On models left out: median "
        f"{energy.ERROR_MEDIAN:.0%}, one in ten above {energy.ERROR_P90:.0%}. "
        "Joules of a token carry TPOT's error besides.\n"
    )
