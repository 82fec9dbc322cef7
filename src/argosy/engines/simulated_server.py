"""The program inside a simulated replica: `python -m argosy.engines.simulated_server SPEC`.

Real HTTP, real time, invented words: a request waits for a slot, its prompt is read at one rate
and its answer decoded at another. What is said is decided in `simulated_requests.py`.
"""

import asyncio
import socket
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from argosy.engines import replica_process
from argosy.engines import simulated_answers as answers
from argosy.engines.simulated import SimulatedSpec
from argosy.engines.simulated_requests import (
    Embeddings,
    Plan,
    RequestError,
    read_chat,
    read_completion,
    read_embeddings,
)

_BLOCK_TOKENS = 16  # the prefix cache remembers whole blocks, as vLLM's does
_BLOCKS_MAX = 65536  # 10 MB


class PrefixCache:
    """The prompts that were read lately, as chained hashes of their blocks."""

    def __init__(self, blocks_max: int = _BLOCKS_MAX) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._blocks_max = blocks_max

    def cached_tokens(self, tokens: Sequence[str]) -> int:
        """How many tokens at the start are known; never all, for one must be computed."""
        known = 0
        for block in _chain(tokens):
            if block not in self._blocks:
                break
            self._blocks.move_to_end(block)
            known += _BLOCK_TOKENS
        return max(0, min(known, len(tokens) - 1))

    def remember(self, tokens: Sequence[str]) -> None:
        """Put the tokens in; the blocks that were used longest ago go."""
        for block in _chain(tokens):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._blocks_max:
            self._blocks.popitem(last=False)


class Replica:
    """The slots and the time of one replica."""

    def __init__(self, spec: SimulatedSpec) -> None:
        self._engine = spec.engine
        self._slots = asyncio.Semaphore(spec.engine.slots)
        self._cache = PrefixCache()

    async def decode(self, plan: Plan, emit: Callable[[int, int], Awaitable[None]]) -> None:
        """Calls `emit(step, cached tokens)` when each step's tokens are due."""
        async with self._slots:
            start_s = _now_s()
            cached = self._read(plan.prompts)
            first_s = start_s + self._prefill_s(plan.prompts, cached)
            for step in range(plan.steps):
                await _sleep_until(first_s + step / self._engine.decode_tokens_per_s)
                await emit(step, cached)
            self._cache.remember(_next_prompt(plan))

    async def embed(self, asked: Embeddings) -> None:
        """Returns when the texts would have been read."""
        async with self._slots:
            await _sleep_until(_now_s() + self._prefill_s(asked.prompts, 0))

    def _read(self, prompts: Sequence[list[str]]) -> int:
        cached = 0
        for prompt in prompts:
            cached += self._cache.cached_tokens(prompt)
            self._cache.remember(prompt)
        return cached

    def _prefill_s(self, prompts: Sequence[list[str]], cached: int) -> float:
        tokens = sum(len(prompt) for prompt in prompts) - cached
        return tokens / self._engine.prefill_tokens_per_s


def main() -> None:
    """Serve until the parent is gone."""
    announce = replica_process.begin()
    spec = msgspec.json.decode(sys.argv[1], type=SimulatedSpec)
    family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET
    listener = socket.create_server((spec.host, 0), family=family, backlog=1024)
    config = uvicorn.Config(build_app(spec, listener, announce), log_level="warning")
    uvicorn.Server(config).run(sockets=[listener])


def build_app(
    spec: SimulatedSpec, listener: socket.socket, announce: Callable[[str], None]
) -> Starlette:
    """The replica's HTTP; it announces the listener's URL once it serves."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        replica_process.take_signals()  # back from uvicorn, which wants a graceful end
        await asyncio.sleep(spec.engine.start_s)
        announce(replica_process.url_of(*listener.getsockname()[:2]))
        yield

    replica = Replica(spec)
    models = answers.models_body(spec.model, context_tokens=spec.engine.context_tokens)
    post = ["POST"]
    return Starlette(
        routes=[
            Route(
                "/v1/chat/completions", partial(_complete, read_chat, spec, replica), methods=post
            ),
            Route(
                "/v1/completions", partial(_complete, read_completion, spec, replica), methods=post
            ),
            Route("/v1/embeddings", partial(_embed, spec, replica), methods=post),
            Route("/v1/models", partial(_constant, models)),
            Route("/health", partial(_constant, {"status": "ok"})),
        ],
        exception_handlers={RequestError: _refused, HTTPException: _not_found},
        lifespan=lifespan,
    )


async def _complete(
    read: Callable[[bytes, SimulatedSpec], Plan],
    spec: SimulatedSpec,
    replica: Replica,
    request: Request,
) -> ASGIApp:
    plan = read(await request.body(), spec)
    return _until_client_leaves(partial(_stream if plan.stream else _whole, plan, replica))


async def _embed(spec: SimulatedSpec, replica: Replica, request: Request) -> ASGIApp:
    asked = read_embeddings(await request.body(), spec)

    async def answer(send: Send) -> None:
        await replica.embed(asked)
        await _send_json(send, answers.embeddings_body(asked))

    return _until_client_leaves(answer)


async def _constant(body: object, _: Request) -> Response:
    return _json_response(body, 200)


async def _whole(plan: Plan, replica: Replica, send: Send) -> None:
    cached_tokens = 0

    async def emit(step: int, cached: int) -> None:
        nonlocal cached_tokens
        cached_tokens = cached

    await replica.decode(plan, emit)
    await _send_json(send, answers.whole_body(plan, cached=cached_tokens))


async def _stream(plan: Plan, replica: Replica, send: Send) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def emit(step: int, cached: int) -> None:
        events = answers.stream_events(plan, step, cached=cached)
        if step == plan.steps - 1 and plan.include_usage:
            events.append(answers.usage_event(plan, cached=cached))
        if events:
            await send(_body(b"".join(map(_event, events)), more=True))

    await replica.decode(plan, emit)
    await send(_body(b"data: [DONE]\n\n", more=False))


def _until_client_leaves(answer: Callable[[Send], Awaitable[None]]) -> ASGIApp:
    """Runs `answer`, and cancels it, wherever it waits, when the client closes the connection."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        working = asyncio.ensure_future(answer(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            if not working.done():
                working.cancel()
        if working.done():
            working.result()

    return app


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    body = answers.error_body(str(error), code=error.code, status=error.status)
    return _json_response(body, error.status)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{error.detail}: {request.method} {request.url.path}"
    body = answers.error_body(message, code=None, status=error.status_code)
    return _json_response(body, error.status_code)


def _json_response(body: object, status: int) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


async def _send_json(send: Send, body: object) -> None:
    raw = msgspec.json.encode(body)
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(raw)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send(_body(raw, more=False))


def _body(raw: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": raw, "more_body": more}


def _event(body: object) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _chain(tokens: Sequence[str]) -> list[int]:
    chained: list[int] = []
    before = 0
    for start in range(0, len(tokens) - _BLOCK_TOKENS + 1, _BLOCK_TOKENS):
        before = hash((before, *tokens[start : start + _BLOCK_TOKENS]))
        chained.append(before)
    return chained


def _next_prompt(plan: Plan) -> list[str]:
    """The tokens that the next turn of this chat will begin with."""
    pieces = plan.choices[0].pieces
    if not pieces or pieces[0].startswith(" "):
        return [*plan.prompts[0], *pieces]
    return [*plan.prompts[0], f" {pieces[0]}", *pieces[1:]]


async def _sleep_until(at_s: float) -> None:
    """An absolute time, so that what one sleep takes too long the next takes less."""
    await asyncio.sleep(max(0.0, at_s - _now_s()))


def _now_s() -> float:
    return asyncio.get_running_loop().time()


if __name__ == "__main__":
    main()
