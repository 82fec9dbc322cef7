"""A table on a terminal or in a pipe, whatever strings strangers put into it."""

import sys
from collections.abc import Iterable, Sequence

PIPE_WIDTH_CHARS = 200  # a pipe has no width of its own


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print it to stdout; None becomes "-", numbers stand at the right."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    cells = list(rows)
    for index, heading in enumerate(headings):
        is_number = any(isinstance(row[index], int | float) for row in cells)
        table.add_column(heading, overflow="fold", justify="right" if is_number else "left")
    for row in cells:
        table.add_row(*(_printable(cell) for cell in row))
    width_chars = None if sys.stdout.isatty() else PIPE_WIDTH_CHARS
    # Nothing in a cell is markup: a model's name comes from whoever sent the request.
    Console(markup=False, emoji=False, highlight=False, width=width_chars).print(table)


def _printable(cell: object) -> str:
    if cell is None:
        return "-"
    text = f"{cell:.3f}" if isinstance(cell, float) else str(cell)
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
