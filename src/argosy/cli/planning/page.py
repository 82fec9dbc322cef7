"""The frame of the planner's pages: one file, no network, no script, light and dark.

Small pieces of HTML; every string that comes from a file is escaped here.
"""

from collections.abc import Sequence
from html import escape

import msgspec

# Colours that keep apart for the colour-blind, by place: a pool has one throughout the page.
_LIGHT = ("2a78d6", "eb6834", "1baf7a", "eda100", "4a3aa7", "e34948", "e87ba4", "7a8a1f")
_DARK = ("3987e5", "d95926", "199e70", "c98500", "9085e9", "e66767", "d55181", "93a52e")
COLOURS = len(_LIGHT)
REST = "var(--rest)"  # of what has no colour of its own

_STYLE = """
:root{color-scheme:light dark;--page:#f7f7f5;--card:#fff;--ink:#17181a;--ink2:#5c6066;
--rule:#e3e3df;--soft:#d5d6d2;--land:#e7e8e3;--accent:#2a78d6;--good:#0d7a3e;--bad:#b3261e;--rest:#a9adb3;
--k0:#0f3d73;--k1:#2a68ad;--k2:#5c96d6;--k3:#9cc1ea;--k4:#cfe1f5;LIGHT}
@media (prefers-color-scheme:dark){:root{--page:#131416;--card:#1c1e21;--ink:#eceded;--ink2:#a2a6ad;
--rule:#303338;--soft:#43474d;--land:#2a2d31;--accent:#3987e5;--good:#5fc98a;--bad:#f08a80;
--rest:#6d7278;--k0:#cfe1f5;--k1:#9cc1ea;--k2:#5c96d6;--k3:#346fb3;--k4:#22466f;DARK}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,
"Segoe UI",Roboto,"DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}
main{max-width:1040px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:26px;line-height:1.2;margin:0 0 4px}
h2{font-size:18px;margin:0 0 4px}
h3{font-size:15px;margin:20px 0 2px}
p{margin:4px 0 10px}
.sub,.note{color:var(--ink2)}
.note{font-size:13px}
section{background:var(--card);border:1px solid var(--rule);border-radius:10px;
padding:18px 18px 14px;margin:16px 0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:18px 0}
.tile{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:12px 14px}
.tile b{display:block;font-size:22px;line-height:1.25;font-variant-numeric:tabular-nums}
.tile span{color:var(--ink2);font-size:13px}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch;margin:8px 0}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;font-size:12px;color:var(--ink2);white-space:nowrap}
th,td{padding:6px 12px 6px 0;border-bottom:1px solid var(--rule);vertical-align:top}
td.n,th.n{text-align:right;white-space:nowrap}
td.w{white-space:nowrap}td.long{min-width:190px}
tr:last-child td{border-bottom:0}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;font-size:13px;color:var(--ink2);margin:6px 0}
.swatch{white-space:nowrap}
.legend i,.swatch i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;
vertical-align:-1px}
.legend i.l{width:20px;height:0;border-top:2px solid var(--ink);border-radius:0;vertical-align:4px}
.legend i.d{border-top-style:dashed}
.bars{display:grid;grid-template-columns:minmax(0,38%) 1fr;gap:10px 14px;margin:10px 0}
.bars .what{font-size:14px}
.bars .what span{display:block}
.bars .track{display:flex;align-items:center;gap:8px;min-width:0}
.bars .fill{display:flex;height:18px;border-radius:4px;overflow:hidden;flex:0 0 auto;
width:calc(var(--w)*72%)}
.bars .fill i{display:block;height:100%}
.bars .value{font-size:13px;white-space:nowrap;font-variant-numeric:tabular-nums}
.meter{display:inline-block;width:56px;height:7px;border-radius:4px;background:var(--rule);
margin-right:8px;vertical-align:2px;overflow:hidden}
.meter i{display:block;height:100%;background:var(--accent)}
.good{color:var(--good)}.bad{color:var(--bad)}
ul{margin:4px 0 8px;padding-left:20px}li{margin:3px 0}
svg{display:block;width:100%;min-width:560px;height:auto;font:12.5px system-ui,-apple-system,
"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
svg text{fill:var(--ink2)}svg text.ink,svg .name{fill:var(--ink)}svg .name{font-weight:600}
svg .note{font-size:12px}
.map text{paint-order:stroke;stroke:var(--card);stroke-width:3px;stroke-linejoin:round}
.axis{stroke:var(--ink2);fill:none}.grid{stroke:var(--rule);fill:none}
.area{stroke:var(--card);stroke-width:.75}
.line{fill:none;stroke:var(--ink);stroke-width:2;stroke-linejoin:round}
.dashed{stroke-dasharray:5 4;stroke-width:1.5}
.accent{stroke:var(--accent)}.band{fill:var(--accent);opacity:.16}
.dot{fill:var(--accent);stroke:var(--card);stroke-width:1.5}
.hover{fill:transparent}.hover:hover{fill:var(--ink);fill-opacity:.07}
.land{fill:var(--land);stroke:none}
.way{fill:none;stroke:var(--ink2);stroke-opacity:.55;stroke-linecap:round}
.ring{fill:none;stroke:var(--card);stroke-width:1.5}
.client{fill:var(--card);stroke:var(--ink2);stroke-width:1.5}
details summary{cursor:pointer;color:var(--ink2);font-size:14px}
@media (max-width:520px){main{padding:16px 10px 40px}section{padding:14px 12px}h1{font-size:22px}
.tile b{font-size:19px}.bars{grid-template-columns:1fr;gap:2px 0}.bars .what{margin-top:8px}
.bars .fill{width:calc(var(--w)*58%)}svg{min-width:640px;font-size:14.5px}}
@media print{body{background:#fff}section{break-inside:avoid}}
"""


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A cell that is HTML already."""

    html: str
    is_number: bool = False


def page(title: str, parts: Sequence[str]) -> str:
    """The whole file."""
    style = _STYLE.replace("LIGHT", _palette(_LIGHT)).replace("DARK", _palette(_DARK))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{style}</style></head>\n<body><main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main></body></html>\n"
    )


def _palette(colours: Sequence[str]) -> str:
    return ";".join(f"--c{place}:#{colour}" for place, colour in enumerate(colours))


def colour_of(place: int) -> str:
    """Of a pool, by its place; beyond the palette all are grey."""
    return f"var(--c{place})" if place < COLOURS else REST


def head(title: str, lines: Sequence[str]) -> str:
    """The page's title and what it is about."""
    told = "".join(f'<p class="sub">{escape(line)}</p>' for line in lines)
    return f"<header><h1>{escape(title)}</h1>{told}</header>"


def tiles(pairs: Sequence[tuple[str, str]]) -> str:
    """Large numbers with what they are."""
    cells = "".join(
        f'<div class="tile"><b>{escape(value)}</b><span>{escape(what)}</span></div>'
        for value, what in pairs
    )
    return f'<div class="tiles">{cells}</div>'


def section(title: str, *parts: str) -> str:
    """A card; none where nothing is in it."""
    inside = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{inside}</section>" if inside else ""


def note(text: str) -> str:
    """Small print."""
    return f'<p class="note">{escape(text)}</p>' if text else ""


def text(words: str) -> str:
    """A paragraph."""
    return f"<p>{escape(words)}</p>"


def items(lines: Sequence[str]) -> str:
    """A list."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Numbers and what looks like one stand at the right; `Cell` is taken as it is."""
    if not rows:
        return ""
    right = [all(_is_number(row[place]) for row in rows) for place in range(len(headings))]
    kind = [' class="n"' if one else "" for one in right]
    tops = "".join(f"<th{kind[place]}>{escape(one)}</th>" for place, one in enumerate(headings))
    lines = "".join(
        f"<tr>{''.join(_cell(cell, kind[place]) for place, cell in enumerate(row))}</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{tops}</tr>{lines}</table></div>'


def _is_number(cell: object) -> bool:
    if isinstance(cell, Cell):
        return cell.is_number
    return cell is None or isinstance(cell, int | float) or str(cell)[:1] in "0123456789<-"


def _cell(cell: object, kind: str) -> str:
    if isinstance(cell, Cell):
        return f"<td{kind}>{cell.html}</td>"
    said = "–" if cell is None else str(cell)  # noqa: RUF001  a dash for what is not known
    wide = kind or (' class="w"' if len(said) < 28 else ' class="long"')
    return f"<td{wide}>{escape(said)}</td>"


def swatch(name: str, colour: str, under: str = "") -> Cell:
    """A name with its colour, and small print below it."""
    small = f'<br><span class="note">{escape(under)}</span>' if under else ""
    return Cell(
        html=f'<span class="swatch"><i style="background:{colour}"></i>{escape(name)}{small}</span>'
    )


def two(first: str, under: str) -> Cell:
    """Two short lines, the second small."""
    return Cell(
        html=f'<span style="white-space:nowrap">{escape(first)}<br>'
        f'<span class="note">{escape(under)}</span></span>'
    )


def meter(share: float, told: str) -> Cell:
    """A share as a bar, and in words."""
    width = 100 * min(1.0, max(0.0, share))
    return Cell(
        html=f'<span style="white-space:nowrap"><span class="meter">'
        f'<i style="width:{width:.0f}%"></i></span>{escape(told)}</span>'
    )


def legend(areas: Sequence[tuple[str, str]], lines: Sequence[tuple[str, bool]] = ()) -> str:
    """Names and colours; names of lines and whether they are dashed."""
    marks = [
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in areas
    ]
    marks += [
        f'<span><i class="l{" d" if is_dashed else ""}"></i>{escape(name)}</span>'
        for name, is_dashed in lines
    ]
    return f'<div class="legend">{"".join(marks)}</div>'


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a bar chart: a name, pieces (colour, size) and what is written behind."""

    name: str
    under: str = ""  # small print below the name
    pieces: tuple[tuple[str, float], ...]
    value: str


def bars(rows: Sequence[Bar]) -> str:
    """Bars of one scale; readable on a narrow screen."""
    most = max((sum(size for _, size in row.pieces) for row in rows), default=0.0) or 1.0
    parts = []
    for row in rows:
        total = sum(size for _, size in row.pieces)
        inner = "".join(
            f'<i style="width:{100 * size / total:.2f}%;background:{colour}"></i>'
            for colour, size in row.pieces
            if size
        )
        under = f'<span class="note">{escape(row.under)}</span>' if row.under else ""
        fill = f'<span class="fill" style="--w:{total / most:.4f}">{inner}</span>'
        parts.append(
            f'<div class="what"><span>{escape(row.name)}</span>{under}</div><div class="track">'
            f'{fill if total else ""}<span class="value">{escape(row.value)}</span></div>'
        )
    return f'<div class="bars">{"".join(parts)}</div>'
