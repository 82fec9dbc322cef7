"""Batches through `argosy up`: both SDKs as they are, kill -9 of all of it, and who goes first.

The replicas are simulated: they take their time and invent their words.
"""

import json
import os
import signal
import time
from pathlib import Path

import anthropic
import openai
import pytest
import sqlalchemy
from fleet_process import FleetProcess, wait_until

from argosy.store.batches import Batches
from argosy.store.keys import list_keys, mint
from argosy.store.schema import item_table, open_store

FLEET = """\
fleet: batches
gateway:
  port: 0
  consumer_share_max: 1
  batch_share_max: 1
  body_bytes_max: 100_000
  body_bytes_pending_max: 1_000_000
pools:
  - {{name: local, launcher: {{kind: local}}}}
models:
  - name: tiny
deployments:
  - {{model: tiny, pool: local, engine: {{kind: simulated, slots: {slots}}}}}
tenants:
  - {{name: acme, tier: {tier}}}
"""
KILLS_AT = (3, 20, 45)  # of 60 items


def fleet_file(folder: Path, *, slots: int, tier: str) -> Path:
    path = folder / "fleet.yaml"
    path.write_text(FLEET.format(slots=slots, tier=tier))
    return path


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A fleet with two slots, and a tenant who does not only make batches. Not to be broken."""
    folder = tmp_path_factory.mktemp("people")
    running = FleetProcess(folder / "state", fleet_file(folder, slots=2, tier="consumer"))
    try:
        yield running.wait_ready()
    finally:
        running.kill()


@pytest.fixture
def chatter(people):
    with openai.OpenAI(base_url=f"{people.url}/v1", api_key=people.key, max_retries=0) as client:
        yield client


@pytest.fixture
def messenger(people):
    with anthropic.Anthropic(base_url=people.url, api_key=people.key, max_retries=0) as client:
        yield client


def chat_lines(count: int, *, tokens: int) -> bytes:
    """The input file of a batch."""
    return b"".join(
        json.dumps(
            {
                "custom_id": f"id-{index}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": asked(f"ask {index}", tokens),
            }
        ).encode()
        + b"\n"
        for index in range(count)
    )


def message_requests(count: int, *, tokens: int) -> list[dict]:
    """What `messages.batches.create` takes."""
    return [
        {"custom_id": f"id-{index}", "params": asked(f"ask {index}", tokens)}
        for index in range(count)
    ]


def asked(text: str, tokens: int) -> dict:
    return {
        "model": "tiny",
        "max_tokens": tokens,
        "messages": [{"role": "user", "content": text}],
    }


def submit(client: openai.OpenAI, lines: bytes):
    file = client.files.create(file=("in.jsonl", lines), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )


def completed(client: openai.OpenAI, batch_id: str, fleet: FleetProcess):
    """The batch, once it is."""
    wait_until(lambda: client.batches.retrieve(batch_id).status == "completed", 30, fleet)
    return client.batches.retrieve(batch_id)


def ended(client: anthropic.Anthropic, batch_id: str, fleet: FleetProcess):
    """The batch, once it has."""
    batches = client.messages.batches
    wait_until(lambda: batches.retrieve(batch_id).processing_status == "ended", 30, fleet)
    return batches.retrieve(batch_id)


def rows_of(client: openai.OpenAI, file_id: str) -> list[dict]:
    return [json.loads(row) for row in client.files.content(file_id).text.splitlines()]


def test_the_openai_sdk_takes_a_file_to_its_answers_on_its_owners_bill(people, chatter):
    batch = completed(chatter, submit(chatter, chat_lines(12, tokens=4)).id, people)
    assert (batch.request_counts.total, batch.request_counts.completed) == (12, 12)
    rows = rows_of(chatter, batch.output_file_id)
    assert [row["custom_id"] for row in rows] == [f"id-{index}" for index in range(12)]
    bodies = [row["response"]["body"] for row in rows]
    assert all(body["choices"][0]["message"]["content"] for body in bodies)
    assert all(body["usage"]["completion_tokens"] == 4 for body in bodies)

    requests = {row["response"]["request_id"] for row in rows}
    wait_until(lambda: requests <= {record.request for record in people.usage()}, 10, people)
    records = [record for record in people.usage() if record.request in requests]
    store = open_store(people.state / "argosy.db")
    (key,) = list_keys(store)
    store.dispose()
    assert len(records) == 12
    assert {(r.tenant, r.key, r.tier, r.outcome, r.tokens_out) for r in records} == {
        ("acme", key.id, "batch", "finished", 4)
    }


def test_the_anthropic_sdk_takes_requests_to_their_results(people, messenger):
    made = messenger.messages.batches.create(requests=message_requests(12, tokens=4))
    assert made.processing_status == "in_progress"
    batch = ended(messenger, made.id, people)
    assert batch.request_counts.succeeded == 12
    results = list(messenger.messages.batches.results(batch.id))
    assert [entry.custom_id for entry in results] == [f"id-{index}" for index in range(12)]
    assert {entry.result.type for entry in results} == {"succeeded"}
    assert all(entry.result.message.content[0].text for entry in results)
    assert all(entry.result.message.usage.output_tokens == 4 for entry in results)


def test_an_sdk_hears_that_its_upload_is_too_long(people, chatter):
    with pytest.raises(openai.APIStatusError, match="the limit is 750000") as raised:
        chatter.files.create(file=("in.jsonl", b"x" * 800_000), purpose="batch")
    assert raised.value.status_code == 413


def test_a_chat_goes_before_the_items_of_a_batch_that_wait(people, chatter):
    batch = submit(chatter, chat_lines(18, tokens=15))
    wait_until(lambda: people.status().requests_waiting >= 5, 20, people)
    raw = chatter.chat.completions.with_raw_response.create(**asked("Hi", 4))
    assert chatter.batches.retrieve(batch.id).status == "in_progress"
    completed(chatter, batch.id, people)

    def record():
        found = [one for one in people.usage() if one.request == raw.headers["x-request-id"]]
        return found[0] if found else None

    wait_until(record, 10, people)
    chat = record()
    assert chat.tier == "consumer"

    def end_s(one) -> float:
        return one.at_s + one.duration_s

    items = [one for one in people.usage() if one.tier == "batch"]
    came_before = [one for one in items if one.at_s < chat.at_s]
    overtaken = [one for one in came_before if end_s(one) > end_s(chat)]
    meanwhile = [one for one in items if chat.at_s < end_s(one) < end_s(chat)]
    assert len(overtaken) >= 3
    assert len(meanwhile) <= 2, "more than those that held the two slots went first"


@pytest.mark.slow
def test_kill_9_of_the_whole_fleet_loses_no_item_and_doubles_none(tmp_path):
    state = tmp_path / "state"
    file = fleet_file(tmp_path, slots=4, tier="batch")
    store = open_store(state / "argosy.db")
    secret, _ = mint(store, tenant="acme", tier="batch", name="lasting", now_s=time.time())
    fleet = FleetProcess(state, file)
    try:
        fleet.wait_welcome()
        with openai.OpenAI(base_url=f"{fleet.url}/v1", api_key=fleet.key) as client:
            chats = submit(client, chat_lines(40, tokens=8)).id  # its key ends with this run
        with anthropic.Anthropic(base_url=fleet.url, api_key=secret) as client:
            requests = message_requests(20, tokens=8)
            messages = client.messages.batches.create(requests=requests).id

        batches = Batches(store)

        def done() -> int:
            found = (
                batches.find(chats, tenant="acme", api="openai"),
                batches.find(messages, tenant="acme", api="anthropic"),
            )
            return sum(batch.succeeded for batch in found if batch is not None)

        killed_at = []
        for wanted in KILLS_AT:
            wait_until(lambda wanted=wanted: done() >= wanted, 30, fleet)
            os.kill(fleet.process.pid, signal.SIGKILL)
            fleet.wait_exit()
            killed_at.append(done())
            fleet = FleetProcess(state, file)
        assert killed_at[-1] < 60, "the last kill came after the end"
        fleet.wait_welcome()
        with openai.OpenAI(base_url=f"{fleet.url}/v1", api_key=fleet.key) as client:
            batch = completed(client, chats, fleet)
            rows = rows_of(client, batch.output_file_id)
        assert [row["custom_id"] for row in rows] == [f"id-{index}" for index in range(40)]
        assert {row["response"]["status_code"] for row in rows} == {200}
        with anthropic.Anthropic(base_url=fleet.url, api_key=secret) as client:
            ended(client, messages, fleet)
            results = list(client.messages.batches.results(messages))
        assert [entry.custom_id for entry in results] == [f"id-{index}" for index in range(20)]
        assert {entry.result.type for entry in results} == {"succeeded"}
        with store.connect() as connection:
            attempts = sqlalchemy.select(sqlalchemy.func.sum(item_table.c.attempts))
            assert connection.execute(attempts).scalar_one() > 60, "no kill cut an item"
    finally:
        store.dispose()
        fleet.kill()
