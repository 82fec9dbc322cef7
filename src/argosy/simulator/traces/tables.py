"""CSV files of requests: the traces of Azure's LLM service, 2023 and 2024, and their like.

Columns by name, in any order: `TIMESTAMP,ContextTokens,GeneratedTokens` (a date and time with up to
9 fractional digits, with or without a zone) or `t_s,input_tokens,output_tokens` (seconds). Whole
blocks are parsed by pyarrow; only when it refuses one are its lines read singly, to say which.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from argosy.simulator.traces.files import Block, TraceFile, check_rows
from argosy.simulator.traces.window import Trace, TraceError, Window, window_of

if TYPE_CHECKING:
    import pyarrow

AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
REDUCED = ("t_s", "input_tokens", "output_tokens")
_WHOLE = re.compile(r"-?[0-9]+")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?")
NS = 1_000_000_000

Columns = dict[str, NDArray[np.float64] | NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class _Table:
    """What a CSV file's header and first row say about all its rows."""

    header: tuple[str, ...]
    used: tuple[str, str, str]  # the time, the prompt's tokens, the answer's
    is_dated: bool  # times are dates, not seconds
    has_zone: bool
    zero_output_as_one: bool
    origin_ns: int = 0  # of the first row, when dated

    @property
    def unused(self) -> list[str]:
        return [name for name in self.header if name not in self.used]


def is_table(header: bytes) -> bool:
    """Whether a first line has the columns of a trace."""
    names = {name.strip() for name in header.decode("utf-8", "replace").split(",")}
    return names >= set(AZURE) or names >= set(REDUCED)


def read_table(file: TraceFile, *, ordered: bool, zero_output_as_one: bool) -> Trace:
    """A CSV file as a trace; its first block is read at once, the rest when iterated."""
    table, first = _inspected(file, zero_output_as_one=zero_output_as_one)
    starts_at_s = None
    if table.is_dated:
        # Of all columns the time alone, in whole nanoseconds: a float holds no 19 digits.
        table = replace(table, origin_ns=int(_parsed(first, table)[0][0]))
        starts_at_s = table.origin_ns / NS
    unused = f", columns not used: {', '.join(table.unused)}" if table.unused else ""
    times = "dates" if table.is_dated else "seconds"
    return Trace(
        pieces=lambda: _pieces(file, table, ordered=ordered),
        found=f"{file.name}: CSV with times in {times}{unused}",
        starts_at_s=starts_at_s,
    )


def _pieces(file: TraceFile, table: _Table, *, ordered: bool) -> Iterator[Window]:
    last_s = -np.inf
    for block in file.blocks():
        rows = _without_header(block) if block.first_line == 1 else block
        if not rows.data.strip():
            continue
        columns = _columns(rows, table)
        check_rows(rows.refusal, columns, after_s=last_s if ordered else None)
        last_s = float(columns["arrival_s"][-1])
        yield window_of(dict(columns), rows=columns["arrival_s"].size)


def _inspected(file: TraceFile, *, zero_output_as_one: bool) -> tuple[_Table, Block]:
    first = next(file.blocks(), None)
    if first is None:
        raise TraceError(f"{file.name}: the file is empty; a trace has at least one request")
    names = tuple(name.strip() for name in first.lines()[0].decode("utf-8", "replace").split(","))
    used = AZURE if set(AZURE) <= set(names) else REDUCED
    if not set(used) <= set(names):
        raise first.refusal(
            0, f"the header lacks the columns {','.join(AZURE)} (or {','.join(REDUCED)})."
        )
    if len(set(names)) < len(names):
        raise first.refusal(0, "the header names a column twice.")
    body = _without_header(first)
    if not body.data.strip():
        raise TraceError(f"{file.name}: there is a header and no request; a trace has at least one")
    cells = body.lines()[0].decode("utf-8", "replace").split(",")
    place = names.index(used[0])
    moment = _MOMENT.fullmatch(cells[place]) if place < len(cells) else None
    table = _Table(
        header=names,
        used=used,
        is_dated=used is AZURE,
        has_zone=moment is not None and moment[1] is not None,
        zero_output_as_one=zero_output_as_one,
    )
    return table, body


def _without_header(block: Block) -> Block:
    return replace(block, first_line=2, data=block.data.partition(b"\n")[2])


def _columns(block: Block, table: _Table) -> Columns:
    times, prompt, output = _parsed(block, table)
    arrival_s = (times - table.origin_ns) / NS if table.is_dated else times.astype(np.float64)
    if table.zero_output_as_one:
        output = np.where(output == 0, 1, output)
    return {"arrival_s": arrival_s, "prompt_tokens": prompt, "output_tokens": output}


def _parsed(block: Block, table: _Table) -> Sequence[NDArray[np.int64]]:
    """Times (whole nanoseconds, or seconds as they stand) and tokens of every line."""
    try:
        import pyarrow
    except ImportError as error:
        raise TraceError(
            "a CSV trace needs the package pyarrow: pip install 'argosy[simulate]'"
        ) from error
    try:
        read = _arrow(block.data, table)
    except pyarrow.ArrowInvalid as error:
        _refuse_bad_line(block, table)
        last = block.first_line + len(block.lines()) - 1
        raise TraceError(f"{block.file}:{block.first_line}-{last}: {error}") from error
    return [column.to_numpy() for column in read.columns]


def _arrow(data: bytes, table: _Table) -> "pyarrow.Table":
    import pyarrow
    from pyarrow import csv

    moment = pyarrow.timestamp("ns", tz="UTC" if table.has_zone else None)
    time, prompt, output = table.used
    whole = pyarrow.int64()
    read = csv.read_csv(
        io.BytesIO(data.rstrip(b"\r\n") + b"\n"),
        read_options=csv.ReadOptions(
            column_names=list(table.header), use_threads=False, block_size=len(data) + 2
        ),
        # Every line is a row, so that a row's number tells its line.
        parse_options=csv.ParseOptions(ignore_empty_lines=False, quote_char=False),
        convert_options=csv.ConvertOptions(
            include_columns=list(table.used),
            column_types={
                time: moment if table.is_dated else pyarrow.float64(),
                prompt: whole,
                output: whole,
            },
            null_values=[],
        ),
    )
    if table.is_dated:
        read = read.set_column(0, time, read.column(0).cast(whole))
    return read


def _refuse_bad_line(block: Block, table: _Table) -> None:
    """Find the line at which the parser stumbled, and say what it should be."""
    places = [table.header.index(name) for name in table.used]
    for index, line in enumerate(block.lines()):
        cells = line.decode("utf-8", "replace").split(",")
        if len(cells) != len(table.header):
            raise block.refusal(index, f"{len(cells)} columns; the header has {len(table.header)}.")
        for place, name in zip(places, table.used, strict=True):
            if wrong := _wrong(cells[place].strip(" \t"), name, table):
                raise block.refusal(index, wrong)


def _wrong(text: str, name: str, table: _Table) -> str | None:
    if name != table.used[0]:
        if _WHOLE.fullmatch(text) is None:
            return f'{name} is "{text}"; a whole number would do.'
        return None if abs(int(text)) < 2**63 else f"{name} is {text}; it has 64 bits at most."
    if not table.is_dated:
        return None if _is_number(text) else f'{name} is "{text}"; seconds would do, such as 12.5.'
    moment = _MOMENT.fullmatch(text)
    if moment is None or not _is_moment(text[:19]):
        return f'{name} is "{text}"; a date and time would do: 2023-11-16 18:17:03.9799600.'
    if (moment[1] is not None) != table.has_zone:
        has = "has a time zone" if table.has_zone else "has no time zone"
        return f'{name} is "{text}"; the first row {has}, so must this one (or the reverse).'
    return None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_moment(text: str) -> bool:
    try:
        year = datetime.fromisoformat(text).year
    except ValueError:
        return False
    return 1678 <= year <= 2261  # what 64 bits of nanoseconds hold
