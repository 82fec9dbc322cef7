"""A fleet in virtual time as a whole: who is answered when, and what a loss does."""

import msgspec
import numpy as np
import pytest

from argosy.simulator.outcomes import DONE, EXPIRED, LOST, SHED, TOO_LONG
from argosy.simulator.report import report_of
from argosy.simulator.scenario import Loss, ScenarioError, loss_of, refuse_impossible, scenario_of
from argosy.simulator.serving import simulate
from tests.simulator.small_fleet import STEP, TEXT, small_scenario, trace_of_rows


def with_losses(*losses: Loss):
    return msgspec.structs.replace(small_scenario(), losses=losses)


def test_one_request_alone_takes_its_prompt_and_its_steps():
    ran = simulate(small_scenario(), trace_of_rows([5.0], [1000], [11]))
    report = report_of(ran, trace="one")
    [tier] = report.tiers
    overhead_s = ran.scenario.groups[0].perf.overhead_s
    trip_s = ran.scenario.round_trip_s("aws/us-east-1", "aws/us-east-1")
    prefill_s = STEP.step_s(tokens=1000, pairs=1000 * 1001 / 2)
    steps_s = [STEP.step_s(tokens=1, contexts=1000 + step) for step in range(1, 11)]
    nearest = overhead_s + trip_s + prefill_s
    farther = nearest - trip_s + 0.02
    assert tier.ttft_s_p50 is not None
    assert any(known <= tier.ttft_s_p50 <= known * 1.011 for known in (nearest, farther))
    assert tier.tpot_s_p50 == pytest.approx(np.mean(steps_s), rel=0.011)
    assert tier.tokens_out == 11
    assert report.slo_met_share == 1.0


def test_every_request_has_one_outcome_and_a_full_queue_sheds():
    rows = 6000
    ran = simulate(small_scenario(), trace_of_rows([0.0] * rows, [2000] * rows, [200] * rows))
    outcomes = ran.tally.outcomes[0, 1]
    assert outcomes.sum() == rows
    assert outcomes[SHED] > 0
    assert outcomes[EXPIRED] > 0
    assert outcomes[DONE] + outcomes[SHED] + outcomes[EXPIRED] == rows


def test_the_higher_tier_is_answered_first():
    rows = 2000
    tiers = [row % 2 for row in range(rows)]
    trace = trace_of_rows([row * 0.005 for row in range(rows)], [1500] * rows, [200] * rows, tiers)
    by_tier = {
        tier.tier: tier for tier in report_of(simulate(small_scenario(), trace), trace="").tiers
    }
    assert by_tier["enterprise"].outcomes["done"] > 2 * by_tier["consumer"].outcomes["done"]
    assert "shed" not in by_tier["enterprise"].outcomes


def test_the_same_seed_gives_the_same_bytes():
    rows = 500
    chance = np.random.default_rng(3)
    arrivals = np.cumsum(chance.exponential(0.05, rows))
    trace = trace_of_rows(
        list(arrivals), list(chance.integers(1, 3000, rows)), list(chance.integers(1, 300, rows))
    )
    first, again = (
        msgspec.json.encode(report_of(simulate(small_scenario(), trace), trace="t"))
        for _ in range(2)
    )
    assert first == again


def test_what_a_lost_region_was_answering_goes_on_elsewhere():
    rows = 400
    trace = trace_of_rows([row * 0.05 for row in range(rows)], [500] * rows, [100] * rows)
    loss = Loss(kind="region", name="gcp/us-east5", at_s=10.0)
    ran = simulate(with_losses(loss), trace)
    assert ran.tally.outcomes[0, 1, DONE] == rows
    alone = simulate(small_scenario(), trace)
    assert ran.accounts[0].killed == 0 if ran.scenario.groups[0].cloud == "aws" else True
    assert sum(account.killed for account in ran.accounts) > 0
    assert sum(account.killed for account in alone.accounts) == 0
    # What was written before the loss is read again as a prompt, not written again.
    assert sum(account.tokens_out for account in ran.accounts) == rows * 100


def test_with_every_replica_gone_requests_are_lost_until_some_are_back():
    rows = 200
    trace = trace_of_rows([row * 1.0 for row in range(rows)], [500] * rows, [20] * rows)
    losses = tuple(
        Loss(kind="cloud", name=cloud, at_s=20.0, until_s=50.0) for cloud in ("aws", "gcp")
    )
    ran = simulate(with_losses(*losses), trace)
    outcomes = ran.tally.outcomes[0, 1]
    assert outcomes.sum() == rows
    assert outcomes[LOST] + outcomes[EXPIRED] + outcomes[SHED] > 60
    assert outcomes[DONE] == 20 + outcomes.sum() - 20 - outcomes[LOST] - outcomes[EXPIRED]
    assert ran.tally.over_time["done"][:25].sum() >= 19


def test_a_request_longer_than_the_context_is_refused():
    ran = simulate(small_scenario(), trace_of_rows([0.0, 1.0], [40_000, 10], [10, 10]))
    assert list(np.flatnonzero(ran.tally.outcomes[0, 1])) == [DONE, TOO_LONG]


def test_a_model_that_does_not_fit_is_refused_with_what_would():
    text = TEXT.replace("Llama-3.1-8B", "Llama-3.1-405B")
    with pytest.raises(ScenarioError, match=r"chat@near: .*does not fit"):
        small_scenario(text)


def test_a_promise_that_no_chip_keeps_names_the_nearest():
    text = TEXT.replace("ttft_s_p95: 1.0", "ttft_s_p95: 0.001")
    told = refuse_impossible(
        small_scenario(text), model="chat", prompt_tokens=1000, origins=["aws/us-east-1"]
    )
    assert told is not None
    assert "ttft_s_p95 = 0.001 s cannot be met" in told
    assert "Nearest: chat@" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("planet:earth", "names no failure domain"),
        ("cloud:azure", 'no cloud "azure". It has: aws, gcp'),
        ("cloud:aws@soon", '"soon" is no time'),
        ("cloud:aws@50-20", "must end after it began"),
    ],
)
def test_a_loss_that_cannot_be_is_refused_in_words(text, told):
    with pytest.raises(ScenarioError, match="--lose") as refused:
        loss_of(text, small_scenario())
    assert told in str(refused.value)


def test_a_fleet_without_planned_pools_cannot_be_simulated():
    from argosy.fleet import load

    with pytest.raises(ScenarioError, match="no deployment that can be simulated"):
        scenario_of(load.parse(load.embedded(), source="embedded.yaml"))
