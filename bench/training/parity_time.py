"""Islands in virtual time with real gradients: the policies and arithmetic of a run, no network.

Modelled: a step of an island takes 1 / speed; an island's own link takes bytes / bandwidth each way
and is used by one transfer at a time; the syncer's link and its arithmetic take no time. A delta is
sent while the next lease is trained on; an update is taken up between two steps once it has come.
"""

import heapq
import math
from collections.abc import Iterator

import msgspec
import numpy as np

from argosy.policies.elasticity import (
    Close,
    Counted,
    ElasticitySettings,
    IslandSeen,
    RoundView,
    blocks_of_lease,
    closing,
    lr_of,
    momentum_of,
    rations,
    weights,
)
from argosy.training.outer.adopt import LocalState
from argosy.training.outer.codec import decode, encode
from argosy.training.outer.step import OuterSettings, close, first_state
from bench.training.parity_inner import BATCH_BLOCKS, BETAS, STEP_TOKENS, Batches, Inner, Schedule


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One way to train between islands."""

    inner_steps: int = 30
    inner_lr: float = 3e-3
    lr_end: float = 0.1  # share of it that is left at the end
    betas: tuple[float, float] = BETAS
    lr: float = 0.7
    momentum: float = 0.9
    bits_up: int = 4
    bits_down: int = 4
    is_overlapped: bool = True
    speeds: tuple[float, ...] = (4.0, 2.0, 1.0)
    step_s: float = 0.09  # of the fastest
    link_bytes_per_s: float = 12.5e6
    settings: ElasticitySettings = ElasticitySettings()


class Contribution(msgspec.Struct, kw_only=True):
    """A delta that came."""

    island: int
    number: int
    steps: int
    base: int
    fragments: tuple[bytes, ...]


class Islands:
    """The whole run; `run` yields (tokens done, virtual seconds) at each closed round."""

    def __init__(self, way: Way, warm: Inner, batches: Batches, schedule: Schedule, steps: int):
        self.way, self.batches, self.schedule, self.steps = way, batches, schedule, steps
        self.map = warm.map()
        start = warm.now.copy()
        self.outer = first_state(start, self.map)
        count = len(way.speeds)
        self.inner = [Inner(0) for _ in range(count)]
        for inner in self.inner:
            inner.take(warm)
            inner.set_betas(way.betas)
        self.local = [LocalState(self.map, start, version=0) for _ in range(count)]
        fastest = max(way.speeds)
        self.step_s = [way.step_s * fastest / speed for speed in way.speeds]
        self.left = [0] * count  # steps of the lease
        self.leased: list[list[tuple[int, float]]] = [[] for _ in range(count)]  # steps, begun
        self.upload_s = [0.0] * count
        self.number = [0] * count
        self.link_free_s = [0.0] * count
        self.coming: list[list[tuple[float, int]]] = [[] for _ in range(count)]
        self.updates: list[tuple[tuple[bytes, ...], list[int]]] = []
        self.counted = [0] * count
        self.waiting: list[Contribution] = []
        self.quorum_s: float | None = None
        self.on_the_way = 0
        self.next_of: dict[int, list[int]] = {}
        self.next_step = self.done_steps = 0
        self.waited_s = [0.0] * count
        self.bytes = [0] * count
        self.norms: list[dict[str, float]] = []
        self.steps_of: dict[str, int] = {}

    def run(self) -> Iterator[tuple[int, float]]:
        """Events are (time, order, kind, who or what); an island's next step is one."""
        self.events: list[tuple[float, int, str, object]] = []
        self.order = 0
        for island in range(len(self.inner)):
            self._push(0.0, "step", island)
        while self.events:
            now_s, _, kind, what = heapq.heappop(self.events)
            before = len(self.updates)
            if kind == "step":
                self._step(int(what), now_s)  # type: ignore[arg-type]
            elif kind == "came":
                assert isinstance(what, Contribution)
                self.waiting.append(what)
                self.leased[what.island].pop(0)
                self.on_the_way -= 1
            self._maybe_close(now_s)
            if len(self.updates) > before:
                yield self.done_steps * STEP_TOKENS, now_s

    def _push(self, at_s: float, kind: str, what: object) -> None:
        self.order += 1
        heapq.heappush(self.events, (at_s, self.order, kind, what))

    def _step(self, island: int, now_s: float) -> None:
        """Take up what has come, then start a step; its gradient is computed at its start."""
        self._adopt(island, now_s)
        if self.left[island] == 0 and not self._lease(island, now_s):
            return
        share = self.done_steps / self.steps
        place = self.next_of[island].pop(0)
        self.inner[island].step([self.batches[place]], self.schedule.at(share))
        self.done_steps += 1
        self.left[island] -= 1
        end_s = now_s + self.step_s[island]
        if self.left[island] == 0:
            self._send(island, end_s)
        self._push(end_s, "step", island)

    def _lease(self, island: int, now_s: float) -> bool:
        """False: no block is left, or it must wait for a version."""
        pending = len(self.local[island].pending)
        most = self.way.settings.staleness_max if self.way.is_overlapped else 0
        if pending > most:
            self._push(now_s + 0.01, "step", island)
            self.waited_s[island] += 0.01
            return False
        seen = [
            IslandSeen(island=str(n), steps_per_s=1 / step_s)
            for n, step_s in enumerate(self.step_s)
        ]
        settings = msgspec.structs.replace(self.way.settings, inner_steps=self.way.inner_steps)
        self.steps_of = rations(seen, settings, self.steps_of)
        steps = (
            blocks_of_lease(
                self.steps_of[str(island)],
                batch_blocks=BATCH_BLOCKS,
                blocks_free=(self.steps - self.next_step) * BATCH_BLOCKS,
                steps_of_all=sum(self.steps_of.values()),
            )
            // BATCH_BLOCKS
        )
        if steps == 0:
            return False
        self.next_of[island] = list(range(self.next_step, self.next_step + steps))
        self.next_step += steps
        self.left[island] = steps
        self.leased[island].append((steps, now_s))
        return True

    def _send(self, island: int, now_s: float) -> None:
        local = self.local[island]
        delta = local.snapshot(self.inner[island].now)
        fragments = tuple(
            encode(part.of(delta), bits=self.way.bits_up) for part in self.map.fragments
        )
        self.number[island] += 1
        local.sent(self.number[island], fragments)
        size = sum(map(len, fragments))
        self.bytes[island] += size
        come_s = max(now_s, self.link_free_s[island]) + size / self.way.link_bytes_per_s
        self.link_free_s[island] = come_s
        self.upload_s[island] = come_s - now_s
        self.on_the_way += 1
        self._push(
            come_s,
            "came",
            Contribution(
                island=island,
                number=self.number[island],
                steps=self.leased[island][-1][0],
                base=local.version,
                fragments=fragments,
            ),
        )

    def _adopt(self, island: int, now_s: float) -> None:
        while self.coming[island] and self.coming[island][0][0] <= now_s:
            _, version = self.coming[island].pop(0)
            update, counted = self.updates[version - 1]
            movement = self.local[island].adopt(version, update, number=counted[island])
            self.inner[island].now[:] += movement

    def _maybe_close(self, now_s: float) -> None:
        has = {one.island for one in self.waiting}
        if len(has) >= self.way.settings.quorum and self.quorum_s is None:
            self.quorum_s = now_s
        seen = tuple(
            IslandSeen(
                island=str(n),
                steps_per_s=1 / step_s,
                has_contributed=n in has,
                steps_leased=self.leased[n][0][0] if self.leased[n] else None,
                leased_s=self.leased[n][0][1] if self.leased[n] else None,
                upload_s=self.upload_s[n],
            )
            for n, step_s in enumerate(self.step_s)
        )
        is_last = self.next_step >= self.steps and self.on_the_way == 0
        view = RoundView(
            islands=seen,
            contributed=len(has),
            quorum_s=self.quorum_s,
            is_last=is_last,
        )
        answer = closing(view, self.way.settings, now_s)
        if isinstance(answer, Close):
            self._close(now_s)

    def _close(self, now_s: float) -> None:
        ready = sorted(self.waiting, key=lambda one: (one.island, one.number))
        self.waiting, self.quorum_s = [], None
        self._measure(ready)
        version = len(self.updates)
        counted = [
            Counted(tokens=one.steps * STEP_TOKENS, staleness=version - one.base) for one in ready
        ]
        answer = weights(
            counted,
            self.way.settings,
            islands=len(self.inner),
            tokens_full=sum(self.steps_of.values()) * STEP_TOKENS,
        )
        self.outer, update = close(
            self.outer,
            [(one.fragments, weight) for one, weight in zip(ready, answer.weights, strict=True)],
            OuterSettings(
                lr=lr_of(self.way.lr, self.way.momentum, answer.share),
                momentum=momentum_of(self.way.momentum, answer.share),
                bits=self.way.bits_down,
            ),
        )
        for one in ready:
            self.counted[one.island] = one.number
        self.updates.append((update, list(self.counted)))
        size = sum(map(len, update))
        for island in range(len(self.inner)):
            self.bytes[island] += size
            come_s = now_s + size / self.way.link_bytes_per_s
            self.coming[island].append((come_s, len(self.updates)))

    def _measure(self, ready: list[Contribution]) -> None:
        deltas = [np.concatenate([decode(f) for f in one.fragments]) for one in ready]
        for one, delta in zip(ready, deltas, strict=True):
            others = [d for d in deltas if d is not delta]
            entry = {"island": one.island, "steps": one.steps, "norm": float(np.linalg.norm(delta))}
            if others:
                mean = np.mean(others, axis=0)
                product = np.linalg.norm(delta) * np.linalg.norm(mean)
                entry["cosine"] = float(delta @ mean / product) if product else math.nan
            self.norms.append(entry)
