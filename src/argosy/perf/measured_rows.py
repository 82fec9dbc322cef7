"""Measured load tests: rows of a table with the columns of NVIDIA's "silicon sample".

Each row is one deployment under one load: mean TTFT and mean TPOT. The table comes from several
collections that write layouts in different ways; `_layout` reads them all. A file whose columns or
numbers cannot be read is refused with its line; a row whose model or chip is not known is kept
aside with the reason.
"""

import csv
import gzip
import io
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Literal

import msgspec

from argosy.fleet.architectures import Architecture, architecture
from argosy.fleet.catalogue import chip
from argosy.fleet.layout import Dtype, Layout
from argosy.perf.case import Case, Part

# What the table calls a system, where it is not a chip's name in another case.
_CHIP_OF_SYSTEM = {
    "h100_sxm": "H100-SXM",
    "h100_pcie": "H100-PCIe",
    "h200_sxm": "H200",
    "b200_sxm": "B200",
    "b300_sxm": "B300",
    "a100_sxm": "A100-80GB",
    "a100_80gb": "A100-80GB",
    "rtx_pro_6000": "RTX-PRO-6000",
}
_DTYPE_OF_MODE: dict[str, Dtype] = {
    "nvfp4": "fp4",
    "mxfp4": "fp4",
    "fp8": "fp8",
    "fp8_block": "fp8",
    "int4_wo": "int4",
    "int8_wo": "int8",
    "bfloat16": "bf16",
    "float16": "bf16",
    "": "bf16",
}
_DTYPES = ("bf16", "fp8", "int8", "int4", "fp4")
_NEEDED = (
    "backend",
    "model_path",
    "system",
    "mode",
    "isl",
    "osl",
    "silicon_ttft_ms",
    "silicon_tpot_ms",
)
Side = Literal["", "prefill_", "decode_"]


class UnreadableTable(ValueError):
    """A file that is no such table; the message names the line and what would be right."""


class MeasuredRow(msgspec.Struct, frozen=True, kw_only=True):
    """One load test and what it measured."""

    line: int  # in its file, the header being 1
    name: str
    case: Case
    ttft_s: float
    tpot_s: float


class RefusedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row that can be read but not answered."""

    line: int
    reason: str


def read_table(path: Path) -> tuple[list[MeasuredRow], list[RefusedRow]]:
    """All rows of a CSV file, gzipped or not. Raises `UnreadableTable`."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UnreadableTable(
            f"{path}: {error}. Give a CSV file, or one compressed by gzip."
        ) from error
    rows: list[MeasuredRow] = []
    refused: list[RefusedRow] = []
    for line, cells in _lines(path, text):
        outcome = _row(path, line, cells)
        (rows if isinstance(outcome, MeasuredRow) else refused).append(outcome)  # pyright: ignore[reportArgumentType]
    if not rows and not refused:
        raise UnreadableTable(f"{path}:1  has no rows. Each row below the header is a load test.")
    return rows, refused


def _lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(text), strict=True)
    missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise UnreadableTable(
            f"{path}:1  lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}. "
            f"The columns are those of measurements/silicon_ttft_tpot.csv.gz."
        )
    try:
        for cells in reader:
            if None in cells or None in cells.values():
                raise UnreadableTable(
                    f"{path}:{reader.line_num}  has another number of cells than the header."
                )
            yield reader.line_num, cells
    except csv.Error as error:
        raise UnreadableTable(f"{path}:{reader.line_num}  {error}.") from error


def _row(path: Path, line: int, cells: dict[str, str]) -> MeasuredRow | RefusedRow:
    cell = _Cells(path, line, cells)
    try:
        model = architecture(cells["model_path"])
        chip_found = chip(_CHIP_OF_SYSTEM.get(cells["system"].lower(), cells["system"]))
    except ValueError as error:
        return RefusedRow(line=line, reason=str(error).splitlines()[0])
    engine = cells["backend"]
    if engine not in ("vllm", "sglang", "trtllm"):
        return RefusedRow(line=line, reason=f'no engine "{engine}"; there are vllm, sglang, trtllm')
    is_split = cells["mode"] == "disagg"
    clients = _clients(cell, is_split)
    if clients is None:
        return RefusedRow(line=line, reason="neither concurrency nor batch_size is given")
    dtype = _dtype(cell, model)
    case = Case(
        model=model,
        chip=chip_found,
        engine=engine,
        engine_version=cell.text("backend_version"),
        decode=_part(cell, "decode_" if is_split else "", dtype, engine),
        prefill=_part(cell, "prefill_", dtype, engine) if is_split else None,
        input_tokens=cell.positive("isl"),
        output_tokens=cell.positive("osl"),
        clients=clients,
        measured=cell.date("measured"),
        is_ramped="auto-gap" in cell.text("silicon_data_source"),
    )
    return MeasuredRow(
        line=line,
        name=cell.text("id"),
        case=case,
        ttft_s=cell.milliseconds("silicon_ttft_ms"),
        tpot_s=cell.milliseconds("silicon_tpot_ms"),
    )


def _clients(cell: "_Cells", is_split: bool) -> int | None:
    if not is_split:
        return cell.count("concurrency") or cell.count("batch_size")
    each = cell.count("decode_batch_size")
    ranks = (cell.count("decode_num_workers") or 1) * (cell.count("decode_attention_dp_size") or 1)
    return cell.count("concurrency") or (None if each is None else each * ranks)


class _Cells:
    """One line's cells, read as numbers."""

    def __init__(self, path: Path, line: int, cells: dict[str, str]) -> None:
        self._path, self._line, self._cells = path, line, cells

    def text(self, column: str) -> str:
        return self._cells.get(column, "")

    def count(self, column: str) -> int | None:
        """None where the cell is empty or 0, which the table writes for "not known"."""
        text = self.text(column)
        if text in ("", "0"):
            return None
        if not text.isdigit():
            raise self._wrong(column, "a whole number above 0, or nothing")
        return int(text)

    def positive(self, column: str) -> int:
        found = self.count(column)
        if found is None:
            raise self._wrong(column, "a whole number above 0")
        return found

    def milliseconds(self, column: str) -> float:
        """In seconds."""
        try:
            found = float(self.text(column))
        except ValueError:
            found = 0.0
        if not 0.0 < found < 1e9:
            raise self._wrong(column, "milliseconds above 0")
        return found / 1e3

    def date(self, column: str) -> str:
        """A day, or "" where none is given."""
        text = self.text(column)
        try:
            return date.fromisoformat(text[:10]).isoformat() if text else ""
        except ValueError:
            raise self._wrong(column, "a date like 2026-04-17, or nothing") from None

    def _wrong(self, column: str, wanted: str) -> UnreadableTable:
        return UnreadableTable(
            f'{self._path}:{self._line}  {column} = "{self.text(column)}" is not {wanted}.'
        )


def _dtype(cell: _Cells, model: Architecture) -> Dtype:
    if model.name.startswith("gpt-oss"):
        return "fp4"  # published in MXFP4 alone, whatever the table says
    given = cell.text("precision")
    for known in _DTYPES:
        if given == known:
            return known
    return _DTYPE_OF_MODE.get(cell.text("gemm_quant_mode"), "bf16")


def _part(cell: _Cells, side: Side, dtype: Dtype, engine: str) -> Part:
    tp, dp, ep = _layout(
        cell.count(f"{side}tp_size") or 1,
        cell.count(f"{side}attention_dp_size") or 1,
        cell.count(f"{side}moe_tp_size") or 1,
        cell.count(f"{side}moe_ep_size") or 1,
    )
    has_short_kv = dtype in ("fp8", "fp4") and engine != "sglang"
    return Part(
        layout=Layout(
            tp=tp,
            dp=dp,
            pp=cell.count(f"{side}pp_size") or 1,
            ep=ep,
            dtype=dtype,
            kv_dtype="fp8" if has_short_kv else "bf16",
        ),
        replicas=cell.count(f"{side}num_workers") if side else 1,
    )


def _layout(tp: int, dp: int, moe_tp: int, moe_ep: int) -> tuple[int, int, int]:
    """tp, dp, ep of what ran.

    Some collections write chips x chips where experts are spread: tp 64, moe_tp 8, moe_ep 8 is one
    node of 8, and tp 4, dp 4, moe_ep 16 is one of 4 (their rows' names say so).
    """
    chips = tp * dp
    if moe_tp == moe_ep > 1 and moe_tp * moe_ep == chips:
        return (1, moe_tp, moe_tp) if dp > 1 else (moe_tp, 1, moe_tp)
    if tp == dp > 1 and moe_ep == chips:
        return 1, dp, dp
    return tp, dp, min(moe_ep, chips)
