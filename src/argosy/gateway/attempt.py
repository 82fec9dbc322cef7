"""One try of a request on one replica: hears the answer and tells whoever asked.

Owns the reading of one upstream answer, streamed or whole, and the holding back of what comes
before the first token. What becomes of a request whose attempt failed is the exchange's.
"""

import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from argosy.engines.port import Engine
from argosy.fleet.messages import Refusal
from argosy.gateway.http import Request
from argosy.gateway.surfaces.port import Answer, RefusedError
from argosy.gateway.surfaces.sse import DONE, EventReader
from argosy.gateway.upstream import UpstreamCall

log = logging.getLogger(__name__)

_WHOLE_BYTES_MAX = 256 * 2**20


class Asker(Protocol):
    """Who hears what an attempt comes to: its exchange."""

    request: Request
    has_begun: bool  # the client has seen a byte

    def stream(self, data: bytes) -> None:
        """Bytes for the client's stream."""
        ...

    def token_came(self, gap_s: float | None, count: int) -> None:
        """`count` tokens came, `gap_s` after the one before (None: the first)."""
        ...

    def finish_stream(self) -> None:
        """The stream has ended as it should."""
        ...

    def finish_whole(self, body: bytes) -> None:
        """The answer is whole."""
        ...

    def replica_lost(self) -> None:
        """The connection to the replica failed."""
        ...

    def attempt_failed(self, refusal: Refusal) -> None:
        """There will be no answer from this attempt."""
        ...


class Attempt:
    """One try on one replica: hears its answer and passes it to the exchange."""

    call: UpstreamCall

    def __init__(
        self,
        asker: Asker,
        engine: Engine,
        answer: Answer,
        *,
        is_stream: bool,
        to_stream: bool,
        now_s: Callable[[], float],
    ) -> None:
        self.answer = answer
        self._asker = asker
        self._engine = engine
        self._is_stream = is_stream  # the replica streams
        self._to_stream = to_stream  # the client is streamed to
        self._now_s = now_s
        self._status = 0
        self._retry_after_s: float | None = None
        self._whole = bytearray()
        self._reader = EventReader()
        self._held = b""  # events before the first token
        self._last_token_s: float | None = None
        self._is_over = False

    def close(self, *, is_whole: bool) -> None:
        """The exchange is over; a whole answer's connection may be kept."""
        self._is_over = True
        if is_whole and not self.answer.is_complete:
            self.call.detach()
        else:
            self.call.abort()

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Status and headers of the replica's answer."""
        self._status = status
        self._retry_after_s = _seconds(headers.get(b"retry-after"))
        content_type = headers.get(b"content-type", b"")
        if self._is_stream and status == 200 and not content_type.startswith(b"text/event-stream"):
            said = content_type[:100].decode("latin-1")
            self._fail(f"The replica was asked for a stream and answers {said!r}.")
            return

    def on_body(self, data: bytes) -> None:
        """Bytes of the replica's answer."""
        if self._is_over:
            return
        if not self._is_stream or self._status != 200:
            self._whole += data
            if len(self._whole) > _WHOLE_BYTES_MAX:
                self._fail("The replica's answer is too long.")
            return
        try:
            self._read(self._reader.feed(data))
        except RefusedError as error:
            self._give_up(error.refusal)
        except ValueError as error:
            self._fail(f"The replica's stream cannot be read: {error}.")
        except Exception:  # a bug of ours must end this request alone, and say so
            log.exception("request %s", self._asker.request.id)
            self._give_up(Refusal(kind="internal", message="The gateway failed on this answer."))

    def _read(self, events: list[bytes]) -> None:
        answer, before = self.answer, self.answer.meter.tokens_out
        out, is_done = b"", False
        for data in events:
            is_done = data == DONE
            if is_done:
                break
            out += answer.event(data)
        self._count(before)
        if is_done or answer.is_complete:
            self._end_stream(out)
        elif self._to_stream and (self._asker.has_begun or answer.meter.tokens_out):
            if out := self._take_held() + out:
                self._asker.stream(out)
        else:
            self._held += out

    def _count(self, before: int) -> None:
        count = self.answer.meter.tokens_out - before
        if count <= 0 or not self._to_stream or self._is_over:
            return
        now_s = self._now_s()
        gap_s = None if self._last_token_s is None else now_s - self._last_token_s
        self._last_token_s = now_s
        self._asker.token_came(gap_s, count)

    def _take_held(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _end_stream(self, out: bytes) -> None:
        end = self.answer.end()
        if self._to_stream:
            self._asker.stream(self._take_held() + out + end)
            self._asker.finish_stream()
        else:
            self._asker.finish_whole(end)

    def on_end(self) -> None:
        """The replica's answer is whole, or its stream ended without `[DONE]`."""
        if self._is_over:
            return
        try:
            if self._status != 200:
                self._give_up(self._refusal())
            elif self._is_stream:
                self._end_stream(b"")  # raises unless the answer has finished
            else:
                self._asker.finish_whole(self.answer.whole(bytes(self._whole)))
        except RefusedError as error:
            self._give_up(error.refusal)
        except Exception:  # as in on_body
            log.exception("request %s", self._asker.request.id)
            self._give_up(Refusal(kind="internal", message="The gateway failed on this answer."))

    def _refusal(self) -> Refusal:
        refusal = self._engine.read_refusal(self._status, bytes(self._whole))
        if self._retry_after_s is None:
            return refusal
        return msgspec.structs.replace(refusal, retry_after_s=self._retry_after_s)

    def on_lost(self, reason: str) -> None:
        """The connection to the replica failed."""
        if not self._is_over:
            self._asker.replica_lost()
            self._give_up(Refusal(kind="upstream_failed", message=f"The replica failed: {reason}."))

    def _fail(self, message: str) -> None:
        self._give_up(Refusal(kind="upstream_failed", message=message))

    def _give_up(self, refusal: Refusal) -> None:
        if not self._is_over:
            self._is_over = True
            self.call.abort()
            self._asker.attempt_failed(refusal)


def _seconds(retry_after: bytes | None) -> float | None:
    """`Retry-After` in seconds; a date is not honoured (no engine sends one)."""
    if retry_after is None or not retry_after.strip().isdigit():
        return None
    return float(retry_after)
