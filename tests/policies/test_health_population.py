"""How often like replicas are wrongly told apart, and how soon a slow one is found: a population.

Not what `peers.py` assumes: a decoding step takes `a + c x running`, not a power; noise is
lognormal, partly lasting (chips, nodes, the mix of requests), partly of one window; loads are
skewed and wander; prefix caches have luck that lasts minutes; errors come singly and in bursts that
all share; replicas restart and are cold.
Longer: `python -m tests.policies.test_health_population --hours 2000`.
"""

import argparse
import sys

import numpy as np
import pytest

from argosy.policies.health import (
    PeerSeen,
    PeerSettings,
    PeersState,
    PeersView,
    Quarantine,
    Release,
    compare,
)

SETTINGS = PeerSettings()
WINDOW_S = 10.0
STEP_S, STEP_S_PER_RUNNING = 0.010, 0.0005  # half of the time on weights at 20 running
SLOTS, ANSWER_TOKENS = 32, 200


class Population:
    """Replicas of one deployment, `per_node` on a node; windows come from `next()`."""

    def __init__(self, replicas, *, seed, per_node=2, follows_load=0.0, pools=1, noise=0.10):
        self.chance = np.random.default_rng(seed)
        self.n, self.noise = replicas, noise
        self.follows_load = follows_load  # 1: a slow one gets no more in flight than others
        self.nodes = np.arange(replicas) // per_node
        self.pools = self.nodes % pools
        normal = self.chance.normal
        node_factor = normal(0, 0.03, self.nodes.max() + 1)[self.nodes]
        self.factor = np.exp(normal(0, 0.04, replicas) + node_factor)
        self.skew = normal(0, 0.2, replicas)
        self.wander = normal(0, 0.35, replicas)
        self.mix = normal(0, 0.05, replicas)
        self.luck = normal(0, 0.5, replicas)
        self.luck_lasting = normal(0, 0.3, replicas)
        self.demand = normal(0, 0.3)
        self.age_s = self.chance.uniform(0, 86_400, replicas)
        self.slow = np.ones(replicas)  # times the speed
        self.slow_ttft = np.ones(replicas)
        self.failing = np.zeros(replicas)
        self.burst = 0
        self.out = [None] * replicas
        self.now_s = 1000.0
        self.state = PeersState()
        self.needed = max(1, int(0.7 * replicas))

    def _walk(self, at, deviation, time_s):
        """One window of an Ornstein-Uhlenbeck process."""
        keep = np.exp(-WINDOW_S / time_s)
        size = None if np.ndim(at) == 0 else self.n
        return keep * at + self.chance.normal(0, deviation * np.sqrt(1 - keep**2), size)

    def next(self):
        chance = self.chance
        self.now_s += WINDOW_S
        self.wander = self._walk(self.wander, 0.35, 60.0)
        self.mix = self._walk(self.mix, 0.05, 60.0)
        self.luck = self._walk(self.luck, 0.5, 300.0)
        self.demand = self._walk(self.demand, 0.3, 1800.0)
        self.age_s += WINDOW_S
        self.age_s[chance.random(self.n) < WINDOW_S / 86_400] = 0.0
        cold = np.where(self.age_s < 90.0, 0.7, 1.0)
        speed = self.factor * self.slow * cold
        asked = 8.0 * np.exp(self.demand + self.skew + self.wander)
        running = np.minimum(SLOTS, asked * speed ** -(1.0 - self.follows_load))
        is_out = np.array([out is not None for out in self.out])
        running = np.where(is_out, 0.0, running)
        pause = chance.normal(0, self.noise, self.n)
        step_s = (STEP_S + STEP_S_PER_RUNNING * running) / speed * np.exp(self.mix + pause)
        tokens = chance.poisson(running * WINDOW_S / step_s)
        begun = chance.poisson(tokens / ANSWER_TOKENS)
        hit = 1.0 / (1.0 + np.exp(-(self.luck + self.luck_lasting)))
        spread = np.exp(chance.normal(0, 0.6, self.n) / np.sqrt(np.maximum(1, begun)))
        queue = 1.0 / (1.0 - np.minimum(0.95, running / (SLOTS + 1)))
        ttft_s = (0.05 + 0.4 * (1.0 - hit) * spread) * queue / speed * self.slow_ttft
        self.burst = 3 if chance.random() < 0.001 else max(0, self.burst - 1)
        share = 0.003 + 0.1 * (self.burst > 0) + self.failing
        failed = chance.binomial(begun, np.minimum(1.0, share))
        return self._view(running, tokens, begun, ttft_s, failed)

    def _view(self, running, tokens, begun, ttft_s, failed):
        return PeersView(
            now_s=self.now_s,
            window_s=WINDOW_S,
            needed={"chat": self.needed},
            replicas=tuple(
                PeerSeen(
                    replica=f"chat-{i}",
                    deployment="chat",
                    like="chat/1",
                    pool=f"pool-{self.pools[i]}",
                    node=f"node-{self.nodes[i]}",
                    age_s=float(self.age_s[i]),
                    out=self.out[i],
                    running_mean=float(running[i]),
                    in_flight_mean=float(running[i]),
                    tokens_out=int(tokens[i]),
                    first_tokens=int(begun[i]),
                    ttft_s_p50=float(ttft_s[i]) if begun[i] else None,
                    requests_ended=int(begun[i]),
                    requests_failed=int(failed[i]),
                )
                for i in range(self.n)
            ),
        )

    def step(self, settings=SETTINGS):
        """One window; what is decided is done."""
        self.state, decided = compare(self.state, self.next(), settings)
        for one in decided:
            for name in one.replicas:
                out = one.kind if isinstance(one, Quarantine) else None
                self.out[int(name.removeprefix("chat-"))] = out
        return decided


def false_quarantines(replicas, hours, seed, **population):
    """Of `hours` replica-hours: replicas taken out, and each decision."""
    world = Population(replicas, seed=seed, **population)
    decided = []
    for _ in range(round(hours / replicas * 3600 / WINDOW_S)):
        decided += [one for one in world.step() if isinstance(one, Quarantine)]
    return sum(len(one.replicas) for one in decided), decided


def found_after_s(replicas, seed, *, pace=0.6, limit_s=600.0, **population):
    """Until a replica that becomes slow, after ten minutes, is out; None: not within the limit."""
    world = Population(replicas, seed=seed, **population)
    world.age_s += 86_400.0
    for _ in range(60):
        world.step()
    world.slow[0] = pace
    world.out[0] = None
    for window in range(round(limit_s / WINDOW_S)):
        world.step()
        if world.out[0] is not None:
            return (window + 1) * WINDOW_S
    return None


def test_in_fifty_replica_hours_nobody_is_taken_out_wrongly():
    assert false_quarantines(16, 40.0, seed=11)[0] == 0
    assert false_quarantines(4, 10.0, seed=12)[0] == 0


@pytest.mark.parametrize("follows_load", [0.0, 1.0])
def test_a_replica_at_0_6_times_the_pace_is_found_within_two_minutes(follows_load):
    times = [found_after_s(12, 100 + seed, follows_load=follows_load) for seed in range(6)]
    assert all(one is not None and one <= 120.0 for one in times)


def test_a_replica_that_is_well_again_comes_back_and_stays():
    world = Population(12, seed=5)
    world.age_s += 86_400.0
    world.slow[0] = 0.5
    for _ in range(20):
        world.step()
    assert world.out[0] is not None
    world.slow[0] = 1.0
    decided = [one for _ in range(60) for one in world.step()]
    assert [type(one) for one in decided] == [Release]
    assert world.out == [None] * 12


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--hours", type=float, default=1000.0)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replicas", type=int, nargs="*", default=[2, 3, 4, 8, 16, 64])
    asked = parser.parse_args()
    for replicas in asked.replicas:
        gone, decided = false_quarantines(replicas, asked.hours, asked.seed)
        by = {one: sum(d.signal == one for d in decided) for one in ("pace", "ttft", "errors")}
        line = f"{replicas:3} replicas: {gone} of {asked.hours:g} h wrongly out {by}"
        for follows in (0.0, 1.0):
            times = [
                found_after_s(replicas, asked.seed + n, follows_load=follows)
                for n in range(asked.seeds)
            ]
            soon = sum(one is not None and one <= 120.0 for one in times)
            line += f"; 0.6 x found in 120 s: {soon / asked.seeds:.1%} (follows load {follows:g})"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
