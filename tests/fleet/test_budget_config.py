"""Tenants' budgets, weights and reservations in a fleet file, and the shares of the gateway."""

import msgspec
import pytest

from argosy.engines.registry import adapter
from argosy.fleet import load
from argosy.fleet.config import Budget, EndpointEngine, QueueTimeouts
from argosy.policies.admission.work import settings_of

FLEET = """\
fleet: small
pools:
  - {name: here, launcher: {kind: local}}
models:
  - {name: tiny}
deployments:
  - {model: tiny, pool: here, engine: {kind: simulated}}
"""


def parsed(text: str):
    return load.parse(FLEET + text, source="fleet.yaml")


def only_problem(text: str):
    with pytest.raises(load.FleetFileError) as refused:
        parsed(text)
    (problem,) = refused.value.problems
    return problem


def test_a_tenant_without_more_has_no_budget_no_reservation_and_weight_one():
    (tenant,) = parsed("tenants: [{name: acme}]\n").tenants
    assert (tenant.budgets, tenant.reserved_tokens_per_s, tenant.weight) == ((), None, 1.0)


def test_budgets_are_read_as_they_are_written():
    (tenant,) = parsed(
        "tenants: [{name: acme, budgets: [{tokens: 10, per: day}, {requests: 5, per: ever}]}]\n"
    ).tenants
    assert tenant.budgets == (Budget(tokens=10, per="day"), Budget(requests=5, per="ever"))


@pytest.mark.parametrize(
    ("tenant", "path", "told"),
    [
        ("budgets: [{per: day}]", "tenants[0].budgets[0]", "limits nothing. Write tokens: N"),
        (
            "budgets: [{tokens: 1, per: day}, {requests: 1, per: day}]",
            "tenants[0].budgets[1].per",
            '= "day" is a second budget of acme',
        ),
        ("budgets: [{tokens: 1, per: week}]", "tenants[0].budgets[0].per", "minute, hour, day"),
        ("budgets: [{tokens: 1}]", "tenants[0].budgets[0]", "lacks the field per. The window"),
        ("budgets: [{tokens: 0, per: day}]", "tenants[0].budgets[0].tokens", ">= 1"),
        ("weight: 0", "tenants[0].weight", "> 0"),
        (
            "reserved_tokens_per_s: 100",
            "tenants[0].reserved_tokens_per_s",
            "= 100, but acme is of the consumer tier. Write tier: enterprise",
        ),
    ],
)
def test_what_a_tenant_cannot_have_is_refused_where_it_stands(tenant, path, told):
    problem = only_problem(f"tenants:\n  - {{name: acme, {tenant}}}\n")
    assert problem.path == path
    assert problem.line is not None
    assert told in problem.message


@pytest.mark.parametrize("share", ["0", "1.1", "-1"])
def test_a_share_is_more_than_nothing_and_at_most_all(share):
    assert only_problem(f"gateway: {{tenant_share_max: {share}}}\n").path == (
        "gateway.tenant_share_max"
    )


def test_batch_cannot_hold_more_than_batch_and_consumer_together():
    problem = only_problem("gateway: {batch_share_max: 0.8, consumer_share_max: 0.5}\n")
    assert problem.path == "gateway.batch_share_max"
    assert "Lower this one or raise the other." in problem.message


def test_the_time_to_wait_is_set_by_tier():
    timeouts = parsed("gateway: {queue_timeout_s: {batch: 5}}\n").gateway.queue_timeout_s
    assert timeouts == QueueTimeouts(batch=5.0)
    assert only_problem("gateway: {queue_timeout_s: {gold: 5}}\n").path == (
        "gateway.queue_timeout_s.gold"
    )


def test_an_endpoint_says_its_slots_or_they_are_unknown():
    engine = adapter(EndpointEngine())
    assert engine.abilities(EndpointEngine()).slots is None
    assert engine.abilities(EndpointEngine(slots=64)).slots == 64


def test_a_sole_tenant_may_hold_every_slot():
    settings = settings_of(parsed("tenants: [{name: acme}]\n"))
    assert settings.tenant_share_max == settings.lower_share_max == 1.0
    assert settings.batch_share_max == 0.5  # a key may still be made for another tier


def test_caps_hold_where_there_is_somebody_to_protect():
    fleet = parsed("tenants: [{name: a, tier: enterprise}, {name: b, weight: 3}]\n")
    settings = settings_of(fleet)
    assert (settings.tenant_share_max, settings.lower_share_max) == (0.75, 0.9)
    assert settings.tenants["b"].weight == 3.0
    only_batch = msgspec.structs.replace(
        fleet, tenants=(msgspec.structs.replace(fleet.tenants[0], tier="batch"),)
    )
    assert settings_of(only_batch).batch_share_max == 1.0
