"""A table on a terminal or in a pipe, whatever strings strangers put into it."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPE_WIDTH_CHARS = 200  # a pipe has no width of its own
_UNBOUNDED_CHARS = 10_000  # rich measures nothing beyond the width that it is told


def plain_console() -> "Console":
    """Stdout, where nothing is markup: a model's name comes from whoever sent the request."""
    from rich.console import Console

    width_chars = None if sys.stdout.isatty() else PIPE_WIDTH_CHARS
    return Console(markup=False, emoji=False, highlight=False, width=width_chars)


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print it to stdout; None becomes "-", numbers stand at the right.

    A terminal that is too narrow for the whole table gets the rows one below the other.
    """
    cells = list(rows)
    console = plain_console()
    table = _table(headings, cells)
    if fits(table, console):
        console.print(table)
        return
    for position, row in enumerate(cells):
        if position:
            console.print()
        console.print(_one_row(headings, row))


def fits(table: "Table", console: "Console") -> bool:
    """True when the terminal is wide enough to break no cell."""
    unbounded = console.options.update(max_width=_UNBOUNDED_CHARS)
    return console.measure(table, options=unbounded).maximum <= console.width


def _table(headings: Sequence[str], cells: Sequence[Sequence[object]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for index, heading in enumerate(headings):
        is_number = any(isinstance(row[index], int | float) for row in cells)
        table.add_column(heading, overflow="fold", justify="right" if is_number else "left")
    for row in cells:
        table.add_row(*(_printable(cell) for cell in row))
    return table


def _one_row(headings: Sequence[str], row: Sequence[object]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, cell in zip(headings, row, strict=True):
        table.add_row(heading, _printable(cell))
    return table


def _printable(cell: object) -> str:
    if cell is None:
        return "-"
    text = f"{cell:.3f}" if isinstance(cell, float) else str(cell)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
