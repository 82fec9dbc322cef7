"""Residency holds whatever fails: of any fleet that is accepted, whatever is lost and comes back.

No replica of a model is ever started outside of where the model may stay, and none that may answer
in its place is; and when all is back, all that is wanted is there again.
"""

import json
import random

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from argosy.cli.pretending import domains_of
from argosy.control.plan import plan_deployments
from argosy.control.reconcile import Drains, Settings, Start, State, Step, reconcile
from argosy.fleet import load
from argosy.fleet.areas import may_stay
from argosy.fleet.config import Fleet
from argosy.policies.lifecycle import Settings as Pace
from tests.laws.simulated_pools import PoolWorld, World

PLACES = {
    "p-us": {"region": "azure/westus3", "chip": "H100-SXM"},
    "q-us": {"region": "aws/us-east-2", "chip": "Trainium2"},
    "p-eu": {"region": "aws/eu-central-1", "chip": "H100-SXM"},
    "own": {"region": "own/frankfurt", "chip": "MI300X", "country": "DEU"},
}
MODELS = ("a", "b", "c")
RESIDENCIES = ((), ("us",), ("eu",), ("us", "eu"))
ANY_DOMAIN = ("azure", "aws", "own", "aws/us-east-2", "p-us", "own/frankfurt", "NVIDIA", "AMD")
PACE = Settings(drain_s=3.0, lost_s=5.0, pace=Pace(removal_interval_s=5.0))


def places_of(residency: tuple[str, ...]) -> list[str]:
    return [
        name
        for name, place in PLACES.items()
        if may_stay(residency, place["region"], place.get("country"))
    ]


@st.composite
def fleets(draw: st.DrawFn, *, pools_anywhere: bool = False) -> Fleet:
    """Any that the rules accept."""
    models, deployments = [], []
    for name in MODELS:
        residency = draw(st.sampled_from(RESIDENCIES))
        others = st.sampled_from([one for one in MODELS if one != name])
        fallback = draw(st.lists(others, unique=True)) if pools_anywhere else []
        models.append({"name": name, "residency": residency, "fallback": fallback})
        places = list(PLACES) if pools_anywhere else places_of(residency)
        deployments += [
            {"model": name, "pool": pool, "replicas": 2, "engine": {"kind": "simulated"}}
            for pool in sorted(draw(st.sets(st.sampled_from(places), min_size=1)))
        ]
    pools = [{"name": name, "launcher": {"kind": "local"}, **PLACES[name]} for name in PLACES]
    value = {"fleet": "f", "pools": pools, "models": models, "deployments": deployments}
    try:
        return load.parse(json.dumps(value), source="f.yaml")
    except load.FleetFileError:
        reject()


@st.composite
def events(draw: st.DrawFn) -> list[tuple[str, str, int]]:
    """A domain that is lost or back, a pool that is drained or used again, a count that is held."""
    domains, pools = st.sampled_from(ANY_DOMAIN), st.sampled_from(tuple(PLACES))
    lost = st.tuples(st.sampled_from(["lose", "back"]), domains, st.just(0))
    drained = st.tuples(st.sampled_from(["drain", "use"]), pools, st.just(0))
    held = st.tuples(st.just("hold"), st.sampled_from(MODELS), st.integers(0, 5))
    return draw(st.lists(st.one_of(lost, drained, held), min_size=4, max_size=12))


class Losing:
    """A fleet's control plane before pools that are lost and come back."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.world = World(*(PoolWorld(pool.name) for pool in fleet.pools))
        self.wanted = {one.name: one for one in plan_deployments(fleet, weights={}, threads={})}
        self.lost: set[str] = set()
        self.drained: set[str] = set()
        self.step = Step(state=State(), actions=(), notes=(), waits=(), due_s=0.0)
        self.chance = random.Random(1)

    def happens(self, what: str, where: str, count: int) -> None:
        match what:
            case "lose":
                self.lost.add(where)
            case "back":
                self.lost.discard(where)
            case "drain":
                self.drained.add(where)
            case "use":
                self.drained.discard(where)
            case _:
                for name, plan in self.wanted.items():
                    if plan.spec.model == where:
                        self.wanted[name] = type(plan)(
                            spec=plan.spec, replicas=count, names=plan.names
                        )
        for pool in self.fleet.pools:
            world = self.world.pools[pool.name]
            world.is_unseen = not self.lost.isdisjoint(domains_of(pool))
            if world.is_unseen:
                world.processes.clear()

    def ticks(self, count: int) -> None:
        for _ in range(count):
            self.world.now_s += 1.0
            self.step = reconcile(
                self.step.state,
                self.wanted,
                self.world.look(self.step),
                drains=Drains(pools=frozenset(self.drained)),
                settings=PACE,
                chance=self.chance,
            )
            for action in self.step.actions:
                if isinstance(action, Start):
                    self.check(action.spec.model, action.spec.pool)
            self.world.act(self.step)

    def check(self, model: str, pool: str) -> None:
        place, residency = self.fleet.pool(pool), self.fleet.model(model).residency
        assert may_stay(residency, str(place.region), place.country), (model, pool)


@settings(max_examples=30, deadline=None)
@given(fleet=fleets(), happening=events())
def test_no_replica_is_ever_started_outside_of_its_models_residency(fleet, happening):
    losing = Losing(fleet)
    losing.ticks(5)
    for event in happening:
        losing.happens(*event)
        losing.ticks(8)
    for domain in ANY_DOMAIN:
        losing.happens("back", domain, 0)
    losing.drained.clear()
    losing.ticks(150)  # removals are capped
    rows = losing.step.state.table.replicas
    for name, plan in losing.wanted.items():
        assert sum(row.deployment == name for row in rows) == plan.replicas
    assert {row.state for row in rows} <= {"ready"}


def test_a_fallback_outside_of_a_models_residency_is_refused_with_what_would_work():
    pools = [{"name": name, "launcher": {"kind": "local"}, **PLACES[name]} for name in PLACES]
    models = [{"name": "a", "residency": ["us"], "fallback": ["b"]}, {"name": "b"}]
    engine = {"kind": "simulated"}
    deployments = [
        {"model": model, "pool": pool, "engine": engine}
        for model, pool in (("a", "p-us"), ("b", "q-us"), ("b", "own"))
    ]
    value = {"fleet": "f", "pools": pools, "models": models, "deployments": deployments}
    with pytest.raises(load.FleetFileError) as refused:
        load.parse(json.dumps(value), source="f.yaml")
    told = 'models[0].fallback[0] = "b" runs on own, in own/frankfurt, but a must stay in us.'
    assert told in str(refused.value)
    assert "Take it out" in str(refused.value)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(fleet=fleets(pools_anywhere=True))
def test_nothing_answers_in_a_models_place_outside_of_its_residency(fleet):
    for model in fleet.models:
        for one in fleet.deployments:
            if one.model in (model.name, *model.fallback):
                pool = fleet.pool(one.pool)
                assert may_stay(model.residency, str(pool.region), pool.country)
