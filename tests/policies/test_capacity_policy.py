"""Where the replicas go that a model needs, by cases: price, room, losses, residency, contracts."""

from datetime import date

import pytest
from msgspec.structs import replace

from argosy.fleet import load
from argosy.policies.autoscaling import Ask, spread_over
from argosy.policies.capacity import Closed, Limit, Sited, Taken, World, decided, world_of
from tests.policies.asks import ask, full, part, world


def counts(world_: World, *asks: Ask) -> list[list[int]]:
    return [[one.replicas for one in each.targets] for each in decided(asks, world_)]


def reasons(world_: World, asked: Ask) -> dict[str, str]:
    (one,) = decided([asked], world_)
    return {target.deployment: target.reason for target in one.targets}


def three(**first: object) -> Ask:
    return ask(
        part("chat@azure-h100", "azure/westeurope", usd=4.0),
        part("chat@gcp-tpu", "gcp/europe-west4", usd=2.0, maker="google", **first),
        part("chat@own-gb300", "own/oslo", usd=3.0),
        whole=3.0,
    )


def test_the_cheapest_grows_first():
    assert counts(world(three()), three()) == [[0, 3, 0]]
    assert reasons(world(three()), three())["chat@gcp-tpu"] == "0 -> 3 (cheapest): so much"


def test_when_it_has_no_room_the_next_does_and_the_reason_says_so():
    asked = three(replicas=1)
    shut = replace(world(asked), closed=(full("gcp-tpu"),))
    assert counts(shut, asked) == [[0, 1, 2]]
    told = reasons(shut, asked)
    assert told["chat@own-gb300"].startswith("0 -> 2 (cheapest, after chat@gcp-tpu (has no room))")
    assert told["chat@gcp-tpu"].startswith("stay (has no room)")


def test_where_nothing_else_has_room_a_full_pool_is_asked_again():
    asked = ask(
        part("chat@a", "aws/x", max=2), part("chat@b", "gcp/y", replicas=1, usd=2.0), whole=5.0
    )
    shut = replace(world(asked), closed=(full("b"),))
    assert counts(shut, asked) == [[2, 3]]
    assert "asked again, for nothing else has room" in reasons(shut, asked)["chat@b"]


def test_what_is_drained_goes_and_others_do_its_work_at_once():
    asked = three(replicas=3)
    left = Closed(pool="gcp-tpu", why="is drained", is_left=True)
    shut = replace(world(asked), closed=(left,))
    assert counts(shut, asked) == [[0, 0, 3]]
    assert reasons(shut, asked)["chat@gcp-tpu"].startswith("3 -> 0 (is drained)")


def test_a_loss_that_is_to_be_survived_is_and_the_reason_names_it():
    asked = replace(three(replicas=3), survive=("cloud",), lost=3.0)
    known = world(asked, residency={"chat": "eu"})
    (now,) = counts(known, asked)
    assert now == [1, 3, 2]  # any two of 1, 2 and 2 do; of the three, one goes when those are ready
    told = reasons(known, asked)["chat@own-gb300"]
    assert told.startswith("0 -> 2 (cheapest within eu that survives the loss of gcp, after ")


def test_residency_holds_though_it_is_dearer():
    asked = three(replicas=2)
    known = world(asked)
    sites = tuple(replace(one, may_serve=one.pool == "azure-h100") for one in known.sites)
    known = replace(known, sites=sites, residency={"chat": "azure"})
    assert counts(known, asked) == [[3, 0, 0]]
    assert "chat must stay in azure" in reasons(known, asked)["chat@gcp-tpu"]


def test_what_is_up_moves_only_where_that_saves_more_than_the_move():
    near = ask(
        part("chat@a", "aws/x", usd=2.00, replicas=2), part("chat@b", "gcp/y", usd=1.95), whole=2.0
    )
    assert counts(world(near), near) == [[2, 0]]
    far = ask(
        part("chat@a", "aws/x", usd=4.0, replicas=2), part("chat@b", "gcp/y", usd=1.0), whole=2.0
    )
    assert counts(world(far), far) == [[2, 2]]  # none goes before the others are ready
    told = reasons(world(far), far)
    assert "does the same for less" in told["chat@b"]
    assert "what is to do its work is not ready yet" in told["chat@a"]
    there = ask(replace(far.parts[0]), replace(far.parts[1], replicas=2, ready=2), whole=2.0)
    assert counts(world(there), there) == [[0, 2]]
    assert "the others suffice" in reasons(world(there), there)["chat@a"]


def test_in_a_panic_nothing_goes():
    far = ask(
        part("chat@a", "aws/x", usd=4.0, replicas=2, shrink_max=0),
        part("chat@b", "gcp/y", usd=1.0),
        whole=2.0,
    )
    assert counts(world(far), far) == [[2, 0]]


def test_as_few_go_at_once_as_the_cap_says():
    much = ask(
        part("chat@a", "aws/x", usd=4.0, replicas=6, shrink_max=1),
        part("chat@b", "gcp/y", usd=1.0, replicas=6),
        whole=6.0,
    )
    assert counts(world(much), much) == [[5, 1]]


def test_what_is_paid_for_anyway_is_used_first():
    asked = three()
    known = world(asked)
    stocks = tuple(
        replace(one, chips=8, chips_paid=2 if one.pool == "azure-h100" else 0)
        for one in known.stocks
    )
    assert counts(replace(known, stocks=stocks), asked) == [[2, 1, 0]]


def test_models_share_what_a_pool_has():
    one = ask(part("a@x", "aws/x"), part("a@y", "gcp/y", usd=2.0), whole=3.0)
    other = ask(part("b@x", "aws/x"), part("b@y", "gcp/y", usd=2.0, capacity=0.25), whole=3.0)
    known = world(one, other, chips={"x": 4, "y": 8})
    assert counts(known, one, other) == [[1, 2], [3, 0]]  # the other has more of it
    assert counts(known, other, one) == [[3, 0], [1, 2]]


def test_a_model_of_one_deployment_is_scaled_as_ever_and_has_its_chips():
    alone = ask(part("b@x", "aws/x", replicas=1), whole=3.0)
    other = ask(part("a@x", "aws/x"), part("a@y", "gcp/y", usd=2.0), whole=3.0)
    known = world(alone, other, chips={"x": 4, "y": 8})
    found = decided([alone, other], known)
    assert found[0] == spread_over(alone)
    assert counts(known, alone, other) == [[3], [1, 2]]
    taken = replace(known, taken=(Taken(pool="x", chips=4),))
    assert counts(taken, other) == [[0, 3]]


FLEET = """
fleet: contracts
pools:
  - {name: own, launcher: {kind: planned}, region: azure/westeurope, chip: H100-SXM,
     nodes: {min: 1, max: 4}}
  - {name: rented, launcher: {kind: planned}, region: gcp/europe-west4, chip: TPU-v6e,
     nodes: {max: 2, chips_per_node: 4}}
models:
  - {name: chat, architecture: Llama-3.1-8B, residency: [eu], spread: {cloud: 0.6}}
  - {name: us, architecture: Llama-3.1-8B}
deployments:
  - {model: chat, pool: own, engine: {kind: vllm}, layout: {tp: 2}, autoscale: {min: 1, max: 9}}
  - {model: us, pool: rented, engine: {kind: vllm}}
contracts:
  - {kind: reserved, name: r, pools: [own], price_usd_per_chip_hour: 2.0, nodes: {min: 2, max: 2},
     from: 2026-01-01, until: 2027-01-01, is_signed: true}
  - {kind: committed_spend, name: c, cloud: gcp, usd_per_year: 100000.0, discount: 0.25,
     units: {min: 1, max: 1}, from: 2026-01-01, until: 2026-07-01, is_signed: true}
"""


@pytest.mark.parametrize(
    ("on", "paid", "share"),
    [(None, 16, 0.75), (date(2026, 3, 1), 16, 0.75), (date(2026, 8, 1), 16, 1.0),
     (date(2027, 1, 1), 8, 1.0)],
)  # fmt: skip
def test_contracts_say_what_need_not_be_paid_while_they_hold(on, paid, share):
    known = world_of(load.parse(FLEET, source="contracts.yaml"), on=on)
    own, rented = known.stocks
    assert (own.chips, own.chips_paid, own.price_share) == (32, paid, 1.0)
    assert (rented.chips, rented.chips_paid, rented.price_share) == (8, 0, share)
    assert known.sites[0] == Sited(deployment="chat@own", pool="own", chips=2)
    assert known.residency == {"chat": "eu"}
    assert known.limits == (Limit(model="chat", kind="cloud", share_max=0.6),)
