"""A client that leaves stops the replica's work; one that reads slowly slows its replica alone."""

import asyncio

import pytest
from raw_client import HELLO, MESSAGE, request
from running_gateway import eventually, run, running
from upstream import EVENTS, Behaviour, Call, answers, delta, hangs, streams_forever

PATHS = ["/v1/chat/completions", "/v1/messages"]
STREAM = {**HELLO, "stream": True}
SOON_S = 5.0  # it takes a few milliseconds; the rest is for a machine that is busy


async def left_soon(call: Call, since_s: float) -> None:
    """The replica sees its connection close soon after `since_s`."""
    async with asyncio.timeout(SOON_S):
        await call.has_left.wait()
    assert call.left_at_s is not None
    assert call.left_at_s - since_s < SOON_S


async def begins_then_hangs(call: Call) -> None:
    """Half of a whole answer, and no more."""
    await call.send(b'HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"choices": [')
    await call.watch()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("way", ["close", "reset", "eof"])
@pytest.mark.parametrize(
    ("behaves", "stream", "status"),
    [
        (hangs, True, 0),
        (hangs, False, 0),
        (begins_then_hangs, False, 0),
        (streams_forever, True, 200),
    ],
)
def test_a_client_that_leaves_stops_the_replica(path, way, behaves, stream, status):
    async def test():
        async with running(behaves) as house:
            [upstream] = house.upstreams
            client = await house.client()
            client.say(request(path, {**MESSAGE, "stream": stream}))
            if status:
                await client.reader.readuntil(b"a ")
            else:
                await eventually(lambda: upstream.calls)
                await asyncio.sleep(0.02)
            since_s = asyncio.get_running_loop().time()
            if way == "eof":
                client.writer.write_eof()
            elif way == "reset":
                client.reset()
            else:
                client.writer.close()
            await left_soon(upstream.calls[0], since_s)
            [record] = await house.recorded()
            assert (record.outcome, record.status, record.attempts) == ("cancelled", status, 1)
            assert (record.tokens_out > 0) == (status == 200)
            assert (record.ttft_s is None) == (status == 0)

    run(test())


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_leaves_while_no_replica_is_there_is_never_sent_on(path):
    async def test():
        async with running() as house:
            client = await house.client()
            client.say(request(path, MESSAGE))
            await eventually(lambda: house.gateway.status().requests_waiting == 1)
            client.reset()
            [record] = await house.recorded()
            assert (record.outcome, record.status, record.attempts) == ("cancelled", 0, 0)
            upstream = await house.replica(hangs)
            await asyncio.sleep(0.05)
            assert upstream.calls == []

    run(test())


def test_a_client_that_leaves_between_two_attempts_gets_no_third():
    async def test():
        async def fails(call: Call) -> None:
            call.cut()

        async with running(fails, attempts_max=5) as house:
            [upstream] = house.upstreams
            client = await house.client()
            client.say(request())
            await eventually(lambda: len(upstream.calls) == 2)
            client.reset()
            [record] = await house.recorded()
            assert record.outcome == "cancelled"
            tried = len(upstream.calls)
            await asyncio.sleep(0.3)
            assert len(upstream.calls) == tried

    run(test())


# Slow readers.

EVENT = {**delta("x" * 100_000)}


def offers(megabytes: int) -> Behaviour:
    """A long answer, for as long as the gateway is there."""

    async def behave(call: Call) -> None:
        watching = asyncio.create_task(call.watch())
        try:
            await call.send(EVENTS)
            for _ in range(megabytes * 10):
                await call.event(EVENT)
            await call.event(delta(finish="stop"))
            await call.event(b"[DONE]")
            await call.end()
        except ConnectionError:
            pass
        finally:
            await watching

    return behave


async def offered(upstream) -> int:
    """What the replica could get rid of before it was made to wait."""
    await eventually(lambda: upstream.calls)
    [call] = upstream.calls
    before = -1
    while call.bytes_written != before:
        before = call.bytes_written
        await asyncio.sleep(0.1)
    return before


def buffered(house) -> int:
    """The largest write buffer that the gateway holds for a client."""
    return max(c._transport.get_write_buffer_size() for c in house.gateway._connections)


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_does_not_read_makes_its_replica_wait(path):
    async def test():
        async with running(offers(50)) as house:
            client = await house.client(receive_bytes=4096)
            client.say(request(path, {**MESSAGE, "stream": True}))
            written = await offered(house.upstreams[0])
            assert buffered(house) < 2**20
            assert written < 25_000_000  # the sockets' own buffers are of some megabytes
            client.read_fast()
            answer = await client.answer()
            assert answer.is_whole
            assert answer.body.count(b"xxxxxxxxxx") == 50 * 10 * 10_000
            [record] = await house.recorded()
            assert record.outcome == "finished"

    run(test())


def test_a_client_that_stops_reading_is_cut_in_time():
    async def test():
        async with running(offers(50), stalled_client_timeout_s=0.5) as house:
            client = await house.client(receive_bytes=4096)
            client.say(request(body=STREAM))
            await offered(house.upstreams[0])
            await asyncio.wait_for(house.upstreams[0].calls[0].has_left.wait(), 3)
            [record] = await house.recorded()
            assert record.outcome == "cancelled"
            assert not house.gateway._connections

    run(test())


def test_a_client_that_leaves_with_much_unread_stops_the_replica_all_the_same():
    async def test():
        async with running(offers(50)) as house:
            client = await house.client(receive_bytes=4096)
            client.say(request(body=STREAM))
            await offered(house.upstreams[0])
            since_s = asyncio.get_running_loop().time()
            client.writer.write_eof()
            await left_soon(house.upstreams[0].calls[0], since_s)

    run(test())


def test_a_client_that_reads_again_in_time_is_not_cut():
    async def test():
        async with running(offers(20), stalled_client_timeout_s=1.0) as house:
            client = await house.client(receive_bytes=4096)
            client.say(request(body=STREAM))
            await offered(house.upstreams[0])
            client.read_fast()
            answer = await client.answer()
            assert (answer.is_whole, answer.events[-1]) == (True, b"[DONE]")
            await asyncio.sleep(1.5)  # and it is not cut afterwards, for having been slow
            assert (await client.ask("/health", method="GET")).status == 200

    run(test())


def test_a_client_that_asks_for_pages_and_reads_none_is_bounded():
    async def test():
        async with running(hangs) as house:
            client = await house.client(receive_bytes=4096)
            page = request("/metrics", method="GET")
            client.say(page * 20_000)
            await eventually(lambda: house.gateway._connections)
            for _ in range(40):
                await asyncio.sleep(0.02)
                assert buffered(house) < 2**20

    run(test())


def test_a_slow_reader_does_not_slow_another_client_of_the_same_replica():
    async def test():
        async with running(offers(50)) as house:
            [upstream] = house.upstreams
            slow = await house.client(receive_bytes=4096)
            slow.say(request(body=STREAM))
            await offered(upstream)
            upstream.behaves = answers("Hello", " world")
            answer = await (await house.client()).ask(body=STREAM)
            assert answer.text == "Hello world"

    run(test())
