"""A model's replicas and its demand by the clock, for tests of the autoscaling rule: no engine."""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from argosy.policies.autoscaling import (
    Decision,
    Demand,
    DeploymentView,
    ModelView,
    ScaleState,
    Settings,
    Sustains,
    scale,
)

TICK_S = 10.0
PROMPT_TOKENS = 100
OUTPUT_TOKENS = 100
SUSTAINS = Sustains(prefill_tokens_per_s=2000.0, decode_tokens_per_s=2000.0)
PER_S = 10.0  # requests that one replica sustains
QUIET = Demand(
    step_s=60.0, until_s=0.0, requests=(), prompt_tokens=(), batch_requests=(),
    batch_prompt_tokens=(), answered=(), output_tokens=(),
)  # fmt: skip


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One tick."""

    view: ModelView
    decision: Decision
    state: ScaleState


def deployment(name: str = "chat@near", **changes: object) -> DeploymentView:
    view = DeploymentView(
        name=name, ready=1, pending=(), draining=(), sustains=SUSTAINS, start_s_p95=120.0,
        min=1, max=40,
    )  # fmt: skip
    return replace(view, **changes)


def demand_of(counts: Sequence[int], step_s: float, *, batch: bool = False) -> Demand:
    """So many requests in each step, all alike and answered at once."""
    nothing, tokens = (0,) * len(counts), tuple(PROMPT_TOKENS * count for count in counts)
    return Demand(
        step_s=step_s,
        until_s=len(counts) * step_s,
        requests=nothing if batch else tuple(counts),
        prompt_tokens=nothing if batch else tokens,
        batch_requests=tuple(counts) if batch else nothing,
        batch_prompt_tokens=tokens if batch else nothing,
        answered=tuple(counts),
        output_tokens=tuple(OUTPUT_TOKENS * count for count in counts),
    )


def both(one: Demand, other: Demand) -> Demand:
    """Their sums."""
    names = [name for name in Demand.__struct_fields__ if name not in ("step_s", "until_s")]
    return replace(
        one,
        **{
            name: tuple(map(sum, zip(getattr(one, name), getattr(other, name), strict=True)))
            for name in names
        },
    )


class World:
    """Replicas start `start_s` after they are asked for, and are gone as soon as they are not."""

    def __init__(
        self,
        *deployments: DeploymentView,
        settings: Settings | None = None,
        fails: Iterable[str] = (),  # deployments whose replicas never get ready
        before: Sequence[int] = (),  # requests by minute, before it begins
        **view: object,
    ) -> None:
        self.deployments = list(deployments or (deployment(),))
        self.settings = settings or Settings()
        self.fails, self.view = set(fails), view
        self.counts: list[int] = []  # of each tick
        self.batch: list[int] = []
        self.past = list(before)  # whole minutes, as they end
        self.past_batch = [0] * len(before)
        self.state = ScaleState()
        self.told: list[Told] = []

    def run(self, per_s: float, seconds: float, *, batch_per_s: float = 0.0) -> list[Told]:
        """So many requests a second for so long; these ticks."""
        before = len(self.told)
        for _ in range(round(seconds / TICK_S)):
            self.counts.append(round(per_s * TICK_S))
            self.batch.append(round(batch_per_s * TICK_S))
            self._tick()
        return self.told[before:]

    @property
    def replicas(self) -> list[int]:
        """Of the first deployment, as decided at each tick."""
        return [told.decision.targets[0].replicas for told in self.told]

    @property
    def now_s(self) -> float:
        return len(self.counts) * TICK_S

    def _tick(self) -> None:
        self._start()
        view = ModelView(
            model="chat", now_s=self.now_s, age_s=1.0, history=self._history(),
            recent=self._recent(), queued=0,
            deployments=tuple(self.deployments),
        )  # fmt: skip
        view = replace(view, **self.view)
        self.state, decision = scale(self.state, view, self.settings)
        self.told.append(Told(view=view, decision=decision, state=self.state))
        for place, target in enumerate(decision.targets):
            self._set(place, target.replicas)

    def _start(self) -> None:
        for place, one in enumerate(self.deployments):
            late = self.now_s - one.start_s_p95
            done = [s for s in one.pending if s <= late and one.name not in self.fails]
            left = tuple(s for s in one.pending if s not in done)
            self.deployments[place] = replace(one, ready=one.ready + len(done), pending=left)

    def _set(self, place: int, wanted: int) -> None:
        one = self.deployments[place]
        missing = wanted - one.ready - len(one.pending)
        pending = one.pending + (self.now_s,) * max(0, missing)
        pending = pending[: len(pending) - max(0, min(-missing, len(pending)))]
        ready = min(one.ready, wanted)
        self.deployments[place] = replace(one, ready=ready, pending=pending)

    def _recent(self) -> Demand:
        made = both(
            demand_of(self.counts[-30:], TICK_S), demand_of(self.batch[-30:], TICK_S, batch=True)
        )
        return replace(made, until_s=self.now_s)

    def _history(self) -> Demand:
        if len(self.counts) % 6 == 0:
            self.past.append(sum(self.counts[-6:]))
            self.past_batch.append(sum(self.batch[-6:]))
        made = both(demand_of(self.past, 60.0), demand_of(self.past_batch, 60.0, batch=True))
        return replace(made, until_s=self.now_s // 60.0 * 60.0)
