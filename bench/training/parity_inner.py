"""The inside of a virtual island: a small Llama, AdamW, real gradients; all in one fp32 vector."""

import copy
import math
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch.nn import functional

from argosy.training.inner import Tensor
from argosy.training.outer.parameters import ParameterMap
from argosy.training.torch_island.model import new_llama
from argosy.training.torch_island.shape import LlamaShape

VOCABULARY, CONTEXT, BATCH_BLOCKS = 2048, 64, 8
STEP_TOKENS = BATCH_BLOCKS * CONTEXT
BETAS = (0.9, 0.95)  # of AdamW
SHAPE = LlamaShape(
    vocabulary=VOCABULARY,
    layers=4,
    hidden=128,
    heads=4,
    kv_heads=2,
    head_dim=32,
    mlp=384,
    context_tokens=CONTEXT,
    rope_theta=10_000.0,
    norm_epsilon=1e-5,
    tie_embeddings=True,
)


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Of the learning rate over the share of tokens done; a cosine down to `end` of it."""

    lr: float
    end: float = 0.1
    warmup_share: float = 0.0
    is_constant: bool = False

    def at(self, share: float) -> float:
        if share < self.warmup_share:
            return self.lr * (share + 1e-3) / self.warmup_share
        if self.is_constant:
            return self.lr
        falling = (1 + math.cos(math.pi * min(1.0, share))) / 2
        return self.lr * (self.end + (1 - self.end) * falling)


class Inner:
    """A model whose parameters, gradients and Adam's moments are views of four vectors."""

    def __init__(self, seed: int) -> None:
        self.model = new_llama(SHAPE, seed=seed)
        named = sorted(self.model.named_parameters(), key=lambda one: one[1].dim() < 2)
        self.tensors = [Tensor(name=name, shape=tuple(p.shape)) for name, p in named]
        size = sum(p.numel() for _, p in named)
        matrices = sum(p.numel() for _, p in named if p.dim() >= 2)
        self.flat = torch.cat([p.data.reshape(-1) for _, p in named])
        self.grad = torch.zeros(size)
        start = 0
        for _, p in named:
            stop = start + p.numel()
            p.data = self.flat[start:stop].view(p.shape)
            p.grad = self.grad[start:stop].view(p.shape)
            start = stop
        groups = []
        for part, decay in ((slice(0, matrices), 0.1), (slice(matrices, size), 0.0)):
            group = torch.nn.Parameter(self.flat[part])
            group.grad = self.grad[part]
            groups.append({"params": [group], "weight_decay": decay})
        self.optimizer = torch.optim.AdamW(groups, betas=BETAS, fused=True)

    @property
    def now(self) -> np.ndarray:
        """The parameters themselves: adding to it trains."""
        return self.flat.numpy()

    def map(self) -> ParameterMap:
        return ParameterMap(self.tensors, 2**20)

    def set_betas(self, betas: tuple[float, float]) -> None:
        """Of AdamW, from now on; its moments stay."""
        for group in self.optimizer.param_groups:
            group["betas"] = betas

    def step(self, batches: list[np.ndarray], lr: float) -> float:
        """One step on the mean gradient of these batches of STEP_TOKENS each."""
        self.grad.zero_()
        loss = self._loss(np.concatenate(batches))
        loss.backward()
        norm = float(self.grad.norm())
        if norm > 1.0:
            self.grad.mul_(1.0 / norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return float(loss.detach())

    def loss(self, blocks: np.ndarray) -> float:
        with torch.no_grad():
            parts = [self._loss(blocks[start : start + 64]) for start in range(0, len(blocks), 64)]
        return float(torch.stack(parts).mean())

    def take(self, other: "Inner") -> None:
        """Parameters and moments of another."""
        self.flat.copy_(other.flat)
        self.optimizer.load_state_dict(copy.deepcopy(other.optimizer.state_dict()))  # else shared

    def save(self, path: Path) -> None:
        states = [self.optimizer.state[g["params"][0]] for g in self.optimizer.param_groups]
        np.savez(
            path,
            flat=self.now,
            first=np.concatenate([s["exp_avg"].numpy() for s in states]),
            second=np.concatenate([s["exp_avg_sq"].numpy() for s in states]),
            steps=np.array([float(s["step"]) for s in states]),
        )

    def load(self, path: Path) -> None:
        with np.load(path) as saved:
            self.flat.copy_(torch.from_numpy(saved["flat"]))
            start = 0
            for group, steps in zip(self.optimizer.param_groups, saved["steps"], strict=True):
                parameter = group["params"][0]
                stop = start + parameter.numel()
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(steps)),
                    "exp_avg": torch.from_numpy(saved["first"][start:stop].copy()),
                    "exp_avg_sq": torch.from_numpy(saved["second"][start:stop].copy()),
                }
                start = stop

    def _loss(self, blocks: np.ndarray) -> torch.Tensor:
        ids = torch.from_numpy(blocks)
        logits = self.model(ids[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].reshape(-1))


class Text:
    """Blocks of CONTEXT + 1 ids in a seed's order; the last ones are kept for validation."""

    def __init__(self, path: Path, *, validation_blocks: int = 256) -> None:
        ids = np.load(path, mmap_mode="r")
        count = (ids.size - 1) // CONTEXT
        starts = np.arange(count)[:, None] * CONTEXT + np.arange(CONTEXT + 1)[None, :]
        blocks = ids[starts].astype(np.int64)
        shuffled = blocks[np.random.default_rng(12345).permutation(count)]
        self.validation = shuffled[-validation_blocks:]
        self.blocks = shuffled[:-validation_blocks]

    def batches(self, seed: int, *, skip: int = 0) -> "Batches":
        return Batches(self.blocks, seed, skip)


class Batches:
    """Batch n of a seed's order; each block once in an epoch."""

    def __init__(self, blocks: np.ndarray, seed: int, skip: int) -> None:
        warm = np.random.default_rng(0).permutation(len(blocks))
        rest = np.random.default_rng(seed).permutation(warm[skip * BATCH_BLOCKS :])
        self.order = warm if seed == 0 else rest
        self.blocks = blocks

    def __getitem__(self, number: int) -> np.ndarray:
        places = np.arange(number * BATCH_BLOCKS, (number + 1) * BATCH_BLOCKS) % len(self.order)
        return self.blocks[self.order[places]]
