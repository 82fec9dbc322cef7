"""The default policy by example: what is weighed, what bounds affinity, who is spared at first."""

from collections import Counter

import msgspec
import pytest

from argosy.policies.routing import (
    Decision,
    ReplicaView,
    RequestShape,
    Tuning,
    decision,
    home_of,
    note,
    predicted,
    replay,
    scores,
)

PROMPT = RequestShape(prompt_bytes=8_000)


def view(name: str, **fields) -> ReplicaView:
    known = {"requests_in_flight": 0, "slots": 4, "is_ready": True} | fields
    return ReplicaView(replica=name, **known)


def chosen(*views: ReplicaView, request: RequestShape = PROMPT, **more) -> str:
    return predicted(views, request=request, **more).replica


def cached(name: str, prompt_bytes: int = 8_000, of: int = 8_000) -> RequestShape:
    return RequestShape(prompt_bytes=of, cached={name: prompt_bytes})


# What is weighed.


def test_a_free_slot_is_worth_more_than_a_turn_in_a_queue():
    assert chosen(view("full", requests_in_flight=4), view("free", requests_in_flight=3)) == "free"


def test_a_short_queue_of_a_fast_replica_beats_a_free_slot_of_a_very_slow_one():
    fast = view("fast", requests_in_flight=4, service_s=0.4)
    slow = view("slow", prefill_s_per_byte=1e-3)
    assert chosen(fast, slow) == "fast"


def test_prompts_that_wait_to_be_read_count_as_well_as_requests():
    assert chosen(view("busy", prefill_bytes_queued=90_000), view("calm")) == "calm"


def test_a_replica_that_has_the_prompt_is_preferred_to_an_idle_one():
    holder = view("holder", requests_in_flight=2)
    assert chosen(view("idle"), holder, request=cached("holder")) == "holder"


def test_a_replica_twice_as_far_from_the_first_token_is_left_alone_when_idle():
    assert chosen(view("fast"), view("slow", prefill_s_per_byte=1e-4)) == "fast"


def test_the_cheaper_replica_is_worth_a_wait_only_as_much_as_was_said():
    dear, cheap = view("dear", price_usd_per_mtok=20.0), view("cheap", base_s=0.5)
    assert chosen(dear, cheap) == "dear"
    assert chosen(dear, cheap, tuning=Tuning(price_weight_s_per_usd=100.0)) == "cheap"


def test_an_idle_hour_has_its_price_too():
    spot, on_demand = view("spot", price_usd_per_hour=1.0), view("on_demand", price_usd_per_hour=9)
    tuning = Tuning(price_weight_s_per_usd=1_000.0)
    picks = {
        chosen(on_demand, spot, tuning=tuning, request=RequestShape(turn=turn))
        for turn in range(20)
    }
    assert picks == {"spot"}


# Bounded affinity.


@pytest.mark.parametrize(("in_flight", "expected"), [(2, "hot"), (3, "idle")])
def test_affinity_ends_half_of_the_slots_above_the_least_loaded(in_flight, expected):
    hot = view("hot", requests_in_flight=in_flight)
    assert chosen(hot, view("idle"), request=cached("hot")) == expected


def test_affinity_holds_where_all_are_as_busy():
    hot, other = view("hot", requests_in_flight=6), view("other", requests_in_flight=5)
    assert chosen(hot, other, request=cached("hot", 20_000, of=20_000)) == "hot"


def test_one_hot_prefix_is_spread_before_a_replica_is_full():
    fleet = [view(f"r{number}", slots=8) for number in range(4)]
    for _ in range(16):
        best = predicted(fleet, request=cached("r0")).replica
        next(each for each in fleet if each.replica == best).requests_in_flight += 1
    assert sorted(each.requests_in_flight for each in fleet)[-1] <= 7


# Sessions.


def test_a_session_goes_home_where_nobody_is_known_to_hold_its_prompt():
    fleet = [view("a"), view("b"), view("c")]
    for home in ("a", "b", "c"):
        assert chosen(*fleet, request=RequestShape(prompt_bytes=8_000, home=home)) == home


def test_a_known_prefix_outweighs_the_home():
    asked = RequestShape(prompt_bytes=8_000, home="a", cached={"b": 7_000})
    assert chosen(view("a"), view("b"), request=asked) == "b"


def test_what_all_hold_does_not_outweigh_the_home():
    everywhere = {"a": 7_000, "b": 7_000, "c": 7_000}
    asked = RequestShape(prompt_bytes=8_000, home="b", cached=everywhere)
    assert chosen(view("a"), view("b"), view("c"), request=asked) == "b"


def test_a_busy_home_is_left():
    asked = RequestShape(prompt_bytes=8_000, home="a")
    assert chosen(view("a", requests_in_flight=4), view("b"), request=asked) == "b"


def test_sessions_are_spread_and_stay_where_they_are_when_another_replica_leaves():
    fleet = [view(f"r{number}") for number in range(5)]
    sessions = [f"session-{number}".encode() for number in range(500)]
    before = {session: home_of(session, fleet) for session in sessions}
    assert all(70 <= count <= 130 for count in Counter(before.values()).values())
    after = {session: home_of(session, fleet[:4]) for session in sessions}
    assert all(after[each] == home for each, home in before.items() if home != "r4")


def test_the_home_is_a_ready_replica_where_there_is_one():
    fleet = [view("a", is_ready=False), view("b")]
    assert {home_of(b"%d" % number, fleet) for number in range(20)} == {"b"}
    assert home_of(b"any", [view("a", is_ready=False)]) == "a"
    assert home_of(b"any", []) is None


# Slow start, and equals.


@pytest.mark.parametrize(("age_s", "most"), [(0.0, 1), (2.5, 2), (5.0, 4), (10.0, 8)])
def test_a_new_replica_gets_a_growing_share(age_s, most):
    new = view("new", slots=8, ready_since_s=100.0)
    fleet = [new, view("old", slots=8, requests_in_flight=7)]
    asked = RequestShape(prompt_bytes=800, now_s=100.0 + age_s)
    while predicted(fleet, request=asked).replica == "new":
        new.requests_in_flight += 1
    assert new.requests_in_flight == most


def test_a_new_replica_that_is_alone_takes_everything():
    new = view("new", ready_since_s=100.0, requests_in_flight=50)
    assert chosen(new, request=RequestShape(now_s=100.0)) == "new"


def test_replicas_whose_rates_differ_by_chance_share_the_work():
    fleet = [view("a", base_s=0.0500), view("b", base_s=0.0507), view("c", base_s=0.0512)]
    picks = Counter(
        chosen(*fleet, request=RequestShape(prompt_bytes=400, turn=turn)) for turn in range(300)
    )
    assert all(count >= 90 for count in picks.values())


# Asked why.


def test_a_decision_is_plain_data_that_replays_after_the_views_have_changed():
    fleet = [view("a", requests_in_flight=3), view("b", ready_since_s=1.0), view("c")]
    asked = RequestShape(prompt_bytes=9_000, cached={"a": 4_000}, home="c", turn=7, now_s=4.0)
    route = predicted(fleet, request=asked, tried=frozenset({"c"}))
    noted = note("predicted", fleet, request=asked, tried=frozenset({"c"}))
    for each in fleet:
        each.requests_in_flight += 9
    decided = decision(noted)
    stored = msgspec.json.decode(msgspec.json.encode(decided), type=Decision)
    assert stored == decided
    assert replay(stored) == route
    assert (decided.chosen, decided.reason) == (route.replica, route.reason)
    assert [score.replica for score in decided.scores] == ["a", "b"]


def test_the_scores_say_what_the_seconds_are():
    (score,) = scores(
        [view("a", requests_in_flight=5, prefill_bytes_queued=1_000, service_s=2.0)],
        request=cached("a", 6_000),
    )
    assert score.wait_s == pytest.approx(2 * 2.0 / 4)
    assert score.queued_s == pytest.approx(0.05)
    assert score.prompt_s == pytest.approx(0.1)
    assert score.spared_bytes == 6_000
    assert score.total_s == pytest.approx(1.0 + 0.05 + 0.1 + 0.05)


def test_the_reason_names_the_seconds_the_load_and_what_is_cached():
    fleet = [view("a", requests_in_flight=1), view("b")]
    route = predicted(fleet, request=cached("a", 4_000))
    assert route.reason == "predicted 0.250 s, least of 2: 1 in flight, 4000 prompt bytes cached"
