"""One engine in plain Python, one step at a time: what the compiled one has to agree with.

Nothing is clever here: blocks are recounted from who holds what, every token has its time.
"""

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from argosy.simulator.engine import CANCELLED, FINISHED, FIRST_TOKEN, ReplicaGroup


class Action(NamedTuple):
    """What comes from outside: submit, cancel, kill, revive, speed."""

    at_s: float
    kind: str
    slot: int = -1
    prompt: int = 0
    output: int = 0
    hashes: tuple[int, ...] = ()
    factor: float = 1.0


@dataclass(eq=False)
class Asked:
    slot: int
    prompt: int
    output: int
    hashes: tuple[int, ...]
    generated: int = 0
    kv: int = 0
    own: int = 0  # blocks that are not the prefix cache's
    held: int = 0  # hash blocks that it references
    is_read: bool = False
    is_leaving: bool = False
    tokens_s: list[float] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.prompt + self.generated


class Oracle:
    """One replica."""

    def __init__(self, group: ReplicaGroup, hash_tokens: int) -> None:
        self.group = group
        self.block = group.settings.block_tokens
        self.blocks = group.kv_tokens // self.block
        self.hash_tokens = hash_tokens
        self.entry = hash_tokens // self.block if group.settings.prefix_cache else 0
        if self.entry > self.blocks:
            self.entry = 0
        self.events: list[tuple[float, int, int]] = []
        self.gaps_s: list[float] = []
        self.refused: list[int] = []
        self.killed: list[list[tuple[int, int]]] = []
        self.preemptions = self.spared = self.prefilled = self.steps = 0
        self.busy_s = 0.0
        self.margin_s = math.inf  # the least time between an action and the end of a step
        self.is_dead = False
        self.slowness = 1.0
        self.clear()

    def clear(self) -> None:
        self.running: list[Asked] = []  # by age
        self.waiting: list[Asked] = []
        self.references: dict[int, int] = {}
        self.unreferenced: list[int] = []  # the least recently released first
        self.now_s = 0.0
        self.end_s: float | None = None
        self.has_work = False

    def run(self, actions: list[Action]) -> None:
        for action in actions:
            self.go_until(action.at_s)
            getattr(self, action.kind)(action)
        self.go_until(math.inf)

    def go_until(self, until_s: float) -> None:
        while True:
            if self.end_s is not None:
                self.margin_s = min(self.margin_s, abs(self.end_s - until_s))
                if self.end_s > until_s:
                    return
                self.end_step()
            elif self.has_work and self.now_s < until_s:
                self.start_step()
            else:
                return

    # what comes from outside

    def submit(self, action: Action) -> None:
        need = math.ceil((action.prompt + action.output) / self.block)
        if self.is_dead or need > self.blocks:
            self.refused.append(action.slot)
            return
        usable = action.hashes[: action.prompt // self.hash_tokens] if self.entry else ()
        self.waiting.append(Asked(action.slot, action.prompt, action.output, usable))
        if not self.has_work and self.end_s is None:
            self.now_s = action.at_s
            self.has_work = True

    def cancel(self, action: Action) -> None:
        self.waiting = [one for one in self.waiting if one.slot != action.slot]
        for one in self.running:
            if one.slot == action.slot:
                one.is_leaving = True

    def kill(self, action: Action) -> None:
        lost = self.running + self.waiting
        self.killed.append([(one.slot, one.generated) for one in lost])
        if self.end_s is not None:
            self.busy_s += action.at_s - self.now_s
        self.clear()
        self.is_dead = True

    def revive(self, action: Action) -> None:
        if self.is_dead:
            self.is_dead = False
            self.slowness = 1.0

    def speed(self, action: Action) -> None:
        self.slowness = 1.0 / action.factor

    # a step

    def start_step(self) -> None:
        for one in sorted(self.running, key=lambda one: one.slot):
            if one.is_leaving:
                self.leave(one)
                self.events.append((self.now_s, CANCELLED, one.slot))
        has_preempted = self.give_decodes_their_blocks()
        self.decoders = [one for one in self.running if one.is_read]
        self.chunks: list[tuple[Asked, int]] = []
        budget = self.group.settings.prefill_tokens_max - len(self.decoders)
        for one in self.running:
            if not one.is_read:
                budget -= self.read(one, budget)
        while not has_preempted and self.waiting and budget > 0 and self.can_admit():
            self.running.append(self.waiting.pop(0))
            budget -= self.read(self.running[-1], budget)
        if not self.decoders and not self.chunks:
            self.has_work = False
            return
        tokens = len(self.decoders) + sum(chunk for _, chunk in self.chunks)
        pairs = sum(sum(range(one.kv + 1, one.kv + n + 1)) for one, n in self.chunks)
        contexts = sum(one.kv + 1 for one in self.decoders)
        step_s = self.group.step_time.step_s(tokens=tokens, contexts=contexts, pairs=pairs)
        self.end_s = self.now_s + step_s * self.slowness

    def give_decodes_their_blocks(self) -> bool:
        has_preempted = False
        for one in list(self.running):
            if one in self.running and one.is_read and one.kv % self.block == 0:
                while one in self.running and self.free() < 1:
                    self.preempt(self.running[-1])
                    has_preempted = True
                if one in self.running:
                    one.own += 1
                    self.evict()
        return has_preempted

    def can_admit(self) -> bool:
        one = self.waiting[0]
        if len(self.running) == self.group.settings.requests_max:
            return False
        hits = 0
        while hits < len(one.hashes) and one.hashes[hits] in self.references:
            hits += 1
        idle = sum(self.references[name] == 0 for name in one.hashes[:hits])
        own = math.ceil(one.total / self.block) - hits * self.entry
        watermark = int(self.group.watermark * self.blocks) if self.running else 0
        if own + idle * self.entry + watermark > self.free():
            return False
        for name in one.hashes[:hits]:
            self.reference(name)
        one.own, one.held = own, hits
        one.kv = min(hits * self.hash_tokens, one.total - 1)
        self.evict_for(own)
        self.spared += one.kv
        return True

    def evict_for(self, own: int) -> None:
        """`own` is not counted yet by `running`: evict as if it were."""
        while self.used() + own + self.entry * len(self.references) > self.blocks:
            self.drop_oldest()

    def read(self, one: Asked, budget: int) -> int:
        chunk = min(budget, one.total - one.kv)
        if chunk > 0:
            self.chunks.append((one, chunk))
        return chunk

    def end_step(self) -> None:
        assert self.end_s is not None
        self.busy_s += self.end_s - self.now_s
        self.steps += 1
        self.now_s, self.end_s = self.end_s, None
        ended: list[tuple[int, int]] = []
        for one in sorted(self.decoders, key=lambda one: one.slot):
            one.kv += 1
            self.emit(one, ended)
        for one, chunk in self.chunks:
            one.kv += chunk
            self.prefilled += chunk
            if one.kv == one.total:
                one.is_read = True
                self.cache_prompt(one)
                self.emit(one, ended)
        self.events += [(self.now_s, kind, slot) for slot, kind in sorted(ended)]

    def emit(self, one: Asked, ended: list[tuple[int, int]]) -> None:
        one.generated += 1
        if one.tokens_s:
            self.gaps_s.append(self.now_s - one.tokens_s[-1])
        else:
            ended.append((one.slot, FIRST_TOKEN))
        one.tokens_s.append(self.now_s)
        if one.generated == one.output:
            self.leave(one)
            ended.append((one.slot, FINISHED))

    # KV blocks

    def used(self) -> int:
        return sum(one.own for one in self.running)

    def free(self) -> int:
        referenced = sum(count > 0 for count in self.references.values())
        return self.blocks - self.used() - self.entry * referenced

    def evict(self) -> None:
        while self.used() + self.entry * len(self.references) > self.blocks:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        del self.references[self.unreferenced.pop(0)]

    def reference(self, name: int) -> None:
        if self.references[name] == 0:
            self.unreferenced.remove(name)
        self.references[name] += 1

    def cache_prompt(self, one: Asked) -> None:
        for name in one.hashes[one.held :]:
            one.own -= self.entry
            if name in self.references:
                self.reference(name)
            else:
                self.references[name] = 1
        one.held = len(one.hashes)

    def leave(self, one: Asked) -> None:
        for name in reversed(one.hashes[: one.held]):
            self.references[name] -= 1
            if self.references[name] == 0:
                self.unreferenced.append(name)
        one.own = one.held = one.kv = 0
        one.is_read = False
        self.running.remove(one)

    def preempt(self, one: Asked) -> None:
        self.leave(one)
        self.waiting.insert(0, one)
        self.preemptions += 1
