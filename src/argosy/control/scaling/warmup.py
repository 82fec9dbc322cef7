"""A replica that has just become ready is timed for some seconds, before clients reach it.

Two prompts of different length tell how fast it reads; as many answers at once as it has slots,
how fast it writes. Fewer at once where a token would take longer than the SLO allows. What it does
under a real mix is learned later (`sustains.py`): this is where that begins, and it warms it up.

Plain HTTP/1.0 over `asyncio.open_connection`, as the probe's: an answer is then whole, never in
chunks, and ends with the connection.
"""

import asyncio
import logging
import random
from urllib.parse import urlsplit

import msgspec

from argosy.policies.autoscaling import Sustains

logger = logging.getLogger(__name__)
SECONDS_MAX = 8.0
_WORDS = (8, 128, 768, 2048)  # of the prompts, the longest that time and context allow
_WORD_TOKENS = 2.5  # of a made-up word, at most about
_PROMPT_SHARE = 0.1  # of all the time: no longer prompt after one that took so long
_ANSWER_TOKENS = 48
_ANSWER_TOKENS_MIN = 8
_TOGETHER_MAX = 64
_BYTES_MAX = 4 * 2**20  # of an answer


class NotMeasuredError(Exception):
    """It did not answer as it should; the message says how."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One answer."""

    seconds: float
    prompt_tokens: int
    output_tokens: int


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """The replica that is timed."""

    url: str  # its base, e.g. http://127.0.0.1:40123
    model: str
    slots: int
    context_tokens: int
    key: str | None = None
    itl_s_max: float | None = None  # the SLO's


async def measure(
    subject: Subject, *, chance: random.Random, seconds_max: float = SECONDS_MAX
) -> Sustains | None:
    """What it sustains; None where it does not answer as it should, or not in time."""
    try:
        async with asyncio.timeout(seconds_max):
            return await _measured(subject, chance, _now_s() + seconds_max)
    except (TimeoutError, OSError, EOFError, ValueError, NotMeasuredError) as error:
        logger.warning("%s was not measured: %s", subject.url, error or type(error).__name__)
        return None


async def _measured(subject: Subject, chance: random.Random, end_s: float) -> Sustains:
    first, last = await _prompts(subject, chance, end_s)
    read = last.prompt_tokens - first.prompt_tokens
    read_s = last.seconds - first.seconds
    prefill = read / read_s if read > 0 and read_s > 0 else last.prompt_tokens / last.seconds
    together = min(subject.slots, _TOGETHER_MAX)
    while True:
        begun_s = _now_s()
        tokens = _answer_tokens(first.seconds, end_s - begun_s)
        asks = (_ask(subject, _WORDS[0], tokens, chance) for _ in range(together))
        answers = await asyncio.gather(*asks)
        busy_s = _now_s() - begun_s
        written = sum(one.output_tokens for one in answers)
        prompts_s = sum(one.prompt_tokens for one in answers) / prefill
        decode_s = max(busy_s - prompts_s, busy_s / 2)
        if written <= 0:
            raise NotMeasuredError("its answers are empty")
        itl_s = decode_s * together / written
        is_slow = subject.itl_s_max is not None and itl_s > subject.itl_s_max
        if not is_slow or together == 1 or _now_s() + busy_s > end_s:
            break
        together = max(1, together // 2)
    return Sustains(prefill_tokens_per_s=prefill, decode_tokens_per_s=written / decode_s)


async def _prompts(
    subject: Subject, chance: random.Random, end_s: float
) -> tuple[Measured, Measured]:
    """A short one and the longest that there was time for."""
    left_s = end_s - _now_s()
    await _ask(subject, _WORDS[0], 1, chance)  # the first of all: what is made ready then
    answers: list[Measured] = []
    for words in _WORDS:
        if answers and words * _WORD_TOKENS > subject.context_tokens / 2:
            break
        answers.append(await _ask(subject, words, 1, chance))
        if len(answers) > 1 and answers[-1].seconds > _PROMPT_SHARE * left_s:
            break
    return answers[0], answers[-1]


def _answer_tokens(token_s: float, left_s: float) -> int:
    """So many that answers take a third of the time that is left, if each took as long as one."""
    fit = int(left_s / 3 / max(token_s, 1e-6))
    return max(_ANSWER_TOKENS_MIN, min(_ANSWER_TOKENS, fit))


async def _ask(subject: Subject, words: int, answer_tokens: int, chance: random.Random) -> Measured:
    """Words that no cache knows."""
    text = " ".join(f"{chance.randrange(1000, 9999)}" for _ in range(words))
    body = {
        "model": subject.model,
        "messages": [{"role": "user", "content": f"{text} Count from 1 to 500 in words."}],
        "max_tokens": answer_tokens,
    }
    begun_s = _now_s()
    raw = await _post(subject, msgspec.json.encode(body))
    usage = msgspec.json.decode(raw, type=_Whole).usage
    return Measured(
        seconds=_now_s() - begun_s,
        prompt_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
    )


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int


class _Whole(msgspec.Struct):
    usage: _Usage


async def _post(subject: Subject, body: bytes) -> bytes:
    url = urlsplit(subject.url)
    reader, writer = await asyncio.open_connection(
        url.hostname, url.port or (443 if url.scheme == "https" else 80),
        ssl=url.scheme == "https" or None, limit=_BYTES_MAX,
    )  # fmt: skip
    try:
        bearer = f"Authorization: Bearer {subject.key}\r\n" if subject.key else ""
        head = (
            f"POST {url.path.rstrip('/')}/v1/chat/completions HTTP/1.0\r\n"
            f"Host: {url.netloc}\r\nContent-Type: application/json\r\n{bearer}"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        status = answer.split(b" ", 2)[1]
        rest = await _rest(reader, answer)
        if status != b"200":
            raise NotMeasuredError(f"HTTP {status.decode()}: {rest[:200]!r}")
        return rest
    finally:
        writer.transport.abort()


async def _rest(reader: asyncio.StreamReader, head: bytes) -> bytes:
    """The body: as long as it says, or until the connection ends."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return await reader.readexactly(min(int(value), _BYTES_MAX))
    return await reader.read(-1)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
