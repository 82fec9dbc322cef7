"""What a replica is taken to hold follows what its engine confirms."""

import asyncio

import pytest
from raw_client import BEARER
from running_gateway import House, run, running
from upstream import Behaviour, Call, completion, whole

TURN = "Tell me of the harbour, the light and the ships that come in with the tide. " * 4


def _answers(cached_share: float) -> Behaviour:
    """Says that its cache spared that share of each prompt but the first."""
    seen = False

    async def behave(call: Call) -> None:
        nonlocal seen
        tokens_in = len(call.body) // 4
        cached = int(tokens_in * cached_share) if seen else 0
        seen = True
        body = completion("ok", tokens_in=tokens_in)
        told = f'"prompt_tokens_details": {{"cached_tokens": {cached}}}, '.encode()
        body = body.replace(b'"prompt_tokens":', told + b'"prompt_tokens":')
        await call.send(whole(200, body))

    return behave


async def _chat(house: House, turns: int) -> None:
    client = await house.client()
    messages = []
    for turn in range(turns):
        messages.append({"role": "user", "content": f"{turn}: {TURN}"})
        answer = await client.ask(body={"model": "long", "messages": messages}, **BEARER)
        assert answer.status == 200
        messages.append({"role": "assistant", "content": "ok"})
        await asyncio.sleep(0.025)  # a replica teaches 50 times a second at most


@pytest.mark.parametrize(("cached_share", "least", "most"), [(0.95, 0.8, 1.0), (0.0, 1.0, 1.0)])
def test_an_engine_that_confirms_its_cache_or_never_says_is_believed(cached_share, least, most):
    async def test():
        async with running() as house:
            await house.replica(_answers(cached_share), model="long")
            await _chat(house, 12)
            spared = _spared_share(house)
            assert least <= spared <= most

    run(test())


def test_an_engine_that_forgets_is_believed_less_and_less():
    async def test():
        async with running() as house:
            await house.replica(_answers(0.05), model="long")
            await _chat(house, 12)
            assert _spared_share(house) < 0.6

    run(test())


def _spared_share(house: House) -> float:
    """Of the last request, what was believed of what the index held."""
    last = house.records[-1].request
    explained = house.gateway.explain(last)
    [routing] = explained.decisions
    shape = routing.decision.request
    [believed] = shape.cached.values()
    held = shape.prompt_bytes * 0.9  # all turns but the last
    return min(1.0, believed / held)
