"""What is logged of a scaling decision is little, and decides the same again."""

import math
import random
import zlib

import msgspec
import pytest
from msgspec.structs import replace

from argosy.policies.autoscaling import (
    Decision,
    Demand,
    DeploymentView,
    Event,
    Given,
    ModelView,
    ScaleState,
    Settings,
    Sustains,
    given_of,
    replayed,
    scale,
)

DAY_MINUTES = 1440
SETTINGS = Settings()


def demand(counts: list[int], step_s: float, until_s: float) -> Demand:
    return Demand(
        step_s=step_s, until_s=until_s, requests=tuple(counts),
        prompt_tokens=tuple(37 * one for one in counts), batch_requests=(1,) * len(counts),
        batch_prompt_tokens=(11,) * len(counts), answered=tuple(counts),
        output_tokens=tuple(53 * one for one in counts),
    )  # fmt: skip


def views(days: float, start_s: float, ticks: int) -> list[ModelView]:
    """Each with another minute; demand has its days, its weekends and its noise."""
    chance, minutes = random.Random(7), round(days * DAY_MINUTES) + ticks
    counts = [
        int(chance.gauss(600, 60) * (1.2 + math.sin(minute / DAY_MINUTES * math.tau)))
        for minute in range(minutes)
    ]
    found = []
    for until in range(minutes - ticks, minutes):
        now_s = 60.0 * until + 1.0
        one = DeploymentView(
            name="chat@near", ready=chance.randint(1, 6), pending=(now_s - 9.0,), draining=(),
            sustains=Sustains(prefill_tokens_per_s=2000.0, decode_tokens_per_s=200.0),
            start_s_p95=start_s, min=1, max=40,
        )  # fmt: skip
        far = replace(one, name="chat@far", price_usd_per_hour=2.0)
        match = Event(name="match", from_s=now_s + 9, until_s=now_s + 99, times=1.5)
        view = ModelView(
            model="chat", now_s=now_s, age_s=1.0,
            history=demand(counts[:until], 60.0, 60.0 * until),
            recent=demand([chance.randint(50, 300) for _ in range(30)], 10.0, 60.0 * until),
            queued=chance.choice([0, 0, 40]), deployments=(one, far), events=(match,),
        )  # fmt: skip
        found += [view, replace(view, now_s=now_s + 4.0, queued=view.queued + 9)]
    return found


def course(days: float, start_s: float, ticks: int) -> list[tuple[Given, Decision]]:
    state, found = ScaleState(), []
    for view in views(days, start_s, ticks):
        before = state
        state, decision = scale(before, view, SETTINGS)
        found.append((given_of(before, state, view, SETTINGS), decision))
    return found


@pytest.mark.parametrize("days", [0.01, 0.9, 1.01, 8.0, 15.2])
@pytest.mark.parametrize("start_s", [2.0, 900.0])
def test_what_is_logged_decides_the_same_to_the_last_digit_and_word(days, start_s):
    for given, decision in course(days, start_s, 12):
        told = msgspec.json.decode(msgspec.json.encode(given), type=Given)
        assert replayed(told) == decision


def test_two_weeks_of_history_are_logged_in_some_kilobytes():
    given, _ = course(14.0, 300.0, 1)[-1]
    said = msgspec.json.encode(given)
    assert len(said) < 2**18
    assert len(zlib.compress(said, 1)) < 2**14


def test_what_was_altered_decides_something_else():
    given, decision = course(8.0, 120.0, 3)[-1]
    crowd = replace(given.view, queued=50_000)
    assert replayed(replace(given, view=crowd)) != decision
    assert replayed(replace(given, settings=Settings(utilisation_max=0.5))) != decision
