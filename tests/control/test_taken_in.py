"""A control plane that takes over finds replicas that the one before had not yet put on record."""

import random

from argosy.control.plan import DeploymentPlan
from argosy.control.reconcile import Drains, Seen, Settings, State, reconcile
from argosy.control.records import SeenReplica
from argosy.fleet.config import SimulatedEngine
from argosy.fleet.messages import Command, ObservedReplica, ReplicaSpec
from argosy.policies.health import Probe

PLAN = DeploymentPlan(
    spec=ReplicaSpec(
        fleet="f",
        name="",
        deployment="m@p",
        model="m",
        pool="p",
        engine=SimulatedEngine(),
        command=Command(argv=("run",), env={}),
        health_path="/health",
        generation="g1",
    ),
    replicas=1,
    names="m",
)


def found(name: str, generation: str) -> ObservedReplica:
    return ObservedReplica(
        name=name, generation=generation, state="listening", url=f"http://p/{name}"
    )


def tick(state: State, seen: Seen):
    return reconcile(
        state, {"m@p": PLAN}, seen, drains=Drains(), settings=Settings(), chance=random.Random(1)
    )


def test_one_as_it_is_wanted_is_taken_in_and_none_is_started_beside_it():
    one = found("m-7", "g1")
    step = tick(State(), Seen(now_s=10.0, strays=(("p", one),)))
    assert list(step.state.records) == ["m-7"]
    assert step.actions == ()
    assert [(note.kind, note.subject) for note in step.notes] == [("adopt", "m-7")]
    well = SeenReplica(
        observed=one, observed_at_s=12.0, probes=(Probe(ok=True, seconds=0.0, detail="HTTP 200"),)
    )
    step = tick(step.state, Seen(now_s=12.0, replicas={"m-7": well}))
    assert [row.state for row in step.state.table.replicas] == ["ready"]


def test_one_that_nobody_knows_is_told_and_left_alone():
    step = tick(State(), Seen(now_s=10.0, strays=(("p", found("m-1", "g0")),)))
    assert [note.kind for note in step.notes] == ["stray", "create"]
    assert list(step.state.records) == ["m-2"]
    assert not any(getattr(action, "name", "") == "m-1" for action in step.actions)
