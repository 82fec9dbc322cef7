"""Loss against tokens and against time: rows for a CSV file, and their picture."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from argosy.store.runs import PointRecord, RunRecord

COLUMNS = ("kind", "island", "round", "tokens", "seconds", "loss")


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """One point: `tokens` of the whole run and `seconds` since it was made, when it was noted."""

    kind: str  # training: of an island's delta; validation: of a version
    island: str
    version: int
    tokens: int
    seconds: float
    loss: float  # mean over tokens, nats


def curve(
    record: "RunRecord", points: "Sequence[PointRecord]", *, context_tokens: int
) -> list[Point]:
    """In the order in which they were noted."""
    return [
        Point(
            kind=one.kind,
            island=one.island,
            version=one.version,
            tokens=one.blocks_done * context_tokens,
            seconds=one.at_s - record.created_at_s,
            loss=one.loss,
        )
        for one in points
    ]


def csv_lines(points: Sequence[Point]) -> list[str]:
    """With a line of names first; names hold no commas."""
    rows = [
        f"{one.kind},{one.island},{one.version},{one.tokens},{one.seconds:.3f},{one.loss:.6f}"
        for one in points
    ]
    return [",".join(COLUMNS), *rows]


def draw(run: str, points: Sequence[Point], path: Path) -> None:
    """Write a PNG: against tokens above, against time below. OSError where that fails."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8), layout="constrained")
    above, below = figure.subplots(2, 1)
    _plot(above, points, lambda one: one.tokens / 1e6)
    _plot(below, points, lambda one: one.seconds / 60)
    above.set_title(f"run {run}")
    above.set_xlabel("million tokens, of all islands")
    below.set_xlabel("minutes since the run was made, pauses included")
    figure.savefig(path, dpi=130)


def _plot(axes: "Axes", points: Sequence[Point], across: Callable[[Point], float]) -> None:
    lines: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for one in points:
        name = "validation" if one.kind == "validation" else f"training, {one.island}"
        lines[name].append((across(one), one.loss))
    for name in sorted(lines):
        is_held_back = name == "validation"
        axes.plot(
            *zip(*lines[name], strict=True),
            label=name,
            linewidth=2.2 if is_held_back else 1.0,
            marker="o" if is_held_back else None,
            markersize=3,
            color="#1b6ca8" if is_held_back else None,
        )
    axes.set_ylabel("loss, nats per token")
    axes.grid(visible=True, alpha=0.3)
    if lines:
        axes.legend()
