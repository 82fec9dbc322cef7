"""An event that is no JSON in the middle of a stream: gone on from, or left out and counted."""

import asyncio
import json

import pytest
from raw_client import HELLO, MESSAGE
from running_gateway import run, running
from upstream import EVENTS, Behaviour, Call, answers, chunk, delta, usage

GARBLED = b'{"object": "chat.completion.chunk", "choices": [{"de'
SURFACES = {
    "/v1/chat/completions": {**HELLO, "stream": True},
    "/v1/messages": {**MESSAGE, "stream": True},
    "/v1/responses": {"model": "tiny", "input": "Hi", "stream": True},
}
SUCCESS = (b"[DONE]", b"message_stop", b"response.completed")


def garbles(*, counted: int | None, model: str | None = None) -> Behaviour:
    """`Hello`, an event that is no JSON, ` world`, the end; it says that it made so many tokens."""

    async def behave(call: Call) -> None:
        await call.send(EVENTS)
        if call.fields["messages"][-1]["role"] != "assistant":
            await call.event(delta("Hello"))
            await asyncio.sleep(0.02)  # a packet of its own: the client has it
        await call.event(GARBLED)
        await call.event(delta(" world"))
        await call.event(delta(finish="stop"))
        if counted is not None:
            await call.event({"choices": [], "usage": usage(5, counted)})
        await call.event(b"[DONE]")
        await call.end()

    return behave


@pytest.mark.parametrize("path", SURFACES)
def test_a_stream_is_whole_without_an_event_that_held_no_token(path):
    async def test():
        async with running(garbles(counted=2)) as house:
            answer = await (await house.client()).ask(path, SURFACES[path])
            assert b"Hello" in answer.body
            assert b" world" in answer.body
            assert GARBLED not in answer.body
            assert any(success in answer.body for success in SUCCESS)
            [record] = await house.recorded()
            assert (record.outcome, record.tokens_out, record.attempts) == ("finished", 2, 1)

    run(test())


@pytest.mark.parametrize("path", SURFACES)
@pytest.mark.parametrize("counted", [3, None])
def test_a_stream_that_may_have_a_gap_ends_in_an_error(path, counted):
    async def test():
        async with running(garbles(counted=counted)) as house:
            answer = await (await house.client()).ask(path, SURFACES[path])
            assert b"may have a gap" in answer.body
            assert not any(success in answer.body for success in SUCCESS)
            [record] = await house.recorded()
            assert record.outcome == "failed"

    run(test())


def test_where_another_replica_can_go_on_it_does_before_anything_is_left_out():
    async def test():
        async with running() as house:
            await house.replica(garbles(counted=2), model="long")
            await house.replica(answers(" world"), model="long")
            answer = await (await house.client()).ask(
                body={**HELLO, "model": "long", "stream": True}
            )
            text = "".join(
                choice["delta"].get("content") or ""
                for event in answer.events
                if event != b"[DONE]"
                for choice in json.loads(event)["choices"]
            )
            assert text == "Hello world"
            last = house.upstreams[-1].calls[0].fields["messages"][-1]
            assert last == {"role": "assistant", "content": "Hello"}
            [record] = await house.recorded()
            assert (record.outcome, record.attempts) == ("finished", 2)

    run(test())


def test_what_was_understood_before_the_bad_event_of_one_packet_is_not_lost():
    """The text so far is what another replica goes on from: the client must have it all."""

    def packets(call: Call) -> list[bytes]:
        event = b"data: %b\n\n"
        says = [chunk(event % json.dumps(delta(text)).encode()) for text in ("Hello", " there")]
        return [EVENTS + says[0], says[1] + chunk(event % GARBLED)]

    async def breaks(call: Call) -> None:
        first, second = packets(call)
        await call.send(first)
        await call.event(delta(","))
        await asyncio.sleep(0.02)
        await call.send(second)

    async def test():
        async with running() as house:
            await house.replica(breaks, model="long")
            await house.replica(answers(" world"), model="long")
            answer = await (await house.client()).ask(
                body={**HELLO, "model": "long", "stream": True}
            )
            text = "".join(
                choice["delta"].get("content") or ""
                for event in answer.events
                if event != b"[DONE]"
                for choice in json.loads(event)["choices"]
            )
            assert text == "Hello, there world"

    run(test())
