"""What the simulated engine says: pure functions of the prompt, the same in every process.

A token is a word with the whitespace before it. The answer to a prompt never depends on the
batch, the slot or the replica, so a continuation can be compared with what it continues. How
long anything takes is `simulated_server.py`'s.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

import msgspec

Json = Any  # what a client sent

_TOKEN = re.compile(r"\s*\S+|\s+")
_VOCABULARY = """
sea ship sails harbour wind mast crew deck anchor tide captain cargo merchant island coast chart
compass star storm calm wave rope hull keel north south east west morning night voyage port fleet
flag oar bay gull salt foam reef current pilot lantern bell watch knot league the a of to and in
with under over towards from before after slowly gladly once again
"""
_WORDS = tuple(_VOCABULARY.split())
_TOKENS_MIN, _TOKENS_MAX = 16, 64


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One choice, token by token; a token that a stop sequence swallowed is an empty piece."""

    pieces: tuple[str, ...]
    finish_reason: Literal["stop", "length"]
    stop_reason: str | None  # the stop sequence that ended it

    @property
    def text(self) -> str:
        """The whole."""
        return "".join(self.pieces)


def tokens_of(text: str) -> list[str]:
    """The text's tokens; joined, they are the text."""
    return _TOKEN.findall(text)


def invent(prompt: str, *, choice: int = 0) -> list[str]:
    """The tokens of the answer to a prompt: 16 to 64 words, each with its leading space."""
    digest = hashlib.blake2b(f"{choice}\0{prompt}".encode()).digest()
    length = _TOKENS_MIN + hashlib.blake2b(digest).digest()[0] % (_TOKENS_MAX - _TOKENS_MIN + 1)
    return [f" {_WORDS[byte % len(_WORDS)]}" for byte in digest[:length]]


def invent_completion(prompt: str, *, choice: int = 0) -> list[str]:
    """As `invent`; a prompt that ends with the start of its own answer gets the rest of it.

    That is how the text so far is continued where there are no messages. The longest such start
    counts, so that continuing a continuation agrees.
    """
    spaces = [index for index, char in enumerate(prompt) if char == " "][-_TOKENS_MAX:]
    for index in spaces:
        rest = rest_after(invent(prompt[:index], choice=choice), prompt[index:])
        if rest is not None:
            return rest
    return invent(prompt, choice=choice)


def rest_after(tokens: Sequence[str], so_far: str) -> list[str] | None:
    """What is left of an answer after its first part; None when it does not begin like that."""
    if not "".join(tokens).startswith(so_far):
        return None
    rest: list[str] = []
    skip = len(so_far)
    for token in tokens:
        if skip < len(token):
            rest.append(token[skip:])
        skip = max(0, skip - len(token))
    return rest


def cut(tokens: Sequence[str], *, tokens_max: int, stop: Sequence[str]) -> Answer:
    """The answer up to `tokens_max` tokens, or to before the first stop sequence in it."""
    kept = list(tokens[:tokens_max])
    text = "".join(kept)
    met = [(text.find(sequence) + len(sequence), sequence) for sequence in stop if sequence in text]
    if not met:
        reason = "length" if len(tokens) > tokens_max else "stop"
        return Answer(pieces=tuple(kept), finish_reason=reason, stop_reason=None)
    end, sequence = min(met)
    start = end - len(sequence)
    starts = [0, *accumulate(len(token) for token in kept)]
    pieces = [token[: max(0, start - at)] for token, at in zip(kept, starts, strict=False)]
    made = sum(at < end for at in starts[:-1])
    return Answer(pieces=tuple(pieces[:made]), finish_reason="stop", stop_reason=sequence)


def render(messages: Sequence[Mapping[str, Json]]) -> str:
    """The prompt of a chat: grows at its end alone, as templates do that a prefix cache likes."""
    turns = [f"\n<{turn.get('role')}> {content_of(turn)}" for turn in messages]
    return "".join(turns) + "\n<assistant>"


def content_of(message: Mapping[str, Json]) -> str:
    """The text of a message, of its parts, and its tool calls as JSON."""
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    calls = message.get("tool_calls")
    said = [text for text in texts if isinstance(text, str)]
    return " ".join([*said, msgspec.json.encode(calls).decode()] if calls else said)


def unit_vector(text: str, *, dimensions: int) -> list[float]:
    """An embedding: the text's hash as a direction; nothing is near anything."""
    raw = hashlib.shake_256(text.encode()).digest(2 * dimensions)
    numbers = [int.from_bytes(raw[i : i + 2], "little") - 32767.5 for i in range(0, len(raw), 2)]
    norm = sum(number * number for number in numbers) ** 0.5
    return [number / norm for number in numbers]
