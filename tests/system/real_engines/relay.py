"""Stands between the gateway and an engine, changes nothing and remembers what both said.

So a test knows which text a client can have had from the engine, and which text the gateway asked
it to go on from. HTTP/1.1 without pipelining; every request brings a content-length, as the
gateway's do. Runs on a loop of its own in a thread.
"""

import asyncio
import json
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field


@dataclass
class Call:
    """One POST and what was passed on of its answer."""

    path: str
    fields: dict
    answer: bytearray = field(default_factory=bytearray)

    @property
    def text(self) -> str:
        """What a stream of chat chunks has said; an event that was cut in two says nothing."""
        said = ""
        for line in self.answer.decode(errors="replace").splitlines():
            if line.startswith("data: {"):
                try:
                    chunk = json.loads(line.removeprefix("data: "))
                except ValueError:
                    continue
                for choice in chunk.get("choices") or []:
                    said += choice.get("delta", {}).get("content") or choice.get("text") or ""
        return said

    @property
    def goes_on_from(self) -> str | None:
        """The assistant's beginning that the engine was given; None: a new answer."""
        last = self.fields["messages"][-1]
        return last["content"] if last["role"] == "assistant" else None


class Relay:
    """A listener on loopback before the engine at `port`; use it as a context."""

    def __init__(self, port: int) -> None:
        self.calls: list[Call] = []
        self.url = ""
        self._port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> "Relay":
        self._thread.start()
        self._run(self._listen()).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close()).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """Close every connection where it stands: to the gateway, as if the engine had died."""
        self._run(self._cut()).result(10)

    def _run(self, task) -> Future:
        return asyncio.run_coroutine_threadsafe(task, self._loop)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut(self) -> None:
        for writer in tuple(self._writers):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        upstream = None
        try:
            theirs, upstream = await asyncio.open_connection("127.0.0.1", self._port)
            calls: list[Call] = []
            back = asyncio.create_task(_pass_back(theirs, writer, calls))
            back.add_done_callback(lambda _: writer.close())  # the engine has hung up
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(_length(head))
                if head.startswith(b"POST "):
                    calls.append(Call(head.split(b" ")[1].decode(), json.loads(body)))
                    self.calls.append(calls[-1])
                upstream.write(head + body)
                await upstream.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # either side is gone
        finally:
            self._writers.discard(writer)
            for side in (writer, upstream):
                if side is not None:
                    side.close()


async def _pass_back(
    theirs: asyncio.StreamReader, writer: asyncio.StreamWriter, calls: list[Call]
) -> None:
    try:
        while data := await theirs.read(65536):
            if writer.is_closing():
                return
            writer.write(data)
            if calls:
                calls[-1].answer += data
            await writer.drain()
    except OSError:
        pass  # killed with bytes on their way


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
