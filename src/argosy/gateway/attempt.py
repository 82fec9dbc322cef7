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
from argosy.policies.failover import UNREACHED

log = logging.getLogger(__name__)

_WHOLE_BYTES_MAX = 256 * 2**20


class Asker(Protocol):
    """Who hears what an attempt comes to: its exchange."""

    request: Request
    has_begun: bool  # the client has seen a byte

    def stream(self, data: bytes, now_s: float) -> None:
        """Bytes for the client's stream."""
        ...

    def tokens_came(self, count: int, gap_s: float | None, now_s: float) -> None:
        """`count` tokens came, `gap_s` after the one before (None: the first)."""
        ...

    def end_stream(self, data: bytes) -> None:
        """The stream has ended as it should, with these bytes."""
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

    def refuse(self, refusal: Refusal) -> None:
        """There will be no answer at all."""
        ...


class Attempt:
    """One try on one replica: hears its answer and passes it to the exchange."""

    call: UpstreamCall

    # What an answer is before anything of it came; most requests change few of these.
    _status = 0
    _retry_after_s: float | None = None
    _is_over = False
    _bytes = 0  # of the body, where it is collected whole
    _held = b""  # events before the first token
    _last_token_s: float | None = None

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
        self._fresh: list[bytes] = []  # of the body: what arrived and is not read yet
        self._reader = EventReader() if is_stream else None

    def answer_to(self, asker: Asker) -> None:
        """Tell this one from now on."""
        self._asker = asker

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
        if status == 200:
            if self._is_stream:
                self._check_content_type(headers.get(b"content-type", b""))
        else:
            self._retry_after_s = _seconds(headers.get(b"retry-after"))

    def _check_content_type(self, content_type: bytes) -> None:
        if not content_type.startswith(b"text/event-stream"):
            said = content_type[:100].decode("latin-1")
            self._fail(f"The replica was asked for a stream and answers {said!r}.")

    def on_body(self, data: bytes) -> None:
        """Bytes of the replica's answer: kept until all that arrived with them is here."""
        self._fresh.append(data)
        if self._reader is None or self._status != 200:
            self._bytes += len(data)

    def on_read(self) -> None:
        """What arrived is read at once: one write for all the events of a packet."""
        if self._is_over:
            return
        if self._reader is not None and self._status == 200:
            if self._fresh:
                self._read_stream(self._reader)
        elif self._bytes > _WHOLE_BYTES_MAX:
            self._fail("The replica's answer is too long.")

    def _take_fresh(self) -> bytes:
        fresh = self._fresh
        data = fresh[0] if len(fresh) == 1 else b"".join(fresh)
        fresh.clear()
        return data

    def _read_stream(self, reader: EventReader) -> None:
        try:
            self._pass_on(reader.feed(self._take_fresh()))
        except RefusedError as error:
            self._give_up(error.refusal)
        except ValueError as error:
            self._fail(f"The replica's stream cannot be read: {error}.")
        except Exception:  # a bug of ours must end this request alone, and say so
            log.exception("request %s", self._asker.request.id)
            self._give_up(Refusal(kind="internal", message="The gateway failed on this answer."))

    def _translate(self, events: list[bytes], out: list[bytes]) -> bool:
        """The client's bytes for these events, into `out`; True when they were the last."""
        answer = self.answer
        for data in events:
            if data == DONE:
                break
            out.append(answer.event(data))
        else:
            if not answer.is_complete:
                return False
        out.append(answer.end())
        return True

    def _pass_on(self, events: list[bytes]) -> None:
        answer, asker, out = self.answer, self._asker, []
        before = answer.meter.tokens_out
        try:
            is_done = self._translate(events, out)
        except RefusedError:
            if asker.has_begun and out:  # the client gets all that the answer says it has said
                asker.stream(b"".join(out), self._now_s())
            raise
        now_s = self._now_s()
        count = answer.meter.tokens_out - before
        if count > 0 and self._to_stream:
            last_s, self._last_token_s = self._last_token_s, now_s
            asker.tokens_came(count, None if last_s is None else now_s - last_s, now_s)
        data = out[0] if len(out) == 1 else b"".join(out)
        if self._held:
            data, self._held = self._held + data, b""
        if is_done:
            self._end_stream(data)
        elif self._to_stream and (asker.has_begun or answer.meter.tokens_out):
            if data:
                asker.stream(data, now_s)
        else:
            self._held = data

    def _end_stream(self, data: bytes) -> None:
        if self._to_stream:
            self._asker.end_stream(data)
        else:
            self._asker.finish_whole(data)

    def on_end(self) -> None:
        """The replica's answer is whole, or its stream ended without `[DONE]`."""
        self.on_read()
        if self._is_over:
            return
        try:
            if self._status != 200:
                self._give_up(self._refusal())
            elif self._reader is not None:
                self._end_stream(self._held + self.answer.end())  # raises unless it has finished
            else:
                self._asker.finish_whole(self.answer.whole(self._take_fresh()))
        except RefusedError as error:
            self._give_up(error.refusal)
        except Exception:  # as in _read_stream
            log.exception("request %s", self._asker.request.id)
            self._give_up(Refusal(kind="internal", message="The gateway failed on this answer."))

    def _refusal(self) -> Refusal:
        refusal = self._engine.read_refusal(self._status, self._take_fresh())
        if self._retry_after_s is None:
            return refusal
        return msgspec.structs.replace(refusal, retry_after_s=self._retry_after_s)

    def on_unreached(self, reason: str) -> None:
        """Nobody took the connection: another attempt costs nothing but the time."""
        if not self._is_over:
            self._asker.replica_lost()
            message = f"The replica failed: cannot connect: {reason}."
            self._give_up(Refusal(kind="upstream_failed", message=message, code=UNREACHED))

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
            try:
                self._asker.attempt_failed(refusal)
            except Exception:  # as in _read_stream; there is no attempt left that would end it
                log.exception("request %s", self._asker.request.id)
                said = "The gateway failed on this request."
                self._asker.refuse(Refusal(kind="internal", message=said))


def _seconds(retry_after: bytes | None) -> float | None:
    """`Retry-After` in seconds; a date is not honoured (no engine sends one)."""
    if retry_after is None or not retry_after.strip().isdigit():
        return None
    return float(retry_after)
