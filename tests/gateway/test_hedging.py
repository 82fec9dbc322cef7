"""A second replica is asked while the first is silent: one answer, one record, nothing left."""

import asyncio

import pytest
from raw_client import HELLO, MESSAGE
from running_gateway import bearer_of, eventually, run, running
from upstream import Behaviour, Call, answers, completion, hangs, whole

from argosy.fleet.config import Tenant

GOOD = answers("Hello", " world")
STREAM = {**HELLO, "stream": True}
HEDGED = {"hedge_after_s": 0.05, "hedge_share_max": 1.0}


def late(seconds: float, then: Behaviour = GOOD) -> Behaviour:
    """The same answer, after a silence."""

    async def behave(call: Call) -> None:
        await asyncio.sleep(seconds)
        await then(call)

    return behave


def _silent_then_good() -> Behaviour:
    """Whoever is asked first says nothing; the second answers."""
    asked: list[Call] = []

    async def behave(call: Call) -> None:
        asked.append(call)
        await (hangs if len(asked) == 1 else GOOD)(call)

    return behave


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", STREAM),
        ("/v1/chat/completions", HELLO),
        ("/v1/messages", {**MESSAGE, "stream": True}),
    ],
)
def test_the_second_answers_where_the_first_is_silent(path, body):
    async def test():
        behaves = _silent_then_good()
        async with running(behaves, behaves, **HEDGED) as house:
            answer = await (await house.client()).ask(path, body)
            assert answer.status == 200
            assert b"Hello" in answer.body
            assert answer.body.count(b"world") == 1
            [record] = await house.recorded()
            assert (record.outcome, record.attempts) == ("finished", 2)
            [silent] = [up.calls[0] for up in house.upstreams if up.calls[0].bytes_written == 0]
            await asyncio.wait_for(silent.has_left.wait(), 1)  # it was told to stop
            assert record.replica == answer.headers["argosy-replica"]

    run(test())


def test_the_first_answers_where_it_is_sooner_and_the_second_is_told_to_stop():
    async def test():
        asked: list[Call] = []

        async def behave(call: Call) -> None:
            asked.append(call)
            await (late(0.15) if len(asked) == 1 else hangs)(call)

        async with running(behave, behave, **HEDGED) as house:
            answer = await (await house.client()).ask(body=STREAM)
            assert answer.text == "Hello world"
            await eventually(lambda: len(asked) == 2)
            await asyncio.wait_for(asked[1].has_left.wait(), 1)
            [record] = await house.recorded()
            assert (record.outcome, record.attempts) == ("finished", 2)

    run(test())


def test_both_fail_and_a_third_attempt_answers():
    async def test():
        asked: list[Call] = []

        async def behave(call: Call) -> None:
            asked.append(call)
            if len(asked) <= 2:
                await asyncio.sleep(0.1)
                await call.send(whole(500, b"{}"))
            else:
                await GOOD(call)

        async with running(behave, behave, **HEDGED) as house:
            answer = await (await house.client()).ask(body=STREAM)
            assert answer.text == "Hello world"
            [record] = await house.recorded()
            assert record.outcome == "finished"

    run(test())


def test_a_client_that_leaves_stops_both():
    async def test():
        async with running(hangs, hangs, **HEDGED) as house:
            client = await house.client()
            asking = asyncio.create_task(client.ask(body=STREAM))
            await eventually(lambda: all(upstream.calls for upstream in house.upstreams))
            await client.close()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await asking
            for upstream in house.upstreams:
                await asyncio.wait_for(upstream.calls[0].has_left.wait(), 1)
            [record] = await house.recorded()
            assert record.outcome == "cancelled"

    run(test())


def test_a_deadline_ends_both():
    async def test():
        async with running(hangs, hangs, ttft_timeout_s=0.3, attempts_max=1, **HEDGED) as house:
            answer = await (await house.client()).ask(body=STREAM)
            assert answer.status == 504
            for upstream in house.upstreams:
                await asyncio.wait_for(upstream.calls[0].has_left.wait(), 1)

    run(test())


def test_no_more_than_a_share_is_hedged():
    async def test():
        share = {"hedge_after_s": 0.02, "hedge_share_max": 0.1}
        slow = late(0.06, lambda call: call.send(whole(200, completion("ok"))))
        async with running(slow, slow, **share) as house:
            client = await house.client()
            for _ in range(20):
                assert (await client.ask(body=HELLO)).status == 200
            hedged = sum(record.attempts - 1 for record in await house.recorded(20))
            assert 1 <= hedged <= 1 + 20 * 0.1

    run(test())


def test_other_tiers_are_not_hedged():
    async def test():
        shop = Tenant(name="shop")
        slow = late(0.15)
        async with running(slow, slow, tenants=(shop,), **HEDGED) as house:
            answer = await (await house.client()).ask(body=STREAM, **bearer_of(shop))
            assert answer.text == "Hello world"
            [record] = await house.recorded()
            assert record.attempts == 1

    run(test())
