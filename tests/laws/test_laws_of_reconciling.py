"""Whatever happens, the control plane never takes away what is needed, and ends where it should.

A state machine breaks pools, replicas and promises at random; then all is well again, and within
minutes exactly what is wanted is there, ready, and nothing else.
"""

import random

import msgspec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from argosy.control.plan import DeploymentPlan
from argosy.control.quarantines import Quarantined, Quarantines
from argosy.control.reconcile import Drains, Settings, State, Step, adopted, reconcile
from argosy.control.records import Record
from argosy.fleet.config import SimulatedEngine
from argosy.fleet.messages import Command, ReplicaSpec
from argosy.policies.health import BudgetSettings, HealthSettings
from tests.laws.simulated_pools import PoolWorld, World

POOLS = ("east", "west")
MODELS = ("m", "n")
PATIENCE = Settings(
    health=HealthSettings(
        start_s_max=60.0, restart_delay_s_max=5.0, probation_s=60.0, probation_delay_s_max=40.0
    ),
    budget=BudgetSettings(blind_s=30.0, blind_pool_s=20.0),
    drain_s=5.0,
    lost_s=20.0,
)
SETTLED_S = 900


def plan(model: str, pool: str, replicas: int, generation: int) -> DeploymentPlan:
    name = f"{model}@{pool}"
    spec = ReplicaSpec(
        fleet="f",
        name="",
        deployment=name,
        model=model,
        pool=pool,
        engine=SimulatedEngine(),
        command=Command(argv=("run",), env={}),
        health_path="/health",
        generation=str(generation),
    )
    return DeploymentPlan(spec=spec, replicas=replicas, names=name)


class Reconciling(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = World(*(PoolWorld(name) for name in POOLS))
        self.wanted = {one.name: one for one in (plan("m", "east", 3, 1), plan("n", "west", 2, 1))}
        self.drains = Drains()
        self.chance = random.Random(3)
        self.step = Step(state=State(), actions=(), notes=(), waits=(), due_s=0.0)
        self.before = self.step
        self.ticks(10)

    def ticks(self, count: int, by_s: float = 1.0) -> None:
        for _ in range(count):
            self.world.now_s += by_s
            self.before = self.step
            self.step = reconcile(
                self.step.state,
                self.wanted,
                self.world.look(self.step),
                drains=self.drains,
                settings=PATIENCE,
                chance=self.chance,
            )
            self.check_tick()
            self.world.act(self.step)

    def check_tick(self) -> None:
        """What one tick let go was not needed, and could be seen; what it created was missing."""
        old, new = self.before.state.records, self.step.state.records
        for one in self.wanted.values():
            own = [r for r in new.values() if r.spec.deployment == one.name and r.leaving is None]
            if any(r.name not in old for r in own):
                seen = sum(r.unseen_since_s is None for r in own)
                assert seen <= one.replicas + PATIENCE.pace.surge
        ready = {
            model: sum(
                r.row.state == "ready" and r.leaving is None and r.spec.model == model
                for r in new.values()
            )
            for model in MODELS
        }
        for name, record in new.items():
            if record.leaving is None or old[name].leaving is not None:
                continue
            assert record.unseen_since_s is None or record.life == "down"
            is_well = record.life == "up" and not record.health.probes_failed
            if old[name].row.state == "ready" and is_well:
                model = record.spec.model
                needed = sum(
                    one.replicas
                    for one in self.wanted.values()
                    if one.spec.model == model
                    and one.spec.pool not in self.drains.pools
                    and not self.world.pools[one.spec.pool].is_unseen
                )
                no_room = len(self.step.state.no_room_until_s)
                is_wanted = any(one.spec.model == model for one in self.wanted.values())
                assert not is_wanted or ready[model] >= needed - no_room

    @rule(seconds=st.integers(1, 20))
    def time_passes(self, seconds: int) -> None:
        self.ticks(seconds)

    @rule(which=st.randoms(use_true_random=False), how=st.sampled_from(["ends", "freezes"]))
    def a_process_is_hurt(self, which, how: str) -> None:
        standing = [p for pool in self.world.pools.values() for p in pool.standing()]
        if standing:
            one = which.choice(standing)
            if how == "ends":
                one.ended = "killed by SIGKILL"
            else:
                one.is_frozen = True
        self.ticks(1)

    @rule(
        pool=st.sampled_from(POOLS), what=st.sampled_from(["unseen", "loses", "refuses", "stale"])
    )
    def a_pool_fails_or_lies(self, pool: str, what: str) -> None:
        world = self.world.pools[pool]
        world.is_unseen = what == "unseen"
        world.loses_starts = what == "loses"
        world.refuses = what == "refuses"
        world.is_stale = what == "stale"
        self.ticks(1)

    @rule(pool=st.sampled_from(POOLS))
    def a_pool_is_well(self, pool: str) -> None:
        self.heal(pool)
        self.ticks(1)

    @rule(
        pool=st.sampled_from(POOLS), room=st.integers(1, 6), start_s=st.sampled_from([0.5, 10, 80])
    )
    def a_pool_changes(self, pool: str, room: int, start_s: float) -> None:
        self.world.pools[pool].room = room
        self.world.pools[pool].start_s = start_s
        self.ticks(1)

    @rule(
        model=st.sampled_from(MODELS),
        pool=st.sampled_from(POOLS),
        replicas=st.integers(0, 4),
        generation=st.integers(1, 3),
    )
    def something_else_is_wanted(self, model, pool, replicas, generation) -> None:
        one = plan(model, pool, replicas, generation)
        self.wanted = {**self.wanted, one.name: one}
        self.ticks(1)

    @rule(which=st.randoms(use_true_random=False))
    def a_deployment_is_wanted_no_more(self, which) -> None:
        if len(self.wanted) > 1:
            gone = which.choice(sorted(self.wanted))
            self.wanted = {name: one for name, one in self.wanted.items() if name != gone}
        self.ticks(1)

    @rule(pools=st.sets(st.sampled_from(POOLS), max_size=1))
    def a_pool_is_drained(self, pools: set[str]) -> None:
        self.drains = Drains(pools=frozenset(pools))
        self.ticks(1)

    @rule(
        kind=st.sampled_from(["replica", "node", "pool"]),
        pool=st.sampled_from(POOLS),
        which=st.randoms(use_true_random=False),
    )
    def something_is_unlike_its_peers(self, kind, pool: str, which) -> None:
        names = sorted(self.step.state.records)
        if names:
            name = {"replica": which.choice(names), "node": "n1", "pool": pool}[kind]
            one = Quarantined(kind=kind, name=name, pool=pool, since_s=0.0, reason="slow")
            self.world.quarantines = Quarantines(out=(*self.world.quarantines.out, one))
        self.ticks(1)

    @rule(is_trial=st.booleans())
    def what_was_unlike_its_peers_is_used_again(self, is_trial: bool) -> None:
        before = self.world.quarantines
        self.world.quarantines = Quarantines(on_trial=before.out if is_trial else ())
        self.ticks(1)

    @rule()
    def another_control_plane_takes_over(self) -> None:
        saved = msgspec.json.encode(list(self.step.state.records.values()))
        records = msgspec.json.decode(saved, type=list[Record])
        state = State(records=adopted(records), table=self.step.state.table)
        self.step = msgspec.structs.replace(self.step, state=state)
        self.world.failed, self.world.accepted, self.world.stopped = {}, set(), set()
        self.ticks(1)

    def heal(self, pool: str) -> None:
        world = self.world.pools[pool]
        world.is_unseen = world.loses_starts = world.refuses = world.is_stale = False
        world.room, world.start_s = 99, 1.0

    def teardown(self) -> None:
        """All is well again: what is wanted comes about, and nothing else stays."""
        for pool in POOLS:
            self.heal(pool)
        self.drains = Drains()
        self.world.quarantines = Quarantines()
        self.ticks(SETTLED_S)
        assert {row.share for row in self.step.state.table.replicas} <= {1.0}
        for name, one in self.wanted.items():
            own = [r for r in self.step.state.records.values() if r.spec.deployment == name]
            assert len(own) == one.replicas
            assert {r.row.state for r in own} <= {"ready"}, [r.row for r in own]
            assert {r.spec.generation for r in own} <= {one.spec.generation}
        running = {n for pool in self.world.pools.values() for n in pool.processes}
        assert running == set(self.step.state.records)


TestReconciling = Reconciling.TestCase
TestReconciling.settings = settings(
    max_examples=60,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
