"""One rule on one case, simulated; and the rules by name."""

import time
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from msgspec.structs import replace

from argosy.policies.autoscaling import Decision, Demand, ModelView, Settings
from argosy.policies.capacity import World
from argosy.simulator.scaling import PolicyScaler, Scaler
from argosy.simulator.serving import simulate
from bench.autoscaling import peers
from bench.autoscaling.cases import Case

Make = Callable[[Case, float], Scaler]  # with the cold start in seconds
QUANTILES = (0.8, 0.95, 0.99)
SHARES = (0.6, 0.8, 1.0)
_DEFAULT = Settings()


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    case: str
    start_s: float
    rule: str
    knob: str
    is_default: bool
    attained: float  # share of all requests that met the SLO
    refused: float  # share that was not answered
    replica_hours: float
    replicas_max: int
    started: int
    took_s: float


class Ours(PolicyScaler):
    """The live policy, which knows the days before as the live one does."""

    def __init__(self, case: Case, settings: Settings) -> None:
        super().__init__({"chat@pool": case.tuned.sustains}, settings)
        self._before = case.before

    def decide_all(self, views: Sequence[ModelView], world: World) -> tuple[Decision, ...]:
        known = [replace(one, history=joined(self._before, one.history)) for one in views]
        return super().decide_all(known, world)


def joined(before: Demand, after: Demand) -> Demand:
    """One history."""
    if not before.requests:
        return after
    names = [name for name in Demand.__struct_fields__ if name not in ("step_s", "until_s")]
    return replace(after, **{name: getattr(before, name) + getattr(after, name) for name in names})


def ours(quantile: float) -> Make:
    return lambda case, start_s: Ours(case, Settings(quantile=quantile))


RULES: tuple[tuple[str, str, bool, Make], ...] = (
    *(
        ("argosy", f"quantile {q:g}", q == _DEFAULT.quantile, ours(q)) for q in QUANTILES
    ),
    ("KEDA on queue", "5 waiting", True, lambda case, s: peers.KedaQueue(case.tuned)),
    *(
        ("HPA on concurrency", f"{share:.0%}", share == 0.8,
         lambda case, s, share=share: peers.HpaConcurrency(case.tuned, share))
        for share in SHARES
    ),
    ("Ray Serve", "target 2", True, lambda case, s: peers.RayServe(case.tuned)),
    *(
        ("Ray Serve tuned", f"{share:.0%}", share == 0.8,
         lambda case, s, share=share: peers.RayServe(case.tuned, share * case.tuned.batch))
        for share in SHARES
    ),
    *(
        ("SkyServe", f"{share:.0%}", share == 0.8,
         lambda case, s, share=share: peers.SkyServe(case.tuned, share))
        for share in SHARES
    ),
    ("llm-d WVA", "V2", True, lambda case, s: peers.Wva(case.tuned)),
    ("Dynamo, constant", "180 s", True, lambda case, s: peers.Dynamo(case.tuned, peers.constant)),
    ("Dynamo, Kalman", "180 s", True, lambda case, s: peers.Dynamo(case.tuned, peers.kalman)),
    *(
        ("oracle", f"{share:.0%}", share == 0.9,
         lambda case, s, share=share: peers.Oracle(case.tuned, case.loads, s, share))
        for share in (0.7, 0.9, 1.1)
    ),
    ("fixed at the peak", "p99.5", True, lambda case, s: peers.Fixed(case.tuned, peak(case))),
)  # fmt: skip


def peak(case: Case) -> int:
    return int(np.ceil(np.quantile(case.loads, 0.995) / 0.9))


def run(case: Case, start_s: float, rule: tuple[str, str, bool, Make]) -> Row:
    """Simulated once."""
    name, knob, is_default, make = rule
    begin_s = time.perf_counter()
    scaler = make(case, start_s)
    ran = simulate(case.scenario(start_s), case.trace, scaler=scaler)
    assert ran.scaled is not None
    outcomes = ran.tally.outcomes.sum(axis=(0, 1))
    return Row(
        case=case.name,
        start_s=start_s,
        rule=name,
        knob=knob,
        is_default=is_default,
        attained=int(ran.tally.met.sum()) / ran.requests,
        refused=1 - int(outcomes[0]) / ran.requests,
        replica_hours=ran.scaled[0].replica_s / 3600,
        replicas_max=ran.scaled[0].replicas_max,
        started=ran.scaled[0].started,
        took_s=time.perf_counter() - begin_s,
    )
