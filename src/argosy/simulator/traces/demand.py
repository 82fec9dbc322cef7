"""Demand made up from what is known of it: who asks what, how often, how long, in which chats.

A trace is the streams' requests in the order of arrival. Each stream has generators of its own,
seeded by (seed, its place in the list, what for), and draws in chunks of its own size, so the same
seed gives the same bytes whatever the windows.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from argosy.fleet.config import Tier
from argosy.policies.admission.work import RANKS
from argosy.simulator.traces.arrivals import Curve, Rate, arrivals_s
from argosy.simulator.traces.chance import generator, hashes, key, mixed
from argosy.simulator.traces.interleave import interleaved
from argosy.simulator.traces.lengths import Lengths, Sampler
from argosy.simulator.traces.transforms import NAMES_MAX
from argosy.simulator.traces.window import (
    UNNAMED,
    Trace,
    TraceError,
    Window,
    in_order,
    joined,
    offsets_of,
    part,
    window_of,
)

CHUNK_ROWS_MAX = 16_384  # of one stream: some hundred KB, which stay in the CPU's cache
CHUNKS_ROWS = 2**20  # of all streams together
WARM_UP_THINKS = 3  # chats begin so many mean durations before second 0
PLACE_STEP = 0xD1342543DE82EF95  # odd: 64 bits hold that many places of one owner
SESSIONS_OF_STREAM = 2**40  # 8 million streams fit 63 bits


class Chats(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What prompts share. A turn's prompt is the system prompt, all said so far, and the new text.

    The stream's rate counts turns. `lengths` are those of the new text and of the answer.
    """

    system_tokens: Annotated[int, Meta(ge=0)] = 0  # the same before every prompt of the stream
    turns_mean: Annotated[float, Meta(ge=1.0)] = 1.0  # geometric
    pause_s_mean: Annotated[float, Meta(ge=0.0)] = 60.0  # between two turns; exponential
    prompt_tokens_max: Annotated[int, Meta(ge=1, le=2**31 - 1)] = 131_072  # longer ones are cut


class Stream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests of one kind: same model, tenant, tier and origin, one law for times and lengths."""

    rate: Rate  # requests per second: a number, a Diurnal or a Spike
    lengths: Lengths
    cv: Annotated[float, Meta(ge=0.0)] = 1.0  # of the gaps: 1 Poisson, more is burstier, 0 a clock
    chats: Chats | None = None  # None: nothing is shared
    model: str = UNNAMED
    tenant: str = UNNAMED
    tier: Tier = "consumer"
    origin: str = UNNAMED


def demand(
    streams: Sequence[Stream],
    *,
    seed: int,
    until_s: float | None = None,
    block_tokens: int | None = None,
) -> Trace:
    """The requests of all streams that arrive before `until_s` (None: without an end).

    With `block_tokens` every prompt names its blocks, and those of system prompts and chats recur;
    without, prompts share nothing and chats show in lengths and sessions alone.
    """
    _check(streams, until_s=until_s, block_tokens=block_tokens)
    names = {
        field: tuple(dict.fromkeys(getattr(stream, field) for stream in streams))
        for field in ("model", "tenant", "origin")
    }
    chunk = max(256, min(CHUNK_ROWS_MAX, CHUNKS_ROWS // len(streams)))
    limit_s = float("inf") if until_s is None else until_s

    def made(place: int) -> Iterator[Window]:
        stream = streams[place]
        codes = {field: names[field].index(getattr(stream, field)) for field in names}
        source = _Source(stream, codes, seed=(seed, place), block_tokens=block_tokens, chunk=chunk)
        return _cut(source.windows(), limit_s)

    return Trace(
        pieces=lambda: interleaved([made(place) for place in range(len(streams))]),
        found=f"generated demand of {len(streams)} streams (seed {seed})",
        models=names["model"],
        tenants=names["tenant"],
        origins=names["origin"],
        block_tokens=block_tokens,
    )


def _check(streams: Sequence[Stream], *, until_s: float | None, block_tokens: int | None) -> None:
    """Refuse at once what would be refused when the trace is read."""
    if not streams:
        raise TraceError("no streams of demand; give at least one")
    if len(streams) > NAMES_MAX:
        raise TraceError(f"{len(streams)} streams of demand; {NAMES_MAX} is the most")
    if until_s is not None and not until_s > 0:
        raise TraceError(f"demand cannot end at {until_s} s; any number above 0 would do")
    if block_tokens is not None and block_tokens < 1:
        raise TraceError(f"blocks of {block_tokens} tokens; engines have 16 to 512")
    for stream in streams:
        Sampler(stream.lengths)
        if not (math.isfinite(stream.cv) and stream.cv >= 0):
            raise TraceError(f"gaps cannot have a cv of {stream.cv}; 0 or more would do")
        chats = stream.chats
        if chats is not None and not (1 <= chats.turns_mean < math.inf and chats.pause_s_mean >= 0):
            raise TraceError(f"{chats} cannot be; turns_mean is 1 or more, pause_s_mean 0 or more")
    # A list, for every rate is to be checked, not those up to the first above 0.
    if all([Curve(stream.rate).is_silent for stream in streams]):  # noqa: C419
        raise TraceError(f"the rate of all {len(streams)} streams is 0; one above 0 would do")


def _cut(windows: Iterator[Window], limit_s: float) -> Iterator[Window]:
    for window in windows:
        if window.arrival_s[-1] >= limit_s:
            yield part(window, 0, int(window.arrival_s.searchsorted(limit_s)))
            return
        yield window


class _Source:
    """Makes one stream's windows, none of them empty."""

    def __init__(
        self,
        stream: Stream,
        codes: dict[str, int],
        *,
        seed: tuple[int, int],
        block_tokens: int | None,
        chunk: int,
    ) -> None:
        self._stream = stream
        self._codes: dict[str, object] = {**codes, "tier": RANKS[stream.tier]}
        self._block_tokens = block_tokens
        self._chunk = chunk
        self._arrivals, self._lengths, self._turns = (generator(*seed, use) for use in range(3))
        self._sampler = Sampler(stream.lengths)
        self._first_session = seed[1] * SESSIONS_OF_STREAM
        self._system_key = key(*seed, "system")
        self._session_key = key(*seed, "session")

    def windows(self) -> Iterator[Window]:
        chats = self._stream.chats
        if chats is None or chats.turns_mean == 1.0:
            yield from self._single(chats)
        else:
            yield from self._chatting(chats)

    def _single(self, chats: Chats | None) -> Iterator[Window]:
        """Requests that do not go on from others."""
        row = 0
        curve = Curve(self._stream.rate)
        for arrival_s in self._times(curve, self._chunk):
            prompt, output = self._sampler.draw(self._lengths, arrival_s.size)
            if chats is not None:
                prompt = _bounded(prompt, chats)
            window = self._window(arrival_s, prompt, output, session=None)
            yield self._with_blocks(window, np.arange(row, row + arrival_s.size))
            row += arrival_s.size

    def _times(self, curve: Curve, chunk: int) -> Iterator[NDArray[np.float64]]:
        return arrivals_s(curve, cv=self._stream.cv, chance=self._arrivals, chunk=chunk)

    def _chatting(self, chats: Chats) -> Iterator[Window]:
        """Chats that began by now pass on the turns that precede the next chat's beginning.

        Chats begin before second 0, so that at 0 as many are under way as ever. The turns still to
        come are held: those of the chats that are open.
        """
        warm_up_s = WARM_UP_THINKS * chats.turns_mean * chats.pause_s_mean
        session = self._first_session
        waiting: list[Window] = []
        curve = Curve(self._stream.rate, shifted_s=-warm_up_s, times=1.0 / chats.turns_mean)
        for begin_s in self._times(curve, max(64, int(self._chunk / chats.turns_mean))):
            turns = self._turns_of(begin_s - warm_up_s, session, chats)
            session += begin_s.size
            known = in_order(joined([*waiting, turns]))
            first = int(known.arrival_s.searchsorted(0.0))
            stop = int(known.arrival_s.searchsorted(begin_s[-1] - warm_up_s))
            if stop > first:
                yield self._chat_blocks(part(known, first, stop))
            waiting = [part(known, stop, known.rows)]
        for rest in waiting:
            if rest.rows and rest.arrival_s[-1] >= 0:
                known = part(rest, int(rest.arrival_s.searchsorted(0.0)), rest.rows)
                yield self._chat_blocks(known)

    def _turns_of(self, begin_s: NDArray[np.float64], first: int, chats: Chats) -> Window:
        """All turns of these chats, chat by chat."""
        counts = self._turns.geometric(1.0 / chats.turns_mean, begin_s.size)
        offsets = offsets_of(counts)
        rows = int(offsets[-1])
        opening = np.zeros(rows, np.bool_)
        opening[offsets[:-1]] = True
        pauses_s = self._turns.standard_exponential(rows) * chats.pause_s_mean
        pauses_s[opening] = 0.0
        arrival_s = np.repeat(begin_s, counts) + _sums_within(pauses_s, offsets, counts)
        text, output = self._sampler.draw(self._lengths, rows)
        said = text.astype(np.int64) + output
        before = _sums_within(said.astype(np.float64), offsets, counts) - said
        prompt = _bounded(text + before.astype(np.int64), chats)
        session = np.repeat(np.arange(first, first + begin_s.size), counts)
        return self._window(arrival_s, prompt, output, session=session)

    def _window(
        self,
        arrival_s: NDArray[np.float64],
        prompt: NDArray[np.int32],
        output: NDArray[np.int32],
        *,
        session: NDArray[np.int64] | None,
    ) -> Window:
        columns: dict[str, object] = {
            "arrival_s": arrival_s,
            "prompt_tokens": prompt,
            "output_tokens": output,
            **self._codes,
        }
        if session is not None:
            columns["session"] = session
        return window_of(columns, rows=arrival_s.size)

    def _chat_blocks(self, window: Window) -> Window:
        return self._with_blocks(window, window.session)

    def _with_blocks(self, window: Window, ids: NDArray[np.int64]) -> Window:
        """Names the prompts' full blocks: the stream's within its system prompt, then `ids`'.

        Last of all, for turns that wait to be passed on would carry hundreds of names each.
        """
        if self._block_tokens is None:
            return window
        counts = (window.prompt_tokens // self._block_tokens).astype(np.int64)
        offsets = offsets_of(counts)
        place = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
        owner = np.repeat(hashes(self._session_key, ids), counts)
        shared = (self._stream.chats or Chats()).system_tokens // self._block_tokens
        if shared:
            owner[place < shared] = self._system_key
        # The place times an odd number, not the place: neighbours' names then differ by chance.
        named = mixed(owner + place.view(np.uint64) * np.uint64(PLACE_STEP))
        return window._replace(block_offsets=offsets, block_hashes=named)


def _bounded(text: NDArray[np.int32] | NDArray[np.int64], chats: Chats) -> NDArray[np.int32]:
    most = chats.prompt_tokens_max
    return np.minimum(text.astype(np.int64) + chats.system_tokens, most).astype(np.int32)


def _sums_within(
    values: NDArray[np.float64], offsets: NDArray[np.int64], counts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Running sums that begin anew in each chat; whole numbers below 2^53 stay exact."""
    sums = np.cumsum(values)
    start = sums[offsets[:-1]] - values[offsets[:-1]]
    return sums - np.repeat(start, counts)
