"""One record a request, whatever became of it; and the metrics say the same."""

import asyncio
import random
import re
from collections import Counter

import pytest
from raw_client import HELLO, MESSAGE, Answer, request
from running_gateway import House, eventually, run, running
from upstream import EVENTS, Call, answers, delta, hangs, says, streams_forever, whole

GOOD = answers("Hello", " world")
BEHAVIOURS = {
    "good": GOOD,
    "breaks": says(b"", then="cut"),
    "busy": says(whole(429, b"{}")),
    "refuses": says(whole(400, b'{"error": {"message": "no"}}')),
    "hangs": hangs,
    "forever": streams_forever,
}


async def obeys(call: Call) -> None:
    """Does what the last message says."""
    said = call.fields["messages"][-1]["content"]
    if said == "tears":
        await call.send(EVENTS)
        await call.event(delta("Hello"))
        call.cut()
    else:
        await BEHAVIOURS[said](call)


def saying(text: str, **fields: object) -> dict[str, object]:
    return {**MESSAGE, "messages": [{"role": "user", "content": text}], **fields}


# What is asked, the outcome that is due, and how far the client reads before it leaves.
KINDS = {
    "whole": ("finished", saying("good"), None),
    "stream": ("finished", saying("good", stream=True), None),
    "tears": ("failed", saying("tears", stream=True), None),
    "breaks": ("failed", saying("breaks"), None),
    "busy": ("refused", saying("busy"), None),
    "refuses": ("refused", saying("refuses", stream=True), None),
    "bad body": ("refused", b"{", None),
    "unknown model": ("refused", saying("good", model="made-up"), None),
    "leaves early": ("cancelled", saying("hangs", stream=True), b""),
    "leaves late": ("cancelled", saying("forever", stream=True), b"a "),
}
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages"}


async def one(house: House, kind: str, surface: str) -> Answer | None:
    """One request of that kind, on a connection of its own; None: the client left."""
    _, body, read_until = KINDS[kind]
    client = await house.client()
    if read_until is None:
        return await client.ask(PATHS[surface], body)
    client.say(request(PATHS[surface], body))
    if read_until:
        await client.reader.readuntil(read_until)
    else:
        await asyncio.sleep(0.05)
    client.reset()
    return None


@pytest.mark.parametrize("seed", [1, 2])
def test_every_request_leaves_one_record_and_the_metrics_agree(seed):
    chance = random.Random(seed)
    plan = [(chance.choice([*KINDS]), chance.choice([*PATHS])) for _ in range(100)]

    async def test():
        async with running(obeys, obeys, obeys) as house:
            answered = []
            for start in range(0, len(plan), 10):
                doing = [one(house, *kind) for kind in plan[start : start + 10]]
                answered += await asyncio.gather(*doing)
            records = await house.recorded(len(plan))
            due = Counter((surface, KINDS[kind][0]) for kind, surface in plan)
            assert Counter((r.surface, r.outcome) for r in records) == due
            by_id = {record.request: record for record in records}
            assert len(by_id) == len(plan)
            for (kind, surface), answer in zip(plan, answered, strict=True):
                if answer is not None:
                    record = by_id.pop(answer.headers["x-request-id"])
                    assert (record.outcome, record.surface) == (KINDS[kind][0], surface)
                    assert record.status == answer.status
                    assert record.tokens_out == (2 if record.outcome == "finished" else
                                                 1 if kind == "tears" else 0)  # fmt: skip
            assert {record.outcome for record in by_id.values()} <= {"cancelled"}
            assert all(record.duration_s >= 0 for record in records)
            await house.close_clients()
            await agrees(house)

    run(test(), timeout_s=30.0)


LINE = re.compile(r"(\w+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'(\w+)="([^"]*)"')


async def metrics(house: House) -> list[tuple[str, dict[str, str], float]]:
    page = (await (await house.client()).ask("/metrics", method="GET")).body.decode()
    found = [LINE.fullmatch(line) for line in page.splitlines() if not line.startswith("#")]
    assert all(found)
    return [(m[1], dict(LABEL.findall(m[2] or "")), float(m[3])) for m in found if m]


async def agrees(house: House) -> None:
    """The counters are the sums of the records, under no label that a client made up."""
    samples = await metrics(house)
    requests, tokens = Counter(), Counter()
    for name, labels, value in samples:
        if name == "argosy_requests_total":
            requests[labels["surface"], labels["outcome"], labels["replica"]] += value
        if name in ("argosy_tokens_in_total", "argosy_tokens_out_total"):
            tokens[name] += value
        assert labels.get("model", "none") in ("tiny", "plain", "none")
        assert labels.get("tier", "none") in ("enterprise", "consumer", "none")
        assert re.fullmatch(r"tiny-\d|none", labels.get("replica", "none"))
        if name == "argosy_requests_in_flight":
            assert value == 0
    records = house.records
    assert requests == Counter((r.surface, r.outcome, r.replica or "none") for r in records)
    assert tokens["argosy_tokens_in_total"] == sum(r.tokens_in for r in records)
    assert tokens["argosy_tokens_out_total"] == sum(r.tokens_out for r in records)
    ended = sum(
        value
        for name, labels, value in samples
        if name == "argosy_request_seconds_count" and labels["model"] == "none"
    )
    assert ended == sum(record.model is None for record in records)


def test_what_clients_make_up_becomes_no_label():
    async def test():
        async with running(GOOD) as house:
            client = await house.client()
            for number in range(20):
                await client.ask(body={**HELLO, "model": f"made-up-{number}"})
                await client.ask(f"/made-up-{number}", method="GET")
                await client.ask(f"/v1/models/made-up-{number}", method="GET")
                await client.ask(authorization=f"Bearer made-up-{number}")
            samples = await metrics(house)
            assert "made-up" not in str(samples)
            await eventually(lambda: len(house.records) == 40)
            [rejected] = [value for name, labels, value in samples
                          if name == "argosy_http_rejected_total"
                          and labels["reason"] == "unknown_path"]  # fmt: skip
            assert rejected == 20

    run(test())


def test_a_finished_stream_says_how_long_its_first_token_took():
    async def test():
        async with running(answers("a", "b", "c", gap_s=0.1)) as house:
            client = await house.client()
            await client.ask(body={**HELLO, "stream": True})
            await client.ask()
            [stream, plain] = await house.recorded(2)
            assert 0.09 <= stream.ttft_s <= stream.duration_s - 0.18
            assert stream.duration_s < 5
            assert (stream.tokens_out, plain.tokens_out, plain.ttft_s) == (3, 3, None)
            values = {name: value for name, _, value in await metrics(house)}
            assert values["argosy_ttft_seconds_count"] == 1
            assert values["argosy_itl_seconds_count"] == 2
            assert 0.18 <= values["argosy_itl_seconds_sum"] <= stream.duration_s - 0.09

    run(test())


def test_the_counts_of_an_attempt_that_failed_are_not_the_request_s():
    async def test():
        counts = b'data: {"choices": [], "usage": {"prompt_tokens": 99, "completion_tokens": 0}}'
        bad = says(EVENTS + b"%x\r\n%b\n\n\r\n" % (len(counts) + 2, counts), then="cut")
        async with running(bad, GOOD) as house:
            assert (await (await house.client()).ask(body={**HELLO, "stream": True})).status == 200
            [record] = await house.recorded()
            assert (record.attempts, record.tokens_in, record.tokens_out) == (2, 5, 2)

    run(test())
