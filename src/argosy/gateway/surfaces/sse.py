"""Server-sent events: cutting a replica's byte stream into events, and writing our own."""

import msgspec

_encode = msgspec.json.Encoder().encode


class EventReader:
    """Cuts bytes, however they were torn, into the `data` of whole events.

    Comments and `id`, `retry` lines are dropped; a `data` of several lines is joined; every line
    end (LF, CRLF, CR) is read. `bytes_max` bounds an event that never ends.
    """

    def __init__(self, *, bytes_max: int = 16 * 2**20) -> None:
        self._rest = b""
        self._return = b""  # a CR at the end of a chunk: an LF may follow
        self._bytes_max = bytes_max

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes. Raises `ValueError` past `bytes_max`."""
        if (  # one whole event of one line, as engines send them: a quarter of the time
            chunk.find(b"\n") == len(chunk) - 2 > 6
            and chunk.startswith(b"data: ")
            and chunk.endswith(b"\n\n")
            and not self._rest
            and not self._return
            and b"\r" not in chunk
        ):
            return [chunk[6:-2]]
        if self._return or b"\r" in chunk:
            chunk = self._with_line_feeds(chunk)
        buffer = self._rest + chunk if self._rest else chunk
        *blocks, self._rest = buffer.split(b"\n\n")
        if len(self._rest) > self._bytes_max:
            raise ValueError(f"an event of more than {self._bytes_max} bytes")
        return [data for block in blocks if (data := _data_of(block))]

    def _with_line_feeds(self, chunk: bytes) -> bytes:
        chunk = self._return + chunk
        self._return = chunk[-1:] if chunk.endswith(b"\r") else b""
        whole = chunk[: len(chunk) - len(self._return)]
        return whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    @property
    def has_rest(self) -> bool:
        """True when bytes of an unfinished event are held."""
        return bool(self._rest.strip())


def _data_of(block: bytes) -> bytes:
    if block.startswith(b"data: ") and b"\n" not in block:
        return block[6:]
    lines = (line for line in block.split(b"\n") if line.startswith((b"data:", b"error:")))
    return b"\n".join(line.split(b":", 1)[1].removeprefix(b" ") for line in lines)


def data_event(value: object) -> bytes:
    """An OpenAI chat event: `data` alone."""
    return b"data: " + _encode(value) + b"\n\n"


def named_event(name: str, value: object) -> bytes:
    """An event with its type in `event`, as Anthropic and OpenAI Responses send."""
    return b"event: " + name.encode() + b"\ndata: " + _encode(value) + b"\n\n"


DONE = b"[DONE]"
DONE_EVENT = b"data: [DONE]\n\n"
