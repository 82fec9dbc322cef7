"""`TorchInner`: an island's inside in PyTorch, as the loop between islands sees it.

It is rank 0, and speaks for the others: one vector of fp32 values, steps, checkpoints. A learning
rate comes from the share of the run's tokens, never from a count of steps.
"""

import math
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from argosy.fleet.catalogue import Chip
from argosy.fleet.runs import Island, Run
from argosy.training.inner import Blocks, Figures, StepReport, Tensor, Vector
from argosy.training.torch_island import checkpoint, ranks, report
from argosy.training.torch_island.adapters import (
    PowerMeter,
    chip_of,
    device_name,
    memory_bytes_max,
    peak_flops,
)
from argosy.training.torch_island.model import Llama, save_pretrained
from argosy.training.torch_island.schedule import lr_at
from argosy.training.torch_island.shape import LlamaShape, flops_per_token
from argosy.training.torch_island.trainer import Setting, Trainer


class TorchInner:
    """Implements `training.inner.Inner`."""

    def __init__(
        self,
        run: Run,
        island: Island,
        *,
        vocabulary: int,
        separator: int | None = None,
        chip: Chip | None = None,
    ) -> None:
        """Builds the model, and starts the other ranks where the island has several.

        `vocabulary` is the data's. With a `separator` (the id that ends a document) attention does
        not pass it. `chip` is the pool's; without one the driver's name is looked up. Raises
        NoDevice, ModelError, ValueError, RankDied.
        """
        if run.batch_blocks % island.processes:
            raise ValueError(
                f"batch_blocks = {run.batch_blocks} cannot be shared by {island.processes} ranks "
                f"alike. Set batch_blocks to a multiple of {island.processes}."
            )
        setting = Setting(
            run=run, island=island, vocabulary=vocabulary, separator=separator, chip=chip
        )
        self._run, self._island = run, island
        self._ranks = ranks.Ranks(setting) if island.processes > 1 else None
        try:
            self._trainer = Trainer(setting)
        except BaseException:
            self._close_ranks()
            raise
        name = device_name(self._trainer.device)
        self.device_name = name
        self.chip = chip_of(name) if chip is None else chip
        self._power = PowerMeter(self._trainer.adapter, self._trainer.device)
        self._tokens = 0
        self._since_s = time.perf_counter()

    @property
    def compile_refused(self) -> str | None:
        """Why it runs uncompiled although it was to be compiled; None where it was as asked."""
        return self._trainer.compile_refused

    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(Tensor(name=one.name, shape=one.shape) for one in self._trainer.pieces)

    def parameters(self) -> Vector:
        with self._all(ranks.Gather()):
            return self._trainer.parameters()

    def set_parameters(self, vector: Vector) -> None:
        last = self._trainer.pieces[-1]
        if vector.shape != (last.start + last.values,):
            raise ValueError(
                f"a vector of shape {vector.shape} for {last.start + last.values} values"
            )
        self._apply(0, vector, is_added=False)

    def add(self, start: int, values: Vector) -> None:
        last = self._trainer.pieces[-1]
        if start < 0 or start + len(values) > last.start + last.values:
            raise ValueError(
                f"values {start} to {start + len(values)} of {last.start + last.values}"
            )
        self._apply(start, values, is_added=True)

    def step(self, blocks: Blocks, *, share_done: float) -> StepReport:
        begun_s = time.perf_counter()
        lr = lr_at(self._run.optimizer, share_done + len(blocks) / self._run.blocks)
        loss, norm = self._step(self._checked(blocks), lr)
        if self._island.slowdown > 1.0:
            time.sleep((time.perf_counter() - begun_s) * (self._island.slowdown - 1.0))
        tokens = len(blocks) * (blocks.shape[1] - 1)
        self._tokens += tokens
        return StepReport(loss=loss, grad_norm=norm, tokens=tokens, lr=lr)

    def loss(self, blocks: Blocks) -> float:
        if self._ranks is None:
            total, tokens = self._trainer.loss_and_tokens(self._checked(blocks))
            return total / tokens
        whole = ranks.padded(self._checked(blocks), self._island.processes)
        command = ranks.Loss(blocks=len(whole))
        with self._ranks.told(command):
            return ranks.loss(self._trainer, command, whole)

    def save(self, path: str) -> None:
        """Raises CheckpointError, also for the save before, which ran in the background."""
        self._trainer.close()  # the save before
        checkpoint.prepare(path)
        with self._all(ranks.Save(path=path)):
            self._trainer.save(path)

    def load(self, path: str) -> None:
        with self._all(ranks.Load(path=path)):
            self._trainer.load(path)

    def close(self) -> None:
        try:
            self._trainer.close()
        finally:
            self._close_ranks()

    def figures(self) -> Figures | None:
        """Of the time since the call before (or the beginning), all waiting in it; None: no step.

        Watts are read now, where the island's `power_w` does not say them.
        """
        now_s = time.perf_counter()
        tokens, seconds = self._tokens, now_s - self._since_s
        self._tokens, self._since_s = 0, now_s
        if tokens == 0 or seconds <= 0:
            return None
        chips = self._island.processes
        peak = peak_flops(self.chip, self._island.dtype)
        return report.figures(
            tokens=tokens,
            seconds=seconds,
            flops_per_token=self._flops_per_token(),
            peak_flops=None if peak is None else peak * chips,
            power_w=self._power_w(),
            price_usd_per_hour=self._island.price_usd_per_hour,
        )

    def memory_bytes_max(self) -> int | None:
        """The most that rank 0's tensors took on its device; None on a CPU."""
        return memory_bytes_max(self._trainer.device)

    def save_pretrained(self, path: str, *, tokenizer: str | Path | None = None) -> None:
        """The model as a Hugging Face folder; of one rank, and of our own Llama, alone.

        Any other: `export.export_vector(inner.parameters(), inner.tensors(), ...)`.
        """
        model = self._trainer.model
        if self._ranks is not None or not isinstance(model, Llama):
            raise ValueError("save_pretrained writes our own Llama of one rank: use export_vector.")
        save_pretrained(model, path, tokenizer=tokenizer)

    # -- rank 0 and the others

    def _step(self, blocks: Blocks, lr: float) -> tuple[float, float]:
        if self._ranks is None:
            return self._trainer.step(blocks, lr=lr)
        if len(blocks) % self._island.processes:
            raise ValueError(
                f"{len(blocks)} blocks for {self._island.processes} ranks: give a multiple."
            )
        command = ranks.Step(blocks=len(blocks), lr=lr)
        with self._ranks.told(command):
            return ranks.step(self._trainer, command, blocks)

    def _apply(self, start: int, values: Vector, *, is_added: bool) -> None:
        values = np.ascontiguousarray(values, dtype=np.float32)
        if not values.flags.writeable:  # torch warns of arrays that it must not write to
            values = values.copy()
        if self._ranks is None:
            self._trainer.apply(start, values, is_added=is_added)
            return
        command = ranks.Apply(start=start, values=len(values), is_added=is_added)
        with self._ranks.told(command):
            ranks.apply(self._trainer, command, values)

    def _all(self, command: ranks.Command):  # noqa: ANN202 (a context, of either kind)
        return nullcontext() if self._ranks is None else self._ranks.told(command)

    def _close_ranks(self) -> None:
        if self._ranks is not None:
            self._ranks.close()
            self._ranks = None

    def _checked(self, blocks: Blocks) -> Blocks:
        width = self._run.context_tokens + 1
        if blocks.ndim != 2 or len(blocks) == 0 or blocks.shape[1] != width:
            raise ValueError(f"blocks of shape {blocks.shape}; here they are [blocks, {width}].")
        return blocks if blocks.flags.writeable and blocks.flags.c_contiguous else blocks.copy()

    def _flops_per_token(self) -> float:
        shape = getattr(self._trainer.model, "shape", None)
        if isinstance(shape, LlamaShape):
            return flops_per_token(shape, context_tokens=self._run.context_tokens)
        return 6.0 * sum(math.prod(one.shape) for one in self._trainer.pieces)

    def _power_w(self) -> float | None:
        if self._island.power_w is not None:
            return self._island.power_w
        measured = self._power.power_w()
        return None if measured is None else measured * self._island.processes
