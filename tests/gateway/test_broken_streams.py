"""Replicas that fail after the first byte: the client is told so, never that it was a success."""

import asyncio
import json

import pytest
from failing_replicas import ERROR, EVENT, GOOD, STREAM, WITHOUT_LENGTH
from raw_client import HELLO, MESSAGE
from running_gateway import answering, run, running
from upstream import EVENTS, Call, answers, chunk, completion, delta, says, usage, whole


def test_a_stream_that_stalls_ends_with_an_error_and_its_replica_is_told_to_stop():
    async def test():
        async def stalls(call: Call) -> None:
            await call.send(EVENTS + chunk(EVENT))
            await call.watch()

        async with running(stalls, stall_timeout_s=0.3) as house:
            answer = await (await house.client()).ask(body=STREAM)
            assert answer.status == 200
            assert "[DONE]" not in answer.body.decode()
            assert "went silent" in answer.body.decode()
            [record] = await house.recorded()
            assert (record.outcome, record.tokens_out) == ("failed", 1)
            await asyncio.wait_for(house.upstreams[0].calls[0].has_left.wait(), 1)

    run(test())


AFTER_THE_FIRST_BYTE = {
    "cut": says(EVENTS + chunk(EVENT), then="cut"),
    "cut in an event": says(EVENTS + chunk(EVENT + b'data: {"cho'), then="cut"),
    "cut in a chunk": says(EVENTS + chunk(EVENT), b"ff\r\ndata: {", then="cut"),
    "reset": says(EVENTS + chunk(EVENT), then="reset"),
    "garbage between chunks": says(EVENTS + chunk(EVENT), b"zz\r\n"),
    "ends without finish": says(EVENTS + chunk(EVENT), b"0\r\n\r\n"),
    "[DONE] without finish": says(EVENTS + chunk(EVENT), chunk(b"data: [DONE]\n\n")),
    "not JSON": says(EVENTS + chunk(EVENT), chunk(b"data: {oops\n\n")),
    "not an object": says(EVENTS + chunk(EVENT), chunk(b"data: [1]\n\n")),
    "not UTF-8": says(
        EVENTS + chunk(EVENT), chunk(b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n')
    ),
    "an error event": says(EVENTS + chunk(EVENT), chunk(b"data: " + ERROR + b"\n\n")),
    "llama.cpp's error line": says(EVENTS + chunk(EVENT), chunk(b"error: " + ERROR + b"\n\n")),
    "deep nesting": says(EVENTS + chunk(EVENT), chunk(b"data: " + b"[" * 100_000 + b"\n\n")),
    "negative counts": says(
        EVENTS + chunk(EVENT), chunk(b'data: {"choices":[],"usage":{"prompt_tokens":-5}}\n\n')
    ),
    "absurd counts": says(
        EVENTS + chunk(EVENT),
        chunk(b'data: {"choices":[],"usage":{"prompt_tokens":%d}}\n\n' % 10**30),
    ),
}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
@pytest.mark.parametrize("name", AFTER_THE_FIRST_BYTE)
def test_a_failure_after_the_first_byte_is_an_error_event_and_never_a_success(name, path):
    async def test():
        async with running(AFTER_THE_FIRST_BYTE[name], GOOD, stall_timeout_s=0.2) as house:
            body = {"model": "tiny", "input": "Hi", "stream": True}
            if path != "/v1/responses":
                body = {**MESSAGE, "stream": True}
            answer = await (await house.client()).ask(path, body)
            assert answer.status == 200
            assert b"Hello" in answer.body
            assert b"world" not in answer.body
            last = json.loads(answer.events[-1])
            kind = {"/v1/responses": "response.failed", "/v1/messages": "error"}.get(path)
            assert ("error" in last) if kind is None else (last["type"] == kind)
            for success in (b"[DONE]", b"message_stop", b"response.completed"):
                assert success not in answer.body
            [record] = await house.recorded()
            assert (record.outcome, record.status, record.attempts) == ("failed", 200, 1)
            assert record.tokens_out == 1

    run(test())


def test_the_connection_serves_on_after_a_stream_that_failed():
    async def test():
        async with running(AFTER_THE_FIRST_BYTE["cut"]) as house:
            client = await house.client()
            for _ in range(3):
                answer = await client.ask(body=STREAM)
                assert (answer.is_whole, "error" in json.loads(answer.events[-1])) == (True, True)

    run(test())


def test_a_stream_with_a_finish_needs_no_done():
    async def test():
        ended = chunk(EVENT) + chunk(
            b"data: " + json.dumps(delta(finish="stop")).encode() + b"\n\n"
        )
        async with running(says(EVENTS + ended + b"0\r\n\r\n")) as house:
            answer = await (await house.client()).ask(body=STREAM)
            assert (answer.text, answer.events[-1]) == ("Hello", b"[DONE]")
            assert house.records[0].outcome == "finished"

    run(test())


def test_an_answer_without_length_ends_with_its_connection():
    async def test():
        async with running(says(WITHOUT_LENGTH + completion("Hello"), then="cut")) as house:
            answer = await (await house.client()).ask()
            assert answer.json["choices"][0]["message"]["content"] == "Hello"

    run(test())


def test_an_event_over_several_lines_reaches_the_client_whole():
    async def test():
        async def pretty(call: Call) -> None:
            await call.send(EVENTS)
            for body in (delta("Hello"), delta(finish="stop"), {"usage": usage(1, 1)}):
                lines = json.dumps(body, indent=1).split("\n")
                end = b"\r\n" if "usage" in body else b"\n"
                said = end.join(b"data: " + line.encode() for line in lines)
                await call.send(chunk(said + end + end))
            await call.event(b"[DONE]")
            await call.end()

        async with running(pretty) as house:
            answer = await (await house.client()).ask(body=STREAM)
            assert (answer.text, answer.events[-1]) == ("Hello", b"[DONE]")
            assert house.records[0].tokens_in == 1

    run(test())


@pytest.mark.parametrize("stream", [False, True])
def test_counts_that_cannot_be_are_not_believed(stream):
    bad = {"prompt_tokens": -5, "completion_tokens": 2}

    async def lies(call: Call) -> None:
        if not stream:
            await call.send(whole(200, json.dumps({"choices": [], "usage": bad}).encode()))
            return
        await call.send(EVENTS)
        await call.event({**delta("Hello", finish="stop"), "usage": bad})
        await call.event(b"[DONE]")
        await call.end()

    async def test():
        async with running(lies, GOOD) as house:
            answer = await (await house.client()).ask(body={**HELLO, "stream": stream})
            assert (answer.status, answer.headers["argosy-replica"]) == (200, "tiny-2")

    run(test())


@pytest.mark.parametrize("said", ["no JSON", '{"name": "f"}', '{"name": 5, "arguments": {}}', "[]"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_call_that_is_none_is_the_replica_s_failure(said, stream):
    async def test():
        async with answering() as house:
            await house.replica(answers(said), model="plain")
            tools = [{"type": "function", "function": {"name": name}} for name in "fg"]
            body = {**HELLO, "model": "plain", "tools": tools, "tool_choice": "required"}
            answer = await (await house.client()).ask(body={**body, "stream": stream})
            if answer.status == 200:
                assert b"[DONE]" not in answer.body
                assert b'"error"' in answer.body
            else:
                assert answer.status == 502
            assert house.records[0].outcome == "failed"

    run(test())
