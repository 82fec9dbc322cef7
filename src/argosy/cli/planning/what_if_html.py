"""`argosy plan what-if --html`: each change on one page: what it costs, what binds, what moves."""

from html import escape

from argosy.cli.planning import page as html
from argosy.cli.planning import what_if as pages
from argosy.cli.planning.moves import moved_bars
from argosy.cli.planning.what_if import Outcome, WhatIfReport
from argosy.cli.planning.words import number, percent
from argosy.planner.questions.reliefs import Relief

_MORE, _LESS, _RELIEVED = "var(--bad)", "var(--good)", "var(--accent)"
_TILES_MAX = 6
_WIDTH, _HEIGHT, _MARGIN = 860.0, 92.0, 14.0
_TRACK_Y, _TRACK_HEIGHT = 32.0, 12.0


def what_if_html(report: WhatIfReport) -> str:
    """The whole file."""
    many = len(report.outcomes) > 1
    return html.page(
        f"{report.fleet}: what if",
        [
            html.head(f"{report.fleet}: what if?", _lines(report)),
            _tiles(report),
            _costs(report),
            *(_outcome(report, one) for one in report.outcomes),
            html.note("Each change stands alone; none is added to another.") if many else "",
        ],
    )


def _lines(report: WhatIfReport) -> tuple[str, ...]:
    gap = percent(report.gap_before)
    return (
        f"From {report.begin}. The plan as it is costs {report.usd_per_hour_before:,.0f} USD an "
        f"hour, at most {gap} from the best.",
    )


def _tiles(report: WhatIfReport) -> str:
    found = [(f"{report.usd_per_hour_before:,.0f} USD", "an hour, as it is")]
    for one in report.outcomes[:_TILES_MAX]:
        more = one.more_usd_per_hour
        told = "no plan" if more is None else f"{more:+,.0f} USD".replace("-", "\u2212")
        found.append((told, one.change))
    return html.tiles(found)


def _costs(report: WhatIfReport) -> str:
    """What an hour costs, before and after each."""
    before = report.usd_per_hour_before
    rows = [
        html.Bar(name="as it is", pieces=((html.REST, before),), value=f"{before:,.0f} USD"),
        *(_cost_bar(report, one) for one in report.outcomes),
    ]
    key = [("as it is", html.REST)]
    mores = [one.more_usd_per_hour for one in report.outcomes if one.more_usd_per_hour is not None]
    if any(more > 0 for more in mores):
        key.append(("more", _MORE))
    if any(more < 0 for more in mores):
        key.append(("less", _LESS))
    if any(one.usd_per_hour is None and one.reliefs for one in report.outcomes):
        key.append(("more, where only a relief makes a plan possible", _RELIEVED))
    return html.section("What an hour costs", html.legend(key), html.bars(rows))


def _cost_bar(report: WhatIfReport, one: Outcome) -> html.Bar:
    before, then = report.usd_per_hour_before, one.usd_per_hour
    if then is not None:
        return html.Bar(
            name=one.change, pieces=_pieces(before, then, _MORE), value=f"{then:,.0f} USD"
        )
    if not one.reliefs:
        return html.Bar(name=one.change, under="no plan", pieces=(), value="no plan")
    best = one.reliefs[0]
    return html.Bar(
        name=one.change,
        under=f"no plan; with {best.text}",
        pieces=_pieces(before, best.usd_per_hour, _RELIEVED),
        value=f"{best.usd_per_hour:,.0f} USD",
    )


def _pieces(before: float, then: float, colour: str) -> tuple[tuple[str, float], ...]:
    """Up to what it cost before, and what is more; all in green where it is less."""
    if then < before:
        return ((_LESS, then),)
    return ((html.REST, before), (colour, then - before))


def _outcome(report: WhatIfReport, one: Outcome) -> str:
    """One change in words and pictures."""
    kind = "bad" if one.usd_per_hour is None else "ink"
    said = pages.cost_text(report, one)
    gap = "" if one.gap is None else f" At most {percent(one.gap)} from the best."
    return html.section(
        one.change,
        f'<p><b class="{kind}">{escape(said[0].upper() + said[1:])}.</b>{escape(gap)}</p>',
        _conflict(one),
        *(html.text(line) for line in pages.bound_lines(one)),
        _way(one),
        _reliefs(report, one),
        _moved(one),
        html.items(one.remarks),
    )


def _conflict(one: Outcome) -> str:
    if not one.conflict:
        return ""
    told = "These cannot hold together, and any one less would do:"
    return html.text(told) + html.items(one.conflict)


def _way(one: Outcome) -> str:
    """From nothing of the change to all of it: where a constraint binds, where plans end."""
    first, last = one.first_bound_extent, one.possible_extent
    if (first is None or first >= 1.0) and last is None:
        return ""
    bind = 1.0 if first is None else first
    end = 1.0 if last is None else max(last, bind)
    stretches = [(0.0, bind, _LESS), (bind, end, "var(--accent)"), (end, 1.0, _MORE)]
    parts = [
        f'<rect x="{_x(low):.1f}" y="{_TRACK_Y}" width="{_x(high) - _x(low):.1f}" '
        f'height="{_TRACK_HEIGHT}" fill="{colour}"/>'
        for low, high, colour in stretches
        if high > low
    ]
    below = _TRACK_Y + _TRACK_HEIGHT
    if first is not None and first < 1.0:
        parts += _mark(first, f"binds from {one.first_bound_at}", above=True)
    if last is not None:
        parts += _mark(last, f"no plan beyond {one.possible_until}", above=False)
    parts.append(f'<text x="{_MARGIN}" y="{below + 40}">as it is</text>')
    parts.append(
        f'<text x="{_WIDTH - _MARGIN}" y="{below + 40}" text-anchor="end">'
        f"{escape(one.change)}</text>"
    )
    label = escape(f"how much of the change leaves a plan: {one.change}")
    key = [("nothing new binds", _LESS), ("it binds", "var(--accent)")]
    if last is not None:
        key.append(("no plan", _MORE))
    return (
        html.legend(key)
        + f'<div class="scroll"><svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" '
        f'aria-label="{label}">{"".join(parts)}</svg></div>'
    )


def _x(extent: float) -> float:
    return _MARGIN + (_WIDTH - 2 * _MARGIN) * extent


def _mark(extent: float, told: str, *, above: bool) -> list[str]:
    """A tick on the track, and words that stay inside the picture."""
    x = _x(extent)
    low, high = _TRACK_Y - 8, _TRACK_Y + _TRACK_HEIGHT + 8
    anchor, shift = ("start", 4) if extent < 0.5 else ("end", -4)
    y = _TRACK_Y - 12 if above else _TRACK_Y + _TRACK_HEIGHT + 20
    ends = f"{low}V{_TRACK_Y + _TRACK_HEIGHT}" if above else f"{_TRACK_Y}V{high}"
    return [
        f'<path d="M{x:.1f} {ends}" class="axis"/>',
        f'<text x="{x + shift:.1f}" y="{y}" text-anchor="{anchor}" class="ink">'
        f"{escape(told)}</text>",
    ]


def _reliefs(report: WhatIfReport, one: Outcome) -> str:
    """What plans then cost an hour, beside what they cost without: more, or less."""
    if not one.reliefs:
        return ""
    rows = [
        html.Bar(
            name=relief.text,
            pieces=_relief_pieces(report.usd_per_hour_before, relief),
            value=_relief_value(relief),
        )
        for relief in one.reliefs
    ]
    if one.usd_per_hour is None:
        key = [("as it is", html.REST), ("more", _RELIEVED)]
    else:
        key = [("then", html.REST), ("saved", _LESS)]
    told = "The first is a plan; where it says at least, fractions of nodes and replicas cost that."
    is_told = any(relief.is_at_least for relief in one.reliefs)
    return (
        "<h3>What would help, the cheapest first: USD an hour</h3>"
        + html.legend(key)
        + html.bars(rows)
        + html.note(told if is_told else "")
    )


def _relief_pieces(before: float, relief: Relief) -> tuple[tuple[str, float], ...]:
    if relief.saves_usd_per_hour is None:
        return _pieces(before, relief.usd_per_hour, _RELIEVED)
    return ((html.REST, relief.usd_per_hour), (_LESS, relief.saves_usd_per_hour))


def _relief_value(relief: Relief) -> str:
    if relief.saves_usd_per_hour is not None:
        return f"{relief.usd_per_hour:,.0f}, {relief.saves_usd_per_hour:,.0f} saved"
    return f"{'at least ' if relief.is_at_least else ''}{relief.usd_per_hour:,.0f}"


def _moved(one: Outcome) -> str:
    rows = pages.moved_most(one)
    if not rows:
        return ""
    by = "" if one.usd_per_hour is not None else ", with the cheapest relief"
    bars = moved_bars(
        ((row.pool, row.chip, row.chips_mean_before, row.chips_mean_after) for row in rows),
        before="before",
        after="after",
    )
    heads = ("Pool", "Chip", "Chips in use", "After", "USD/h", "After")
    cells = [
        (
            row.pool, row.chip, number(row.chips_mean_before), number(row.chips_mean_after),
            f"{row.usd_per_hour_before:,.0f}", f"{row.usd_per_hour_after:,.0f}",
        )
        for row in rows
    ]  # fmt: skip
    told = "Chips in use on average. What is held is paid whether it is used or not."
    return (
        f"<h3>What moves, by pool{by}</h3>"
        + html.bars(bars)
        + html.table(heads, cells)
        + html.note(told)
    )
