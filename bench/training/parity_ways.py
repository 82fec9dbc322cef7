"""The ways to train that bench.training.parity compares, each by its name.

A name is `sync`, or `h=STEPS` for islands, then words in any order:

    lr=X            of sync: its learning rate; of islands: the outer one
    N               of sync: batches a step (7: one island has four of them, one two, one one)
    m=X inner=X     islands: outer momentum; learning rate of their own steps
    end=X           share of the learning rate that is left at the end (0.1 where not said)
    slow, slow v    AdamW's averages as long in tokens as those of `sync`; the second moment's alone
    b2=X            AdamW's second beta
    bits=N          of deltas up and updates down
    no overlap      islands wait for the update before the next lease
    equal speeds    three islands alike
    islands=2,1     their speeds, where they are not 4, 2 and 1
    ideal           the last three at 32 bits: what averaging every H steps costs by itself
"""

from typing import TypeVar

import msgspec
from msgspec.structs import replace

from bench.training.parity_inner import BETAS
from bench.training.parity_time import Way

W = TypeVar("W", "Sync", Way)

LR = 3e-3
# AdamW's memory as long in tokens, not in steps, as with three batches a step
SLOW = (1 - (1 - BETAS[0]) / 3, 1 - (1 - BETAS[1]) / 3)

_RATES = {"lr": "lr", "m": "momentum", "inner": "inner_lr"}  # of islands


class Sync(msgspec.Struct, frozen=True, kw_only=True):
    """Data parallelism with one fp32 ring all-reduce a step; it hides all it can behind compute."""

    batches: int = 3  # of STEP_TOKENS, over all islands
    inner_lr: float = LR
    lr_end: float = 0.1
    betas: tuple[float, float] = BETAS
    speeds: tuple[float, ...] = (4.0, 2.0, 1.0)
    is_proportional: bool = False  # batches by speed; else each island one, the slowest sets pace
    step_s: float = 0.09
    link_bytes_per_s: float = 12.5e6

    def seconds(self, parameters: int) -> float:
        """Of one step."""
        alone_s = self.step_s * max(self.speeds)  # of one batch at speed 1
        if self.is_proportional:
            compute_s = alone_s * self.batches / sum(self.speeds)
        else:
            compute_s = alone_s * self.batches / len(self.speeds) / min(self.speeds)
        return max(compute_s, self.bytes_each_way(parameters) / self.link_bytes_per_s)

    def bytes_each_way(self, parameters: int) -> float:
        """Of one step and island."""
        return 2 * (len(self.speeds) - 1) / len(self.speeds) * 4 * parameters


def way_of(name: str) -> Sync | Way:
    """What a name asks for; ValueError names the word that says nothing."""
    first, *words = name.split()
    if first == "sync":
        return _sync(words)
    if first.startswith("h="):
        return _islands(int(first.removeprefix("h=")), words)
    raise ValueError(f"{name!r} begins with neither sync nor h=STEPS")


def _sync(words: list[str]) -> Sync:
    way = Sync()
    for word in words:
        key, _, value = word.partition("=")
        match key:
            case "lr":
                way = replace(way, inner_lr=float(value))
            case _ if key.isdigit():
                way = replace(way, batches=int(key), is_proportional=key == "7")
            case _:
                way = _of_both(way, word)
    return way


def _islands(inner_steps: int, words: list[str]) -> Way:
    way = Way(inner_steps=inner_steps)
    if "ideal" in words:
        way = replace(way, lr=1.0, momentum=0.0, bits_up=32, bits_down=32)
        way = replace(way, is_overlapped=False, speeds=(1.0, 1.0, 1.0))
    for word in words:
        key, _, value = word.partition("=")
        match key:
            case "ideal" | "no" | "speeds":
                pass
            case "overlap":
                way = replace(way, is_overlapped=False)
            case "equal":
                way = replace(way, speeds=(1.0, 1.0, 1.0))
            case "islands":
                way = replace(way, speeds=tuple(float(speed) for speed in value.split(",")))
            case _ if key in _RATES:
                way = replace(way, **{_RATES[key]: float(value)})
            case "bits":
                way = replace(way, bits_up=int(value), bits_down=int(value))
            case _:
                way = _of_both(way, word)
    return way


def _of_both(way: W, word: str) -> W:
    key, _, value = word.partition("=")
    match key:
        case "end":
            return replace(way, lr_end=float(value))
        case "b2":
            return replace(way, betas=(way.betas[0], float(value)))
        case "slow":
            return replace(way, betas=SLOW)
        case "v":
            return replace(way, betas=(BETAS[0], SLOW[1]))
    raise ValueError(f"{word!r} is no word of a way")
