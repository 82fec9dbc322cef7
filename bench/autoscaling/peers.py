"""Other systems' scaling rules, re-implemented from what they document, behind our port.

Each class says where its behaviour and its defaults are from. What a rule needs measured first (the
rate or the concurrency that one replica sustains) it is given as measured for ours: `Tuned`. All
see what ours sees, as late as ours; what they do not count (queued requests that a gateway holds)
is counted as waiting in their engines.

No code of theirs is here, and none was run: a rule may behave otherwise in its own system.
"""

import math
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.policies.autoscaling import Decision, ModelView, Sustains, Target
from argosy.policies.autoscaling.loads import load_of, work_of
from argosy.simulator.scaling import AGE_S
from argosy.simulator.scenario import Group


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator measures before setting targets: one replica at the rate it sustains."""

    requests_per_s: float
    batch: float  # requests that it has at once
    sustains: Sustains


class Peer:
    """What all have in common: one deployment, and its replicas ready and pending together."""

    every_s = 10.0
    age_s = AGE_S

    def __init__(self, tuned: Tuned) -> None:
        self.tuned = tuned

    def sustains(self, group: Group) -> Sustains:
        return self.tuned.sustains

    def decide(self, view: ModelView) -> Decision:
        one = view.deployments[0]
        replicas = min(max(self.wanted(view), one.min), one.max)
        target = Target(deployment=one.name, replicas=replicas, reason=type(self).__name__)
        return Decision(targets=(target,))

    def wanted(self, view: ModelView) -> int:
        raise NotImplementedError


def has(view: ModelView) -> int:
    """Replicas, ready and pending."""
    return view.deployments[0].ready + len(view.deployments[0].pending)


def waiting(view: ModelView) -> int:
    return view.queued + view.deployments[0].waiting


def ongoing(view: ModelView) -> int:
    return view.queued + view.deployments[0].in_flight


def requests_per_s(view: ModelView, seconds: float) -> float:
    """Of the last so many seconds."""
    recent = view.recent
    steps = max(1, round(seconds / recent.step_s))
    came = recent.requests[-steps:]
    return sum(came) / (max(1, len(came)) * recent.step_s)


class _Hpa(Peer):
    """Kubernetes' HorizontalPodAutoscaler, autoscaling/v2, with its defaults.

    desired = ceil(metric / target) for an average value; unchanged within 10 %; up by at most the
    larger of 100 % and 4 in 15 s; down to the largest wish of the last 300 s. Synced each 15 s.
    Source: kubernetes.io, "Horizontal Pod Autoscaling" and the API reference of HPAScalingRules
    (Kubernetes 1.35).
    """

    every_s = 15.0
    tolerance = 0.1
    down_s = 300.0

    def __init__(self, tuned: Tuned) -> None:
        super().__init__(tuned)
        self.wishes: list[tuple[float, int]] = []

    def metric(self, view: ModelView) -> tuple[float, float]:
        """Its total, and the target of one replica."""
        raise NotImplementedError

    def wanted(self, view: ModelView) -> int:
        total, target = self.metric(view)
        replicas = max(1, has(view))
        wish = math.ceil(total / target)
        if abs(total / (target * replicas) - 1.0) <= self.tolerance:
            wish = replicas
        wish = min(wish, max(2 * replicas, replicas + 4))
        self.wishes = [one for one in self.wishes if one[0] > view.now_s - self.down_s]
        self.wishes.append((view.now_s, wish))
        return wish if wish >= replicas else min(replicas, max(one for _, one in self.wishes))


class KedaQueue(_Hpa):
    """KEDA on vLLM's waiting requests: 5 a replica.

    Source: vLLM production stack 0.1.9, "Autoscaling with KEDA" (vllm:num_requests_waiting,
    threshold 5, polled each 15 s); KEDA 2.x feeds it to an HPA as an average value.
    """

    def metric(self, view: ModelView) -> tuple[float, float]:
        return waiting(view), 5.0


class HpaConcurrency(_Hpa):
    """An HPA on requests in a replica, waiting ones included, at `share` of what it sustains.

    Source: as for `_Hpa`; the metric is what KServe's and llm-d's guides propose instead of
    utilisation (running and waiting requests of vLLM). The target is ours to measure.
    """

    def __init__(self, tuned: Tuned, share: float = 0.8) -> None:
        super().__init__(tuned)
        self.share = share

    def metric(self, view: ModelView) -> tuple[float, float]:
        return ongoing(view), self.share * self.tuned.batch


class RayServe(Peer):
    """Ray Serve: ongoing requests over the target, averaged; held for a delay before it acts.

    Source: docs.ray.io, AutoscalingConfig of Ray 2.60: look back 30 s, up after 30 s, down after
    600 s in which all looks agree, metrics each 10 s. The target is 2 by default.
    """

    def __init__(self, tuned: Tuned, target: float = 2.0) -> None:
        super().__init__(tuned)
        self.target = target
        self.seen: list[float] = []
        self.since_s: dict[int, float] = {}  # +1: up, -1: down

    def wanted(self, view: ModelView) -> int:
        self.seen = [*self.seen, ongoing(view)][-3:]  # of 30 s
        one, replicas = view.deployments[0], has(view)
        wish = math.ceil(sum(self.seen) / len(self.seen) / self.target)
        wish = min(max(wish, one.min), one.max)
        way = (wish > replicas) - (wish < replicas)
        self.since_s = {way: self.since_s.get(way, view.now_s)} if way else {}
        delay_s = 30.0 if way > 0 else 600.0
        if way and view.now_s - self.since_s[way] >= delay_s:
            self.since_s = {}
            return wish
        return replicas


class SkyServe(Peer):
    """SkyServe's request-rate autoscaler: requests of 60 s over the target rate.

    Source: SkyPilot 0.14.1, sky/serve/autoscalers.py and constants.py: decided each 20 s, up after
    300 s and down after 1,200 s of looks that agree. The target is `share` of the sustained rate.
    """

    every_s = 20.0

    def __init__(self, tuned: Tuned, share: float = 0.8) -> None:
        super().__init__(tuned)
        self.share, self.ups, self.downs = share, 0, 0

    def wanted(self, view: ModelView) -> int:
        replicas = has(view)
        rate = requests_per_s(view, 60.0)
        wish = math.ceil(rate / (self.share * self.tuned.requests_per_s))
        self.ups = self.ups + 1 if wish > replicas else 0
        self.downs = self.downs + 1 if wish < replicas else 0
        if self.ups * self.every_s >= 300.0 or self.downs * self.every_s >= 1200.0:
            self.ups = self.downs = 0
            return wish
        return replicas


class Wva(Peer):
    """llm-d's workload variant autoscaler, the token-based saturation analyzer (V2).

    Capacity of a replica in tokens that it holds: here those that it holds at the rate it
    sustains, for the KV cache is far from full then. Up by demand / 0.85 - (ready and pending) x
    capacity; down by what ready ones have beyond demand / 0.70, nothing while some are pending. It
    is decided each 60 s and carried out by an HPA, whose 300 s of agreement on the way down hold.
    Source: llm-d-workload-variant-autoscaler b08b1c7 (2026-02), its documents on saturation.
    """

    every_s = 60.0
    down_s = 300.0

    def __init__(self, tuned: Tuned) -> None:
        super().__init__(tuned)
        self.wishes: list[tuple[float, int]] = []

    def wanted(self, view: ModelView) -> int:
        self.wishes = [one for one in self.wishes if one[0] > view.now_s - self.down_s]
        self.wishes.append((view.now_s, self._wish(view)))
        wish = self.wishes[-1][1]
        return wish if wish >= has(view) else min(has(view), max(n for _, n in self.wishes))

    def _wish(self, view: ModelView) -> int:
        one = view.deployments[0]
        work = work_of(view, 256.0)
        held = work.prompt_tokens + 0.5 * work.output_tokens
        capacity = max(1.0, self.tuned.batch * held)
        demand = one.in_flight * held + view.queued * work.prompt_tokens
        missing = demand / 0.85 - has(view) * capacity
        if missing > 0:
            return has(view) + math.ceil(missing / capacity)
        spare = one.ready * capacity - demand / 0.70
        if spare >= capacity and not one.pending:
            return one.ready - int(spare / capacity)
        return has(view)


class Dynamo(Peer):
    """NVIDIA Dynamo's planner by throughput: the next interval's tokens over a replica's.

    Source: docs.nvidia.com/dynamo, planner design and guide (1.5.1): an adjustment each 180 s;
    predictors constant, ARIMA, Kalman, Prophet (here the first, and a Kalman filter of level and
    trend); correction factors are left at 1; prefill and decode are on one engine here, so their
    times add up.
    """

    every_s = 180.0

    def __init__(self, tuned: Tuned, predictor: Callable[[Sequence[float]], float]) -> None:
        super().__init__(tuned)
        self.predictor = predictor
        self.loads: list[float] = []

    def wanted(self, view: ModelView) -> int:
        history, work = view.history, work_of(view, 256.0)
        steps = len(history.requests)
        last = max(0, steps - round(self.every_s / history.step_s))
        self.loads.append(load_of(history, last, steps, work, self.tuned.sustains))
        return math.ceil(self.predictor(self.loads) - 1e-9)


def constant(loads: Sequence[float]) -> float:
    """As the last interval."""
    return loads[-1]


def kalman(loads: Sequence[float]) -> float:
    """Level and trend, filtered; noises in the ratio of a tenth and a hundredth of the square."""
    level, trend = loads[0], 0.0
    cov = np.eye(2)
    step, seen = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([1.0, 0.0])
    noise, drift = 1.0, np.diag([0.1, 0.01])
    for load in loads[-240:]:
        state = step @ np.array([level, trend])
        cov = step @ cov @ step.T + drift
        gain = cov @ seen / (seen @ cov @ seen + noise)
        state = state + gain * (load - state[0])
        cov = cov - np.outer(gain, seen @ cov)
        level, trend = float(state[0]), float(state[1])
    return max(0.0, level + trend)


class Oracle(Peer):
    """Knows each minute's load before it comes: the least replicas that are always enough.

    What is not possible to do, for scale. `loads` are by minute, `start_s` is the cold start.
    """

    def __init__(
        self, tuned: Tuned, loads: NDArray[np.float64], start_s: float, utilisation: float = 0.9
    ) -> None:
        super().__init__(tuned)
        self.loads, self.start_s, self.utilisation = loads, start_s, utilisation

    def wanted(self, view: ModelView) -> int:
        begin = int(view.now_s / 60.0)
        end = int((view.now_s + self.start_s + self.every_s) / 60.0) + 2
        coming = self.loads[begin:end]
        most = float(coming.max()) if coming.size else 0.0
        return math.ceil(most / self.utilisation - 1e-9)


class Fixed(Peer):
    """Always as many: what a fleet without an autoscaler would have bought for the busiest hour."""

    def __init__(self, tuned: Tuned, replicas: int) -> None:
        super().__init__(tuned)
        self.replicas = replicas

    def wanted(self, view: ModelView) -> int:
        return self.replicas
