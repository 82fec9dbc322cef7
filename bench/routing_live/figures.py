"""Arithmetic and tables: percentiles, ranges over rounds, smooth weighted round robin."""

import math
import statistics
from collections.abc import Mapping, Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The nearest rank: the least value that `share` of them do not exceed. NaN of nothing."""
    if not values:
        return math.nan
    return sorted(values)[max(0, math.ceil(share * len(values) - 1e-9) - 1)]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The median, and the range in brackets."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "-"
    middle = f"{statistics.median(known):{form}}"
    return middle if len(known) == 1 else f"{middle} ({min(known):{form}}-{max(known):{form}})"


class SmoothWeighted:
    """Smooth weighted round robin, as nginx does it: 3:1 gives a a b a, never a a a b."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = dict(weights)
        self._credit = dict.fromkeys(weights, 0.0)

    def next(self) -> str:
        """Whose turn it is."""
        for name, weight in self._weights.items():
            self._credit[name] += weight
        best = max(self._credit, key=lambda name: self._credit[name])
        self._credit[best] -= sum(self._weights.values())
        return best


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, its columns aligned: the first to the left, the others to the right."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if not place else "-" * (width - 1) + ":"
            for place, width in enumerate(widths)]  # fmt: skip
    return "\n".join((line(head), line(rule), *(line(row) for row in rows)))


def verdict(value: float, *, at_least: float | None = None, at_most: float | None = None) -> str:
    """Whether an aim is met."""
    is_met = (at_least is None or value >= at_least) and (at_most is None or value <= at_most)
    return "met" if is_met else "falls short"


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """The names, beginning with another one each turn."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]
