"""The inside of an island, as the outer loop sees it: any framework can stand behind it.

All parameters are one vector of fp32 values in host memory, cut into fragments by
`outer/parameters.py`; what they mean is the island's own business, as are its optimizer, chips and
parallelism.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]  # one fragment's values
Blocks = NDArray[np.int64]  # [blocks, context_tokens + 1]: inputs, and targets one further


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter: the values of the vector that follow those before it."""

    name: str  # as Hugging Face names it
    shape: tuple[int, ...]


class StepReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one inner step came to."""

    loss: float  # mean over its tokens, nats
    grad_norm: float  # before clipping
    tokens: int
    lr: float


class Figures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one stretch of training came to, all waiting in it. Unknown is None."""

    tokens: int
    seconds: float
    tokens_per_s: float
    flops_per_s: float  # of the model's arithmetic, recomputation left out
    mfu: float | None  # share of the chips' dense peak
    energy_j_per_million_tokens: float | None
    cost_usd_per_million_tokens: float | None


class Inner(Protocol):
    """What trains. Not thread-safe: one call at a time. Errors are the framework's own."""

    def tensors(self) -> Sequence[Tensor]:
        """All trained parameters, in the order of the vector."""
        ...

    def parameters(self) -> Vector:
        """A copy of all of them now."""
        ...

    def set_parameters(self, vector: Vector) -> None:
        """All at once; the optimizer's state stays."""
        ...

    def add(self, start: int, values: Vector) -> None:
        """Adds `values` to the parameters from `start` of the vector on."""
        ...

    def step(self, blocks: Blocks, *, share_done: float) -> StepReport:
        """One optimizer step; `share_done` of the run's tokens come before, for the schedule."""
        ...

    def loss(self, blocks: Blocks) -> float:
        """Mean over their tokens, nats; nothing changes."""
        ...

    def figures(self) -> Figures | None:
        """Of the time since the call before; None: no step was made, or nothing is measured."""
        ...

    def save(self, path: str) -> None:
        """Parameters and optimizer state to a folder that does not exist; returns when staged.

        The folder appears whole, by a rename, and is not written to any more.
        """
        ...

    def load(self, path: str) -> None:
        """What `save` wrote, once it is whole. Raises CheckpointError where it is not."""
        ...

    def close(self) -> None:
        """Waits for saves under way; gives up devices and processes."""
        ...


class CheckpointError(Exception):
    """A checkpoint cannot be read, or not written; the message says why and what is kept."""
