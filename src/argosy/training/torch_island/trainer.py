"""One rank's model and optimizer: a step on its part of the batch, and its pieces of the vector.

A rank alone holds whole parameters; of several, each holds rows of every matrix (FSDP2: fp32,
gathered layer by layer while they are needed). Between the two only the pieces differ. What a rank
is told to do, and by whom, is `ranks.py`'s.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional

from argosy.fleet.catalogue import Chip
from argosy.fleet.runs import Island, NewModel, Run
from argosy.training.inner import Blocks, Vector
from argosy.training.torch_island import checkpoint
from argosy.training.torch_island.adapters import Adapter, adapter_of, autocast, device_of
from argosy.training.torch_island.model import load_pretrained, logits_of, new_llama
from argosy.training.torch_island.shape import new_shape

_FUSED = ("cpu", "cuda", "xpu", "mps")  # device types that have a fused AdamW
_IGNORED = -100  # cross_entropy's mark of a target that is none


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """All that a rank has to know, as it is handed to its process."""

    run: Run
    island: Island
    vocabulary: int
    separator: int | None = None
    chip: Chip | None = None
    rank: int = 0

    @property
    def micro_batch_blocks(self) -> int:
        """At once, of a rank's part of the batch."""
        whole = max(1, self.run.batch_blocks // self.island.processes)
        return min(whole, self.island.micro_batch_blocks or whole)


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of the model: where it starts in the vector, and this rank's rows of it."""

    name: str
    parameter: nn.Parameter
    start: int  # of the whole parameter, in values of the vector
    shape: tuple[int, ...]  # of the whole parameter
    first_row: int  # that this rank holds; rows are slices of the first dimension

    @property
    def local(self) -> Tensor:
        """The values of this rank; writing to it changes the model."""
        return local_of(self.parameter.detach())

    @property
    def local_start(self) -> int:
        """Of this rank's values, in the vector."""
        return self.start + self.first_row * (self.values // self.shape[0])

    @property
    def values(self) -> int:
        """Of the whole parameter."""
        return int(np.prod(self.shape))


def local_of(tensor: Tensor) -> Tensor:
    """The part of a tensor that this rank holds, sharded or not."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Trainer:
    """Model and optimizer of one rank; with several, every call is made by all of them at once."""

    compile_refused: str | None = None  # why it runs uncompiled although it was to be compiled

    def __init__(self, setting: Setting) -> None:
        """Raises NoDevice, ModelError, ValueError; with several ranks their group is up."""
        self.setting = setting
        self.device = device_of(setting.island.device, setting.rank)
        self.adapter: Adapter = adapter_of(self.device, chip=setting.chip)
        if setting.island.threads is not None:
            torch.set_num_threads(setting.island.threads)
        self.model = _built(setting).to(self.device)
        self.pieces = tuple(_pieces(self.model, setting.rank, setting.island.processes))
        if setting.island.processes > 1:
            self._shard()
        self._optimizer = self._new_optimizer()
        self._loss: Callable[[Tensor], Tensor] = self._mean_loss
        if setting.island.is_compiled:
            self._compile()
        self._saver = checkpoint.Saver(
            rank=setting.rank, ranks=setting.island.processes, keep=setting.run.checkpoints.keep
        )

    # -- training

    def step(self, blocks: Blocks, *, lr: float) -> tuple[float, float]:
        """One optimizer step on this rank's blocks; mean loss of all ranks, and gradients' norm.

        The device is waited for once, at the end.
        """
        ids = torch.from_numpy(blocks).to(self.device, non_blocking=True)
        losses: list[Tensor] = []
        for micro in ids.split(self.setting.micro_batch_blocks):
            loss = self._loss(micro)
            if len(micro) != len(ids):
                loss = loss * (len(micro) / len(ids))
            loss.backward()
            losses.append(loss.detach())
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        whole_norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        loss_value, norm_value = torch.stack((loss.float(), whole_norm.float())).tolist()
        return self._mean_of_ranks(loss_value), norm_value

    def loss_and_tokens(self, blocks: Blocks) -> tuple[float, int]:
        """Sum of losses over this rank's blocks, and how many tokens; a block of -1 is none."""
        ids = torch.from_numpy(blocks).to(self.device)
        total = torch.zeros((), dtype=torch.float64, device="cpu")
        self.model.eval()
        with torch.no_grad():
            for micro in ids.split(self.setting.micro_batch_blocks):
                total += self._sum_loss(micro).double().cpu()
        self.model.train()
        tokens = int((blocks[:, 0] >= 0).sum()) * (blocks.shape[1] - 1)
        return float(total), tokens

    def _mean_loss(self, ids: Tensor) -> Tensor:
        with autocast(self.device, self.setting.island.dtype):
            logits = logits_of(self.model, ids[:, :-1])
        return functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

    def _sum_loss(self, ids: Tensor) -> Tensor:
        targets = torch.where(ids < 0, _IGNORED, ids)[:, 1:]
        with autocast(self.device, self.setting.island.dtype):
            logits = logits_of(self.model, ids.clamp_min(0)[:, :-1])
        flat = logits.float().flatten(0, 1)
        return functional.cross_entropy(flat, targets.flatten(), reduction="sum")

    def _mean_of_ranks(self, value: float) -> float:
        ranks = self.setting.island.processes
        if ranks == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        torch.distributed.all_reduce(shared)
        return float(shared) / ranks

    @property
    def _clip_norm(self) -> float:
        return self.setting.run.optimizer.clip_norm

    # -- the vector

    def parameters(self) -> Vector:
        """All values, in host memory; with several ranks gathered, on each."""
        last = self.pieces[-1]
        vector = np.empty(last.start + last.values, dtype=np.float32)
        for piece in self.pieces:
            whole = piece.parameter.detach()
            if isinstance(whole, DTensor):
                whole = whole.full_tensor()
            target = torch.from_numpy(vector[piece.start : piece.start + piece.values])
            target.copy_(whole.reshape(-1))
        return vector

    def apply(self, start: int, values: Vector, *, is_added: bool) -> None:
        """Sets, or adds to, the vector's values from `start` on: this rank's of them."""
        stop = start + len(values)
        self._drop_gathered()
        for piece in self.pieces:
            flat = piece.local.view(-1)
            here = piece.local_start
            begin, end = max(start, here), min(stop, here + flat.numel())
            if begin >= end:
                continue
            given = torch.from_numpy(values[begin - start : end - start]).to(self.device)
            mine = flat[begin - here : end - here]
            _ = mine.add_(given) if is_added else mine.copy_(given)

    # -- checkpoints

    def save(self, path: str) -> None:
        """Stages parameters and moments, and writes them in the background."""
        self._saver.save(path, checkpoint.State(steps=self._steps(), tensors=dict(self._tensors())))

    def load(self, path: str) -> None:
        """What `save` wrote, by any number of ranks. Raises CheckpointError, nothing changed."""
        sizes = {piece.name: piece.shape for piece in self.pieces}
        with checkpoint.opened(path, sizes) as stored:
            self._drop_gathered()
            for piece in self.pieces:
                self._load_piece(piece, stored)

    def _drop_gathered(self) -> None:
        """FSDP keeps the outermost module's parameters after a forward pass without a backward.

        The next forward pass would take those, whatever became of the pieces.
        """
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def close(self) -> None:
        """Waits for a save. Raises CheckpointError where it failed."""
        self._saver.wait()

    def _load_piece(self, piece: Piece, stored: checkpoint.Stored) -> None:
        rows = slice(piece.first_row, piece.first_row + len(piece.local))
        piece.local.copy_(torch.from_numpy(stored.read("parameter", piece.name, rows)))
        self._optimizer.state.pop(piece.parameter, None)
        if stored.steps == 0:
            return
        is_fused = self.device.type in _FUSED
        step = torch.tensor(float(stored.steps), device=self.device if is_fused else "cpu")
        state: dict[str, Tensor] = {"step": step}
        for moment in checkpoint.MOMENTS:
            state[moment] = torch.zeros_like(piece.parameter)
            local_of(state[moment]).copy_(torch.from_numpy(stored.read(moment, piece.name, rows)))
        self._optimizer.state[piece.parameter] = state

    def _steps(self) -> int:
        state: dict[str, Tensor] = self._optimizer.state.get(self.pieces[0].parameter, {})
        return int(state["step"].item()) if state else 0

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for piece in self.pieces:
            yield f"parameter/{piece.name}", piece.local
        for moment in checkpoint.MOMENTS:
            for piece in self.pieces:
                state: dict[str, Tensor] = self._optimizer.state.get(piece.parameter, {})
                if state:
                    yield f"{moment}/{piece.name}", local_of(state[moment])

    # -- building

    def _new_optimizer(self) -> torch.optim.AdamW:
        asked = self.setting.run.optimizer
        parameters = list(self.model.parameters())
        groups = [
            {"params": [one for one in parameters if one.dim() >= 2]},
            {"params": [one for one in parameters if one.dim() < 2], "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=asked.lr,
            betas=(asked.beta1, asked.beta2),
            eps=asked.epsilon,
            weight_decay=asked.weight_decay,
            fused=True if self.device.type in _FUSED else None,
        )

    def _shard(self) -> None:
        mesh = init_device_mesh(self.device.type, (self.setting.island.processes,))
        policy: dict[str, Any] = {"mesh": mesh}
        if self.setting.island.dtype == "bfloat16":  # gathered in 16 bits, gradients summed in 32
            policy["mp_policy"] = MixedPrecisionPolicy(
                param_dtype=torch.bfloat16, reduce_dtype=torch.float32
            )
        for layer in _layers(self.model):
            fully_shard(layer, **policy)
        fully_shard(self.model, **policy)
        by_name = dict(self.model.named_parameters())  # sharded ones took the places of the whole
        self.pieces = tuple(
            msgspec.structs.replace(piece, parameter=by_name[piece.name]) for piece in self.pieces
        )

    def _compile(self) -> None:
        """Compiles a step's forward and backward, or tells in `compile_refused` why not."""
        width = self.setting.run.context_tokens + 1
        ids = torch.zeros(self.setting.micro_batch_blocks, width, dtype=torch.int64)
        try:
            self._loss = self._compiled()
            self._loss(ids.to(self.device)).backward()
        except (RuntimeError, OSError, ImportError) as error:
            self.compile_refused = str(error).strip().partition("\n")[0]
            self._loss = self._mean_loss
            for layer in _layers(self.model):
                layer._compiled_call_impl = None  # what .compile() set; it has no undo
        self._optimizer.zero_grad(set_to_none=True)

    def _compiled(self) -> Callable[[Tensor], Tensor]:
        backend, mode = self.adapter.compile_backend, self.adapter.compile_mode
        if self.setting.island.processes == 1:
            return torch.compile(self._mean_loss, backend=backend, mode=mode, dynamic=False)
        for layer in _layers(self.model):  # FSDP's hooks stay outside
            layer.compile(backend=backend, mode=mode)
        return self._mean_loss


def _built(setting: Setting) -> nn.Module:
    run = setting.run
    match run.model:
        case NewModel():
            shape = new_shape(
                run.model, vocabulary=setting.vocabulary, context_tokens=run.context_tokens
            )
            return new_llama(shape, seed=run.seed, separator=setting.separator).train()
        case _:
            model = load_pretrained(run.model.path, separator=setting.separator).train()
            _check_fits(setting, model)
            return model


def _check_fits(setting: Setting, model: nn.Module) -> None:
    told: Any = getattr(model, "config", None) or getattr(model, "shape", None)
    rows = getattr(told, "vocab_size", None) or getattr(told, "vocabulary", None)
    if rows is not None and rows < setting.vocabulary:
        raise ValueError(
            f"the data has a vocabulary of {setting.vocabulary} ids, the model one of {rows}. "
            "Prepare the data with the model's own tokenizer."
        )
    longest = getattr(told, "max_position_embeddings", None) or getattr(
        told, "context_tokens", None
    )
    if longest is not None and longest < setting.run.context_tokens:
        raise ValueError(
            f"context_tokens = {setting.run.context_tokens}: the model was made for {longest}. "
            f"Set context_tokens = {longest} or less."
        )


def _pieces(model: nn.Module, rank: int, ranks: int) -> Iterator[Piece]:
    start = 0
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rows = parameter.shape[0]
        each = -(-rows // ranks)  # as torch.chunk cuts, which FSDP2 does
        yield Piece(
            name=name,
            parameter=parameter,
            start=start,
            shape=tuple(parameter.shape),
            first_row=min(rank * each, rows),
        )
        start += parameter.numel()


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """The blocks of its longest list: those of a decoder."""
    lists = [one for one in model.modules() if isinstance(one, nn.ModuleList)]
    yield from max(lists, key=len, default=nn.ModuleList())
