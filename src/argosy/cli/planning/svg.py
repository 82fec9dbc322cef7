"""Charts of the plan's page, as SVG text: colours are the page's CSS variables, so both themes fit.

Hovering a column shows its numbers (`<title>`); nothing needs a script.
"""

import math
from collections.abc import Sequence
from html import escape

import msgspec

WIDTH = 860
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 14, 44
_TICKS_Y = 4


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """An area of a stack."""

    name: str
    colour: str  # CSS
    values: tuple[float, ...]  # by column


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line over the stack, by column."""

    name: str
    values: tuple[float, ...]
    is_dashed: bool = False


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """A word below the axis, from one column on."""

    column: int
    text: str
    begins: bool = False  # a rule divides it from what was before


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """Where data lie in a picture: x in [0, x_max], y in [0, y_max]."""

    x_max: float
    y_max: float
    x_min: float = 0.0
    width: float = WIDTH
    height: float = 300

    def x(self, value: float) -> float:
        """Pixels."""
        share = (value - self.x_min) / (self.x_max - self.x_min)
        return _LEFT + (self.width - _LEFT - _RIGHT) * share

    def y(self, value: float) -> float:
        """Pixels, downwards."""
        return self.height - _BOTTOM - (self.height - _TOP - _BOTTOM) * value / self.y_max

    @property
    def bottom(self) -> float:
        """The axis."""
        return self.height - _BOTTOM


def stack(
    layers: Sequence[Layer],
    lines: Sequence[Line],
    *,
    marks: Sequence[Mark],
    titles: Sequence[str],
    unit: str,
    height: float = 300,
) -> str:
    """Areas on top of each other in steps, lines over them; one column a slot."""
    columns = len(titles)
    totals = [sum(layer.values[place] for layer in layers) for place in range(columns)]
    most = max([*totals, *(max(line.values) for line in lines), 1e-9])
    frame = Frame(x_max=columns, y_max=nice(most), height=height)
    below = [0.0] * columns
    areas = []
    for layer in layers:
        above = [low + value for low, value in zip(below, layer.values, strict=True)]
        areas.append(
            f'<path d="{_step(frame, above)} {_step(frame, below, back=True)}Z" '
            f'fill="{layer.colour}" class="area"/>'
        )
        below = above
    drawn = [
        f'<path d="{_step(frame, line.values)}" class="line{" dashed" if line.is_dashed else ""}"/>'
        for line in lines
    ]
    width = frame.x(1) - frame.x(0)
    hovers = [
        f'<rect x="{frame.x(place):.1f}" y="{_TOP}" width="{width:.1f}" '
        f'height="{frame.bottom - _TOP:.1f}" class="hover"><title>{escape(title)}</title></rect>'
        for place, title in enumerate(titles)
    ]
    parts = [*_grid_y(frame, unit), *areas, *drawn, *_marks(frame, marks), *hovers]
    return _svg(frame, parts, "stacked capacity and demand by hour")


def _step(frame: Frame, values: Sequence[float], *, back: bool = False) -> str:
    """A path of flat pieces, a column each."""
    points = []
    for place, value in enumerate(values):
        y = frame.y(value)
        points += [(frame.x(place), y), (frame.x(place + 1), y)]
    if back:
        points.reverse()
    first = "L" if back else "M"
    return first + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def curve(
    points: Sequence[tuple[float, float]],
    *,
    band: Sequence[tuple[float, float, float]] = (),
    steps: Sequence[tuple[float, float]] = (),
    level: tuple[float, str] | None = None,
    unit_x: str,
    unit_y: str,
) -> str:
    """A line through points with dots; a band (x, low, high) behind, a level across.

    `steps` (x, y): a line that is at y up to x, from the step before.
    """
    highest = max(
        [y for _, y in (*points, *steps)]
        + [high for _, _, high in band]
        + [level[0] if level else 0.0, 1e-9]
    )
    frame = Frame(x_max=max([x for x, _ in points] + [1e-9]), y_max=nice(highest), height=320)
    parts = _grid_y(frame, unit_y)
    if band:
        edge = [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]
        parts.append(f'<path d="{_path(frame, edge)}Z" class="band"/>')
    if level is not None:
        y = frame.y(level[0])
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{frame.width - _RIGHT}" class="line dashed"/>')
        parts.append(
            f'<text x="{frame.width - _RIGHT}" y="{y - 6:.1f}" text-anchor="end" class="ink">'
            f"{escape(level[1])}</text>"
        )
    parts.append(f'<path d="{_path(frame, points)}" class="line accent"/>')
    before = 0.0
    stairs: list[tuple[float, float]] = []
    for x, y in steps:
        stairs += [(before, y), (x, y)]
        before = x
    if stairs:
        parts.append(f'<path d="{_path(frame, stairs)}" class="line"/>')
    for x, y in points:
        told = escape(f"{short(x)} {unit_x}: {short(y)} {unit_y}")
        parts.append(
            f'<circle cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="4" class="dot">'
            f"<title>{told}</title></circle>"
        )
    parts += _ticks_x(frame, unit_x)
    return _svg(frame, parts, f"{unit_y} by {unit_x}")


def burn(
    left: Sequence[tuple[float, float]], *, names: Sequence[tuple[float, str]], usd: float
) -> str:
    """Credit that is left over the horizon, beside even use; x in days, y in USD."""
    frame = Frame(x_max=left[-1][0], y_max=nice(usd), height=240)
    even = [(0.0, usd), (frame.x_max, 0.0)]
    shape = [*left, (frame.x_max, 0.0), (0.0, 0.0)]
    parts = [
        *_grid_y(frame, "USD left"),
        f'<path d="{_path(frame, shape)}Z" class="band"/>',
        f'<path d="{_path(frame, even)}" class="line dashed"/>',
        f'<path d="{_path(frame, left)}" class="line accent"/>',
    ]
    for day, name in names:
        x = frame.x(day)
        parts.append(f'<path d="M{x:.1f} {frame.bottom}v6" class="axis"/>')
        parts.append(f'<text x="{x + 4:.1f}" y="{frame.bottom + 18}">{escape(name)}</text>')
    at_x, at_y = frame.x(left[-1][0]), frame.y(left[-1][1])
    parts.append(f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="4" class="dot"/>')
    return _svg(frame, parts, "credit left over the horizon")


def _path(frame: Frame, points: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{frame.x(x):.1f} {frame.y(y):.1f}" for x, y in points)


def _grid_y(frame: Frame, unit: str) -> list[str]:
    parts = []
    for tick in range(_TICKS_Y + 1):
        value = frame.y_max * tick / _TICKS_Y
        y = frame.y(value)
        kind = "axis" if tick == 0 else "grid"
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{frame.width - _RIGHT}" class="{kind}"/>')
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>'
        )
    parts.append(f'<text x="0" y="{frame.height - 6}">{unit}</text>')
    return parts


def _ticks_x(frame: Frame, unit: str) -> list[str]:
    parts = []
    most = nice(frame.x_max)
    for tick in range(_TICKS_Y + 1):
        value = most * tick / _TICKS_Y
        if value > frame.x_max * 1.001:
            break
        x = frame.x(value)
        parts.append(f'<path d="M{x:.1f} {frame.bottom}v5" class="axis"/>')
        anchor = "end" if x > frame.width - 2 * _RIGHT else "middle"
        parts.append(
            f'<text x="{x:.1f}" y="{frame.bottom + 18}" text-anchor="{anchor}">'
            f"{short(value)}</text>"
        )
    parts.append(
        f'<text x="{frame.width - _RIGHT}" y="{frame.height - 8}" text-anchor="end">{unit}</text>'
    )
    return parts


def _marks(frame: Frame, marks: Sequence[Mark]) -> list[str]:
    parts = []
    for mark in marks:
        x = frame.x(mark.column)
        length = 34 if mark.begins else 5
        below = 32 if mark.begins else 17
        parts.append(f'<path d="M{x:.1f} {frame.bottom}v{length}" class="axis"/>')
        if mark.begins and mark.column:
            parts.append(f'<path d="M{x:.1f} {_TOP}V{frame.bottom}" class="grid"/>')
        anchor, beside = ("start", 5) if mark.begins else ("middle", 0)
        weight = ' class="ink"' if mark.begins else ""
        parts.append(
            f'<text x="{x + beside:.1f}" y="{frame.bottom + below}" text-anchor="{anchor}"{weight}>'
            f"{escape(mark.text)}</text>"
        )
    return parts


def _svg(frame: Frame, parts: Sequence[str], label: str) -> str:
    return (
        f'<div class="scroll"><svg viewBox="0 0 {frame.width:g} {frame.height:g}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg></div>'
    )


def nice(value: float) -> float:
    """A round number at or above it, whose quarters are round as well."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)
    return next(step * power for step in steps if step * power >= value * 0.9999)


def short(value: float) -> str:
    """1.2 M."""
    for unit, word in ((1e9, " B"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= unit:
            by = 1e3 if word == " k" else unit
            return f"{value / by:.3g}{word}"
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"
