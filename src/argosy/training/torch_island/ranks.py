"""Ranks 1, 2, ... of an island: processes that rank 0 starts, and what it tells them.

Commands are lines of JSON on a rank's stdin; its end is the end of the rank, so none outlives its
island. Arrays follow by broadcast (gloo, over the loopback). Nothing is unpickled. Run as
`python -m argosy.training.torch_island.ranks FOLDER SETTING`.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
import torch
from torch import distributed

from argosy.training.inner import Blocks, CheckpointError, Vector
from argosy.training.torch_island.adapters import adapter_of, device_of
from argosy.training.torch_island.trainer import Setting, Trainer

_COLLECTIVE_S_MAX = 600.0  # a first step that compiles for minutes included
_DEATH_S = 15.0  # after a rank's death: longer, and a collective will never return
_END_S = 10.0


class RankDied(RuntimeError):
    """A rank ended; the island cannot go on and should exit: its lease expires by itself."""


class Step(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Blocks follow."""

    blocks: int
    lr: float


class Loss(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Blocks follow."""

    blocks: int


class Apply(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Values follow."""

    start: int
    values: int
    is_added: bool


class Gather(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """All parameters."""


class Save(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A checkpoint."""

    path: str


class Load(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A checkpoint."""

    path: str


class Close(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The end."""


Command = Step | Loss | Apply | Gather | Save | Load | Close
_decoder = msgspec.json.Decoder(Command)


def step(trainer: Trainer, command: Step, blocks: Blocks | None) -> tuple[float, float]:
    """A step of all ranks: mean loss and norm, the same on all ranks."""
    whole = _shared(blocks, (command.blocks, _width(trainer)), torch.int64)
    return trainer.step(_part(whole, trainer), lr=command.lr)


def loss(trainer: Trainer, command: Loss, blocks: Blocks | None) -> float:
    """Mean over all ranks' tokens."""
    whole = _shared(blocks, (command.blocks, _width(trainer)), torch.int64)
    total, tokens = trainer.loss_and_tokens(_part(whole, trainer))
    both = torch.tensor((total, float(tokens)), dtype=torch.float64)
    distributed.all_reduce(both)
    return float(both[0] / both[1])


def apply(trainer: Trainer, command: Apply, values: Vector | None) -> None:
    """Sets or adds a part of the vector."""
    whole = _shared(values, (command.values,), torch.float32)
    trainer.apply(command.start, whole, is_added=command.is_added)


def padded(blocks: Blocks, ranks: int) -> Blocks:
    """With blocks of -1 behind, for as many on each rank."""
    lacking = -len(blocks) % ranks
    if lacking == 0:
        return blocks
    return np.concatenate((blocks, np.full((lacking, blocks.shape[1]), -1, dtype=np.int64)))


def _width(trainer: Trainer) -> int:
    return trainer.setting.run.context_tokens + 1


def _part(blocks: Blocks, trainer: Trainer) -> Blocks:
    each = len(blocks) // trainer.setting.island.processes
    first = trainer.setting.rank * each
    return blocks[first : first + each]


def _shared(
    values: Blocks | Vector | None, shape: tuple[int, ...], dtype: torch.dtype
) -> np.ndarray:
    """Rank 0's array, on every rank."""
    tensor = torch.empty(shape, dtype=dtype) if values is None else torch.from_numpy(values)
    distributed.broadcast(tensor, src=0)
    return tensor.numpy()


class Ranks:
    """The other ranks, seen from rank 0; owns their processes and the folder they meet in."""

    def __init__(self, setting: Setting) -> None:
        """Starts them and meets them. Raises RankDied."""
        self._name = setting.island.name
        self._folder = tempfile.TemporaryDirectory(prefix="argosy-ranks-")
        self._died: str | None = None
        self._is_closing = False
        self._in_command_since: int = 0
        self._commands = 0
        self._processes = [
            _start(self._folder.name, msgspec.structs.replace(setting, rank=rank))
            for rank in range(1, setting.island.processes)
        ]
        for rank, process in enumerate(self._processes, start=1):
            watch = threading.Thread(target=self._watch, args=(rank, process), daemon=True)
            watch.start()
        try:
            with self.told(None):
                join(self._folder.name, setting)
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def told(self, command: Command | None) -> Iterator[None]:
        """Tells them, then lets rank 0 do the same inside. Raises RankDied where one ended."""
        self._commands += 1
        self._in_command_since = self._commands
        try:
            if command is not None:
                line = msgspec.json.encode(command) + b"\n"
                for process in self._processes:
                    _stdin(process).write(line)
                    _stdin(process).flush()
            yield
        except (RuntimeError, OSError) as error:
            raise self._death(error) from error
        finally:
            self._in_command_since = 0

    def close(self) -> None:
        """Ends them: by a word, then by force."""
        self._is_closing = True
        for process in self._processes:
            with contextlib.suppress(OSError):
                _stdin(process).write(msgspec.json.encode(Close()) + b"\n")
                _stdin(process).close()
        for process in self._processes:
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if distributed.is_initialized():
            distributed.destroy_process_group()
        self._folder.cleanup()

    def _death(self, error: Exception) -> Exception:
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2.0 / len(self._processes))
        if self._died is None and all(one.poll() is None for one in self._processes):
            return error if isinstance(error, RuntimeError) else RankDied(str(error))
        died = self._died or "one of them ended"
        return RankDied(f"island {self._name}: {died}. Start the island again; it joins anew.")

    def _watch(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        code = process.wait()
        if self._is_closing:
            return
        self._died = self._died or f"rank {rank} (process {process.pid}) ended with {code}"
        waiting_in = self._in_command_since
        if waiting_in == 0:
            return
        # Some collectives (NCCL's) never notice. Nothing else can be done for this process.
        threading.Event().wait(_DEATH_S)
        if self._in_command_since == waiting_in and not self._is_closing:
            sys.stderr.write(f"island {self._name}: {self._died}; rank 0 hangs, and ends too\n")
            sys.stderr.flush()
            os._exit(70)  # EX_SOFTWARE


def _stdin(process: subprocess.Popen[bytes]) -> BinaryIO:
    assert process.stdin is not None
    return process.stdin  # pyright: ignore[reportReturnType] (a BufferedWriter)


def _start(folder: str, setting: Setting) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        (
            sys.executable,
            "-P",
            "-m",
            "argosy.training.torch_island.ranks",
            folder,
            msgspec.json.encode(setting).decode(),
        ),
        stdin=subprocess.PIPE,
        stdout=sys.stderr.fileno(),  # stdout is the island's own
    )


def join(folder: str, setting: Setting) -> None:
    """Meets the other ranks: on this machine, by a file that only this user can read."""
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)  # else it asks for the host's name
    device = device_of(setting.island.device, setting.rank)
    backends = "gloo"
    if device.type != "cpu":
        torch.accelerator.set_device_index(device.index)
        own = adapter_of(device, chip=setting.chip).collectives
        collectives = own or distributed.get_default_backend_for_device(device)
        backends = f"cpu:gloo,{device.type}:{collectives}"
    ranks = setting.island.processes
    distributed.init_process_group(
        backends,
        store=torch.distributed.FileStore(  # pyright: ignore[reportPrivateImportUsage]
            str(Path(folder, "meet")), ranks
        ),
        rank=setting.rank,
        world_size=ranks,
        timeout=timedelta(seconds=_COLLECTIVE_S_MAX),
        device_id=None if device.type == "cpu" else device,
    )


def main() -> None:
    """A rank, until its stdin ends."""
    folder, text = sys.argv[1:]
    setting = msgspec.json.decode(text, type=Setting)
    join(folder, setting)
    trainer = Trainer(setting)
    for line in sys.stdin.buffer:
        command = _decoder.decode(line)
        if isinstance(command, Close):
            break
        _obey(trainer, command)
    with contextlib.suppress(CheckpointError):
        trainer.close()
    distributed.destroy_process_group()


def _obey(trainer: Trainer, command: Command) -> None:
    match command:
        case Step():
            step(trainer, command, None)
        case Loss():
            loss(trainer, command, None)
        case Apply():
            apply(trainer, command, None)
        case Gather():
            trainer.parameters()
        case Save(path=path):
            with contextlib.suppress(CheckpointError):  # rank 0 reads it in the folder
                trainer.save(path)
        case Load(path=path):
            with contextlib.suppress(CheckpointError):  # rank 0 finds the same
                trainer.load(path)
        case Close():
            pass


if __name__ == "__main__":
    main()
