"""Clients that stream all the time, and their account of every chunk. Never retries.

With one slot and no prefix cache a greedy answer depends on its prompt alone, so every text is held
against the one of a calm fleet.
"""

import asyncio
import json
import threading
import time
from itertools import pairwise

import httpx
import msgspec

from tests.system.ray_failover.fleet import MODEL, RayFleet

QUESTIONS = tuple(f"Tell me about the number {n}." for n in range(3, 9))
_TOKENS = 32
_SILENT_S_MAX = 60.0  # a client gives up
_UNDER_WAY_S = 0.05  # what comes so soon after a fault was sent before it


class Stream(msgspec.Struct, kw_only=True):
    """One request as its client saw it. Times are of `time.monotonic`."""

    question: str
    began_s: float
    ended_s: float = 0.0
    chunks_s: list[float] = []
    text: str = ""
    finish: str | None = None
    failure: str | None = None  # None: it had its proper end
    request: str | None = None

    def first_after(self, at_s: float) -> float | None:
        """Seconds from a fault to the next chunk, of a stream that ran then; None: it did not."""
        if self.began_s > at_s:
            return None
        return next((one - at_s for one in self.chunks_s if one > at_s + _UNDER_WAY_S), None)

    def resumed_after(self, at_s: float, *, outlives_s: float) -> float | None:
        """Seconds from a fault to the end of the silence that came of it; None: it ran later.

        That is the longest of those that begin within `outlives_s`, for which a replica may still
        have spoken.
        """
        if self.began_s > at_s:
            return None
        since = [at_s, *(one for one in self.chunks_s if one > at_s)]
        gaps = [
            (later - one, later - at_s)
            for one, later in pairwise(since)
            if one <= at_s + outlives_s
        ]
        return max(gaps)[1] if gaps else None


class Load:
    """That many streams at once, in a thread, from `start` until `end`."""

    def __init__(
        self, fleet: RayFleet, *, clients: int, questions: tuple[str, ...] = QUESTIONS
    ) -> None:
        self.streams: list[Stream] = []  # that have ended
        self.texts: dict[str, str] = {}  # of a calm fleet
        self._fleet = fleet
        self._clients = clients
        self._questions = questions
        self._is_over = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def start(self) -> None:
        """First each question once, on the calm fleet."""
        for one in asyncio.run(self._each_once()):
            assert one.failure is None, one.failure
            self.texts[one.question] = one.text
        self._thread.start()

    def end(self) -> None:
        """Returns when the last stream has ended."""
        self._is_over = True
        if self._thread.is_alive():
            self._thread.join()

    async def _each_once(self) -> list[Stream]:
        async with self._http() as http:
            return [await _stream(http, question) for question in self._questions]

    async def _run(self) -> None:
        async with self._http() as http:
            await asyncio.gather(*(self._repeat(http, n) for n in range(self._clients)))

    async def _repeat(self, http: httpx.AsyncClient, number: int) -> None:
        while not self._is_over:
            self.streams.append(await _stream(http, self._questions[number % len(self._questions)]))
            number += self._clients + 1

    def _http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._fleet.gateway.url,
            headers={"authorization": f"Bearer {self._fleet.key}"},
            timeout=_SILENT_S_MAX,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            trust_env=False,
        )


async def _stream(http: httpx.AsyncClient, question: str) -> Stream:
    seen = Stream(question=question, began_s=time.monotonic())
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": _TOKENS,
        "stream": True,
        "logit_bias": {"2": -100},  # not the model's end of turn: each has its full length
    }
    try:
        async with http.stream("POST", "/v1/chat/completions", json=body) as response:
            seen.request = response.headers.get("x-request-id")
            if response.status_code != 200:
                seen.failure = f"{response.status_code} {(await response.aread()).decode()[:300]}"
            else:
                await _read(response, seen)
    except httpx.HTTPError as error:
        seen.failure = repr(error)
    seen.ended_s = time.monotonic()
    return seen


async def _read(response: httpx.Response, seen: Stream) -> None:
    is_done = False
    async for line in response.aiter_lines():
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            is_done = True
        elif line.startswith("data: "):
            _take(json.loads(data), seen)
    if seen.failure is None and (not is_done or seen.finish is None):
        seen.failure = f"cut after {len(seen.chunks_s)} chunks"


def _take(chunk: dict, seen: Stream) -> None:
    if "error" in chunk:
        seen.failure = str(chunk["error"])
    for choice in chunk.get("choices", ()):
        if choice["delta"].get("content"):
            seen.text += choice["delta"]["content"]
            seen.chunks_s.append(time.monotonic())
        seen.finish = choice["finish_reason"] or seen.finish
