"""Two hundred slow clients cost the quick ones nothing that these would notice."""

import asyncio
import contextlib
import itertools

import pytest
from raw_client import HELLO, request
from running_gateway import House, run, running
from upstream import answers

SLOW = 200
STREAM = {**HELLO, "stream": True}


async def slow_head(house: House, number: int) -> None:
    await trickle(house, request(), 10 + number % 20)


async def slow_body(house: House, number: int) -> None:
    await trickle(house, request(), len(request()) - 30 + number % 20)


async def trickle(house: House, data: bytes, at_once: int) -> None:
    """The beginning at once, then one byte each ten seconds."""
    client = await house.client()
    client.say(data[:at_once])
    for byte in data[at_once:]:
        await asyncio.sleep(10)
        client.say(bytes([byte]))


async def reads_nothing(house: House, number: int) -> None:
    client = await house.client(receive_bytes=4096)
    client.say(request(body=STREAM) if number % 2 else request("/metrics", method="GET") * 8)
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    "slow", [[slow_head], [slow_body], [reads_nothing], [slow_head, slow_body, reads_nothing]]
)
def test_slow_clients_do_not_delay_others(slow):
    async def test():
        async with running(answers("Hello", " world"), answers("Hello", " world")) as house:
            kinds = itertools.cycle(slow)
            tasks = [asyncio.create_task(next(kinds)(house, number)) for number in range(SLOW)]
            await asyncio.sleep(0.3)
            seconds = [await quick(house) for _ in range(20)]
            assert sorted(seconds)[18] < 5
            assert len(house.gateway._connections) >= SLOW
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await asyncio.sleep(0)

    run(test(), timeout_s=30.0)


async def quick(house: House) -> float:
    loop = asyncio.get_running_loop()
    start_s = loop.time()
    answer = await (await house.client()).ask(body=STREAM)
    assert answer.text == "Hello world"
    await asyncio.sleep(0.02)
    return loop.time() - start_s
