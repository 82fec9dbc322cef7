"""Budgets and slots at a real gateway: who starts, who waits, who is refused, what is settled."""

import asyncio
import json
from pathlib import Path

import pytest
from raw_client import HELLO, Answer
from running_gateway import House, bearer_of, eventually, run, running
from upstream import Behaviour, Call, completion, hangs, whole

from argosy.fleet.config import Budget, Model, QueueTimeouts, Tenant
from argosy.gateway.ledger import Ledger

ACME = Tenant(name="acme", tier="enterprise")
SHOP = Tenant(name="shop")
CAFE = Tenant(name="cafe")
NIGHT = Tenant(name="night", tier="batch")
ALL = (ACME, SHOP, CAFE, NIGHT)
NOW_S = 1_700_000_000.0  # the house's calendar stands still


class Gate:
    """A replica that answers when it is told to, in the order in which it was asked."""

    def __init__(self, *, tokens_in: int = 5, tokens_out: int = 2) -> None:
        self.asked: list[str] = []  # the last word of each request, in the order of arrival
        self._may = asyncio.Semaphore(0)
        self._answer = whole(200, completion("ok", tokens_in=tokens_in, tokens_out=tokens_out))

    async def __call__(self, call: Call) -> None:
        self.asked.append(call.fields["messages"][-1]["content"])
        await self._may.acquire()
        await call.send(self._answer)

    async def was_asked(self, count: int) -> list[str]:
        """By so many, and after a moment still by no more; their words."""
        await eventually(lambda: len(self.asked) >= count)
        await asyncio.sleep(0.02)
        assert len(self.asked) == count
        return self.asked

    def open(self, count: int = 1) -> None:
        """So many more requests may be answered."""
        for _ in range(count):
            self._may.release()


async def _ask(house: House, tenant: Tenant, word: str, *, model: str = "two", **more) -> Answer:
    client = await house.client()
    body = {"model": model, "messages": [{"role": "user", "content": word}], **more}
    return await client.ask(body=body, **bearer_of(tenant))


async def _begin(house: House, tenant: Tenant, word: str, **more) -> asyncio.Task[Answer]:
    """Ask, and let the request arrive before the next one."""
    before = house.gateway.status()
    task = asyncio.create_task(_ask(house, tenant, word, **more))
    seen = before.requests_in_flight + before.requests_waiting

    def arrived() -> bool:
        now = house.gateway.status()
        return now.requests_in_flight + now.requests_waiting > seen or task.done()

    await eventually(arrived)
    return task


def test_no_more_requests_reach_a_replica_than_it_has_slots():
    async def test():
        gate = Gate()
        async with running(tenants=(SHOP,)) as house:
            await house.replica(gate, model="two")
            tasks = [await _begin(house, SHOP, f"{n}") for n in range(6)]
            assert await gate.was_asked(2) == ["0", "1"]
            assert house.gateway.status().requests_waiting == 4
            for answered in range(1, 7):
                gate.open()
                await gate.was_asked(min(6, answered + 2))
            assert [(await task).status for task in tasks] == [200] * 6
            assert gate.asked == ["0", "1", "2", "3", "4", "5"]

    run(test())


def test_a_higher_tier_goes_first_and_a_tenant_that_was_served_less():
    async def test():
        gate = Gate(tokens_in=17, tokens_out=256)  # as predicted
        async with running(tenants=ALL, tenant_share_max=1.0, consumer_share_max=1.0) as house:
            await house.replica(gate, model="two")
            waits = [(SHOP, "a"), (SHOP, "b"), (NIGHT, "night"), (SHOP, "c"), (CAFE, "cafe")]
            tasks = [await _begin(house, tenant, word) for tenant, word in waits]
            tasks.append(await _begin(house, ACME, "acme"))
            assert await gate.was_asked(2) == ["a", "b"]
            for count in range(3, 7):
                gate.open()
                await gate.was_asked(count)
            gate.open(2)
            assert [(await task).status for task in tasks] == [200] * 6
            # Enterprise before all; then cafe, which was served nothing, before shop; batch last.
            assert gate.asked[2:] == ["acme", "cafe", "c", "night"]

    run(test())


def test_a_flood_leaves_slots_to_others():
    async def test():
        gate = Gate()
        async with running(tenants=(SHOP, CAFE)) as house:
            await house.replica(gate, model="four")
            flood = [await _begin(house, SHOP, f"{n}", model="four") for n in range(10)]
            await gate.was_asked(3)  # three quarters of four slots
            other = await _begin(house, CAFE, "other", model="four")
            assert (await gate.was_asked(4))[-1] == "other"
            gate.open(11)
            assert {(await task).status for task in (*flood, other)} == {200}

    run(test())


def test_a_full_queue_sheds_the_lowest_tier_and_says_when_to_come_back():
    async def test():
        gate = Gate()
        async with running(tenants=ALL, waiting_max=2, consumer_share_max=1.0) as house:
            await house.replica(gate, model="two")
            tasks = [await _begin(house, tenant, tenant.name) for tenant in (SHOP, CAFE)]
            batch = await _begin(house, NIGHT, "night")
            tasks.append(await _begin(house, SHOP, "waits"))
            tasks.append(asyncio.create_task(_ask(house, ACME, "acme")))
            refused = await batch  # it waited, and made room
            assert refused.status in (429, 503)
            assert int(refused.headers["retry-after"]) >= 1
            assert "wait" in refused.error["message"]
            gate.open(4)
            assert [(await task).status for task in tasks] == [200] * 4
            assert "night" not in gate.asked
            outcomes = sorted(record.outcome for record in await house.recorded(5))
            assert outcomes == ["finished"] * 4 + ["refused"]

    run(test())


def test_who_waits_too_long_is_refused_and_takes_no_slot():
    async def test():
        gate = Gate()
        timeouts = QueueTimeouts(enterprise=5.0, consumer=0.3, batch=5.0)
        async with running(tenants=(SHOP,), queue_timeout_s=timeouts) as house:
            await house.replica(gate, model="two")
            tasks = [await _begin(house, SHOP, f"{n}") for n in range(3)]
            refused = await tasks[2]
            assert refused.status in (429, 503)
            assert "no slot came free" in refused.error["message"].lower()
            gate.open(3)
            assert (await _ask(house, SHOP, "after")).status == 200
            assert "2" not in gate.asked

    run(test())


def test_a_client_that_leaves_while_it_waits_gives_up_its_place():
    async def test():
        gate = Gate()
        async with running(tenants=(SHOP,)) as house:
            await house.replica(gate, model="two")
            tasks = [await _begin(house, SHOP, f"{n}") for n in range(2)]
            leaver = await house.client()
            body = {"model": "two", "messages": [{"role": "user", "content": "leaves"}]}
            asking = asyncio.create_task(leaver.ask(body=body, **bearer_of(SHOP)))
            await eventually(lambda: house.gateway.status().requests_waiting == 1)
            last = await _begin(house, SHOP, "last")
            await leaver.close()
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await asking
            await eventually(lambda: house.gateway.status().requests_waiting == 1)
            gate.open(3)
            assert [(await task).status for task in (*tasks, last)] == [200] * 3
            assert gate.asked == ["0", "1", "last"]

    run(test())


def test_what_fails_or_hangs_gives_its_slot_back():
    async def test():
        async with running(tenants=(SHOP,), answer_timeout_s=0.3, attempts_max=1) as house:
            upstream = await house.replica(hangs, model="two")
            tasks = [await _begin(house, SHOP, f"{n}") for n in range(4)]
            assert [(await task).status for task in tasks[:2]] == [504, 504]
            gate = Gate()
            gate.open(10)
            upstream.behaves = gate
            for task in tasks[2:]:
                await task
            assert (await _ask(house, SHOP, "after")).status == 200

    run(test())


def test_a_model_without_replicas_lets_its_requests_wait_for_one():
    async def test():
        gate = Gate()
        gate.open(5)
        async with running(tenants=(SHOP,)) as house:
            tasks = [asyncio.create_task(_ask(house, SHOP, f"{n}")) for n in range(5)]
            await eventually(lambda: house.gateway.status().requests_waiting == 5)
            await house.replica(gate, model="two")
            assert [(await task).status for task in tasks] == [200] * 5

    run(test())


def test_a_fallback_gives_the_first_model_s_slot_back():
    async def breaks(call: Call) -> None:
        await call.send(whole(500, b"{}"))

    async def test():
        gate = Gate()
        gate.open(20)
        models = tuple(
            Model(name=name, fallback=("four",) if name == "two" else ())
            for name in ("tiny", "long", "plain", "two", "four")
        )
        async with running(tenants=(SHOP,), models=models, attempts_max=1) as house:
            await house.replica(breaks, model="two")
            await house.replica(gate, model="four")
            answers = await asyncio.gather(*(_ask(house, SHOP, f"{n}") for n in range(8)))
            assert {answer.status for answer in answers} == {200}
            assert {record.model for record in await house.recorded(8)} == {"four"}

    run(test())


# Budgets.


def _ledger(path: Path, *tenants: Tenant) -> Ledger:
    budgets = {tenant.name: tenant.budgets for tenant in tenants if tenant.budgets}
    return Ledger(path, budgets, process=0, spent=lambda tenant, since_s: (0, 0), now_unix_s=NOW_S)


def _with_budget(**budget: int) -> Tenant:
    return Tenant(name="shop", budgets=(Budget(per="day", **budget),))


def _uses(tokens_in: int, tokens_out: int) -> Behaviour:
    async def behave(call: Call) -> None:
        await asyncio.sleep(0.01)
        body = completion("ok", tokens_in=tokens_in, tokens_out=tokens_out)
        await call.send(whole(200, body))

    return behave


def test_200_concurrent_requests_settle_to_the_budget_plus_one_reservation_at_most(tmp_path):
    budget, used = 2_000, 150  # of each: 100 in, 50 out
    tenant = _with_budget(tokens=budget)

    async def test():
        ledger = _ledger(tmp_path / "ledger", tenant)
        async with running(tenants=(tenant,), ledger=ledger) as house:
            for _ in range(2):
                await house.replica(_uses(100, 50), model="four")
            asks = (_ask(house, tenant, "x" * 80, model="four", max_tokens=50) for _ in range(200))
            answers = await asyncio.gather(*asks)
            statuses = {answer.status for answer in answers}
            assert statuses == {200, 429}
            refused = next(answer for answer in answers if answer.status == 429)
            assert refused.error["code"] == "budget_exceeded"
            assert int(refused.headers["retry-after"]) >= 1
            records = await house.recorded(200)
            settled = sum(record.tokens_in + record.tokens_out for record in records)
            reservation = len(json.dumps({**HELLO, "model": "four"})) + 80 + 50 + 50
            assert used <= settled <= budget + reservation
            [state] = ledger.states("shop", NOW_S)
            assert (state.settled_tokens, state.reserved_tokens) == (settled, 0)
            assert state.settled_requests == sum(answer.status == 200 for answer in answers)
        ledger.close()

    run(test())


def test_a_request_that_was_refused_or_never_sent_is_not_charged(tmp_path):
    tenant = _with_budget(requests=3)

    async def test():
        ledger = _ledger(tmp_path / "ledger", tenant)
        async with running(tenants=(tenant,), ledger=ledger, replica_wait_s=0.1) as house:
            assert (await _ask(house, tenant, "nobody is there")).status == 503
            await house.replica(_uses(5, 2), model="two")
            statuses = [(await _ask(house, tenant, "hi")).status for _ in range(5)]
            assert statuses == [200, 200, 200, 429, 429]
            [state] = ledger.states("shop", NOW_S)
            assert (state.settled_requests, state.reserved_requests) == (3, 0)
        ledger.close()

    run(test())


def test_a_budget_of_tokens_limits_an_answer_that_nothing_else_limits(tmp_path):
    """A reservation is a bound only where the answer is told to keep it."""
    tenant = _with_budget(tokens=100_000)

    async def test():
        ledger = _ledger(tmp_path / "ledger", tenant)
        async with running(tenants=(tenant,), ledger=ledger) as house:
            upstream = await house.replica(_uses(5, 2), model="four")  # of unknown context
            assert (await _ask(house, tenant, "hi", model="four")).status == 200
            assert upstream.calls[0].fields["max_tokens"] == 4096
            assert (await _ask(house, tenant, "hi", model="four", max_tokens=7)).status == 200
            assert upstream.calls[1].fields["max_tokens"] == 7
        ledger.close()

    run(test())
