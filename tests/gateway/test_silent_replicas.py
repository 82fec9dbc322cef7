"""A replica that falls silent without a word: its streams go on elsewhere, healthy ones stay."""

import asyncio

import pytest
from raw_client import HELLO
from running_gateway import House, eventually, run, running
from test_continuation import ASK, TEXT, WORDS, tells, texts
from upstream import EVENTS, Behaviour, Call, answers, delta

from argosy.policies import silence

_SHORT = 0.3


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Patience in tenths of a second."""
    monkeypatch.setattr(silence, "LOST_S", _SHORT)
    monkeypatch.setattr(silence, "SUSPECT_S", 2 * _SHORT)


def falls_silent(after: int) -> Behaviour:
    """Tells so many words, and then nothing; its connections stay."""

    async def behave(call: Call) -> None:
        await call.send(EVENTS)
        for word in WORDS[:after]:
            await call.event(delta(word))
        await call.watch()

    return behave


async def _asked(house: House, first: str, words: int) -> "asyncio.Task":
    """A stream that has begun on the first replica."""
    client = await house.client()
    task = asyncio.create_task(client.ask(body=ASK))
    await eventually(lambda: bool(house.upstreams[0].calls))
    await eventually(lambda: house.upstreams[0].calls[0].bytes_written > 40 * words)
    return task


async def _two(house: House, words: int = 5) -> "asyncio.Task":
    await house.replica(falls_silent(words), model="long")
    task = await _asked(house, "long-1", words)
    await house.replica(tells(), model="long")
    return task


def _text(answer) -> str:
    return texts(answer.events)


@pytest.mark.parametrize("state", ["unreachable", "dead", "suspect"])
def test_a_silent_stream_goes_on_elsewhere_when_its_replica_is_in_doubt(state):
    async def test():
        async with running(stall_timeout_s=60.0) as house:
            task = await _two(house)
            house.turns("long-1", state)
            answer = await asyncio.wait_for(task, 5.0)
            assert _text(answer) == TEXT
            [record] = await house.recorded()
            assert (record.outcome, record.attempts, record.replica) == ("finished", 2, "long-2")
            await asyncio.wait_for(house.upstreams[0].calls[0].has_left.wait(), 1)

    run(test())


def test_a_silent_stream_goes_on_elsewhere_when_its_replica_is_started_again():
    async def test():
        async with running(stall_timeout_s=60.0) as house:
            task = await _two(house)
            house.turns("long-1", "starting", pid=4711, restarts=1)  # its machine is lost
            assert _text(await asyncio.wait_for(task, 5.0)) == TEXT

    run(test())


def test_a_silent_stream_stays_while_nobody_doubts_its_replica():
    async def test():
        async with running(stall_timeout_s=60.0) as house:
            task = await _two(house)
            await asyncio.sleep(5 * _SHORT)
            assert not task.done()
            house.turns("long-1", "dead")
            assert _text(await asyncio.wait_for(task, 5.0)) == TEXT

    run(test())


def test_a_stream_that_speaks_is_not_cut_by_a_prober_s_false_alarm():
    async def speaks(call: Call) -> None:
        await call.send(EVENTS)
        for word in WORDS:
            await call.event(delta(word))
            await asyncio.sleep(_SHORT / 3)
        await call.event(delta(finish="stop"))
        await call.event(b"[DONE]")
        await call.end()

    async def test():
        async with running(stall_timeout_s=60.0) as house:
            await house.replica(speaks, model="long")
            task = await _asked(house, "long-1", 1)
            await house.replica(tells(), model="long")
            house.turns("long-1", "unreachable")
            assert _text(await asyncio.wait_for(task, 5.0)) == TEXT
            [record] = await house.recorded()
            assert (record.attempts, record.replica) == (1, "long-1")
            assert house.upstreams[1].calls == []

    run(test())


def test_a_silent_stream_waits_where_there_is_nowhere_to_go_on():
    async def test():
        async with running(stall_timeout_s=60.0) as house:
            await house.replica(falls_silent(5), model="long")
            task = await _asked(house, "long-1", 5)
            house.turns("long-1", "unreachable")
            await asyncio.sleep(5 * _SHORT)
            assert not task.done()
            await house.replica(tells(), model="long")  # capacity grows elsewhere
            assert _text(await asyncio.wait_for(task, 5.0)) == TEXT

    run(test())


def test_a_request_without_a_byte_leaves_an_unreachable_replica_at_once():
    async def test():
        async with running(stall_timeout_s=60.0) as house:
            await house.replica(Call.watch, model="long")
            task = asyncio.create_task((await house.client()).ask(body={**HELLO, "model": "long"}))
            await eventually(lambda: bool(house.upstreams[0].calls))
            house.turns("long-1", "unreachable")
            await house.replica(answers("Hello world"), model="long")
            answer = await asyncio.wait_for(task, 5.0)
            assert answer.status == 200

    run(test())
