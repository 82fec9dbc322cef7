"""Files and batches over real HTTP and a real store, with items that the test answers itself.

A socket server in a thread stands where the gateway will: it finds the key, asks `BatchApi`, and
writes its bytes as they are. Items arrive at the same socket and get what `answer` says.
"""

import asyncio
import inspect
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anthropic
import msgspec
import openai

from argosy.fleet.messages import Key
from argosy.gateway.batches.api import BatchApi
from argosy.gateway.batches.item_client import HttpItemClient
from argosy.gateway.batches.runner import BatchRunner, RunnerWiring
from argosy.gateway.batches.sender import SenderSettings
from argosy.gateway.http import Request, whole_response
from argosy.store.batch_work import BatchWork
from argosy.store.batches import Batches
from argosy.store.files import Files
from argosy.store.schema import open_store

OPERATOR = "operator-secret"
TENANTS = ("acme", "other")


class Item(msgspec.Struct):
    """One item as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict


class Said(msgspec.Struct):
    """What is answered to an item."""

    status: int
    body: object
    headers: tuple[tuple[str, str], ...] = ()


Answer = Callable[[Item], Said | Awaitable[Said]]


def echo(item: Item) -> Said:
    """The last message, in the shape of the API."""
    text = item.body["messages"][-1]["content"]
    if "refuse" in text:
        return refusal(item, 400, "cannot")
    if item.path == "/v1/messages":
        block = {"type": "text", "text": f"re: {text}"}
        usage = {"input_tokens": 1, "output_tokens": 1}
        message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [block]}
        return Said(200, message | {"model": "tiny", "stop_reason": "end_turn", "usage": usage})
    message = {"role": "assistant", "content": f"re: {text}"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Said(200, {"id": "chat_1", "object": "chat.completion", "choices": [choice]})


def refusal(item: Item, status: int, message: str, **headers: str) -> Said:
    """An error in the shape of the API."""
    error = {"type": "invalid_request_error", "message": message}
    body: dict[str, object] = {"error": error}
    if item.path == "/v1/messages":
        body |= {"type": "error", "request_id": "req_1"}
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Said(status, body, pairs)


class House:
    """The server, its store, and what it was asked."""

    def __init__(self, path: Path, answer: Answer) -> None:
        self.items: list[Item] = []
        self.hurried_s = 0.0  # how far its calendar is ahead
        self.answer = answer
        self._store = open_store(path)
        self._ids = iter(range(1_000_000))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._run(self._start())

    # For tests.

    def openai(self, tenant: str = "acme") -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=tenant, max_retries=0)

    def anthropic(self, tenant: str = "acme") -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.url, api_key=tenant, max_retries=0)

    def close(self) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._store.dispose()

    # The server.

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        files = Files(self._store)
        self._client = HttpItemClient(self.url, operator_token=OPERATOR)
        self._runner = BatchRunner(
            RunnerWiring(
                files=files,
                desk=BatchWork(self._store),
                client=self._client,
                unix_time_s=self._unix_time_s,
                chance=lambda: 0.5,
                settings=SenderSettings(failure_wait_s=0.01),
            )
        )
        self._api = BatchApi(
            files=files,
            batches=Batches(self._store),
            unix_time_s=self._unix_time_s,
            changed=self._runner.wake,
        )
        self._runner.start()

    async def _stop(self) -> None:
        await self._runner.stop()
        self._client.close()
        self._server.close()
        ours = asyncio.current_task()
        for task in asyncio.all_tasks():
            if task is not ours:
                task.cancel()
        await asyncio.sleep(0.01)

    def _run(self, work) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10.0)

    def _unix_time_s(self) -> float:
        return time.time() + self.hurried_s

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                request = self._request(head)
                length = int(request.headers.get(b"content-length", b"0"))
                request.body = await reader.readexactly(length)
                await self._reply(request, writer)
        except (EOFError, OSError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def _request(self, head: bytes) -> Request:
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower().encode(): value.strip().encode() for name, _, value in pairs}
        return Request(
            id=f"req_{next(self._ids)}",
            received_s=0.0,
            method=method,
            path=path,
            query=query,
            headers=headers,
        )

    async def _reply(self, request: Request, writer: asyncio.StreamWriter) -> None:
        if not self._api.has(request.path):
            writer.write(await self._item(request))
            return
        tenant = request.secret()
        assert tenant in TENANTS
        request.key = Key(
            id=f"key_{tenant}", sha256="", tenant=tenant, tier="batch", name="k", created_at_s=0.0
        )
        refused = self._api.precheck(request)
        if refused is not None:
            writer.write(whole_response(404, refused.message.encode(), request=request))
            return
        reply = await self._api.answer(request)
        if isinstance(reply, bytes):
            writer.write(reply)
            return
        async for piece in reply:
            writer.write(piece)
            await writer.drain()

    async def _item(self, request: Request) -> bytes:
        headers = {name.decode(): value.decode() for name, value in request.headers.items()}
        item = Item(request.path, headers, json.loads(request.body))
        self.items.append(item)
        said = self.answer(item)
        if inspect.isawaitable(said):
            said = await said
        body = said.body if isinstance(said.body, bytes) else msgspec.json.encode(said.body)
        return whole_response(said.status, body, request=request, extra=said.headers)


@contextmanager
def house(tmp_path: Path, answer: Answer = echo) -> Iterator[House]:
    """A house until the end of the block."""
    open_house = House(tmp_path / "argosy.db", answer)
    try:
        yield open_house
    finally:
        open_house.close()


def until(holds: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Return when it holds; fail when it does not in time."""
    end_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < end_s, "it did not come to hold in time"
        time.sleep(0.01)


def line(custom_id: str, text: str = "Hi", **changes: object) -> bytes:
    """One line of an input file."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": text}]}
    fields = {
        "custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body,
    }  # fmt: skip
    return json.dumps({**fields, **changes}).encode() + b"\n"


def submit(client: openai.OpenAI, *lines: bytes, **changes: object):
    """Upload the lines and make a batch of them."""
    file = client.files.create(file=("in.jsonl", b"".join(lines)), purpose="batch")
    asked = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    return client.batches.create(input_file_id=file.id, **{**asked, **changes})


def ended(client: openai.OpenAI, batch_id: str):
    """The batch once it has ended."""
    found = []

    def has_ended() -> bool:
        found.append(client.batches.retrieve(batch_id))
        return found[-1].status in ("completed", "failed", "expired", "cancelled")

    until(has_ended)
    return found[-1]


def lines_of(client: openai.OpenAI, file_id: str) -> list[dict]:
    """A results file, read line by line."""
    return [json.loads(text) for text in client.files.content(file_id).text.splitlines()]


def requests_of(*texts: str) -> list[dict]:
    """What `messages.batches.create` takes."""
    return [
        {
            "custom_id": f"id-{index}",
            "params": {
                "model": "tiny",
                "max_tokens": 8,
                "messages": [{"role": "user", "content": text}],
            },
        }
        for index, text in enumerate(texts)
    ]
