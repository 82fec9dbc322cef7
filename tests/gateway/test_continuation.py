"""A replica dies in the middle of a stream: another goes on, and the client sees no seam."""

import json
from itertools import pairwise

import pytest
from raw_client import HELLO, MESSAGE
from running_gateway import run, running
from upstream import EVENTS, Behaviour, Call, chunk, delta, usage

WORDS = [f" word{n}" for n in range(12)]
TEXT = "".join(WORDS)
ASK = {**HELLO, "model": "long", "stream": True}


def tells(*, cut_after: int | None = None, model: str = "long") -> Behaviour:
    """Tells the words, or the rest where the request brings the beginning; cut after so many."""

    async def behave(call: Call) -> None:
        last = call.fields["messages"][-1]
        before = last["content"] if last["role"] == "assistant" else ""
        assert TEXT.startswith(before)
        rest = WORDS[before.count(" ") :]
        limit = call.fields.get("max_tokens", len(rest))
        await call.send(EVENTS)
        await call.event({**delta(""), "id": f"id-{id(call.upstream)}", "created": 7})
        for count, word in enumerate(rest[:limit]):
            if count == cut_after:
                call.cut()
                return
            await call.event({**delta(word), "id": f"id-{id(call.upstream)}", "model": model})
        if cut_after == len(rest[:limit]):
            call.cut()
            return
        await call.event(delta(finish="stop" if limit >= len(rest) else "length"))
        said = min(limit, len(rest))
        await call.event({"choices": [], "usage": usage(5 + before.count(" "), said)})
        await call.event(b"[DONE]")
        await call.end()

    return behave


async def _house_of(house, *behaviours: Behaviour) -> None:
    for behaves in behaviours:
        await house.replica(behaves, model="long")


def texts(events: list[bytes]) -> str:
    chunks = [json.loads(event) for event in events if event != b"[DONE]"]
    return "".join(
        choice["delta"].get("content") or "" for part in chunks for choice in part["choices"]
    )


@pytest.mark.parametrize("cut_after", [1, 5, 11, 12])
def test_a_cut_chat_goes_on_without_a_seam(cut_after):
    async def test():
        async with running() as house:
            await _house_of(house, tells(cut_after=cut_after), tells())
            body = {**ASK, "stream_options": {"include_usage": True}}
            answer = await (await house.client()).ask(body=body)
            assert texts(answer.events) == TEXT
            assert answer.events[-1] == b"[DONE]"
            chunks = [json.loads(event) for event in answer.events[:-1]]
            assert len({part["id"] for part in chunks if part["choices"]}) == 1
            roles = [c["delta"].get("role") for part in chunks for c in part["choices"]]
            assert sum(role is not None for role in roles) <= 1
            assert sum(part.get("usage") is not None for part in chunks) == 1
            counted = chunks[-1]["usage"]
            assert (counted["prompt_tokens"], counted["completion_tokens"]) == (5, 12)
            [record] = await house.recorded()
            assert (record.outcome, record.tokens_in, record.tokens_out) == ("finished", 5, 12)

    run(test())


def test_it_goes_on_again_and_again_within_the_bound():
    async def test():
        async with running(attempts_max=4) as house:
            await _house_of(house, tells(cut_after=4))
            answer = await (await house.client()).ask(body=ASK)
            assert texts(answer.events) == TEXT
            [record] = await house.recorded()
            assert (record.outcome, record.attempts) == ("finished", 4)

    run(test())


def test_what_is_left_of_max_tokens_is_asked_for():
    async def test():
        async with running() as house:
            await _house_of(house, tells(cut_after=5), tells())
            answer = await (await house.client()).ask(body={**ASK, "max_tokens": 8})
            assert texts(answer.events) == "".join(WORDS[:8])
            assert house.upstreams[1].calls[0].fields["max_tokens"] == 3

    run(test())


def test_an_answer_cut_just_before_its_end_by_max_tokens_is_ended_here():
    async def test():
        async with running() as house:
            await _house_of(house, tells(cut_after=5), tells())
            answer = await (await house.client()).ask(body={**ASK, "max_tokens": 5})
            assert texts(answer.events) == "".join(WORDS[:5])
            reasons = [
                c["finish_reason"]
                for event in answer.events[:-1]
                for c in json.loads(event)["choices"]
            ]
            assert reasons[-1] == "length"
            assert answer.events[-1] == b"[DONE]"

    run(test())


def test_a_cut_message_of_the_other_api_goes_on_too():
    async def test():
        async with running() as house:
            await _house_of(house, tells(cut_after=5), tells())
            body = {**MESSAGE, "model": "long", "stream": True}
            answer = await (await house.client()).ask("/v1/messages", body=body)
            events = [json.loads(event) for event in answer.events]
            kinds = [event["type"] for event in events]
            assert kinds[0] == "message_start"
            assert kinds[-2:] == ["message_delta", "message_stop"]
            assert kinds.count("content_block_start") == 1
            assert (
                "".join(e["delta"]["text"] for e in events if "text" in e.get("delta", {})) == TEXT
            )
            assert events[-2]["usage"]["output_tokens"] == 12
            assert not any(a == b == "message_start" for a, b in pairwise(kinds))

    run(test())


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"n": 2},
    ],
)
def test_an_answer_that_has_a_form_to_keep_is_not_patched(fields):
    async def test():
        async with running() as house:
            await _house_of(house, tells(cut_after=5), tells())
            answer = await (await house.client()).ask(body={**ASK, **fields})
            assert b"[DONE]" not in answer.events
            assert "error" in json.loads(answer.events[-1])
            [record] = await house.recorded()
            assert record.outcome == "failed"

    run(test())


def test_a_replica_that_may_not_be_asked_to_go_on_ends_in_an_error():
    async def test():
        async with running(tells(cut_after=5, model="tiny")) as house:
            answer = await (await house.client()).ask(body={**ASK, "model": "tiny"})
            assert b"[DONE]" not in answer.events
            assert "error" in json.loads(answer.events[-1])
            assert len(house.upstreams[0].calls) == 1

    run(test())


def test_a_cut_raw_completion_goes_on_from_its_own_text():
    async def test():
        async def completes(call: Call) -> None:
            before = call.fields["prompt"].removeprefix("Tell:")
            rest = WORDS[before.count(" ") :]
            await call.send(EVENTS)
            for count, word in enumerate(rest):
                if count == 5 and not before:
                    call.cut()
                    return
                await call.event({"choices": [{"index": 0, "text": word, "finish_reason": None}]})
            end = {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}
            await call.send(chunk(b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n"))
            await call.end()

        async with running() as house:
            await _house_of(house, completes, completes)
            body = {"model": "long", "prompt": "Tell:", "stream": True}
            answer = await (await house.client()).ask("/v1/completions", body=body)
            chunks = [json.loads(event) for event in answer.events[:-1]]
            assert "".join(c["text"] for part in chunks for c in part["choices"]) == TEXT

    run(test())
