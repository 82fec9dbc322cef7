"""Quotas of endpoint pools: kept before a 429 comes, shared by processes, and shown."""

import asyncio
from pathlib import Path

import pytest
from raw_client import HELLO
from running_gateway import run, running
from upstream import Call, answers, whole

from argosy.fleet.launchers import Quota
from argosy.gateway.quotas import Quotas


class Clock:
    def __init__(self) -> None:
        self.s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def quotas(folder: Path, clock: Clock, **fields: int) -> Quotas:
    return Quotas(folder / "q", {"there": Quota(**fields)}, unix_time_s=clock)


def test_what_one_process_takes_another_has_not(tmp_path, clock):
    one = quotas(tmp_path, clock, requests_per_min=20)
    other = quotas(tmp_path, clock, requests_per_min=20)
    assert [one.take("there", 5), other.take("there", 5), one.take("there", 5)] == [
        True, True, False,
    ]  # fmt: skip
    assert other.wait_s("there", 5) == pytest.approx(60 / 18, rel=1e-3)
    clock.s += 60 / 18 + 0.001
    assert other.take("there", 5)
    assert one.wait_s("elsewhere", 5) == 0.0
    assert one.take("elsewhere", 5)


def test_tokens_that_were_not_used_come_back(tmp_path, clock):
    one = quotas(tmp_path, clock, tokens_per_min=1_000)
    assert one.take("there", 90)
    assert one.wait_s("there", 50) > 0
    one.give_back("there", 60)
    assert one.wait_s("there", 50) == 0.0
    assert (
        one.wait_s("there", 5_000) > 0
    )  # more than may ever come at once: when all of it is there
    clock.s += 60
    assert one.take("there", 5_000)
    [told] = one.status()
    assert (told.tokens_left, told.requests_left) == (-4_900, None)


def test_what_the_endpoint_says_holds_whatever_the_count_says(tmp_path, clock):
    one = quotas(tmp_path, clock, requests_per_min=600)
    one.close("there", 7.0)
    assert one.wait_s("there", 1) == pytest.approx(7.0)
    one.close("there", 2.0)
    assert one.status()[0].closed_s == pytest.approx(7.0)
    clock.s += 7.0
    assert one.take("there", 1)
    clock.s -= 3600.0  # a clock that is set back takes nothing away, and gives nothing
    assert one.take("there", 1)


def test_requests_go_where_there_is_room_and_are_refused_with_the_time_where_there_is_none(
    tmp_path, clock
):
    async def test():
        kept = quotas(tmp_path, clock, requests_per_min=20)
        async with running(answers("Hi"), quotas=kept, replica_wait_s=1.0) as house:
            client = await house.client()
            for _ in range(2):
                assert (await client.ask(body=HELLO)).status == 200
            refused = await client.ask(body=HELLO)
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) in (3, 4)
            assert "quota of there is used up" in refused.body.decode()
            assert len(house.upstreams[0].calls) == 2, "it was not asked"
            await house.replica(answers("Hi"), pool="elsewhere")
            for _ in range(3):
                assert (await client.ask(body=HELLO)).status == 200
            assert len(house.upstreams[1].calls) == 3
            [told] = house.gateway.status().quotas
            assert (told.requests_left, told.requests_per_min) == (0, 20)

    run(test())


def test_a_request_waits_for_room_that_comes_soon(tmp_path, clock):
    async def test():
        kept = quotas(tmp_path, clock, requests_per_min=20)
        async with running(answers("Hi"), quotas=kept, replica_wait_s=10.0) as house:
            client = await house.client()
            for _ in range(2):
                await client.ask(body=HELLO)
            task = asyncio.create_task(client.ask(body=HELLO))
            await asyncio.sleep(0.6)
            assert not task.done()
            clock.s += 4.0
            assert (await asyncio.wait_for(task, 2.0)).status == 200

    run(test())


def test_after_a_429_nobody_asks_before_its_time(tmp_path, clock):
    async def busy(call: Call) -> None:
        await call.send(whole(429, b'{"error":{"message":"slow"}}', extra="retry-after: 30\r\n"))

    async def test():
        kept = quotas(tmp_path, clock, requests_per_min=600)
        async with running(busy, quotas=kept, replica_wait_s=0.5) as house:
            client = await house.client()
            assert (await client.ask(body=HELLO)).status == 429
            second = await client.ask(body=HELLO)
            assert second.status == 429
            assert int(second.headers["retry-after"]) == 30
            assert len(house.upstreams[0].calls) == 1

    run(test())
