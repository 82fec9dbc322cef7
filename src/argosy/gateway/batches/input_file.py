"""OpenAI's input file: one request a line, each checked before any is sent.

Owns what a line must be and what is said of a wrong one. It reads pieces as they lie in the store
and holds one line and the custom ids: a file of 100 MB costs no more memory than that.
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from argosy.fleet.batches import BATCH_ITEMS_MAX, BatchFault, NewItem

FAULTS_MAX = 100  # more are not listed


class _Line(msgspec.Struct, frozen=True, kw_only=True):
    custom_id: Annotated[str, Meta(min_length=1, max_length=512)]
    method: str
    url: str
    body: msgspec.Raw


class _Body(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    stream: bool | None = None


_line_decoder = msgspec.json.Decoder(_Line)
_body_decoder = msgspec.json.Decoder(_Body)


class InputFile:
    """Feed it all pieces, then `close` it; it has `faults`, or is good."""

    def __init__(self, endpoint: str) -> None:
        self.faults: list[BatchFault] = []
        self.items = 0
        self.model: str | None = None
        self._endpoint = endpoint
        self._line = 0
        self._rest = bytearray()
        self._custom_ids: set[str] = set()

    def feed(self, piece: bytes) -> list[NewItem]:
        """The requests whose lines end in this piece; for nothing once there are `faults`."""
        first, *others = piece.split(b"\n")
        self._rest += first
        found: list[NewItem] = []
        for following in others:
            self._take(bytes(self._rest), found)
            self._rest = bytearray(following)
        return found

    def close(self) -> list[NewItem]:
        """The request of a last line that has no end, if there is one."""
        found: list[NewItem] = []
        if self._rest:
            self._take(bytes(self._rest), found)
        if not self.items and not self.faults:
            message = "The input file holds no requests."
            self._note(BatchFault(code="empty_file", message=message))
        return found

    def _take(self, line: bytes, found: list[NewItem]) -> None:
        self._line += 1
        if self._line == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")  # Windows editors begin a file so
        if not line.strip():
            return
        self.items += 1
        if self.items > BATCH_ITEMS_MAX:
            if self.items == BATCH_ITEMS_MAX + 1:
                message = f"A batch takes at most {BATCH_ITEMS_MAX} requests."
                self._note(BatchFault(code="too_many_tasks", message=message))
            return
        item = self._read(line)
        if item is not None:
            found.append(item)

    def _read(self, line: bytes) -> NewItem | None:
        try:
            asked = _line_decoder.decode(line)
            body = _body_decoder.decode(asked.body)
        except msgspec.ValidationError as error:
            self._fault("invalid_request", f"{error}.")
            return None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._fault("invalid_json_line", f"This line is not valid JSON: {error}.")
            return None
        self._check(asked, body)
        self._custom_ids.add(asked.custom_id)
        self.model = self.model or body.model
        return NewItem(custom_id=asked.custom_id, body=bytes(asked.body))

    def _check(self, asked: _Line, body: _Body) -> None:
        if asked.method != "POST":
            self._fault("invalid_method", f'method is "{asked.method[:20]}", not POST.', "method")
        if asked.url != self._endpoint:
            said = f'url is "{asked.url[:100]}"; the endpoint of the batch is {self._endpoint}.'
            self._fault("mismatched_url", said, "url")
        if asked.custom_id in self._custom_ids:
            said = f'custom_id "{asked.custom_id[:100]}" is used by an earlier line.'
            self._fault("duplicate_custom_id", said, "custom_id")
        if self.model not in (None, body.model):
            said = f'model is "{body.model[:100]}"; earlier lines ask for "{self.model}".'
            self._fault("mismatched_model", said, "body.model")
        if body.stream:
            self._fault("invalid_request", "A batch does not stream; leave it out.", "body.stream")

    def _fault(self, code: str, message: str, param: str | None = None) -> None:
        self._note(BatchFault(code=code, message=message, param=param, line=self._line))

    def _note(self, fault: BatchFault) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(fault)
