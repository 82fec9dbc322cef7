"""The report: what bound first, costs and energy, and points over time, on cases made for it."""

from datetime import date

import numpy as np
import pytest
from msgspec.structs import replace

from argosy.fleet.demand import Slo
from argosy.perf.step_time import StepTime
from argosy.simulator.report import TIMES, Report, report_of
from argosy.simulator.scenario import Loss, Scenario, with_step_times
from argosy.simulator.serving import Ran, simulate
from tests.simulator.small_fleet import STEP, TEXT, small_scenario, trace_of_rows

SLOW_DECODE = StepTime(
    knots_tokens=(1.0, 8192.0), knots_s=(0.1, 0.5), context_s_per_token=1e-7, pair_s=1e-9
)
SLOW_PREFILL = StepTime(
    knots_tokens=(1.0, 64.0, 8192.0),
    knots_s=(0.001, 0.01, 60.0),
    context_s_per_token=1e-9,
    pair_s=1e-9,
)


def with_kv(scenario: Scenario, tokens: int) -> Scenario:
    groups = [replace(one, perf=replace(one.perf, kv_tokens=tokens)) for one in scenario.groups]
    return replace(scenario, groups=tuple(groups))


def even(rows: int, gap_s: float, prompt: int, output: int):
    return trace_of_rows([row * gap_s for row in range(rows)], [prompt] * rows, [output] * rows)


def report_on(scenario: Scenario, trace) -> Report:
    return report_of(simulate(scenario, trace), trace="rows")


def the_bound(report: Report):
    [bound] = report.bounds
    return bound


def test_without_load_nothing_binds():
    assert report_on(small_scenario(), even(400, 0.1, 300, 20)).bounds == ()


def test_slots_bind_where_requests_wait_at_the_gateway():
    bound = the_bound(report_on(small_scenario(), even(2_000, 0.01, 300, 200)))
    assert bound.what == "slots"
    assert "194 requests wait at the gateway: chat@far holds 9 of 16, chat@near" in bound.reason
    assert "8 slots are kept for other tenants and tiers" in bound.reason
    alone = TEXT.replace("  - {name: acme, tier: enterprise}\n", "")
    bound = the_bound(report_on(small_scenario(alone), even(2_000, 0.01, 300, 200)))
    assert bound.reason.endswith("chat@far holds 16 of 16, chat@near holds 16 of 16")
    assert bound.slo_met_share < 0.95


def test_kv_cache_binds_where_slots_are_free_and_blocks_are_not():
    text = TEXT.replace("requests_max: 8", "requests_max: 64")
    scenario = with_kv(small_scenario(text), 4_000)
    bound = the_bound(report_on(scenario, even(1_000, 0.02, 1_500, 200)))
    assert bound.what == "KV cache"
    assert "of 4,000 tokens a replica" in bound.reason


def test_prefill_binds_where_prompts_take_longer_than_the_promise():
    scenario = with_step_times(small_scenario(), SLOW_PREFILL)
    bound = the_bound(report_on(scenario, even(300, 3.0, 1_000, 2)))
    assert bound.what == "prefill"
    assert "with slots and KV cache free" in bound.reason


def test_decode_binds_where_steps_are_longer_than_the_promise():
    scenario = with_step_times(small_scenario(), SLOW_DECODE)
    bound = the_bound(report_on(scenario, even(300, 1.0, 50, 5)))
    assert bound.what == "decode"
    assert "itl_s_p99 = 0.05 s" in bound.reason


def test_single_late_tokens_bind_at_no_one_time():
    # Each request's own answer is in time; 1 gap of 50 is a step that also reads a long prompt.
    scenario = small_scenario(TEXT.replace("itl_s_p99: 0.05", "itl_s_p99: 0.03"))
    report = report_on(scenario, even(400, 0.1, 2_000, 60))
    bound = the_bound(report)
    assert report.models[0].keeps_slo is False
    assert bound.slo_met_share > 0.95
    assert (bound.at_s, bound.what) == (None, "prefill")
    assert "promised are 0.03 s" in bound.reason


def test_replicas_bind_when_they_are_gone():
    losses = tuple(Loss(kind="cloud", name=cloud, at_s=20.0) for cloud in ("aws", "gcp"))
    scenario = replace(small_scenario(), losses=losses)
    bound = the_bound(report_on(scenario, even(1_000, 0.1, 100, 20)))
    assert bound.what == "replicas"
    assert 0 < bound.at_s <= 20.0
    assert bound.reason == "none of its replicas listens"


def test_distance_binds_where_the_way_is_most_of_the_promise():
    text = TEXT.replace("ttft_s_p95: 1.0", "ttft_s_p95: 0.3") + (
        "  - {between: [aws/us-east-1, own/pole], round_trip_s: 0.28}\n"
        "  - {between: [gcp/us-east5, own/pole], round_trip_s: 0.29}\n"
    )
    trace = replace_origins(even(300, 0.1, 300, 5), "own/pole")
    bound = the_bound(report_on(small_scenario(text), trace))
    assert bound.what == "distance"
    assert bound.reason == "from own/pole, the nearest replica is 0.28 s away and back"


def test_context_binds_where_requests_are_too_long():
    trace = trace_of_rows(
        [row * 0.1 for row in range(400)], [40_000 if row % 4 else 9 for row in range(400)],
        [5] * 400,
    )  # fmt: skip
    bound = the_bound(report_on(small_scenario(), trace))
    assert bound.what == "context"
    assert bound.reason.startswith("150 of 200 requests were refused")


def test_a_model_without_a_promise_binds_only_where_requests_are_refused():
    nothing = small_scenario(TEXT.replace("    slo: {ttft_s_p95: 1.0, itl_s_p99: 0.05}\n", ""))
    assert nothing.slos == (Slo(),)
    report = report_on(nothing, even(400, 0.1, 300, 20))
    assert report.bounds == ()
    assert report.models[0].keeps_slo is None
    assert the_bound(report_on(nothing, even(300, 0.1, 40_000, 5))).what == "context"
    assert the_bound(report_on(nothing, even(6_000, 0.0, 500, 200))).what == "slots"


def test_a_handful_of_requests_is_looked_at_too():
    scenario = with_step_times(small_scenario(), SLOW_DECODE)
    bound = the_bound(report_on(scenario, even(5, 1.0, 50, 5)))
    assert (bound.what, bound.slo_met_share) == ("decode", 0.0)


def test_the_end_of_a_trace_is_looked_at_though_few_requests_come_in_it():
    # 100 requests after 300 good ones: too few for a stretch of their own.
    trace = trace_of_rows(
        [row * 0.1 for row in range(400)], [9 if row < 300 else 40_000 for row in range(400)],
        [5] * 400,
    )  # fmt: skip
    bound = the_bound(report_on(small_scenario(), trace))
    assert bound.what == "context"
    assert bound.slo_met_share == pytest.approx(100 / 200, abs=0.26)


# Costs, energy and shares.


def test_replicas_are_paid_while_requests_come_and_while_they_still_answer():
    [near] = [one for one in small_scenario().groups if one.name == "chat@near"]
    assert near.price_usd_per_hour is not None
    report = report_on(small_scenario(), trace_of_rows([0.0, 100.0], [100, 100], [2, 1_000]))
    by_name = {group.deployment: group for group in report.groups}
    answered, idle = sorted(report.groups, key=lambda group: group.tokens_out, reverse=True)
    assert idle.paid_s == pytest.approx(2 * 100.0, abs=0.5)
    answer_s = 999 * STEP.step_s(tokens=1, contexts=600)
    assert answered.paid_s == pytest.approx(2 * 100.0 + answer_s, rel=0.01)
    group = by_name["chat@near"]
    assert group.cost_usd == pytest.approx(near.price_usd_per_hour * group.paid_s / 3600)
    assert answered.busy_share < 0.01  # of the time in which requests come


def test_a_fleet_that_is_never_idle_is_busy_all_the_time():
    report = report_on(small_scenario(), even(1_500, 0.01, 100, 300))
    for group in report.groups:
        assert group.busy_share == pytest.approx(1.0, abs=0.01)


def test_what_is_unknown_is_in_no_sum_and_in_no_ratio():
    scenario = small_scenario()
    report = report_on(scenario, even(400, 0.02, 300, 20))
    far, near = report.groups
    assert (far.energy_kwh, far.co2_kg) == (None, None)  # nobody publishes a TPU's watts
    assert report.unknown == ("chat@far: power, carbon",)
    assert report.energy_kwh == near.energy_kwh
    assert far.tokens_out > 0
    assert report.j_per_token_out == pytest.approx(near.energy_kwh * 3.6e6 / near.tokens_out)
    assert report.usd_per_mtok_out == pytest.approx(
        (far.cost_usd + near.cost_usd) * 1e6 / report.tiers[0].tokens_out
    )


def test_a_list_price_has_its_offer_and_the_fleet_file_s_has_none():
    text = TEXT.replace("chip: TPU-v6e,", "chip: TPU-v6e, price_usd_per_chip_hour: 2.0,")
    far, near = report_on(small_scenario(text), even(10, 0.1, 10, 5)).groups
    assert (far.price_offer, far.price_source) == (None, "fleet file")
    assert near.price_offer is not None
    assert near.price_offer.price_date == date(2026, 7, 20)
    assert str(near.price_offer.price_date) in near.price_source


# Over time.


@pytest.mark.parametrize("seconds", [0.5, 3.0, 95.5, 96.0, 97.0, 250.0, 511.9])
def test_points_over_time_hold_every_request_once(seconds):
    rows = 500
    report = report_on(small_scenario(), even(rows, seconds / (rows - 1), 20, 2))
    points = report.over_time
    assert 1 <= len(points) <= TIMES + 1
    starts = [point.at_s for point in points]
    assert starts == sorted(set(starts))
    widths = np.diff([*starts, max(seconds, starts[-1] + 0.5)])
    told = sum(point.requests_per_s * width for point, width in zip(points, widths, strict=True))
    assert told == pytest.approx(rows, rel=0.01)
    rates = [point.requests_per_s for point in points]
    if seconds > 2:
        assert max(rates) < 1.25 * min(rates)  # the last is not cut short


def test_all_requests_in_one_instant_can_be_reported():
    report = report_on(small_scenario(), even(10, 0.0, 100, 5))
    assert report.requests == 10
    assert report.seconds == 0.0
    assert len(report.over_time) == 1


def test_a_loss_after_the_last_answer_is_said_to_be_too_late():
    losses = (Loss(kind="cloud", name="aws", at_s=500.0), Loss(kind="cloud", name="gcp", at_s=1.0))
    scenario = replace(small_scenario(), losses=losses)
    ran: Ran = simulate(scenario, even(50, 0.1, 100, 5))
    report = report_of(ran, trace="rows")
    assert report.losses_too_late == ("cloud:aws@500",)


def replace_origins(trace, origin: str):
    from dataclasses import replace as other

    return other(trace, origins=(origin,))
