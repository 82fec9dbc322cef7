"""One door to every file of recorded demand: what a file is, by its content."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, Literal, get_args

import msgspec
import numpy as np

from argosy.simulator.traces.files import Block, TraceFile
from argosy.simulator.traces.records import read_bailian, read_mooncake, read_openai
from argosy.simulator.traces.servegen import read_servegen
from argosy.simulator.traces.tables import is_table, read_table
from argosy.simulator.traces.usage import read_usage
from argosy.simulator.traces.window import Trace, TraceError, in_order, joined

Kind = Literal["csv", "mooncake", "bailian", "openai", "usage", "servegen"]
_READERS: dict[str, Callable[..., Trace]] = {
    "csv": read_table,
    "mooncake": read_mooncake,
    "bailian": read_bailian,
    "openai": read_openai,
}
_WHAT_IS_READ = (
    "CSV with TIMESTAMP,ContextTokens,GeneratedTokens or t_s,input_tokens,output_tokens; JSON "
    "lines of Mooncake, Qwen-Bailian or OpenAI-shaped answers; argosy usage --records N --json; "
    "ServeGen's client rates in parquet; plain, .gz or .zst"
)


def open_trace(
    source: str | Path | BinaryIO,
    *,
    kind: Kind | None = None,
    sort: bool = False,
    zero_output_as_one: bool = False,
    seed: int = 0,
) -> Trace:
    """The demand recorded in a file; its `found` says what it is. TraceError where it is not one.

    `kind` None: by content. `sort`: rows may come in any order; all are held in memory. Usage
    records are always sorted and their empty answers read as one token. `seed` draws the requests
    of a ServeGen file, whose token lengths lie beside it.
    """
    if kind is not None and kind not in get_args(Kind):
        raise TraceError(f'"{kind}" is no kind of trace; {", ".join(get_args(Kind))} are')
    file = TraceFile(source)
    packing = file.packing()
    kind = kind or ("servegen" if packing == "parquet" else _kind_of(file))
    if kind == "servegen":
        return read_servegen(file, seed=seed)
    if kind == "usage":
        trace = read_usage(file)
    else:
        reader = _READERS[kind]
        trace = reader(file, ordered=not sort, zero_output_as_one=zero_output_as_one)
    if packing != "plain":
        trace = replace(trace, found=f"{trace.found} ({packing})")
    return sorted_trace(trace) if sort and kind != "usage" else trace


def sorted_trace(trace: Trace) -> Trace:
    """The same requests by arrival, all in memory; those that arrive together stay as they are.

    Where the calendar is known, second 0 becomes the first arrival.
    """
    windows = list(trace.pieces())
    if not windows:
        raise TraceError(f"{trace.found}: there is no request in it; a trace has at least one")
    window = in_order(joined(windows))
    first_s = float(window.arrival_s[0])
    starts_at_s = trace.starts_at_s
    if starts_at_s is not None:
        window = window._replace(arrival_s=window.arrival_s - first_s)
        starts_at_s += first_s
    elif not np.isfinite(first_s) or first_s < 0:
        raise TraceError(f"{trace.found}: a request arrives at {first_s} s; 0 s is the earliest")
    return replace(
        trace,
        pieces=lambda: iter([window]),
        found=f"{trace.found}, sorted",
        starts_at_s=starts_at_s,
    )


def _kind_of(file: TraceFile) -> Kind:
    for block in file.blocks():
        for index, line in enumerate(block.lines()):
            if line.strip():
                return _kind_of_line(line, block, index)
    raise TraceError(f"{file.name}: the file is empty; a trace has at least one request")


def _kind_of_line(line: bytes, block: Block, index: int) -> Kind:
    if line.lstrip().startswith(b"["):
        return "usage"
    if not line.lstrip().startswith(b"{"):
        if is_table(line):
            return "csv"
        raise block.refusal(index, f"this is no trace. What is read: {_WHAT_IS_READ}.")
    try:
        fields = msgspec.json.decode(line, type=dict[str, msgspec.Raw]).keys()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise block.refusal(index, f"{error}.") from error
    marks: list[tuple[Kind, set[str]]] = [
        ("bailian", {"hash_ids", "chat_id"}),
        ("mooncake", {"hash_ids"}),
        ("usage", {"at_s", "outcome"}),
        ("openai", {"usage"}),
    ]
    for kind, needed in marks:
        if needed <= fields:
            return kind
    raise block.refusal(index, f"this is no request of a trace. What is read: {_WHAT_IS_READ}.")
