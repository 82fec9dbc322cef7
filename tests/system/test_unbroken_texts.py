"""Simulated replicas are killed under streams of both APIs: every text equals its reference.

A simulated answer is a function of the prompt alone, so what an unbroken run says is known.
"""

import asyncio
import os
import random
import signal
from pathlib import Path

import anthropic
import openai
from fleet_process import FleetProcess, wait_until

_FLEET = """
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
CLIENTS = 16
KILLS = 6
WORDS = 40


async def _chat(client: openai.AsyncOpenAI, question: str) -> str:
    stream = await client.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": question}],
        max_tokens=WORDS,
        stream=True,
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


async def _message(client: anthropic.AsyncAnthropic, question: str) -> str:
    async with client.messages.stream(
        model="small", max_tokens=WORDS, messages=[{"role": "user", "content": question}]
    ) as stream:
        return "".join([text async for text in stream.text_stream])


async def _asked(fleet: FleetProcess, *, kills: int) -> list[tuple[str, str, str]]:
    """Question, API and text of every stream, while replicas are killed."""
    chance = random.Random(4)
    over = asyncio.Event()
    told: list[tuple[str, str, str]] = []

    async def ask_on(number: int) -> None:
        rounds = 0
        while not over.is_set():
            question = f"Question {number} of round {rounds % 2}?"
            if number % 2:
                told.append((question, "chat", await _chat(chats, question)))
            else:
                told.append((question, "messages", await _message(messages, question)))
            rounds += 1

    async def kill() -> None:
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.3, 0.9))
            rows = await asyncio.to_thread(fleet.replicas)
            pids = [row.replica.pid for row in rows if row.replica.state == "ready"]
            os.kill(chance.choice(pids), signal.SIGKILL)
        await asyncio.sleep(1.0)
        over.set()

    base = {"api_key": fleet.key, "max_retries": 0}
    async with (
        openai.AsyncOpenAI(base_url=f"{fleet.url}/v1", **base) as chats,
        anthropic.AsyncAnthropic(base_url=fleet.url, **base) as messages,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(kill())
        for number in range(CLIENTS):
            group.create_task(ask_on(number))
    return told


def test_every_text_equals_its_reference_while_replicas_are_killed(start_fleet, tmp_path: Path):
    file = tmp_path / "fleet.yaml"
    file.write_text(_FLEET)
    fleet = start_fleet(file).wait_ready()
    reference = {question: text for question, _, text in asyncio.run(_asked(fleet, kills=0))}
    told = asyncio.run(_asked(fleet, kills=KILLS))
    assert len(told) > CLIENTS
    for question, api, text in told:
        if question in reference:
            assert text == reference[question], (question, api)
    wait_until(lambda: all(row.replica.state == "ready" for row in fleet.replicas()), 20, fleet)
    assert sum(row.replica.restarts for row in fleet.replicas()) == KILLS
    went_on = [record for record in fleet.usage() if record.attempts > 1]
    assert went_on, "no stream met a killed replica"
    assert {record.outcome for record in fleet.usage()} == {"finished"}
