"""The scripted upstream asked without a gateway: it breaks as it says, and both sides see it so."""

import asyncio

import httpx
import pytest

from tests.system.failover.answer import ANSWER, TOKENS
from tests.system.failover.client import ask
from tests.system.failover.seen import Attempt, Reply
from tests.system.failover.upstream import (
    Behaviour,
    Upstream,
    answers,
    cuts_after,
    down_for,
    first_token_after,
    garbles_after,
    leaves_out_done,
    once,
    refuses,
    rejects_prefill,
    resets,
    says_nothing_for,
)

FULL = refuses(429, "rate_limit_exceeded", "too many", retry_after_s=1)


async def asked(behave: Behaviour, *, deadline_s: float = 5.0) -> tuple[Reply, Attempt]:
    """What the client sees of it without a gateway, and what it counts."""
    async with Upstream(token_gap_s=0.0) as upstream:
        upstream.begin(behave, began_s=asyncio.get_running_loop().time())
        reply = await ask(upstream.url.removesuffix("/v1"), deadline_s=deadline_s, at_s=0.0)
        await asyncio.sleep(0.02)  # it notices that its client has left
        (attempt,) = upstream.attempts()
        return reply, attempt


@pytest.mark.parametrize(
    ("behave", "end", "tokens", "ending"),
    [
        (answers, "whole", 60, "answered"),
        (rejects_prefill, "whole", 60, "answered"),
        (leaves_out_done, "whole", 60, "answered"),
        (first_token_after(0.05), "whole", 60, "answered"),
        (down_for(0.0, FULL), "whole", 60, "answered"),
        (down_for(9.0, FULL), "refused", 0, "refused"),
        (once(FULL), "refused", 0, "refused"),
        (resets, "lost", 0, "reset"),
        (cuts_after(40), "lost", 40, "cut"),
        (cuts_after(20, silent_s=0.05), "lost", 20, "cut"),
        (cuts_after(60), "whole", 60, "answered"),
    ],
)
def test_a_behaviour_is_seen_from_both_sides(behave, end: str, tokens: int, ending: str):
    reply, attempt = asyncio.run(asked(behave))
    assert (reply.end, reply.text, attempt.ending) == (end, "".join(TOKENS[:tokens]), ending)


def test_a_stream_is_read_alike_by_the_client_and_from_its_bytes():
    reply, _ = asyncio.run(asked(answers))
    assert reply.wire.text == reply.text == ANSWER
    assert (reply.wire.tokens_out, reply.wire.dones) == ((60,), 1)


def test_a_garbled_event_is_more_than_the_official_client_can_read():
    reply, _ = asyncio.run(asked(garbles_after(10)))
    assert (reply.end, reply.text) == ("lost", "".join(TOKENS[:10]))
    assert reply.wire.events_unreadable == 1


def test_silence_is_a_hang_and_an_attempt_that_was_left():
    reply, attempt = asyncio.run(asked(says_nothing_for(9.0), deadline_s=0.1))
    assert (reply.end, attempt.ending) == ("hung", "left")


def test_a_refusal_has_its_code_and_its_message():
    reply, attempt = asyncio.run(asked(FULL))
    assert reply.error is not None
    assert (reply.error.status, reply.error.code) == (429, attempt.code)
    assert reply.error.message == "too many"


def test_a_prefill_is_gone_on_from_or_rejected():
    async def post(behave: Behaviour) -> httpx.Response:
        prefill = {"role": "assistant", "content": "".join(TOKENS[:40])}
        body = {"model": "m", "messages": [{"role": "user", "content": "?"}, prefill]}
        async with Upstream(token_gap_s=0.0) as upstream:
            upstream.begin(behave, began_s=0.0)
            async with httpx.AsyncClient(trust_env=False) as client:
                return await client.post(f"{upstream.url}/chat/completions", json=body)

    said = asyncio.run(post(answers)).json()
    assert said["choices"][0]["message"]["content"] == "".join(TOKENS[40:])
    assert said["usage"]["completion_tokens"] == 20
    assert asyncio.run(post(rejects_prefill)).json()["error"]["code"] == "invalid_prefill"
