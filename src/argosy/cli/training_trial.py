"""The program that tries one island of a run: a few steps on random ids, and what they took.

Says `ready` when it is warm, and waits for a line: so all islands of a machine are tried together,
as they will train. Its last line is a `Trial` as JSON.
"""

import resource
import sys
import time
from pathlib import Path

import msgspec

from argosy.fleet.runs import Run

_TRIED_S = 4.0
_STEPS_MAX = 8
_BLOCKS = 4  # of a rank, where the file does not say how many it takes at once


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be tried."""

    run: Run
    island: str
    vocabulary: int
    separator: int | None = None  # the id that attention does not pass


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """What it took."""

    tokens_per_s: float
    parameters: int
    memory_bytes: int  # of its process, at most; ranks beside it and chips are not in it
    device: str
    compile_refused: str | None


def main(path: str) -> None:
    """Try the island that the file at `path` asks for."""
    asked = msgspec.json.decode(Path(path).read_bytes(), type=Asked)
    print(msgspec.json.encode(_try(asked)).decode(), flush=True)  # noqa: T201  the answer


def _try(asked: Asked) -> Trial:
    import numpy as np

    from argosy.training.torch_island.inner import TorchInner

    run = asked.run
    island = next(one for one in run.islands if one.name == asked.island)
    blocks_max = run.batch_blocks // island.processes
    blocks = min(blocks_max, island.micro_batch_blocks or _BLOCKS) * island.processes
    run = msgspec.structs.replace(run, batch_blocks=blocks)
    inner = TorchInner(run, island, vocabulary=asked.vocabulary, separator=asked.separator)
    try:
        chance = np.random.default_rng(0)
        shape = (blocks, run.context_tokens + 1)
        ids = chance.integers(0, asked.vocabulary, size=shape, dtype=np.int64)
        inner.step(ids, share_done=0.0)
        print("ready", flush=True)  # noqa: T201  the parent waits for it
        sys.stdin.readline()
        began_s, steps = time.perf_counter(), 0
        while steps < _STEPS_MAX and time.perf_counter() - began_s < _TRIED_S:
            inner.step(ids, share_done=0.0)
            steps += 1
        taken_s = time.perf_counter() - began_s
        return Trial(
            tokens_per_s=steps * blocks * run.context_tokens / taken_s,
            parameters=inner.parameters().size,
            memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            device=inner.device_name or island.device,
            compile_refused=inner.compile_refused,
        )
    finally:
        inner.close()


if __name__ == "__main__":
    main(sys.argv[1])
