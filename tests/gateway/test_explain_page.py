"""The story of a request at `/argosy/explain/{id}`: what is told of ordinary and unusual ones."""

import asyncio

import msgspec
import pytest
from raw_client import HELLO
from running_gateway import OPERATOR, House, answering, eventually, run, running
from upstream import EVENTS, Behaviour, Call, Upstream, answers, chunk, delta, hangs, says

from argosy.fleet.config import QueueTimeouts, SimulatedEngine
from argosy.fleet.messages import Replica
from argosy.gateway.explain import Decisions, Explanation
from argosy.gateway.http import Request
from argosy.policies.routing import NoRoute, Route, note, replay

AS_OPERATOR = {"authorization": f"Bearer {OPERATOR}"}
STREAM = {**HELLO, "stream": True}


async def page(house: House, request: str):
    client = await house.client()
    return await client.ask(f"/argosy/explain/{request}", method="GET", **AS_OPERATOR)


async def story(house: House, request: str) -> Explanation:
    answer = await page(house, request)
    assert answer.status == 200, answer.body
    return msgspec.json.decode(answer.body, type=Explanation)


def kinds(told: Explanation) -> list[str]:
    return [step.kind for step in told.steps]


def first_time(once: Behaviour, then: Behaviour) -> Behaviour:
    """`once` to the first call of all replicas together."""
    calls: list[Call] = []

    async def behave(call: Call) -> None:
        calls.append(call)
        await (once if len(calls) == 1 else then)(call)

    return behave


async def one_slot(house: House, behaves: Behaviour) -> None:
    """A replica that takes one request at a time."""
    upstream = Upstream(behaves)
    house.publish(await upstream.start())
    house.upstreams.append(upstream)
    (name,) = house.replicas
    fields = {field: getattr(house.replicas[name], field) for field in Replica.__struct_fields__}
    house.replicas[name] = Replica(**{**fields, "engine": SimulatedEngine(slots=1)})
    house.turns(name, "ready")


def test_an_ordinary_request_has_one_decision_which_replays():
    async def test():
        async with answering() as house:
            answer = await (await house.client()).ask(body=HELLO)
            told = await story(house, answer.headers["x-request-id"])
            assert kinds(told) == ["routed"]
            assert told.steps[0].text.startswith("to tiny-1: predicted ")
            assert told.steps[0].after_s == pytest.approx(0.0, abs=0.2)
            (routing,) = told.decisions
            assert routing.replays
            assert routing.decision.chosen == "tiny-1" == replay(routing.decision).replica
            assert [score.replica for score in routing.decision.scores] == ["tiny-1"]
            assert not told.is_running

    run(test())


def test_a_failed_attempt_is_told_with_what_followed():
    async def test():
        behaves = first_time(says(b"", then="cut"), answers("Hello"))
        async with running(behaves, behaves) as house:
            answer = await (await house.client()).ask(body=HELLO)
            assert answer.status == 200
            told = await story(house, answer.headers["x-request-id"])
            assert kinds(told) == ["routed", "failed", "routed"]
            first, second = (routing.decision for routing in told.decisions)
            text = told.steps[1].text
            assert text.startswith(f"attempt 1 on {first.chosen} (lost): The replica failed: ")
            assert text.endswith("Tried again at once: another replica is ready.")
            assert second.tried == (first.chosen,)
            assert second.chosen == answer.headers["argosy-replica"] != first.chosen
            assert all(routing.replays for routing in told.decisions)

    run(test())


def test_a_stream_that_no_other_can_go_on_with_says_so():
    async def test():
        part = b"data: " + msgspec.json.encode(delta("Hel")) + b"\n\n"
        async with running(says(EVENTS + chunk(part), then="cut")) as house:
            answer = await (await house.client()).ask(body=STREAM)
            told = await story(house, answer.headers["x-request-id"])
            assert kinds(told) == ["routed", "failed"]
            assert "the client has a part of the answer" in told.steps[1].text

    run(test())


def test_a_request_that_waited_says_for_what_and_how_long():
    async def test():
        async with running() as house:
            await one_slot(house, answers("Hello", gap_s=0.1))
            first, second = await house.client(), await house.client()
            before = asyncio.create_task(first.ask(body=HELLO))
            await eventually(lambda: house.in_flight() == 1)
            answer = await second.ask(body=HELLO)
            await before
            told = await story(house, answer.headers["x-request-id"])
            assert kinds(told) == ["queued", "started", "routed"]
            queued, started, routed = told.steps
            assert queued.text == "1 requests hold the 1 slots, 1 wait"
            assert started.text.startswith("after 0.")
            assert started.text.endswith("the enterprise tenant that was served least")
            assert queued.after_s < started.after_s <= routed.after_s

    run(test())


def test_a_request_that_was_shed_says_why_and_has_no_decision():
    async def test():
        timeouts = QueueTimeouts(enterprise=0.05)
        async with running(queue_timeout_s=timeouts) as house:
            await one_slot(house, hangs)
            first, second = await house.client(), await house.client()
            running_one = asyncio.create_task(first.ask(body=HELLO))
            await eventually(lambda: house.in_flight() == 1)
            answer = await second.ask(body=HELLO)
            assert answer.status == 503
            told = await story(house, answer.headers["x-request-id"])
            assert kinds(told) == ["queued", "refused"]
            assert told.steps[1].text == answer.error["message"]
            assert told.decisions == ()
            running_one.cancel()

    run(test())


def test_a_request_that_no_replica_was_there_for_has_that_decision_first():
    async def test():
        async with running() as house:
            waiting = asyncio.create_task((await house.client()).ask(body=HELLO))
            await eventually(lambda: house.gateway.status().requests_waiting == 1)
            await house.replica(answers("Hello"))
            answer = await waiting
            told = await story(house, answer.headers["x-request-id"])
            assert kinds(told) == ["no_replica", "routed"]
            assert told.steps[0].text == "0 replicas are ready"
            assert told.decisions[0].decision.chosen is None
            assert told.decisions[0].replays

    run(test())


def test_a_request_that_is_moved_off_a_suspect_replica_says_so_while_it_runs():
    async def test():
        async with running(hangs, hangs) as house:
            client = await house.client()
            asking = asyncio.create_task(client.ask(body=HELLO))
            await eventually(lambda: any(one.calls for one in house.upstreams))
            on = next(n for n, one in enumerate(house.upstreams, 1) if one.calls)
            house.turns(f"tiny-{on}", "suspect")
            await eventually(lambda: all(one.calls for one in house.upstreams))
            (exchange,) = house.gateway.dispatch._exchanges
            told = await story(house, exchange.request.id)
            assert kinds(told) == ["routed", "moved", "routed"]
            assert told.is_running
            asking.cancel()

    run(test())


def test_an_id_that_is_not_kept_is_told_what_is():
    async def test():
        async with answering() as house:
            answer = await page(house, "req_00")
            assert answer.status == 404
            assert "no request has been routed" in answer.error["message"]
            await (await house.client()).ask(body=HELLO)
            answer = await page(house, "req_00")
            assert "it has 1 (at most 4096), the oldest from 0 s ago" in answer.error["message"]
            assert "argosy usage --records 20" in answer.error["message"]

    run(test())


def test_only_the_operator_may_read_a_story():
    async def test():
        async with answering() as house:
            client = await house.client()
            asked = await client.ask(body=HELLO)
            path = f"/argosy/explain/{asked.headers['x-request-id']}"
            answer = await client.ask(path, method="GET")
            assert answer.status == 401
            assert answer.error["message"].endswith("argosy explain")

    run(test())


def test_what_is_kept_is_bounded_and_stays_in_order():
    decisions = Decisions(kept=2, events_kept=2)
    for number in range(4):
        request = Request(id=f"req_{number}", received_s=0.0)
        decisions.happened(request, "queued", "before", now_s=0.0)
        decisions.add(
            (request.id, 0.0, note("predicted", []), NoRoute(reason="none", retry_after_s=1.0))
        )
        decisions.happened(request, "refused", "after", now_s=0.0)
    gone = [decisions.explain(f"req_{n}", now_s=1.0, is_running=False) for n in (0, 1)]
    assert not any(isinstance(told, Explanation) for told in gone)
    early = decisions.explain("req_2", now_s=1.0, is_running=False)
    assert isinstance(early, Explanation)
    assert kinds(early) == ["no_replica"], "its events had to go"
    late = decisions.explain("req_3", now_s=1.0, is_running=False)
    assert isinstance(late, Explanation)
    assert kinds(late) == ["queued", "no_replica", "refused"], "all in one tick of the clock"


def test_an_answer_that_the_policy_would_not_give_again_is_called_so():
    decisions = Decisions()
    chosen = Route(replica="none-of-them", policy="predicted", candidates=1, requests_in_flight=0)
    decisions.add(("req_1", 0.0, note("predicted", []), chosen))
    told = decisions.explain("req_1", now_s=1.0, is_running=False)
    assert isinstance(told, Explanation)
    assert told.decisions[0].decision.chosen == "none-of-them"
    assert not told.decisions[0].replays
