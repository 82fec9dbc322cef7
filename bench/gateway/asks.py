"""The requests: JSON bodies of an exact size, and how the upstream is told what to answer.

What every gateway passes on unchanged carries the orders: `stream`, `max_tokens` (events of the
stream) and `seed` (milliseconds between two events; 0: all at once).
"""

import json

MODEL = "bench"
TOKEN = b'"content":" '  # once in each token event, in no other
DONE = b"data: [DONE]"
BODIES_MAX = 64  # distinct prompts of one size, asked in turn: a cache-aware router has seen each
_WORDS = "the harbour light turns over the water and the ships come in one by one "


def bodies(size: int, *, events: int | None = None, pace_s: float = 0.0) -> list[bytes]:
    """`BODIES_MAX` bodies of `size` bytes; of streams of `events` tokens, or for whole answers."""
    return [_body(number, size, events, pace_s) for number in range(BODIES_MAX)]


def _body(number: int, size: int, events: int | None, pace_s: float) -> bytes:
    ask = {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are a careful assistant who answers in few words."},
            {"role": "user", "content": f"Story {number:03d}: "},
        ],
        "max_tokens": events or 64,
        "temperature": 0.7,
        "seed": round(pace_s * 1000),
        "stream": events is not None,
    }
    missing = size - len(_encode(ask))
    if missing < 0:
        raise ValueError(f"a body of {size} bytes was asked; the least is {size - missing}")
    ask["messages"][1]["content"] += (_WORDS * (missing // len(_WORDS) + 1))[:missing]
    return _encode(ask)


def _encode(ask: dict[str, object]) -> bytes:
    return json.dumps(ask, separators=(",", ":")).encode()


def request(body: bytes, *, host: str, key: str | None) -> bytes:
    """The whole HTTP/1.1 request."""
    bearer = f"authorization: Bearer {key}\r\n" if key else ""
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\n{bearer}"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
