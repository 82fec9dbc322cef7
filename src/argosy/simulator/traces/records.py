"""JSON lines of requests: Mooncake, Qwen-Bailian, and logs of OpenAI-shaped answers.

Each line is checked against the Struct of its kind, which says what is read; other fields are not.
Blank lines hold nothing and are passed over.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from argosy.policies.admission.work import RANKS
from argosy.simulator.traces.files import Block, TraceFile, check_rows
from argosy.simulator.traces.transforms import NAMES_MAX
from argosy.simulator.traces.window import (
    UNNAMED,
    Trace,
    TraceError,
    Window,
    offsets_of,
    window_of,
)

MOONCAKE_BLOCK_TOKENS = 512
BAILIAN_BLOCK_TOKENS = 16
CHATS_REMEMBERED = 2**20  # of a Bailian trace: a turn whose parent is older begins a session
_Hashes = list[Annotated[int, Meta(ge=0)]]
_Time = Annotated[float, Meta(ge=0.0)]


class MooncakeRow(msgspec.Struct, frozen=True):
    """A line of a Mooncake trace (FAST 2025)."""

    timestamp: _Time  # ms since the trace began
    input_length: int  # tokens
    output_length: int
    hash_ids: _Hashes  # one for each block of 512 tokens begun


class BailianRow(msgspec.Struct, frozen=True):
    """A line of a Qwen-Bailian trace."""

    timestamp: _Time  # s since the trace began
    input_length: int  # tokens
    output_length: int
    hash_ids: _Hashes  # one for each block of 16 tokens
    chat_id: int
    parent_chat_id: int = -1  # the turn before; negative: there is none


class OpenAIUsage(msgspec.Struct, frozen=True):
    """The counts of an answer, as Chat Completions or as Responses name them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


class OpenAIRow(msgspec.Struct, frozen=True):
    """A logged answer. Its service tier: priority is enterprise, flex and batch are batch."""

    usage: OpenAIUsage
    created: _Time | None = None  # Unix seconds, of Chat Completions
    created_at: _Time | None = None  # of Responses
    model: str = UNNAMED
    user: str | None = None  # the tenant
    service_tier: Literal["auto", "default", "scale", "priority", "flex", "batch"] | None = None


_TIER_OF = {"priority": RANKS["enterprise"], "flex": RANKS["batch"], "batch": RANKS["batch"]}


@dataclass
class _Names:
    """Names in the order in which they came, and their places."""

    kind: str
    places: dict[str, int] = field(default_factory=dict[str, int])

    def place(self, name: str) -> int:
        found = self.places.setdefault(name, len(self.places))
        if found >= NAMES_MAX:
            raise TraceError(f"over {NAMES_MAX} {self.kind}; split the trace")
        return found


@dataclass
class _Reading:
    """What is remembered from line to line while one file is read once."""

    zero_output_as_one: bool
    models: _Names = field(default_factory=lambda: _Names("models"))
    tenants: _Names = field(default_factory=lambda: _Names("tenants"))
    session_of: OrderedDict[int, int] = field(default_factory=OrderedDict[int, int])
    sessions: int = 0
    origin_s: float | None = None

    def session(self, row: BailianRow) -> int:
        """That of the turn before, or a new one."""
        found = self.session_of.get(row.parent_chat_id)
        if found is None:
            found = self.sessions
            self.sessions += 1
        self.session_of[row.chat_id] = found
        if len(self.session_of) > CHATS_REMEMBERED:
            self.session_of.popitem(last=False)
        return found


Columns = dict[str, Any]  # NumPy columns
_Reader = Callable[[Sequence[Any], _Reading], Columns]


def read_mooncake(file: TraceFile, *, ordered: bool, zero_output_as_one: bool) -> Trace:
    """Requests with the blocks of 512 tokens that their prompts share."""
    return Trace(
        pieces=lambda: _pieces(
            file, MooncakeRow, _mooncake, _Reading(zero_output_as_one), ordered=ordered
        ),
        found=f"{file.name}: Mooncake JSON lines with prefix blocks of 512 tokens",
        block_tokens=MOONCAKE_BLOCK_TOKENS,
    )


def read_bailian(file: TraceFile, *, ordered: bool, zero_output_as_one: bool) -> Trace:
    """Requests with the blocks of 16 tokens that their prompts share, and their chats."""
    return Trace(
        pieces=lambda: _pieces(
            file, BailianRow, _bailian, _Reading(zero_output_as_one), ordered=ordered
        ),
        found=f"{file.name}: Qwen-Bailian JSON lines with prefix blocks of 16 tokens",
        block_tokens=BAILIAN_BLOCK_TOKENS,
    )


def read_openai(file: TraceFile, *, ordered: bool, zero_output_as_one: bool) -> Trace:
    """Logged answers. The file is read once at once, for the names and the first time in it."""
    reading = _Reading(zero_output_as_one)
    for _ in _pieces(file, OpenAIRow, _openai, reading, ordered=ordered):
        pass
    return Trace(
        pieces=lambda: _pieces(
            file, OpenAIRow, _openai, _Reading(zero_output_as_one), ordered=ordered
        ),
        found=f"{file.name}: JSON lines of OpenAI-shaped answers",
        models=tuple(reading.models.places) or (UNNAMED,),
        tenants=tuple(reading.tenants.places) or (UNNAMED,),
        starts_at_s=reading.origin_s,
    )


def _pieces(
    file: TraceFile, row: type, read: _Reader, reading: _Reading, *, ordered: bool
) -> Iterator[Window]:
    decoder = msgspec.json.Decoder(row)
    last_s = -np.inf
    for block in file.blocks():
        rows, places = _decoded(block, decoder)
        if not rows:
            continue

        def refusal(
            index: int, wrong: str, block: Block = block, places: list[int] = places
        ) -> TraceError:
            return block.refusal(places[index], wrong)

        columns = _checked(rows, refusal, read, reading)
        if reading.zero_output_as_one:
            output = columns["output_tokens"]
            columns["output_tokens"] = np.where(output == 0, 1, output)
        numbers = {name: columns[name] for name in ("arrival_s", "prompt_tokens", "output_tokens")}
        check_rows(refusal, numbers, after_s=last_s if ordered else None)
        window = window_of(columns, rows=len(rows))
        last_s = float(window.arrival_s[-1])
        yield window


def _decoded(block: Block, decoder: msgspec.json.Decoder[Any]) -> tuple[list[Any], list[int]]:
    """The rows, and at which of the block's lines each is."""
    rows: list[Any] = []
    places: list[int] = []
    for index, line in enumerate(block.lines()):
        if not line.strip():
            continue
        try:
            rows.append(decoder.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise block.refusal(index, f"{error}.") from error
        places.append(index)
    return rows, places


def _checked(
    rows: Sequence[Any],
    refusal: Callable[[int, str], TraceError],
    read: _Reader,
    reading: _Reading,
) -> Columns:
    """Columns of the rows; a number that no column holds is found by reading them one by one."""
    remembered = replace(reading)
    try:
        return read(rows, reading)
    except (OverflowError, TraceError) as error:
        for index, row in enumerate(rows):
            try:
                read([row], remembered)
            except OverflowError:
                raise refusal(index, "a number of more than 64 bits.") from error
            except TraceError as single:
                raise refusal(index, f"{single}.") from error
        raise


def _lengths(rows: Sequence[MooncakeRow | BailianRow], block_tokens: int) -> Columns:
    prompt = np.array([row.input_length for row in rows], np.int64)
    counts = np.array([len(row.hash_ids) for row in rows], np.int64)
    wrong = (counts < prompt // block_tokens) | (counts > -(-prompt // block_tokens))
    if wrong.any():
        index = int(wrong.argmax())
        raise TraceError(
            f"{counts[index]} hash_ids for {prompt[index]} tokens; with blocks of {block_tokens} "
            f"tokens, {-(-prompt[index] // block_tokens)} would do"
        )
    return {
        "prompt_tokens": prompt,
        "output_tokens": np.array([row.output_length for row in rows], np.int64),
        "block_offsets": offsets_of(counts),
        "block_hashes": np.array([one for row in rows for one in row.hash_ids], np.uint64),
    }


def _mooncake(rows: Sequence[MooncakeRow], _: _Reading) -> Columns:
    arrival_s = np.array([row.timestamp for row in rows]) / 1000.0
    return {"arrival_s": arrival_s, **_lengths(rows, MOONCAKE_BLOCK_TOKENS)}


def _bailian(rows: Sequence[BailianRow], reading: _Reading) -> Columns:
    return {
        "arrival_s": np.array([row.timestamp for row in rows]),
        **_lengths(rows, BAILIAN_BLOCK_TOKENS),
        "session": np.array([reading.session(row) for row in rows], np.int64),
    }


def _openai(rows: Sequence[OpenAIRow], reading: _Reading) -> Columns:
    at_s = np.array([_said(row.created, row.created_at, "created") for row in rows])
    if reading.origin_s is None:
        reading.origin_s = float(at_s[0])
    usages = [row.usage for row in rows]
    prompts = [_said(one.prompt_tokens, one.input_tokens, "usage.prompt_tokens") for one in usages]
    outputs = [
        _said(one.completion_tokens, one.output_tokens, "usage.completion_tokens") for one in usages
    ]
    return {
        "arrival_s": at_s - reading.origin_s,
        "prompt_tokens": np.array(prompts, np.int64),
        "output_tokens": np.array(outputs, np.int64),
        "model": _placed(reading.models, (row.model for row in rows)),
        "tenant": _placed(reading.tenants, (row.user or UNNAMED for row in rows)),
        "tier": np.array(
            [_TIER_OF.get(row.service_tier or "", RANKS["consumer"]) for row in rows], np.int8
        ),
    }


def _placed(names: _Names, given: Iterator[str]) -> NDArray[np.int16]:
    return np.array([names.place(name) for name in given], np.int16)


def _said(first: float | None, second: float | None, name: str) -> float:
    """Whichever of both spellings the record has."""
    if first is not None:
        return first
    if second is None:
        raise TraceError(f"{name} is missing, and so is its other spelling")
    return second
