"""Problems without a plan: the reason in words, minimal, and what would work."""

from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import Caps, Problem, Spread, Survival, Training
from argosy.planner.solving.solve import solve
from tests.planner.planner_problems import need, option, pool, problem, supply

POOLS = (pool("own-h100", "own/berlin"), pool("aws-h100", "aws/us"))
BERLIN = ("own/berlin",)
ANYWHERE = ("own/berlin", "aws/us")


def conflict(rates=(90.0, 4.0), regions=BERLIN, **more) -> Conflict:
    given: Problem = problem(
        pools=POOLS,
        supplies=(supply(0), supply(1)),
        options=(option("large", 0), option("large", 1)),
        needs=(need("large", rates, regions),),
        **more,
    )
    found = solve(given)
    assert isinstance(found, Conflict), found
    return found


def test_residency_and_a_loss_are_told_with_the_only_cloud_there_is():
    found = conflict(survivals=(Survival(model="large", kind="cloud"),))
    assert found.constraints == (
        "large must stay in own/berlin, where only one cloud (own) can serve it",
        "large must survive the loss of any one cloud",
    )
    # Without the loss: (90 + 4) / 2 chips x 2 USD; with both clouds: twice that.
    assert found.reliefs == (
        "let large fail with the loss of one cloud (from 94.00 USD an hour)",
        "let large be served in any region (from 188.00 USD an hour)",
    )


def test_too_few_nodes_are_told_with_how_many_would_do():
    found = conflict(rates=(1900.0, 4.0), regions=ANYWHERE)
    assert found.constraints == (
        "own-h100 has no more than 100 nodes",
        "aws-h100 has no more than 100 nodes",
    )
    # 1,900 chips are 237.5 nodes.
    assert found.reliefs[0].startswith("aws-h100 with 138 nodes instead of 100")
    assert len(found.reliefs) == 2


def test_what_does_not_matter_is_not_told():
    found = conflict(
        rates=(900.0, 4.0),
        survivals=(Survival(model="large", kind="maker", tiers=("enterprise",)),),
        caps=Caps(carbon_kg_per_day=1e9),
    )
    assert found.constraints == (
        "large must stay in own/berlin",
        "own-h100 has no more than 100 nodes",
    )


def test_a_power_cap_is_told_with_the_power_that_would_do():
    found = conflict(caps=Caps(power_w_of_region={"own/berlin": 30e3}))
    assert "own/berlin may draw no more than 30.0 kW" in found.constraints
    # 90 chips x 700 W x PUE 1.2 = 75.6 kW
    assert any(text.startswith("75.6") for text in found.reliefs)


def test_a_budget_is_told_with_the_money_that_would_do():
    found = conflict(caps=Caps(usd_per_hour=50.0))
    assert found.constraints == ("spending may be no more than 50.00 USD an hour",)
    assert found.reliefs[0].startswith("94.0")


def test_a_training_run_that_cannot_end_is_told():
    run = Training(name="base", tokens=1e15, tokens_per_chip_s={0: 1000.0}, periods=(0,))
    found = conflict(trainings=(run,))
    assert "training base must end by the end of 2027" in found.constraints
    assert any(text.startswith("leave out training base") for text in found.reliefs)


def test_a_spread_over_one_cloud_is_told():
    found = conflict(spreads=(Spread(model="large", kind="cloud", share_max=0.5),))
    assert "no cloud may carry more than 50% of large" in found.constraints


def test_a_need_that_nothing_serves_is_told_at_once():
    found = conflict(regions=("own/paris",))
    assert len(found.constraints) == 1
    assert "no pool there has an option that meets its SLO" in found.constraints[0]
    assert found.reliefs == ("let large from eu be served in aws/us, own/berlin",)


def test_each_relief_by_itself_makes_a_plan_possible():
    given = {
        "pools": POOLS,
        "supplies": (supply(0), supply(1)),
        "options": (option("large", 0), option("large", 1)),
    }
    anywhere = problem(
        **given,
        needs=(need("large", (90.0, 4.0), ANYWHERE),),
        survivals=(Survival(model="large", kind="cloud"),),
    )
    without_loss = problem(**given, needs=(need("large", (90.0, 4.0), BERLIN),))
    assert isinstance(solve(anywhere), Plan)
    assert isinstance(solve(without_loss), Plan)


def test_a_relief_is_enough_for_all_hours_together_not_for_the_hardest_alone():
    batch = need("large", (400.0, 400.0), BERLIN, tier="batch", may_wait=True)
    given = problem(
        pools=POOLS[:1],
        supplies=(supply(0),),
        options=(option("large", 0),),
        needs=(need("large", (1200.0, 1200.0), BERLIN), batch),
    )
    found = solve(given)
    assert isinstance(found, Conflict)
    # 1,200 chips are 150 nodes, and batch that waits takes 50 more.
    [relief] = found.reliefs
    assert relief.startswith("own-h100 with 200 nodes instead of 100 (from 3,200.00 USD an hour)")
