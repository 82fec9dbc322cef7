"""The smallest island there is: a model of pairs of tokens, in numpy, with real gradients.

It is the example for whoever writes an `Inner` in another framework, and what tests train: what
the next token is follows from the one before, by two matrices. Vocabulary V, width D:
    logits_NV = embed_VD[token_N] @ out_DV;   AdamW on both.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from argosy.fleet.runs import Run
from argosy.training.inner import Blocks, CheckpointError, Figures, StepReport, Tensor, Vector

_WIDTH = 16


class ReferenceInner:
    """Implements `training.inner.Inner`."""

    def __init__(
        self, run: Run, *, vocabulary: int, step_s: float = 0.0, slowdown: float = 1.0
    ) -> None:
        """A step takes at least `step_s` x `slowdown` seconds: a chip to pretend."""
        self._run = run
        self._step_s = step_s * slowdown
        self._shapes = {"embed": (vocabulary, _WIDTH), "out": (_WIDTH, vocabulary)}
        chance = np.random.default_rng(run.seed)
        parts = [chance.normal(0, 0.3, size).ravel() for size in self._shapes.values()]
        self._now: Vector = np.concatenate(parts).astype(np.float32)
        self._first = np.zeros_like(self._now)  # moments of AdamW
        self._second = np.zeros_like(self._now)
        self._steps = 0

    def tensors(self) -> Sequence[Tensor]:
        return [Tensor(name=name, shape=shape) for name, shape in self._shapes.items()]

    def parameters(self) -> Vector:
        return self._now.copy()

    def set_parameters(self, vector: Vector) -> None:
        self._now[:] = vector

    def add(self, start: int, values: Vector) -> None:
        self._now[start : start + values.size] += values

    def step(self, blocks: Blocks, *, share_done: float) -> StepReport:
        began_s = time.perf_counter()
        loss, gradient = self._gradient(blocks)
        norm = float(np.linalg.norm(gradient))
        setting = self._run.optimizer
        gradient *= min(1.0, setting.clip_norm / max(norm, 1e-12))
        lr = setting.lr * (1.0 - (1.0 - setting.lr_end_share) * share_done)
        self._steps += 1
        self._first += (1 - setting.beta1) * (gradient - self._first)
        self._second += (1 - setting.beta2) * (gradient * gradient - self._second)
        first = self._first / (1 - setting.beta1**self._steps)
        second = self._second / (1 - setting.beta2**self._steps)
        self._now *= 1 - lr * setting.weight_decay
        self._now -= lr * first / (np.sqrt(second) + setting.epsilon)
        tokens = len(blocks) * (blocks.shape[1] - 1)
        time.sleep(max(0.0, self._step_s - (time.perf_counter() - began_s)))
        return StepReport(loss=loss, grad_norm=norm, tokens=tokens, lr=lr)

    def loss(self, blocks: Blocks) -> float:
        return self._gradient(blocks)[0]

    def figures(self) -> Figures | None:
        """It has no chip of its own to measure."""
        return None

    def save(self, path: str) -> None:
        folder = Path(path)
        fresh = folder.with_name(folder.name + ".new")
        try:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            state = np.stack([self._now, self._first, self._second])
            np.save(fresh / "state.npy", state, allow_pickle=False)
            (fresh / "steps").write_text(str(self._steps))
            fresh.replace(folder)
            whole = sorted(path for path in folder.parent.iterdir() if path.suffix != ".new")
            for old in whole[: -self._run.checkpoints.keep]:
                shutil.rmtree(old, ignore_errors=True)
        except OSError as error:
            raise CheckpointError(f"{folder} cannot be written: {error}") from error

    def load(self, path: str) -> None:
        folder = Path(path)
        try:
            state = np.load(folder / "state.npy", allow_pickle=False)
            steps = int((folder / "steps").read_text())
        except (OSError, ValueError, EOFError) as error:
            raise CheckpointError(f"{folder} cannot be read: {error}") from error
        if state.shape != (3, self._now.size) or state.dtype != np.float32:
            raise CheckpointError(f"{folder} is of another model: {state.shape} {state.dtype}")
        self._now, self._first, self._second = state
        self._steps = steps

    def close(self) -> None:
        """Nothing is under way."""

    def _gradient(self, blocks: Blocks) -> tuple[float, Vector]:
        """Mean loss, and its gradient by all parameters."""
        embed_VD, out_DV = self._views(self._now)
        inputs_N, targets_N = blocks[:, :-1].ravel(), blocks[:, 1:].ravel()
        hidden_ND = embed_VD[inputs_N]
        logits_NV = hidden_ND @ out_DV
        logits_NV -= logits_NV.max(axis=1, keepdims=True)
        shares_NV = np.exp(logits_NV)
        shares_NV /= shares_NV.sum(axis=1, keepdims=True)
        rows_N = np.arange(inputs_N.size)
        loss = float(-np.log(shares_NV[rows_N, targets_N] + 1e-30).mean())
        shares_NV[rows_N, targets_N] -= 1
        shares_NV /= inputs_N.size
        gradient = np.zeros_like(self._now)
        embed_grad_VD, out_grad_DV = self._views(gradient)
        out_grad_DV += hidden_ND.T @ shares_NV
        np.add.at(embed_grad_VD, inputs_N, shares_NV @ out_DV.T)
        return loss, gradient

    def _views(self, vector: Vector) -> tuple[Vector, Vector]:
        middle = self._shapes["embed"][0] * _WIDTH
        return (
            vector[:middle].reshape(self._shapes["embed"]),
            vector[middle:].reshape(self._shapes["out"]),
        )


class ReferenceSource:
    """Text that has something to learn: each token follows from the one before, mostly."""

    def __init__(self, run: Run, *, vocabulary: int) -> None:
        self._context = run.context_tokens
        self._vocabulary = vocabulary
        self._seed = run.seed
        self._next: NDArray[np.int64] = np.random.default_rng(run.seed).permutation(vocabulary)

    def read(self, start: int, stop: int) -> Blocks:
        """The blocks at start <= position < stop: the same on every island."""
        return np.stack([self._block(position) for position in range(start, stop)])

    def _block(self, position: int) -> NDArray[np.int64]:
        chance = np.random.default_rng((self._seed, position))
        noise = chance.integers(0, self._vocabulary, self._context + 1)
        is_noise = chance.random(self._context + 1) < 0.2
        block = np.empty(self._context + 1, np.int64)
        block[0] = noise[0]
        for at in range(1, self._context + 1):
            block[at] = noise[at] if is_noise[at] else self._next[block[at - 1]]
        return block
