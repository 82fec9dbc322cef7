"""A live fleet begins where its plan has replicas at this hour."""

import json
from datetime import UTC, datetime

import pytest

from argosy.control.scaling import LiveScaler, PlanUnreadableError, read_plan
from argosy.control.scaling.sites import sites_of
from argosy.fleet import load
from argosy.fleet.messages import ReplicaTable

FLEET = load.parse(
    """
fleet: planned
pools:
  - {name: a, launcher: {kind: ray, address: "h:1"}, region: aws/us-east-1, chip: H100-SXM,
     nodes: {max: 4}}
  - {name: b, launcher: {kind: ray, address: "h:1"}, region: gcp/us-east5, chip: TPU-v6e,
     nodes: {max: 4}}
models: [{name: chat, architecture: Llama-3.1-8B}]
deployments:
  - {model: chat, pool: a, replicas: 1, autoscale: {min: 0, max: 3}, engine: {kind: vllm},
     layout: {tp: 2}}
  - {model: chat, pool: b, replicas: 1, autoscale: {min: 1, max: 9}, engine: {kind: vllm}}
""",
    source="planned.yaml",
)
PLAN = {
    "schema": "argosy.plan/1", "fleet": "planned",
    "periods": [{"name": "2027", "begin": "2027-01-01", "until": "2027-07-01"},
                {"name": "2027-07", "begin": "2027-07-01", "until": "2028-01-01"}],
    "slots": [{"period": "2027", "hour": 0}, {"period": "2027", "hour": 12},
              {"period": "2027-07", "hour": 0}, {"period": "2027-07", "hour": 12}],
    "replicas": [{"model": "chat", "pool": "a", "chips": 2, "replicas": [1, 2, 2, 5]},
                 {"model": "chat", "pool": "a", "chips": 4, "replicas": [0, 0, 1, 0]}],
}  # fmt: skip


def at(*when: int) -> float:
    return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[misc]


def body(**changes: object) -> bytes:
    return json.dumps(PLAN | changes).encode()


@pytest.mark.parametrize(
    ("when", "count"),
    [((2026, 5, 1, 1), 1), ((2027, 5, 1, 11), 2), ((2027, 8, 1, 2), 3), ((2029, 8, 1, 13), 3)],
    ids=["before", "of the hour", "other layouts by their chips", "after, at its most"],
)
def test_counts_are_those_of_the_hour_within_the_bounds(when, count):
    counts = read_plan(body(), fleet="planned").counts(FLEET, at(*when))
    assert counts == {"chat@a": count, "chat@b": 1}


def test_scaling_begins_with_the_plan_s_replicas():
    scaler = LiveScaler(FLEET)
    scaler.begin_with(read_plan(body(), fleet="planned"))
    (one,) = scaler.decide(at(2027, 5, 1, 11), ReplicaTable(version=1, replicas=()))
    assert [target.replicas for target in one.decision.targets] == [2, 1]
    assert all("the plan's replicas" in target.reason for target in one.decision.targets)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"no", "it is no plan as argosy plan --json prints one"),
        (body(schema="argosy.plan/9"), "argosy.plan/1 can be read"),
        (body(fleet="other"), "a plan of fleet other, not of planned"),
        (body(replicas=[]), "found a conflict"),
    ],
)
def test_what_is_no_plan_of_this_fleet_says_why(text: bytes, said: str):
    with pytest.raises(PlanUnreadableError, match=said):
        read_plan(text, fleet="planned")


def test_chips_in_a_region_of_one_s_own_have_no_listed_price():
    text = """
fleet: own
pools: [{name: a, launcher: {kind: ray, address: "h:1"}, region: own/lab, chip: H100-SXM}]
models: [{name: chat, architecture: Llama-3.1-8B}]
deployments: [{model: chat, pool: a, engine: {kind: vllm}}]
"""
    (site,) = sites_of(load.parse(text, source="own.yaml"))["chat"]
    assert site.price_usd_per_hour is None
