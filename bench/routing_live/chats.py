"""Scenario `chats`: what a warm prefix cache is worth to chats that share a system prompt.

Every chat grows by what its user and the model say. A replica that has read its last turn reads
only what is new; any other reads all that it did not see. Answers are fed back as they come.
"""

import asyncio
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
REPLICAS, SLOTS, CONTEXT_TOKENS = 3, 8, 1024
SESSIONS, SYSTEM_WORDS, TURN_WORDS, ANSWER_TOKENS = 8, 380, 24, 16
THINK_S = (1.5, 3.0)
ARRIVE_EVERY_S = 1.0  # a new chat


def once(policy: str, *, seed: int, turns: int, gateway: Mapping[str, Any]) -> dict[str, Any]:
    """All chats against a fresh fleet."""
    fleet = fleet_of(
        [llama(replicas=REPLICAS, slots=SLOTS, context_tokens=CONTEXT_TOKENS)],
        gateway={**gateway, "routing": policy},
    )
    with running(fleet) as up:
        answers = asyncio.run(_chats(up.url, up.key, seed=seed, turns=turns))
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
        "errors": [answer.error for answer in flat if answer.error],
    }


async def _chats(url: str, key: str, *, seed: int, turns: int) -> list[list[Answer]]:
    system = words(random.Random(seed), SYSTEM_WORDS)
    return await asyncio.gather(
        *(_chat(url, key, system, number, seed=seed, turns=turns) for number in range(SESSIONS))
    )


async def _chat(
    url: str, key: str, system: str, number: int, *, seed: int, turns: int
) -> list[Answer]:
    chance = random.Random(seed * 1000 + number)
    await asyncio.sleep(number * ARRIVE_EVERY_S)
    messages: list[Message] = [{"role": "system", "content": system}]
    answers: list[Answer] = []
    for _ in range(turns):
        messages.append({"role": "user", "content": f"Tell me: {words(chance, TURN_WORDS)}?"})
        answer = await ask(url, key, messages, max_tokens=ANSWER_TOKENS, model=MODEL)
        answers.append(answer)
        messages.append({"role": "assistant", "content": answer.text})
        await asyncio.sleep(chance.uniform(*THINK_S))
    return answers


def report(rounds: list[dict[str, dict[str, Any]]]) -> str:
    """The table, and what was aimed at."""
    means = {name: [statistics.mean(one[name]["ttft_s"]) for one in rounds] for name in rounds[0]}
    rows = []
    for name in rounds[0]:
        samples = [one[name] for one in rounds]
        ratios = [mean / best for mean, best in zip(means[name], means["predicted"], strict=True)]
        rows.append([
            name,
            spread([mean * 1000 for mean in means[name]], ".0f"),
            spread([percentile(one["ttft_s"], 0.5) * 1000 for one in samples], ".0f"),
            spread([percentile(one["ttft_s"], 0.95) * 1000 for one in samples], ".0f"),
            spread([one["tokens_cached"] / one["tokens_in"] for one in samples], ".0%"),
            spread(ratios),
            " ".join("/".join(map(str, one["by_replica"])) for one in samples),
            str(sum(len(one["errors"]) for one in samples)),
        ])  # fmt: skip
    head = ["policy", "TTFT mean ms", "p50 ms", "p95 ms", "prompt cached",
            "mean / predicted", "by replica", "errors"]  # fmt: skip
    lines = [f"### chats: {SESSIONS} chats, {REPLICAS} replicas", "", table(head, rows), ""]
    for name in POLICIES[1:]:
        ratio = statistics.median(
            mean / best for mean, best in zip(means[name], means["predicted"], strict=True)
        )
        said = verdict(ratio, at_least=AIM)
        lines.append(f"Aim: mean TTFT, {name} / predicted >= {AIM}: {ratio:.2f}, {said}")
    return "\n".join(lines)
