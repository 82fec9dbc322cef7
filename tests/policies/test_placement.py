"""Where replicas are placed: cheapest that suffices, allowed, survives; and what is said of it."""

from msgspec.structs import replace

from argosy.fleet.layout import Layout
from argosy.policies.placement import (
    NeedView,
    OptionView,
    Placement,
    PoolView,
    ShareView,
    SpreadView,
    Step,
    SurviveView,
    Tick,
    Tuning,
    UpView,
    place,
)

ALL_STOPS = Tuning(stops_share_max=1.0)


def pool(name: str, *steps: tuple[int, float], cloud: str = "aws", area: str = "us", **more):
    return PoolView(
        name=name,
        region=f"{cloud}/{area}",
        cloud=cloud,
        maker=more.pop("maker", "nvidia"),
        steps=tuple(Step(chips=chips, usd_per_chip_hour=usd) for chips, usd in steps),
        **more,
    )


def option(pool: str, sustains: float, *, chips: int = 1, model: str = "m") -> OptionView:
    return OptionView(
        model=model,
        pool=pool,
        engine="vllm",
        layout=Layout(tp=chips),
        chips=chips,
        sustains=sustains,
    )


def need(capacity: float, *regions: str, tier="consumer", model: str = "m", **more) -> NeedView:
    return NeedView(model=model, tier=tier, capacity=capacity, regions=regions, **more)


def up(pool: str, replicas: int, *, chips: int = 1, model: str = "m") -> UpView:
    return UpView(
        model=model,
        pool=pool,
        engine="vllm",
        layout=Layout(tp=chips),
        chips=chips,
        replicas=replicas,
    )


def by_pool(found: Placement, model: str = "m") -> dict[str, int]:
    counts: dict[str, int] = {}
    for one in found.replicas:
        if one.model == model:
            counts[one.pool] = counts.get(one.pool, 0) + one.replicas
    return counts


HERE = "aws/us"
TWO = Tick(
    pools=(pool("cheap", (8, 1.0)), pool("dear", (8, 3.0))),
    options=(option("cheap", 10.0), option("dear", 10.0)),
    needs=(need(25.0, HERE),),
)


def test_the_cheapest_pool_that_suffices_is_taken_and_the_reason_says_what_was_missing():
    found = place(TWO)
    assert by_pool(found) == {"cheap": 3}
    (change,) = found.changes
    assert (change.before, change.after, change.code) == (0, 3, "demand")
    assert "25 of 25 is not there" in change.reason
    assert "USD 3.00 an hour" in change.reason
    assert (found.usd_per_hour, found.short) == (3.0, ())


def test_what_the_cheap_pool_cannot_hold_goes_to_the_next():
    assert by_pool(place(replace(TWO, needs=(need(95.0, HERE),)))) == {"cheap": 8, "dear": 2}


def test_committed_chips_go_before_those_that_cost_more():
    pools = (pool("cheap", (8, 1.0)), pool("dear", (2, 0.0), (6, 3.0)))
    found = place(replace(TWO, pools=pools))
    assert by_pool(found) == {"cheap": 1, "dear": 2}
    assert found.usd_per_hour == 1.0


def test_committed_chips_go_to_the_model_whose_others_are_dearest():
    pools = (pool("own", (4, 0.0)), pool("a", (8, 1.0)), pool("b", (8, 9.0)))
    options = tuple(
        option(name, 1.0, model=model)
        for model, name in (("a", "own"), ("a", "a"), ("b", "own"), ("b", "b"))
    )
    needs = (need(4.0, HERE, model="a"), need(4.0, HERE, model="b"))
    found = place(Tick(pools=pools, options=options, needs=needs))
    assert by_pool(found, "a") == {"a": 4}
    assert by_pool(found, "b") == {"own": 4}


def test_residency_is_kept_though_it_costs_more():
    pools = (pool("us", (8, 1.0)), pool("eu", (8, 5.0), area="eu"))
    options = (option("us", 10.0), option("eu", 10.0))
    needs = (need(10.0, "aws/eu"), need(10.0, "aws/eu", "aws/us"))
    found = place(Tick(pools=pools, options=options, needs=needs))
    assert by_pool(found) == {"us": 1, "eu": 1}


def test_a_replica_where_nothing_may_be_served_is_stopped():
    pools = (pool("us", (8, 0.0)), pool("eu", (8, 5.0), area="eu"))
    tick = Tick(
        pools=pools,
        options=(option("us", 10.0), option("eu", 10.0)),
        needs=(need(10.0, "aws/eu"),),
        up=(up("us", 2),),
    )
    found = place(tick)
    assert by_pool(found) == {"eu": 1}
    assert [(one.pool, one.code) for one in found.changes] == [
        ("eu", "demand"),
        ("us", "residency"),
    ]


CLOUDS = ("aws", "azure", "gcp")
THREE = Tick(
    pools=tuple(pool(cloud, (16, 1.0), cloud=cloud) for cloud in CLOUDS),
    options=tuple(option(cloud, 10.0) for cloud in CLOUDS),
    needs=(need(80.0, *(f"{cloud}/us" for cloud in CLOUDS)),),
    survive=(SurviveView(model="m", kind="cloud"),),
)


def test_a_loss_is_survived_by_many_domains_evenly_not_by_doubling_two():
    assert by_pool(place(THREE)) == {"aws": 4, "azure": 4, "gcp": 4}


def test_what_starts_only_for_a_loss_says_so():
    found = place(replace(THREE, up=(up("aws", 8),)))
    starts = [one for one in found.changes if one.after > one.before]
    assert {one.code for one in starts} == {"survive"}
    assert "if one cloud were lost" in starts[0].reason


def test_spot_serves_now_but_counts_for_nothing_when_a_domain_is_lost():
    pools = (*THREE.pools, pool("spot", (99, 0.1), cloud="aws", is_spot=True))
    options = (*THREE.options, option("spot", 10.0))
    found = by_pool(place(replace(THREE, pools=pools, options=options)))
    assert sum(count for name, count in found.items() if name != "spot") == 12


def test_what_is_asked_while_a_domain_is_lost_may_be_less():
    lost = (replace(THREE.needs[0], capacity_lost=40.0),)
    assert sum(by_pool(place(replace(THREE, needs=lost))).values()) == 8


def test_no_domain_has_more_than_its_share():
    tick = replace(
        THREE,
        pools=(
            THREE.pools[0],
            *(replace(p, steps=(Step(chips=16, usd_per_chip_hour=9.0),)) for p in THREE.pools[1:]),
        ),
        survive=(),
        spread=(SpreadView(model="m", kind="cloud", share_max=0.5),),
    )
    found = by_pool(place(tick))
    assert found["aws"] == 4
    assert sum(found.values()) == 8


def test_one_cloud_alone_cannot_be_lost_and_the_rest_is_placed():
    found = place(replace(THREE, pools=THREE.pools[:1]))
    assert by_pool(found) == {"aws": 8}
    (short,) = found.short
    assert (short.when, short.kind, short.code, short.capacity) == (
        "lost",
        "cloud",
        "domains",
        80.0,
    )
    assert "add another" in short.reason


def test_where_chips_do_not_suffice_enterprise_goes_first():
    tick = Tick(
        pools=(pool("only", (4, 1.0)),),
        options=tuple(option("only", 10.0, model=model) for model in "ab"),
        needs=(need(30.0, HERE, model="a"), need(30.0, HERE, model="b", tier="enterprise")),
    )
    found = place(tick)
    assert (by_pool(found, "a"), by_pool(found, "b")) == ({"only": 1}, {"only": 3})
    (short,) = found.short
    assert (short.model, short.tier, short.code) == ("a", "consumer", "contended")
    assert short.capacity == 20.0


def test_a_need_that_no_pool_is_near_is_said_and_no_error():
    found = place(replace(TWO, needs=(need(25.0, HERE), need(5.0, "own/basement"))))
    assert by_pool(found) == {"cheap": 3}
    (short,) = found.short
    assert short.code == "nowhere"
    assert "own/basement" in short.reason


def test_nothing_changes_where_nothing_changed():
    found = place(replace(THREE, up=tuple(up(cloud, 4) for cloud in CLOUDS)))
    assert found.changes == ()


def test_a_move_is_made_only_when_it_saves_more_than_it_costs():
    nearly = replace(
        TWO, pools=(pool("cheap", (8, 2.95)), pool("dear", (8, 3.0))), up=(up("dear", 3),)
    )
    assert place(nearly, tuning=ALL_STOPS).changes == ()
    much = place(replace(TWO, up=(up("dear", 3),)), tuning=ALL_STOPS)
    assert by_pool(much) == {"cheap": 3}
    assert {one.code for one in much.changes} == {"saves"}


def test_surplus_is_stopped_where_it_is_dearest():
    found = place(replace(TWO, up=(up("cheap", 3), up("dear", 1))))
    assert by_pool(found) == {"cheap": 3}
    (change,) = found.changes
    assert (change.pool, change.code) == ("dear", "surplus")


def test_no_more_replicas_stop_at_one_tick_than_are_allowed():
    tick = replace(TWO, needs=(need(5.0, HERE),), up=(up("cheap", 8),))
    found = place(tick, tuning=Tuning(stops_share_max=0.25))
    assert by_pool(found) == {"cheap": 6}


def test_replicas_that_no_longer_fit_are_stopped_beyond_that():
    tick = replace(
        TWO, pools=(pool("cheap", (2, 1.0)), pool("dear", (8, 3.0))), up=(up("cheap", 8),)
    )
    found = place(tick, tuning=Tuning(stops_share_max=0.01))
    assert by_pool(found) == {"cheap": 2, "dear": 1}
    assert {one.code for one in found.changes} == {"demand", "chips"}


def test_what_is_not_known_is_left_alone_and_keeps_its_chips():
    tick = replace(TWO, up=(up("cheap", 6, model="other"), up("gone", 2)))
    found = place(tick)
    assert by_pool(found, "other") == {"cheap": 6}
    assert by_pool(found) == {"cheap": 2, "dear": 1, "gone": 2}


def test_a_replica_that_cannot_meet_the_slo_is_replaced():
    tick = replace(TWO, options=(option("cheap", 0.0), option("dear", 10.0)), up=(up("cheap", 3),))
    found = place(tick)
    assert by_pool(found) == {"dear": 3}
    assert "unable" in {one.code for one in found.changes}


def test_the_plan_is_a_start_and_no_order():
    plan = tuple(
        ShareView(model="m", pool=name, engine="vllm", layout=Layout(), share=share)
        for name, share in (("cheap", 0.0), ("dear", 1.0))
    )
    assert by_pool(place(replace(TWO, plan=plan))) == {"cheap": 3}


def test_of_two_pools_alike_the_one_that_starts_sooner_is_taken():
    pools = (pool("cheap", (8, 3.0), start_s=900), pool("dear", (8, 3.0), start_s=60))
    assert by_pool(place(replace(TWO, pools=pools))) == {"dear": 3}


def test_the_order_of_what_is_told_changes_nothing():
    for tick in (TWO, THREE):
        other = replace(tick, pools=tick.pools[::-1], options=tick.options[::-1])
        assert place(other) == place(tick)


def test_the_bound_is_never_above_the_cost_and_what_is_far_above_it_has_a_reason():
    found = place(replace(TWO, needs=(need(21.0, HERE),)))
    assert found.bound_usd_per_hour == 2.1
    assert found.usd_per_hour == 3.0
    assert found.dear == "whole_replicas"
