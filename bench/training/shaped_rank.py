"""One rank of plain data parallelism: torch's DistributedDataParallel over gloo, one CPU thread.

    python -m bench.training.shaped_rank SPEC.json

Each step's batch is shared by the ranks in proportion to their measured speeds, so that all take as
long; a rank's loss is scaled so that the mean which DDP makes is that over all blocks. Buckets of
gradients are all-reduced while the backward pass goes on, as DDP does it. Model, blocks and their
order, optimizer and schedule are those of the run that the islands train; matrix products are in
each rank's own dtype, as its island's. Without peers it measures its speed instead.

Rank 0 writes the parameters at times that it is given; the clock stands still meanwhile.
"""

import json
import sys
import time
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from argosy.fleet.runs import NewModel, Run
from argosy.training.data.reader import Dataset, Reader
from argosy.training.torch_island.adapters import Dtype, autocast
from argosy.training.torch_island.model import Llama, new_llama
from argosy.training.torch_island.schedule import lr_at
from argosy.training.torch_island.shape import new_shape

_WARM_STEPS = 3


class RankSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank has to know; times are of `time.monotonic`, which all processes here share."""

    run: Run  # its optimizer, order and tokens; a rank's dtype is that of the island so numbered
    rank: int
    shares: tuple[int, ...]  # blocks of a step, by rank
    address: str  # of rank 0
    folder: str  # for what is saved
    begun_s: float  # when the ranks were started
    ends_s: float | None = None  # the schedule ends so long after; None: with the run's tokens
    lasts_s_max: float = 3600.0
    saves_s: tuple[float, ...] = ()  # after `begun_s`; the last step that ends before each
    is_halved: bool = False  # gradients travel as float16: DDP's own hook


def main() -> None:
    """Train, or measure, and tell the outcome as a line of JSON."""
    spec = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=RankSpec)
    torch.set_num_threads(1)
    print(json.dumps(speed(spec) if len(spec.shares) == 1 else trained(spec)), flush=True)


def built(run: Run, dataset: Dataset) -> Llama:
    """The model as the islands begin with it."""
    assert isinstance(run.model, NewModel)
    shape = new_shape(
        run.model, vocabulary=dataset.vocab_size, context_tokens=dataset.context_tokens
    )
    return new_llama(shape, seed=run.seed).train()


def optimizer_of(run: Run, model: nn.Module) -> torch.optim.AdamW:
    """As an island's."""
    asked, parameters = run.optimizer, list(model.parameters())
    return torch.optim.AdamW(
        [
            {"params": [one for one in parameters if one.dim() >= 2]},
            {"params": [one for one in parameters if one.dim() < 2], "weight_decay": 0.0},
        ],
        betas=(asked.beta1, asked.beta2),
        eps=asked.epsilon,
        weight_decay=asked.weight_decay,
        fused=True,
    )


class Rank:
    """Model and optimizer of one rank, alone or in a group that is up."""

    def __init__(self, spec: RankSpec) -> None:
        dataset = Dataset.open(spec.run.data.path)
        self._run = spec.run
        self._dtype: Dtype = spec.run.islands[spec.rank].dtype
        self._reader = Reader.of(dataset, seed=spec.run.seed)
        self._first = sum(spec.shares[: spec.rank])
        self._mine, self.all = spec.shares[spec.rank], sum(spec.shares)
        self.plain = built(spec.run, dataset)
        self._model: nn.Module = self.plain
        if len(spec.shares) > 1:
            self._model = model = DistributedDataParallel(self.plain, gradient_as_bucket_view=True)
            if spec.is_halved:
                model.register_comm_hook(None, default_hooks.fp16_compress_hook)
        self._scale = self._mine * len(spec.shares) / self.all
        self._optimizer = optimizer_of(spec.run, self._model)

    def step(self, position: int, lr: float) -> None:
        """One of the optimizer, of this rank's part of the blocks from that position on."""
        start = position + self._first
        ids = torch.from_numpy(self._reader.read(start, start + self._mine))
        with autocast(ids.device, self._dtype):
            logits = self._model(ids[:, :-1])
        loss = functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())
        (loss * self._scale).backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), self._run.optimizer.clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=False)

    def vector(self) -> np.ndarray:
        """All parameters, in the model's order."""
        parts = [one.detach().reshape(-1).numpy() for one in self.plain.parameters()]
        return np.concatenate(parts)


def speed(spec: RankSpec) -> dict[str, float]:
    """Blocks a second of one rank without a peer, until its time is over."""
    rank = Rank(spec)
    for number in range(_WARM_STEPS):
        rank.step(number * rank.all, 0.0)
    began_s, steps = time.monotonic(), 0
    while time.monotonic() - began_s < spec.lasts_s_max:
        rank.step(steps * rank.all, 0.0)
        steps += 1
    return {"blocks_per_s": steps * rank.all / (time.monotonic() - began_s)}


class Clock:
    """Seconds since the ranks were started, less those that were spent on saving."""

    def __init__(self, begun_s: float) -> None:
        self._begun_s = begun_s

    def now_s(self) -> float:
        return time.monotonic() - self._begun_s

    def pause(self, since_s: float) -> None:
        """It stood still since then."""
        self._begun_s += self.now_s() - since_s


def trained(spec: RankSpec) -> dict[str, object]:
    """From meeting the others to the end of the schedule; rank 0 decides, and tells all of it."""
    distributed.init_process_group(
        "gloo",
        init_method=f"tcp://{spec.address}:29500",
        rank=spec.rank,
        world_size=len(spec.shares),
        timeout=timedelta(seconds=120),
    )
    clock, rank = Clock(spec.begun_s), Rank(spec)
    joined_s, blocks, steps, step_s = clock.now_s(), 0, 0, 0.0
    saved: list[dict[str, float | str]] = []
    due = list(spec.saves_s)
    while True:
        began_s = clock.now_s()
        if spec.rank == 0:
            while due and began_s + step_s > due[0]:
                due.pop(0)
                _save(spec, rank, clock, blocks, saved)
            began_s = clock.now_s()
        share = _share(spec, began_s, step_s, blocks, rank.all)
        if share is None:
            break
        rank.step(blocks, lr_at(spec.run.optimizer, share))
        blocks, steps = blocks + rank.all, steps + 1
        took_s = clock.now_s() - began_s
        step_s = took_s if steps < 3 else 0.8 * step_s + 0.2 * took_s
    if spec.rank == 0:
        _save(spec, rank, clock, blocks, saved)
    ended_s = clock.now_s()
    distributed.destroy_process_group()
    return {
        "steps": steps,
        "blocks": blocks,
        "joined_s": joined_s,
        "ended_s": ended_s,
        "step_s": (ended_s - joined_s) / max(1, steps),
        "saved": saved,
    }


def _share(spec: RankSpec, now_s: float, step_s: float, blocks: int, more: int) -> float | None:
    """Of the schedule, done at the end of the next step, by rank 0's clock; None: it is over."""
    if spec.ends_s is None:
        share = (blocks + more) / spec.run.blocks
        is_over = share > 1.0 or now_s + step_s > spec.lasts_s_max
    else:
        share = (now_s + step_s) / spec.ends_s
        is_over = share > 1.0
    told = torch.tensor([share, float(is_over)], dtype=torch.float64)
    distributed.broadcast(told, src=0)
    share, is_over = told.tolist()
    return None if is_over else share


def _save(spec: RankSpec, rank: Rank, clock: Clock, blocks: int, saved: list) -> None:
    at_s = clock.now_s()
    if saved and saved[-1]["blocks"] == blocks:
        return
    path = Path(spec.folder) / f"{len(saved)}.npy"
    np.save(path, rank.vector())
    saved.append({"at_s": at_s, "blocks": blocks, "path": str(path)})
    clock.pause(at_s)


if __name__ == "__main__":
    main()
