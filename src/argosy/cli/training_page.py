"""How a run looks: a page that refreshes itself on a terminal, plain lines elsewhere.

Owns words and columns; the figures are `training_picture.py`'s.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from argosy.cli.training_picture import IslandPicture, Picture

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType
    from rich.table import Table

    from argosy.cli.training_supervisor import ChildState

_STATE_STYLES = {"live": "green", "silent": "yellow", "left": "dim", "away": "yellow"}
_BAR_CHARS = 32
_REASON_CHARS = 200


def page(picture: Picture, children: "Sequence[ChildState]" = ()) -> "Group":
    """One screen of a run; `children`: the processes, where they are ours."""
    from rich.console import Group
    from rich.text import Text

    parts: list[RenderableType] = [Text(head_line(picture), style="bold")]
    parts.append(Text(_progress(picture)))
    parts.append(Text(_figures(picture)))
    parts += [Text(""), islands_table(picture, children)]
    troubles = [*_troubles(children), *_refusals(picture)]
    if troubles:
        parts += [Text(""), *(Text(line, style="yellow") for line in troubles)]
    return Group(*parts)


def head_line(picture: Picture) -> str:
    """Name, state, round."""
    version = "no round yet" if picture.version is None else f"round {picture.version}"
    lasted = duration(picture.lasted_s)
    return f"run {picture.run}  {picture.state}  {version}  {lasted}"


def plain_line(picture: Picture) -> str:
    """All in one line, for where stderr is no terminal."""
    share = picture.tokens_done / picture.tokens
    islands = ", ".join(
        f"{one.island} {one.state} {rate(one.tokens_per_s)}"
        f"{'' if one.waited_share is None else f' waited {one.waited_share:.1%}'}"
        for one in picture.islands
    )
    return (
        f"{picture.run}  {picture.state}  round {dash(picture.version)}  {share:.1%}  "
        f"loss {number(picture.loss)}  validation {number(picture.loss_validation)}  "
        f"{rate(picture.tokens_per_s)}  eta {duration(picture.eta_s)}  [{islands}]"
    )


def islands_table(picture: Picture, children: "Sequence[ChildState]" = ()) -> "Table":
    """A row for each island."""
    from rich.table import Table
    from rich.text import Text

    pids = {child.name: child.pid for child in children}
    table = Table(box=None, pad_edge=False)
    table.add_column("ISLAND")
    table.add_column("STATE")
    columns = ["TOKENS/S", "MFU", "TOKENS", "LOSS", "WAITED", "UP", "DOWN", "LIVES"]
    is_billed = any(one.usd_per_million_tokens is not None for one in picture.islands)
    is_metered = any(one.joules_per_million_tokens is not None for one in picture.islands)
    columns += [*(["USD/MTOK"] if is_billed else []), *(["KJ/MTOK"] if is_metered else [])]
    for heading in (*columns, *(["PID"] if children else [])):
        table.add_column(heading, justify="right")
    for one in picture.islands:
        state = Text(island_state(one), style=_STATE_STYLES[one.state])
        usd, joules = one.usd_per_million_tokens, one.joules_per_million_tokens
        costs = ["-" if usd is None else f"{usd:,.2f}"] if is_billed else []
        costs += ["-" if joules is None else f"{joules / 1e3:,.1f}"] if is_metered else []
        pid = [dash(pids.get(one.island))] if children else []
        table.add_row(one.island, state, *_cells(one), *costs, *pid)
    return table


def island_state(one: IslandPicture) -> str:
    """With the silence of one that should be heard."""
    if one.state == "silent" and one.silent_s is not None:
        return f"silent {duration(one.silent_s)}"
    return one.state


def print_page(picture: Picture, console: "Console") -> None:
    """`argosy runs show`, to stdout."""
    console.print(page(picture))
    if picture.round_reason is not None:
        console.print(f"\nlast round closed: {picture.round_reason}")


def json_line(picture: Picture) -> bytes:
    """One line for machines."""
    return msgspec.json.encode(picture)


def duration(seconds: float | None) -> str:
    """As short as it is read: 41 s, 3 min 20 s, 5 h 12 min."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def rate(tokens_per_s: float | None) -> str:
    """Tokens per second."""
    return "-" if tokens_per_s is None else f"{tokens_per_s:,.0f} tokens/s"


def number(value: float | None) -> str:
    """A loss."""
    return "-" if value is None else f"{value:.4f}"


def dash(value: object) -> str:
    """`-` where it is unknown."""
    return "-" if value is None else str(value)


def size(value_bytes: float) -> str:
    """Bytes, in units of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if value_bytes < 1000:
            return f"{value_bytes:.0f} {unit}" if unit == "B" else f"{value_bytes:.1f} {unit}"
        value_bytes /= 1000
    return f"{value_bytes:.1f} TB"


def _progress(picture: Picture) -> str:
    share = picture.tokens_done / picture.tokens
    filled = round(share * _BAR_CHARS)
    bar = "\N{BOX DRAWINGS HEAVY HORIZONTAL}" * filled
    rest = "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * (_BAR_CHARS - filled)
    return (
        f"{bar}{rest} {share:6.1%}  {picture.tokens_done:,} of {picture.tokens:,} tokens  "
        f"{rate(picture.tokens_per_s)}  eta {duration(picture.eta_s)}"
    )


def _figures(picture: Picture) -> str:
    at = picture.loss_validation_version
    fewer = picture.bytes_ratio
    told = [
        f"loss {number(picture.loss)}",
        f"validation {number(picture.loss_validation)}{'' if at is None else f' (round {at})'}",
        f"{size(picture.bytes_moved)} moved"
        + ("" if fewer is None else f", {fewer:,.0f}x fewer than fp32 all-reduce each step"),
        f"goodput {'-' if picture.goodput is None else f'{picture.goodput:.1%}'}",
        f"{picture.deltas} deltas, {picture.deltas_refused} refused",
    ]
    return "  ".join(told)


def _cells(one: IslandPicture) -> list[str]:
    return [
        "-" if one.tokens_per_s is None else f"{one.tokens_per_s:,.0f}",
        "-" if one.mfu is None else f"{one.mfu:.1%}",
        f"{one.tokens_done:,}",
        number(one.loss),
        "-" if one.waited_share is None else f"{one.waited_share:.1%}",
        size(one.bytes_up),
        size(one.bytes_down),
        str(one.lives),
    ]


def _troubles(children: "Sequence[ChildState]") -> list[str]:
    return [
        f"{child.name}: {child.state} after {child.starts} starts; {child.reason}"
        for child in children
        if child.state in ("waiting", "refused", "gave_up")
    ]


def _refusals(picture: Picture) -> list[str]:
    return [
        f"refused: {one.island}'s delta {one.number} of {one.tokens:,} tokens: "
        f"{one.reason[:_REASON_CHARS]}"
        for one in picture.refusals[-3:]
    ]
