"""Whom the control plane kills, sends back and replaces for its health; virtual time."""

import random

import pytest
from msgspec.structs import replace

from argosy.control.plan import DeploymentPlan
from argosy.control.quarantines import Quarantined, Quarantines
from argosy.control.reconcile import Drains, Settings, State, Step, reconcile
from argosy.fleet.config import SimulatedEngine
from argosy.fleet.messages import Command, Replica, ReplicaSpec
from argosy.policies.health import BudgetSettings, HealthSettings
from tests.laws.simulated_pools import PoolWorld, World

PATIENCE = Settings(health=HealthSettings(start_s_max=60.0), drain_s=30.0)
SHARE = PATIENCE.health.probation_share


def plan(replicas: int = 4, generation: int = 1) -> DeploymentPlan:
    spec = ReplicaSpec(
        fleet="f", name="", deployment="m@p", model="m", pool="p", engine=SimulatedEngine(),
        command=Command(argv=("run",), env={}), health_path="/health", generation=str(generation),
    )  # fmt: skip
    return DeploymentPlan(spec=spec, replicas=replicas, names="m")


class House:
    """One pool, whose replicas are over a network unless it is told otherwise."""

    def __init__(self, replicas: int = 4, *, is_local: bool = False, settings=PATIENCE) -> None:
        self.pool = PoolWorld("127.0.0.1" if is_local else "p")
        self.world = World(self.pool)
        self.world.pools = {"p": self.pool}
        self.wanted = {"m@p": plan(replicas)}
        self.settings = settings
        self.drains = Drains()
        self.busy = 0
        self.served_s = {}
        self.quarantines = Quarantines()
        self.notes = []
        self.step = Step(state=State(), actions=(), notes=(), waits=(), due_s=0.0)
        self.ticks(5)

    def ticks(self, count: float, by_s: float = 0.5) -> None:
        for _ in range(int(count / by_s)):
            self.world.now_s += by_s
            seen = self.world.look(self.step)
            seen = replace(
                seen,
                quarantines=self.quarantines,
                replicas={
                    name: replace(
                        one, served_s=self.served_s.get(name), requests_in_flight=self.busy
                    )
                    for name, one in seen.replicas.items()
                },
            )
            self.step = reconcile(
                self.step.state, self.wanted, seen, drains=self.drains, settings=self.settings,
                chance=random.Random(1),
            )  # fmt: skip
            self.notes += self.step.notes
            self.world.act(self.step)

    def row(self, name: str) -> Replica:
        return next(row for row in self.step.state.table.replicas if row.name == name)

    def states(self) -> dict[str, str]:
        return {row.name: row.state for row in self.step.state.table.replicas}

    def ready(self) -> set[str]:
        return {name for name, state in self.states().items() if state == "ready"}

    def freeze(self, *names: str, frozen: bool = True) -> None:
        for name in names:
            self.pool.processes[name].is_frozen = frozen

    def of(self, kind: str) -> list[str]:
        return [one.subject for one in self.notes if one.kind == kind]


def out(kind: str, name: str) -> Quarantines:
    one = Quarantined(kind=kind, name=name, pool="p", since_s=0.0, reason="unlike its peers")
    return Quarantines(out=(one,))


# ── the budget ───────────────────────────────────────────────────────────────────────────────


def test_a_rollout_that_drains_for_long_does_not_save_one_that_hangs():
    house = House(4)
    house.busy = 1
    house.wanted = {"m@p": plan(4, generation=2)}
    house.ticks(15)
    leaving = [name for name, state in house.states().items() if state == "stopping"]
    assert len(leaving) >= 2
    one = sorted(house.ready())[0]
    house.freeze(one)
    house.ticks(8)
    assert house.of("dead") == [one]


def test_a_crash_loop_holds_no_budget_and_another_that_hangs_is_killed():
    house = House(4)
    first, second, *_ = sorted(house.ready())
    house.freeze(first)
    house.pool.refuses = True
    house.ticks(60)
    assert house.of("dead")[0] == first
    assert house.of("crash-loop") == [first]
    house.freeze(second)
    house.ticks(8)
    assert second in house.of("dead")


def test_one_whose_answers_reach_the_gateways_is_not_killed():
    house = House(4)
    one = sorted(house.ready())[0]
    house.freeze(one)
    for _ in range(20):
        house.served_s[one] = house.world.now_s
        house.ticks(1)
    assert house.states()[one] == "suspect"
    assert "the gateway had an answer from" in house.row(one).reason
    house.ticks(6)
    assert house.of("dead") == [one]


def test_when_all_hang_one_is_tried_after_a_while_and_shows_the_way():
    house = House(4)
    names = sorted(house.ready())
    house.freeze(*names)
    house.ticks(290)
    assert house.of("dead") == []
    assert "rather the prober's own network" in house.row(names[0]).reason
    house.ticks(15)
    assert len(house.of("dead")) > 1, "one that came back was the witness against the others"
    house.ticks(30)
    assert len(house.ready()) == 4


# ── probation ────────────────────────────────────────────────────────────────────────────────


def killed_and_back(*, is_local: bool) -> tuple[House, str]:
    house = House(4, is_local=is_local)
    one = sorted(house.ready())[0]
    house.freeze(one)
    house.ticks(12)
    assert house.of("dead") == [one]
    assert house.states()[one] == "ready"
    return house, one


def test_who_was_killed_comes_back_with_less_until_its_probation_is_over():
    house, one = killed_and_back(is_local=False)
    assert house.row(one).share == SHARE
    assert house.row(one).reason.endswith("; on probation: it hung and was killed")
    assert {house.row(name).share for name in house.ready() - {one}} == {1.0}
    due_s = house.step.due_s
    assert due_s - house.world.now_s < PATIENCE.health.probation_s
    house.ticks(600, by_s=5.0)
    assert house.row(one).share == 1.0
    assert house.row(one).reason == "answers its probes"


def test_a_first_start_is_on_no_probation_nor_who_ended_of_itself():
    house = House(2)
    house.pool.processes["m-1"].ended = "killed by SIGKILL"
    house.ticks(5)
    assert house.states()["m-1"] == "ready"
    assert {row.share for row in house.step.state.table.replicas} == {1.0}


def test_on_probation_a_single_failed_probe_sends_it_back_for_longer():
    house, one = killed_and_back(is_local=False)
    house.freeze(one)
    house.ticks(0.5)
    assert house.of("dead") == [one, one]
    assert "a fault on probation (it hung and was killed)" in house.row(one).reason
    house.ticks(4)
    assert house.states()[one] == "dead", "it waits for 5 s at least"
    house.ticks(8)
    assert house.states()[one] == "ready"


def test_on_the_prober_s_own_machine_a_hang_puts_nobody_on_probation():
    house, one = killed_and_back(is_local=True)
    assert {row.share for row in house.step.state.table.replicas} == {1.0}
    house.freeze(one)
    house.ticks(1)
    assert house.of("dead") == [one], "that it hung once makes it no worse than others here"


# ── quarantine ───────────────────────────────────────────────────────────────────────────────


def test_a_quarantined_replica_takes_less_and_goes_when_another_is_ready():
    house = House(4)
    house.pool.start_s = 20.0
    house.quarantines = out("replica", "m-2")
    house.ticks(10)
    assert house.states()["m-2"] == "ready"
    assert house.row("m-2").share == SHARE
    assert house.row("m-2").reason.endswith("; in quarantine: unlike its peers")
    house.ticks(20)
    assert house.ready() == {"m-1", "m-3", "m-4", "m-5"}
    [why] = [one.reason for one in house.notes if one.kind == "remove"]
    assert why == "in quarantine: unlike its peers"


def test_a_quarantined_node_is_emptied_one_after_the_other():
    house = House(4)  # all on n1
    house.quarantines = out("node", "n1")
    house.ticks(30)
    created = house.of("create")
    assert len(created) > 4
    fewest = 4
    for _ in range(20):
        house.ticks(1)
        fewest = min(fewest, len(house.ready()))
    assert fewest == 4


def test_who_comes_out_of_quarantine_stays_on_probation():
    house = House(4)
    house.pool.start_s = 100.0
    house.quarantines = out("replica", "m-2")
    house.ticks(10)
    house.quarantines = Quarantines()
    house.ticks(5)
    assert house.row("m-2").share == SHARE
    assert house.row("m-2").reason.endswith("; on probation: it was in quarantine")
    house.ticks(120)
    assert house.ready() == {"m-1", "m-2", "m-3", "m-4"}, "the substitute was one too many"


def test_who_starts_where_others_were_unlike_is_on_probation():
    house = House(2)
    house.quarantines = Quarantines(on_trial=out("node", "n1").out)
    house.wanted = {"m@p": plan(3)}
    house.ticks(5)
    assert [house.row(name).share for name in ("m-1", "m-2", "m-3")] == [1.0, 1.0, SHARE]


def test_nothing_starts_in_a_quarantined_pool_and_what_serves_there_serves_on():
    house = House(2)
    house.quarantines = out("pool", "p")
    house.ticks(30)
    assert house.ready() == {"m-1", "m-2"}
    assert house.of("create") == ["m-1", "m-2"]


# ── crash loops ──────────────────────────────────────────────────────────────────────────────


def test_a_generation_that_does_not_come_up_leaves_the_one_before_and_is_told_plainly():
    house = House(3)
    house.pool.refuses = True
    house.wanted = {"m@p": plan(3, generation=2)}
    house.ticks(90)
    assert house.ready() == {"m-1", "m-2", "m-3"}
    assert house.of("crash-loop") == ["m-4"]
    [told] = [one for one in house.notes if one.kind == "stuck"]
    assert told.subject == "m@p"
    assert told.reason.startswith("generation 2 does not come up: m-4 is in a crash loop: 10 ")
    assert "3 replicas of the one before stay, 3 of them ready" in told.reason
    assert told.reason.endswith("Last: cannot start: the image is not there")
    house.pool.refuses = False
    house.ticks(100)
    assert {one.spec.generation for one in house.step.state.records.values()} == {"2"}


def test_one_of_the_generation_before_that_ends_meanwhile_is_started_again():
    house = House(3)
    house.pool.refuses = True
    house.wanted = {"m@p": plan(3, generation=2)}
    house.ticks(90)
    house.pool.processes["m-1"].ended = "killed by SIGKILL"
    house.ticks(5)
    record = house.step.state.records["m-1"]
    assert (record.spec.generation, record.leaving) == ("1", None)
    assert "m-1" not in house.of("remove")
    house.pool.refuses = False
    house.ticks(100)
    assert {one.spec.generation for one in house.step.state.records.values()} == {"2"}


def test_a_generation_that_comes_up_and_dies_again_and_again_does_not_take_over():
    settings = replace(
        PATIENCE, health=replace(PATIENCE.health, crash_restarts=3), budget=BudgetSettings()
    )
    house = House(2, settings=settings)
    house.wanted = {"m@p": plan(2, generation=2)}
    for _ in range(60):
        house.ticks(2)
        for name, process in house.pool.processes.items():
            if process.spec.generation == "2" and process.listens_at_s < house.world.now_s - 1:
                process.ended = f"{name} exited with status 7"
    assert {"m-1", "m-2"} & house.ready(), "one went when the first of the new was ready"
    assert house.of("stuck")


@pytest.mark.parametrize("restarts", [0, 5])
def test_a_crash_loop_is_shown_while_it_goes_on(restarts):
    house = House(1)
    house.pool.refuses = True
    house.pool.processes["m-1"].ended = "killed by SIGKILL"
    house.ticks(60 + 10 * restarts)
    assert "crash loop: 1" in house.row("m-1").reason
