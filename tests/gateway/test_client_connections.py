"""What a client may do with a connection: keep it, fill it, leave it; and what is left of it."""

import asyncio
import json

import pytest
from raw_client import HELLO, request
from running_gateway import answering, eventually, run, running
from upstream import answers, hangs


@pytest.mark.parametrize("stream", [False, True])
def test_http_10_is_answered_without_chunks_and_closed(stream):
    async def test():
        async with answering() as house:
            client = await house.client()
            said = request(body={**HELLO, "stream": stream}).replace(b"HTTP/1.1", b"HTTP/1.0")
            client.say(said)
            answer = await client.answer()
            assert "transfer-encoding" not in answer.headers
            assert answer.headers["connection"] == "close"
            if stream:
                assert answer.text == "Hello world"
                assert answer.events[-1] == b"[DONE]"
            assert await client.is_closed()

    run(test())


def test_http_10_with_keep_alive_is_kept_after_a_whole_answer_and_closed_after_a_stream():
    async def test():
        async with answering() as house:
            client = await house.client()
            keep = {"connection": "keep-alive"}
            client.say(request(**keep).replace(b"HTTP/1.1", b"HTTP/1.0"))
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")
            stream = request(body={**HELLO, "stream": True}, **keep)
            client.say(stream.replace(b"HTTP/1.1", b"HTTP/1.0"))
            answer = await client.answer()
            assert (answer.text, answer.headers["connection"]) == ("Hello world", "close")
            assert await client.is_closed()

    run(test())


def test_connection_close_is_honoured():
    async def test():
        async with answering() as house:
            client = await house.client()
            answer = await client.ask(connection="close")
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await client.is_closed()

    run(test())


def test_pipelined_requests_are_answered_in_their_order():
    async def test():
        async with answering() as house:
            client = await house.client()
            paths = [f"/v1/models/m{number}" for number in range(10)]
            for path in paths:
                client.say(request())
                client.say(request(path, method="GET"))
            for path in paths:
                assert (await client.answer()).status == 200
                answer = await client.answer()
                assert answer.status == 404
                assert f"'{path.rpartition('/')[2]}'" in answer.error["message"]
            await house.recorded(10)

    run(test())


def test_more_than_32_waiting_requests_are_refused_after_those_before_them():
    async def test():
        async with answering() as house:
            client = await house.client()
            client.say(request() + request("/health", method="GET") * 40)
            statuses = [(await client.answer()).status for _ in range(33)]
            assert statuses == [200] * 32 + [429]
            assert await client.is_closed()

    run(test())


def test_garbage_after_good_requests_is_answered_after_them():
    async def test():
        async with answering() as house:
            client = await house.client()
            client.say(request("/health", method="GET") + request() + b"garbage\r\n\r\n")
            assert [(await client.answer()).status for _ in range(3)] == [200, 200, 400]
            assert await client.is_closed()
            [record] = await house.recorded()
            assert record.outcome == "finished"

    run(test())


def test_the_next_request_waits_while_the_client_does_not_read():
    async def test():
        async with running(answers("x" * 12_000_000)) as house:
            client = await house.client(receive_bytes=4096)
            client.say(request() * 3)
            [upstream] = house.upstreams
            await eventually(lambda: len(house.records) == 1)
            await asyncio.sleep(0.2)
            assert len(upstream.calls) == 1
            for _ in range(3):
                assert len((await client.answer()).body) > 12_000_000
            assert len(upstream.calls) == 3

    run(test())


def test_a_client_that_closes_its_side_after_a_page_still_reads_it():
    async def test():
        async with answering() as house:
            client = await house.client()
            client.say(request("/health", method="GET") * 3)
            client.writer.write_eof()
            assert [(await client.answer()).status for _ in range(3)] == [200] * 3
            assert await client.is_closed()

    run(test())


@pytest.mark.parametrize("sent", [1, 40, 300, -1])
@pytest.mark.parametrize("way", ["reset", "eof"])
def test_a_client_that_leaves_in_the_middle_of_its_request_leaves_nothing_behind(sent, way):
    async def test():
        async with running(hangs) as house:
            client = await house.client()
            client.say(request(body=json.dumps(HELLO).encode() + b" " * 5000)[:sent])
            await eventually(lambda: house.gateway._connections)
            await asyncio.sleep(0.02)
            client.reset() if way == "reset" else client.writer.write_eof()
            await eventually(lambda: not house.gateway._connections)
            assert house.gateway.body_bytes_pending == 0
            assert house.records == []

    run(test())


def test_a_client_that_leaves_while_its_next_request_waits_leaves_nothing_behind():
    async def test():
        async with running(hangs) as house:
            client = await house.client()
            client.say(request() + request() + request()[:-5])
            await eventually(lambda: house.in_flight() == 1)
            client.reset()
            await eventually(lambda: not house.gateway._connections)
            records = await house.recorded(2)
            assert [record.outcome for record in records] == ["cancelled", "cancelled"]

    run(test())


def test_too_many_connections_are_told_so():
    async def test():
        async with answering(connections_max=3) as house:
            clients = [await house.client() for _ in range(3)]
            for client in clients:
                assert (await client.ask("/health", method="GET")).status == 200
            late = await house.client()
            answer = await late.answer()
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert answer.headers["retry-after"] == "1"
            assert await late.is_closed()
            await late.close()
            await clients.pop().close()
            await eventually(lambda: len(house.gateway._connections) == 2)
            assert (await (await house.client()).ask()).status == 200

    run(test())


def test_bodies_of_all_clients_together_are_bounded():
    async def test():
        async with answering(body_bytes_pending_max=10_000, body_bytes_max=9_000) as house:
            first, second = await house.client(), await house.client()
            first.say(request(body=b" " * 8_000)[:-1])
            await eventually(lambda: house.gateway.body_bytes_pending == 7_999)
            answer = await second.ask(body=b" " * 8_000)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert (await second.ask()).status == 200
            first.say(b" ")
            assert (await first.answer()).status == 400
            assert house.gateway.body_bytes_pending == 0

    run(test())


def test_a_draining_gateway_finishes_what_runs_and_refuses_what_comes():
    async def test():
        async with running(answers("Hello", " world", gap_s=0.3)) as house:
            busy, late, idle = [await house.client() for _ in range(3)]
            assert (await idle.ask("/health", method="GET")).status == 200
            late.say(request()[:-1])
            asking = asyncio.create_task(busy.ask(body={**HELLO, "stream": True}))
            await eventually(lambda: house.in_flight() == 1)
            draining = asyncio.create_task(house.gateway.drain(5.0))
            assert await idle.is_closed(timeout_s=1)
            late.say(request()[-1:])
            answer = await late.answer()
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert await late.is_closed()
            answer = await asking
            assert (answer.text, answer.events[-1]) == ("Hello world", b"[DONE]")
            assert await busy.is_closed()
            assert await draining == 0
            with pytest.raises(ConnectionRefusedError):
                await house.client()

    run(test())


def test_a_drain_cuts_what_does_not_end_in_time_with_an_error():
    async def test():
        async with running(hangs) as house:
            client = await house.client()
            client.say(request())
            await eventually(lambda: house.in_flight() == 1)
            assert await house.gateway.drain(0.1) == 1
            assert (await client.answer()).status == 503
            assert await client.is_closed()
            [record] = await house.recorded()
            assert record.outcome == "refused"

    run(test())


def test_a_request_that_waits_for_a_replica_is_refused_when_the_gateway_drains():
    async def test():
        async with running() as house:
            client = await house.client()
            client.say(request())
            await eventually(lambda: house.gateway.status().requests_waiting == 1)
            assert await house.gateway.drain(1.0) == 0
            assert (await client.answer()).status == 503

    run(test())
