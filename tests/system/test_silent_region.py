"""A region vanishes without a word, as by a cut cable: its streams go on elsewhere all the same."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from far_fleet import endpoint
from fleet_process import MODEL, FleetProcess

pytestmark = pytest.mark.timeout(120)
STALL_S = 60.0  # of a stream, where nobody doubts its replica


class Cable:
    """Passes bytes on between here and a port, until it is cut: then nothing, and no reset."""

    def __init__(self, url: str) -> None:
        self._to = int(url.rpartition(":")[2])
        self._is_cut = threading.Event()
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait(5.0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cut(self) -> None:
        self._is_cut.set()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5.0)
        self._loop.close()

    def _run(self, ready: threading.Event) -> None:
        self._loop.run_until_complete(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task] = set()
        server = await asyncio.start_server(self._joined, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for end in (writer, far_writer):
                end.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self._is_cut.is_set():
                await self._stop.wait()
            writer.write(data)
        if self._is_cut.is_set():
            await self._stop.wait()
        raise ConnectionResetError


@pytest.fixture
def regions() -> Iterator[tuple[Cable, str]]:
    """The cable to a replica in the east, and the URL of one in the west."""
    (east, east_url), (west, west_url) = endpoint(), endpoint()
    cable = Cable(east_url)
    yield cable, west_url
    cable.close()
    for process in (east, west):
        process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


def _file(folder: Path, urls: list[str]) -> Path:
    engine = "engine: {kind: endpoint, slots: 64, continuation: trailing}"
    lines = ["fleet: cable", f"gateway: {{port: 0, stall_timeout_s: {STALL_S:g}}}", "pools:"]
    lines += [
        f"  - {{name: {name}, launcher: {{kind: endpoint, url: '{url}/v1'}}}}"
        for name, url in zip(("east", "west"), urls, strict=True)
    ]
    lines += [f"models: [{{name: {MODEL}}}]", "deployments:"]
    lines += [f"  - {{model: {MODEL}, pool: {name}, {engine}}}" for name in ("east", "west")]
    file = folder / "fleet.yaml"
    file.write_text("\n".join([*lines, ""]))
    return file


class Gap:
    """What one client saw."""

    def __init__(self) -> None:
        self.replica = ""
        self.text = ""
        self.longest_s = 0.0
        self.end = ""


async def _stream(client: httpx.AsyncClient, gap: Gap) -> None:
    body = {
        "model": MODEL, "stream": True, "max_tokens": 600,
        "messages": [{"role": "user", "content": "Count."}],
    }  # fmt: skip
    last_s = time.monotonic()
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        assert answer.status_code == 200
        gap.replica = answer.headers["argosy-replica"]
        async for line in answer.aiter_lines():
            now_s = time.monotonic()
            gap.longest_s, last_s = max(gap.longest_s, now_s - last_s), now_s
            data = line.removeprefix("data: ")
            if not line.startswith("data: ") or data == "[DONE]":
                continue
            told = json.loads(data)
            assert "error" not in told, told
            for choice in told["choices"]:
                gap.text += choice["delta"].get("content") or ""
                gap.end = choice["finish_reason"] or gap.end


def test_streams_of_a_silent_region_go_on_elsewhere_long_before_they_time_out(
    tmp_path: Path, regions: tuple[Cable, str], say
):
    cable, west = regions
    fleet = FleetProcess(tmp_path / "state", _file(tmp_path, [cable.url, west]))
    try:
        fleet.wait_ready()
        gaps = asyncio.run(_eight(fleet, cable))
    finally:
        fleet.stop()
    east = [one for one in gaps if "east" in one.replica]
    assert east
    assert {one.end for one in gaps} <= {"stop", "length"}, [one.end for one in gaps]
    assert len({one.text for one in gaps}) == 1  # without a seam
    longest_s = max(one.longest_s for one in east)
    say(f"{len(east)} streams of a silent region went on after {longest_s:.1f} s at most")
    assert longest_s < STALL_S / 3
    assert max(one.longest_s for one in gaps if one not in east) < longest_s


async def _eight(fleet: FleetProcess, cable: Cable) -> list[Gap]:
    headers = {"authorization": f"Bearer {fleet.key}"}
    gaps = [Gap() for _ in range(8)]
    async with httpx.AsyncClient(
        base_url=fleet.url, headers=headers, timeout=90.0, trust_env=False
    ) as client:
        streams = [asyncio.create_task(_stream(client, gap)) for gap in gaps]
        while not all(len(gap.text) > 40 for gap in gaps):
            await asyncio.sleep(0.02)
        cable.cut()
        await asyncio.gather(*streams)
    return gaps
