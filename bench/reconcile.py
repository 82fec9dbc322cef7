"""One tick of the control plane at 2,000 replicas on 100 pools, and its memory over much churn.

    python -m bench.reconcile [--replicas N] [--pools N] [--ticks N]

Pure: `reconcile` on what a world of pools in virtual time shows (`tests/laws/simulated_pools.py`).
A tick at rest, a tick while a fifth of all replicas are being replaced, and one after a pool's
loss; the look at the pools, which live costs a launcher's `observe`, is not counted.
"""

import argparse
import gc
import random
import statistics
import time

import psutil
from msgspec.structs import replace

from argosy.control.plan import DeploymentPlan
from argosy.control.reconcile import Drains, Settings, State, Step, reconcile
from argosy.fleet.config import SimulatedEngine
from argosy.fleet.messages import Command, ReplicaSpec
from tests.laws.simulated_pools import PoolWorld, World


def main() -> None:
    """Print the times and the memory."""
    asking = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asking.add_argument("--replicas", type=int, default=2000)
    asking.add_argument("--pools", type=int, default=100)
    asking.add_argument("--ticks", type=int, default=3600)
    asked = asking.parse_args()
    fleet = _Fleet(asked.replicas, asked.pools)
    fleet.ticks(10)
    _told("at rest", fleet.ticks(50))
    fleet.roll(0.2)
    _told("a fifth is replaced", fleet.ticks(50))
    fleet.ticks(200)
    fleet.world.pools["p0"].is_unseen = True
    _told("a pool is lost", fleet.ticks(50))
    fleet.world.pools["p0"].is_unseen = False
    _churn(fleet, asked.ticks)


def _churn(fleet: "_Fleet", ticks: int) -> None:
    """A second each, in which some replica dies; now and then a deployment is replaced."""
    chance = random.Random(1)
    gc.collect()
    before = psutil.Process().memory_info().rss
    for tick in range(ticks):
        standing = [one for pool in fleet.world.pools.values() for one in pool.standing()]
        chance.choice(standing).ended = "killed by SIGKILL"
        if tick % 60 == 0:
            fleet.roll(0.02)
        fleet.ticks(1)
    gc.collect()
    grown = psutil.Process().memory_info().rss - before
    print(f"{ticks} ticks of churn: memory grew by {grown / 2**20:.1f} MiB")


def _told(what: str, seconds: list[float]) -> None:
    ranked = sorted(seconds)
    p50, p99 = statistics.median(ranked), ranked[int(0.99 * (len(ranked) - 1))]
    print(f"{what:<22} p50 {p50 * 1e3:6.1f} ms   p99 {p99 * 1e3:6.1f} ms", flush=True)


class _Fleet:
    def __init__(self, replicas: int, pools: int) -> None:
        self.world = World(*(PoolWorld(f"p{n}", room=10**6) for n in range(pools)))
        each = replicas // pools
        self.wanted = {one.name: one for one in (_plan(n, each, 1) for n in range(pools))}
        self._step = Step(state=State(), actions=(), notes=(), waits=(), due_s=0.0)
        self._chance = random.Random(0)
        self._generation = 1

    def roll(self, share: float) -> None:
        """Another engine for some deployments."""
        self._generation += 1
        for name in list(self.wanted)[: max(1, int(len(self.wanted) * share))]:
            plan = self.wanted[name]
            spec = replace(plan.spec, generation=str(self._generation))
            self.wanted[name] = replace(plan, spec=spec)

    def ticks(self, count: int) -> list[float]:
        """So many seconds; what each tick's decision took."""
        found: list[float] = []
        for _ in range(count):
            self.world.now_s += 1.0
            seen = self.world.look(self._step)
            began = time.perf_counter()
            self._step = reconcile(
                self._step.state, self.wanted, seen,
                drains=Drains(), settings=Settings(), chance=self._chance,
            )  # fmt: skip
            found.append(time.perf_counter() - began)
            self.world.act(self._step)
        return found


def _plan(number: int, replicas: int, generation: int) -> DeploymentPlan:
    model, pool = f"m{number % 20}", f"p{number}"
    spec = ReplicaSpec(
        fleet="bench",
        name="",
        deployment=f"{model}@{pool}",
        model=model,
        pool=pool,
        engine=SimulatedEngine(),
        command=Command(argv=("run",), env={}),
        health_path="/health",
        generation=str(generation),
    )
    return DeploymentPlan(spec=spec, replicas=replicas, names=f"{model}@{pool}")


if __name__ == "__main__":
    main()
