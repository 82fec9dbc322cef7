"""A run small enough for a test, and the plain loop that the trainer must equal."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from argosy.fleet.runs import Data, Island, NewModel, Optimizer, Run
from argosy.training.inner import Blocks
from argosy.training.torch_island.model import Llama, new_llama
from argosy.training.torch_island.shape import LlamaShape, new_shape

torch.set_num_threads(1)
VOCABULARY = 61
MODEL = NewModel(layers=2, hidden=32, heads=4, kv_heads=2, mlp=48)
BATCH, CONTEXT = 8, 16


def island(**fields: object) -> Island:
    return Island(name="a", device="cpu", threads=1, **fields)  # pyright: ignore


def a_run(**fields: object) -> Run:
    given = {
        "run": "try",
        "model": MODEL,
        "data": Data(path="nowhere"),
        "tokens": 20 * BATCH * CONTEXT,
        "context_tokens": CONTEXT,
        "batch_blocks": BATCH,
        "islands": (island(),),
        "seed": 7,
    } | fields
    return Run(**given)  # pyright: ignore


def shape(model: NewModel = MODEL) -> LlamaShape:
    return new_shape(model, vocabulary=VOCABULARY, context_tokens=CONTEXT)


def some_blocks(count: int = BATCH, *, seed: int = 0, width: int = CONTEXT + 1) -> Blocks:
    return np.random.default_rng(seed).integers(0, VOCABULARY, (count, width))


def plain_loop(
    model: Llama, batches: Sequence[Blocks], lrs: Sequence[float], optimizer: Optimizer
) -> list[float]:
    """What anybody would write, without a line of Argosy's trainer."""
    matrices = [one for one in model.parameters() if one.dim() >= 2]
    vectors = [one for one in model.parameters() if one.dim() < 2]
    adamw = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": optimizer.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        betas=(optimizer.beta1, optimizer.beta2),
        eps=optimizer.epsilon,
        fused=True,
    )
    losses = []
    for blocks, lr in zip(batches, lrs, strict=True):
        ids = torch.from_numpy(blocks)
        for group in adamw.param_groups:
            group["lr"] = lr
        logits = model(ids[:, :-1])
        loss = functional.cross_entropy(logits.reshape(-1, VOCABULARY), ids[:, 1:].reshape(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), optimizer.clip_norm)
        adamw.step()
        adamw.zero_grad()
        losses.append(loss.item())
    return losses


def a_llama(model: NewModel = MODEL, *, separator: int | None = None) -> Llama:
    return new_llama(shape(model), seed=7, separator=separator)
