"""Replicas that fail before the first byte: unseen by the client, as long as another can answer."""

import asyncio
import socket

import pytest
from failing_replicas import ENDED, ERROR, EVENT, GOOD, STREAM, WITHOUT_LENGTH
from raw_client import HELLO, MESSAGE, request
from running_gateway import eventually, run, running
from upstream import EVENTS, Call, answers, chunk, completion, delta, hangs, says, whole


def nobody_listens() -> str:
    """A URL that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"


async def endless_head(call: Call) -> None:
    await call.send(b"HTTP/1.1 200 OK\r\n")
    watching = asyncio.create_task(call.watch())
    while not call.has_left.is_set() and call.bytes_written < 50_000_000:
        await call.send(b"x-more: " + b"a" * 10_000 + b"\r\n")
    await watching


PLAIN = EVENTS.replace(b"event-stream", b"plain") + chunk(EVENT + ENDED)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"
NULL_STREAM = EVENTS + chunk(b"data: null\n\n")
SAID = {  # where the replica says why, the client is told
    "an error, called 200": whole(200, ERROR),
    "error as its first event": EVENTS + chunk(b"data: " + ERROR + b"\n\n"),
    "500": whole(500, ERROR),
    "429": whole(429, ERROR, extra="retry-after: 7\r\n"),
}
BEFORE_THE_FIRST_BYTE = {
    "closed at once": (says(b"", then="cut"), 502),
    "reset at once": (says(b"", then="reset"), 502),
    "cut in its head": (says(b"HTTP/1.1 200 OK\r\ncontent-ty", then="cut"), 502),
    "reset after its head": (says(EVENTS, then="reset"), 502),
    "cut after its head": (says(EVENTS, then="cut"), 502),
    "cut before a token": (says(NULL_STREAM + chunk(b"data: {"), then="cut"), 502),
    "500": (says(SAID["500"]), 502),
    "503": (says(whole(503, b"busy", kind="text/plain")), 502),
    "404": (says(whole(404, b'{"detail": "Not Found"}')), 502),
    "401": (says(whole(401, b"{}")), 502),
    "429": (says(SAID["429"]), 429),
    "garbage": (says(b"\x00\x01SSH-2.0-OpenSSH_9\r\n\r\n"), 502),
    "other protocol": (says(SWITCH), 502),
    "endless head": (endless_head, 502),
    "not JSON": (says(whole(200, b"<html>", kind="text/event-stream")), 502),
    "not an answer": (says(whole(200, b"[]")), 502),
    "an error, called 200": (says(SAID["an error, called 200"]), 502),
    "half a body": (says(whole(200, completion("Hello"))[:-9], then="cut"), 502),
    "half a body, reset": (says(whole(200, completion("Hello"))[:-9], then="reset"), 502),
    "half, without length": (says(WITHOUT_LENGTH + completion("Hel")[:-9], then="cut"), 502),
}
ONLY_STREAMS = {
    "wrong content type": (says(PLAIN), 502),
    "error as its first event": (says(SAID["error as its first event"]), 502),
    "[DONE] at once": (says(EVENTS + chunk(b"data: [DONE]\n\n")), 502),
    "no event at all": (says(EVENTS + b"0\r\n\r\n"), 502),
}
ALL = [
    *[(name, False, *row) for name, row in BEFORE_THE_FIRST_BYTE.items()],
    *[(name, True, *row) for name, row in {**BEFORE_THE_FIRST_BYTE, **ONLY_STREAMS}.items()],
]


@pytest.mark.parametrize(("name", "stream", "behaves", "status"), ALL)
def test_a_failure_before_the_first_byte_is_made_good_by_another_replica(
    name, stream, behaves, status
):
    async def test():
        async with running(behaves, GOOD) as house:
            answer = await (await house.client()).ask(body={**HELLO, "stream": stream})
            assert answer.status == 200
            assert answer.headers["argosy-replica"] == "tiny-2"
            text = answer.text if stream else answer.json["choices"][0]["message"]["content"]
            assert text == "Hello world"
            [record] = await house.recorded()
            assert (record.outcome, record.attempts, record.replica) == ("finished", 2, "tiny-2")
            assert (record.tokens_in, record.tokens_out) == (5, 2)

    run(test())


@pytest.mark.parametrize(("name", "stream", "behaves", "status"), ALL)
def test_failures_before_the_first_byte_are_tried_again_so_often_and_no_more(
    name, stream, behaves, status
):
    async def test():
        async with running(behaves, attempts_max=2) as house:
            answer = await (await house.client()).ask(body={**HELLO, "stream": stream})
            assert (answer.status, answer.is_whole) == (status, True)
            attempts = 1 if status == 429 else 2  # it asks for 7 s: longer than anyone waits here
            assert ("2 attempts" in answer.error["message"]) == (attempts == 2)
            if "asked for a stream" not in answer.error["message"]:
                assert ("out of memory" in answer.error["message"]) == (name in SAID)
            assert answer.headers.get("retry-after") == ("7" if status == 429 else None)
            assert len(house.upstreams[0].calls) == attempts
            [record] = await house.recorded()
            outcome = "refused" if status == 429 else "failed"
            assert (record.outcome, record.attempts, record.status) == (outcome, attempts, status)
            page = await (await house.client()).ask("/metrics", method="GET")
            kind = "rate_limited" if status == 429 else "upstream_failed"
            line = f'argosy_attempts_failed_total{{reason="{kind}",replica="tiny-1"}} {attempts}.0'
            assert line in page.body.decode()

    run(test())


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_replica_that_refuses_connections_is_passed_over(path):
    async def test():
        async with running() as house:
            house.publish(nobody_listens())
            await house.replica(GOOD)
            client = await house.client()
            for expected in (2, 1, 1):  # after the first, the other one is preferred
                assert (await client.ask(path, MESSAGE)).status == 200
                assert house.records[-1].attempts == expected

    run(test())


def test_nothing_but_refused_connections_ends_in_502():
    async def test():
        async with running() as house:
            house.publish(nobody_listens())
            answer = await (await house.client()).ask()
            assert answer.status == 502
            assert "cannot connect" in answer.error["message"]
            assert house.records[-1].attempts > 3  # which cost nothing: it waited all its time

    run(test())


def test_a_request_whose_only_replica_is_gone_waits_for_the_next_one():
    async def test():
        async with running() as house:
            house.publish(nobody_listens())
            client = await house.client()
            client.say(request("/v1/chat/completions", MESSAGE))
            await asyncio.sleep(0.2)
            await house.replica(GOOD)
            assert (await client.answer()).status == 200

    run(test())


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_the_replica_finds_wrong_with_a_request_is_not_tried_again(status):
    async def test():
        body = b'{"error": {"message": "bad grammar", "param": "response_format"}}'
        async with running(says(whole(status, body)), GOOD) as house:
            answer = await (await house.client()).ask()
            assert answer.status == 400
            assert "bad grammar" in answer.error["message"]
            assert answer.error["param"] == "response_format"
            assert house.records[0].attempts == 1
            assert house.records[0].outcome == "refused"

    run(test())


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("way", ["cut", "reset"])
def test_a_kept_connection_that_closes_as_it_is_used_again_is_not_noticed(stream, way):
    async def test():
        async with running(GOOD, attempts_max=1) as house:
            [upstream] = house.upstreams
            upstream.script = [GOOD, says(b"", then=way)]
            client = await house.client()
            body = {**HELLO, "stream": stream}
            for _ in range(2):
                assert (await client.ask(body=body)).status == 200
            assert [call.connection for call in upstream.calls] == [0, 0, 1]
            assert [record.attempts for record in house.records] == [1, 1]

    run(test())


def test_a_fresh_connection_that_closes_is_not_taken_for_a_stale_one():
    async def test():
        async with running(says(b"", then="cut"), attempts_max=1) as house:
            assert (await (await house.client()).ask()).status == 502
            assert len(house.upstreams[0].calls) == 1

    run(test())


def test_connections_are_kept_and_used_again():
    async def test():
        async with running(GOOD) as house:
            client = await house.client()
            for number in range(6):
                await client.ask(body={**HELLO, "stream": number % 2 == 0})
            assert {call.connection for call in house.upstreams[0].calls} == {0}

    run(test())


@pytest.mark.parametrize("after_s", [None, 0.05])
def test_what_a_replica_says_after_its_answer_reaches_nobody(after_s):
    async def says_too_much(call: Call) -> None:
        first, extra = whole(200, completion("first")), whole(200, completion("extra"))
        if after_s is None:
            await call.send(first + extra + extra)
        else:
            await call.send(first)
            await asyncio.sleep(after_s)
            await call.send(extra)
        await call.watch()

    async def repeats(call: Call) -> None:
        await asyncio.sleep(0.02)
        await call.send(whole(200, completion(call.fields["messages"][0]["content"])))

    async def test():
        async with running(repeats) as house:
            [upstream] = house.upstreams
            upstream.script = [says_too_much]
            client = await house.client()
            assert b"first" in (await client.ask()).body
            await asyncio.wait_for(upstream.calls[0].has_left.wait(), 1)
            clients = [await house.client() for _ in range(5)]
            bodies = [
                {**HELLO, "messages": [{"role": "user", "content": f"client {number}"}]}
                for number in range(5)
            ]
            asking = [one.ask(body=body) for one, body in zip(clients, bodies, strict=True)]
            for number, answer in enumerate(await asyncio.gather(*asking)):
                said = answer.json["choices"][0]["message"]["content"]
                assert said == f"client {number}"

    run(test())


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_without_a_byte_leaves_a_replica_that_turns_suspect(stream):
    async def test():
        async with running(hangs, GOOD) as house:
            client = await house.client()
            client.say(request(body={**HELLO, "stream": stream}))
            await eventually(lambda: len(house.upstreams[0].calls) == 1)
            house.turns("tiny-1", "suspect")
            answer = await client.answer()
            assert (answer.status, answer.headers["argosy-replica"]) == (200, "tiny-2")
            await asyncio.wait_for(house.upstreams[0].calls[0].has_left.wait(), 1)

    run(test())


def test_a_stream_that_has_begun_stays_on_a_replica_that_turns_suspect():
    async def test():
        async with running(answers("Hello", " world", gap_s=0.2), GOOD) as house:
            client = await house.client()
            client.say(request(body=STREAM))
            await eventually(lambda: house.gateway.status().replicas[0].load.requests_in_flight)
            await client.reader.readuntil(b"Hello")
            house.turns("tiny-1", "suspect")
            rest = await client.reader.readuntil(b"[DONE]")
            assert b" world" in rest
            [record] = await house.recorded()
            assert (record.replica, record.attempts) == ("tiny-1", 1)

    run(test())


def test_a_suspect_replica_is_used_when_nothing_better_is_left():
    async def test():
        async with running(GOOD, GOOD) as house:
            client = await house.client()
            house.turns("tiny-1", "suspect")
            assert (await client.ask()).headers["argosy-replica"] == "tiny-2"
            house.turns("tiny-2", "dead")
            assert (await client.ask()).headers["argosy-replica"] == "tiny-1"

    run(test())


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_a_request_waits_for_a_replica_that_appears_in_time(path):
    async def test():
        async with running() as house:
            client = await house.client()
            client.say(request(path, MESSAGE))
            await eventually(lambda: house.gateway.status().requests_waiting == 1)
            await house.replica(GOOD)
            assert (await client.answer()).status == 200

    run(test())


@pytest.mark.parametrize(
    ("path", "status", "error_type"),
    [("/v1/chat/completions", 503, "server_error"), ("/v1/messages", 529, "overloaded_error")],
)
def test_a_request_that_no_replica_appears_for_is_refused_with_a_time_to_come_back(
    path, status, error_type
):
    async def test():
        async with running(replica_wait_s=0.2) as house:
            answer = await (await house.client()).ask(path, MESSAGE)
            assert (answer.status, answer.error["type"]) == (status, error_type)
            assert answer.headers["retry-after"] == "5"
            [record] = await house.recorded()
            assert (record.outcome, record.attempts, record.replica) == ("refused", 0, None)

    run(test())


def test_no_more_than_waiting_max_wait():
    async def test():
        async with running(waiting_max=2) as house:
            clients = [await house.client() for _ in range(3)]
            for client in clients[:2]:
                client.say(request())
            await eventually(lambda: house.gateway.status().requests_waiting == 2)
            answer = await clients[2].ask()
            assert (answer.status, "2 requests wait" in answer.error["message"]) == (503, True)
            await house.replica(GOOD)
            assert [(await client.answer()).status for client in clients[:2]] == [200, 200]

    run(test())


def test_a_replica_that_leaves_the_table_finishes_its_streams():
    async def test():
        async with running(answers("Hello", " world", gap_s=0.2), GOOD) as house:
            client = await house.client()
            client.say(request(body=STREAM))
            await client.reader.readuntil(b"Hello")
            house.turns("tiny-1", "stopping")
            assert b" world" in await client.reader.readuntil(b"[DONE]")
            await asyncio.sleep(0)
            assert (await (await house.client()).ask()).headers["argosy-replica"] == "tiny-2"
            assert not house.gateway.status().requests_in_flight

    run(test())


def test_a_replica_that_never_ends_its_answer_keeps_no_connection_after_it_left_the_table():
    async def test():
        may_end = asyncio.Event()

        async def never_ends(call: Call) -> None:
            await call.send(EVENTS)
            await call.event(delta("Hello", finish="stop"))
            if call.upstream is house.upstreams[1]:
                await may_end.wait()
            await call.event(b"[DONE]")
            await call.watch()

        async with running(never_ends, never_ends) as house:
            client = await house.client()
            assert (await client.ask(body=STREAM)).text == "Hello"
            house.turns("tiny-1", "dead")  # nobody listened any more when it left the table
            await asyncio.wait_for(house.upstreams[0].calls[0].has_left.wait(), 1)
            client.say(request(body=STREAM))
            await client.reader.readuntil(b"Hello")
            house.turns("tiny-2", "dead")  # its client still listened
            may_end.set()
            await client.reader.readuntil(b"[DONE]")
            await asyncio.wait_for(house.upstreams[1].calls[0].has_left.wait(), 1)

    run(test())


@pytest.mark.parametrize("stream", [False, True])
def test_a_replica_that_says_nothing_in_its_time_ends_in_504(stream):
    async def test():
        async with running(hangs, answer_timeout_s=0.2, ttft_timeout_s=0.2) as house:
            answer = await (await house.client()).ask(body={**HELLO, "stream": stream})
            assert answer.status == 504
            [record] = await house.recorded()
            assert (record.outcome, record.status) == ("failed", 504)
            await asyncio.wait_for(house.upstreams[0].calls[0].has_left.wait(), 1)

    run(test())


def test_a_stream_without_a_token_in_its_time_is_answered_by_another_replica():
    async def test():
        async with running(hangs, GOOD, ttft_timeout_s=0.2) as house:
            answer = await (await house.client()).ask(body=STREAM)
            assert (answer.status, answer.text) == (200, "Hello world")
            [record] = await house.recorded()
            assert (record.outcome, record.attempts, record.replica) == ("finished", 2, "tiny-2")
            await asyncio.wait_for(house.upstreams[0].calls[0].has_left.wait(), 1)

    run(test())
