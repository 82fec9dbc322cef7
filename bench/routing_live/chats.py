"""Scenario `chats`: what a warm prefix cache is worth to chats that share a system prompt.

Every chat grows by what its user and the model say. A replica that has read its last turn reads
only what is new; any other reads all that it did not see. Answers are fed back as they come.
"""

import asyncio
import functools
import random
import statistics
from collections.abc import Mapping
from typing import Any

from bench.routing_live.client import Answer, Message, ask
from bench.routing_live.figures import percentile, spread, table, verdict
from bench.routing_live.fleet import MODEL, fleet_of, llama, running
from bench.routing_live.words import words

POLICIES = ("predicted", "least_loaded", "round_robin")
AIM = 1.5  # mean TTFT of the others over that of `predicted`
REPLICAS, SLOTS, CONTEXT_TOKENS = 3, 8, 2048
SESSIONS, SYSTEM_WORDS, TURN_WORDS, ANSWER_TOKENS = 8, 200, 90, 16
# Both in times that a replica takes to read a first turn alone, so that a slow machine, or a busy
# one, is as full as a fast one.
THINK = (5.0, 9.0)
# A new chat. So soon that every chat has a slot of its own: llama.cpp shares no prefix between
# slots, and a chat that comes to an idle slot takes it from the chat whose history is in there.
ARRIVE_EVERY = 1.0


def once(policy: str, *, seed: int, turns: int, gateway: Mapping[str, Any]) -> dict[str, Any]:
    """All chats against a fresh fleet."""
    unit_s = first_turn_s(seed)
    fleet = fleet_of(
        [llama(replicas=REPLICAS, slots=SLOTS, context_tokens=CONTEXT_TOKENS)],
        gateway={**gateway, "routing": policy},
    )
    with running(fleet) as up:
        answers = asyncio.run(_chats(up.url, up.key, seed=seed, turns=turns, unit_s=unit_s))
        finished = up.finished()
    flat = [answer for chat in answers for answer in chat]
    good = [answer for answer in flat if not answer.error]
    return {
        "ttft_s": [answer.ttft_s for answer in good],
        "ttft_s_by_turn": [
            [chat[turn].ttft_s for chat in answers if not chat[turn].error] for turn in range(turns)
        ],
        "read_by_turn": [
            [chat[turn].tokens_in - chat[turn].tokens_cached for chat in answers]
            for turn in range(turns)
        ],
        "tokens_in": sum(answer.tokens_in for answer in good),
        "tokens_cached": sum(answer.tokens_cached for answer in good),
        "by_replica": sorted(finished.values(), reverse=True),
        "first_turn_s": unit_s,
        "errors": [answer.error for answer in flat if answer.error],
    }


@functools.cache  # once a round: its policies share a seed
def first_turn_s(seed: int) -> float:
    """Seconds to the first token of a first turn that a replica reads alone, whole."""
    alone = [llama(replicas=1, slots=1, context_tokens=CONTEXT_TOKENS)]
    with running(fleet_of(alone, gateway={})) as up:
        return statistics.median(
            asyncio.run(_first_turn(up.url, up.key, random.Random(seed + number))).ttft_s
            for number in range(3)
        )


async def _first_turn(url: str, key: str, chance: random.Random) -> Answer:
    messages = [
        {"role": "system", "content": words(chance, SYSTEM_WORDS)},
        {"role": "user", "content": words(chance, TURN_WORDS)},
    ]
    return await ask(url, key, messages, max_tokens=1, model=MODEL)


async def _chats(url: str, key: str, *, seed: int, turns: int, unit_s: float) -> list[list[Answer]]:
    system = words(random.Random(seed), SYSTEM_WORDS)

    async def chat(number: int) -> list[Answer]:
        await asyncio.sleep(number * ARRIVE_EVERY * unit_s)
        chance = random.Random(seed * 1000 + number)
        return await _chat(url, key, system, chance, turns=turns, unit_s=unit_s)

    return await asyncio.gather(*(chat(number) for number in range(SESSIONS)))


async def _chat(
    url: str, key: str, system: str, chance: random.Random, *, turns: int, unit_s: float
) -> list[Answer]:
    messages: list[Message] = [{"role": "system", "content": system}]
    answers: list[Answer] = []
    for _ in range(turns):
        messages.append({"role": "user", "content": f"Tell me: {words(chance, TURN_WORDS)}?"})
        answer = await ask(url, key, messages, max_tokens=ANSWER_TOKENS, model=MODEL)
        answers.append(answer)
        messages.append({"role": "assistant", "content": answer.text})
        await asyncio.sleep(chance.uniform(*THINK) * unit_s)
    return answers


def report(rounds: list[dict[str, dict[str, Any]]]) -> str:
    """The table, and what was aimed at."""
    rows = [_row(name, rounds) for name in rounds[0]]
    head = ["policy", "TTFT mean ms", "after turn 1", "p50 ms", "p95 ms", "prompt cached",
            "mean / predicted", "by replica", "errors"]  # fmt: skip
    alone_s = [next(iter(one.values()))["first_turn_s"] for one in rounds]
    lines = [f"### chats: {SESSIONS} chats, {REPLICAS} replicas", "", table(head, rows), "",
             f"A first turn read alone: {spread(alone_s)} s."]  # fmt: skip
    for name in POLICIES[1:]:
        if ratios := _ratios(name, rounds):
            ratio = statistics.median(ratios)
            said = verdict(ratio, at_least=AIM)
            lines.append(f"Aim: mean TTFT, {name} / predicted >= {AIM}: {ratio:.2f}, {said}")
    return "\n".join(lines)


def _row(name: str, rounds: list[dict[str, dict[str, Any]]]) -> list[str]:
    samples = [one[name] for one in rounds]
    return [
        name,
        spread([statistics.mean(one["ttft_s"]) * 1000 for one in samples], ".0f"),
        spread([_later(one) * 1000 for one in samples], ".0f"),
        spread([percentile(one["ttft_s"], 0.5) * 1000 for one in samples], ".0f"),
        spread([percentile(one["ttft_s"], 0.95) * 1000 for one in samples], ".0f"),
        spread([one["tokens_cached"] / one["tokens_in"] for one in samples], ".0%"),
        spread(_ratios(name, rounds)),
        " ".join("/".join(map(str, one["by_replica"])) for one in samples),
        str(sum(len(one["errors"]) for one in samples)),
    ]


def _later(sample: dict[str, Any]) -> float:
    """Mean TTFT of all turns but each chat's first, whose system prompt may be cold anywhere."""
    return statistics.mean(ttft_s for turn in sample["ttft_s_by_turn"][1:] for ttft_s in turn)


def _ratios(name: str, rounds: list[dict[str, dict[str, Any]]]) -> list[float]:
    """Mean TTFT over that of `predicted` in the same round; none where either was left out."""
    return [
        statistics.mean(one[name]["ttft_s"]) / statistics.mean(one["predicted"]["ttft_s"])
        for one in rounds
        if name in one and "predicted" in one
    ]
