"""What PyTorch does not say alike on every maker's chip: compiler, precision, watts, name, peak.

The training code itself knows only `torch.device` and `torch.accelerator`. The maker is taken from
the chip of the island's pool, or from what PyTorch was built for, never from the device's type:
AMD's is called "cuda" as well. Which of these were run is in docs/ISLANDS.md.
"""

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

from argosy.fleet.catalogue import Chip, NotInCatalogue, chip
from argosy.fleet.catalogue.entries import Maker

Dtype = Literal["float32", "bfloat16"]
_ASK_S_MAX = 5.0  # of a maker's command-line tool


class Adapter(msgspec.Struct, frozen=True, kw_only=True):
    """What one maker's software wants, where it differs."""

    maker: Maker
    device_type: str  # torch's
    compile_backend: str
    compile_mode: str | None  # None: the backend's own default
    collectives: str | None  # between ranks of one island; None: torch's default for the device


_ADAPTERS = (
    Adapter(
        maker="NVIDIA",
        device_type="cuda",
        compile_backend="inductor",
        compile_mode=None,
        collectives="nccl",
    ),
    Adapter(
        maker="AMD",
        device_type="cuda",
        compile_backend="inductor",
        compile_mode=None,
        collectives="nccl",  # RCCL under that name
    ),
    Adapter(
        maker="Google",
        device_type="tpu",
        compile_backend="tpu",  # as torch-tpu 0.2.0 registers it
        compile_mode=None,
        collectives=None,
    ),
    Adapter(
        maker="AWS",
        device_type="neuron",
        compile_backend="neuron",
        compile_mode=None,  # others are not supported: TorchNeuron's reference, Neuron 2.33
        collectives=None,
    ),
    Adapter(
        maker="Intel",
        device_type="xpu",
        compile_backend="inductor",
        compile_mode=None,
        collectives="xccl",
    ),
    Adapter(
        maker="generic",
        device_type="cpu",
        compile_backend="inductor",
        compile_mode=None,
        collectives="gloo",
    ),
)


class NoDevice(ValueError):
    """The device that was asked for is not here; the message says which is."""


def device_of(asked: str, rank: int = 0) -> torch.device:
    """The rank's device: "auto" is the accelerator that torch finds, else the CPU.

    Raises NoDevice.
    """
    found = torch.accelerator.current_accelerator(check_available=True)
    if asked == "auto":
        asked = "cpu" if found is None else found.type
    if asked == "cpu":
        return torch.device("cpu")
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise NoDevice(f'device = "{asked}" is unknown to torch {torch.__version__}.') from error
    if found is None or found.type != device.type:
        here = "none" if found is None else found.type
        raise NoDevice(
            f'device = "{asked}" is not here: torch {torch.__version__} finds {here}. '
            "cpu always works; auto takes what is found."
        )
    index = device.index if device.index is not None else rank
    if index >= torch.accelerator.device_count():
        raise NoDevice(
            f"rank {rank} wants {device.type}:{index}, and there are "
            f"{torch.accelerator.device_count()}. Lower the island's processes."
        )
    return torch.device(device.type, index)


def adapter_of(device: torch.device, *, chip: Chip | None = None) -> Adapter:
    """Of the maker of that chip, or of the one whose software this PyTorch was built with."""
    maker = chip.maker if chip is not None else _built_for(device)
    for one in _ADAPTERS:
        if one.maker == maker and one.device_type == device.type:
            return one
    return Adapter(
        maker=maker,
        device_type=device.type,
        compile_backend="inductor",
        compile_mode=None,
        collectives=None,
    )


def _built_for(device: torch.device) -> Maker:
    if device.type == "cuda":
        return "AMD" if torch.version.hip is not None else "NVIDIA"
    by_type: dict[str, Maker] = {"tpu": "Google", "neuron": "AWS", "xpu": "Intel"}
    return by_type.get(device.type, "generic")


def autocast(device: torch.device, dtype: Dtype) -> AbstractContextManager[object]:
    """For the forward pass. Nothing for float32: then not a bit is changed."""
    if dtype == "float32":
        return nullcontext()
    return torch.autocast(device_type=device.type, dtype=torch.bfloat16)


def device_name(device: torch.device) -> str:
    """As its maker's driver calls it; a CPU by its model where the system says it."""
    if device.type != "cpu":
        module = torch.get_device_module(device)
        name: Callable[..., str] | None = getattr(module, "get_device_name", None)
        return device.type if name is None else str(name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return "cpu"
    found = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(found, "cpu")


# Pieces of a driver's name, all of which it has, and the catalogue's. The first row that fits.
_NAMES: tuple[tuple[tuple[str, ...], str], ...] = (
    (("gb300",), "GB300"),
    (("gb200",), "GB200"),
    (("b300",), "B300"),
    (("b200",), "B200"),
    (("h200",), "H200"),
    (("h100", "pcie"), "H100-PCIe"),
    (("h100", "nvl"), "H100-NVL"),
    (("h100",), "H100-SXM"),  # "NVIDIA H100 80GB HBM3"
    (("a100", "80gb"), "A100-80GB"),
    (("a100", "40gb"), "A100-40GB"),
    (("l40s",), "L40S"),
    (("a10g",), "A10G"),
    (("nvidia l4",), "L4"),
    (("rtx pro 6000",), "RTX-PRO-6000"),
    (("mi300x",), "MI300X"),
    (("mi325x",), "MI325X"),
    (("mi355x",), "MI355X"),
    (("v5 lite",), "TPU-v5e"),
    (("v5e",), "TPU-v5e"),
    (("v5p",), "TPU-v5p"),
    (("v6e",), "TPU-v6e"),
    (("v6 lite",), "TPU-v6e"),
    (("trainium3",), "Trainium3"),
    (("trn3",), "Trainium3"),
    (("trainium2",), "Trainium2"),
    (("trn2",), "Trainium2"),
    (("gaudi3",), "Gaudi3"),
)


def chip_of(name: str) -> Chip | None:
    """The catalogue's chip that a driver calls `name`; None where it is not known."""
    lower = name.lower()
    for pieces, known in _NAMES:
        if all(piece in lower for piece in pieces):
            return chip(known)
    try:
        return chip(name)
    except NotInCatalogue:
        return None


def peak_flops(chip: Chip | None, dtype: Dtype) -> float | None:
    """Dense FLOP/s that MFU is a share of. None where the catalogue has none: a CPU, or fp32."""
    return chip.bf16_flops if chip is not None and dtype == "bfloat16" else None


def memory_bytes_max(device: torch.device) -> int | None:
    """The most that tensors took on the device so far. None on a CPU: the system counts there."""
    if device.type == "cpu":
        return None
    return torch.accelerator.max_memory_allocated(device)


class PowerMeter:
    """Watts of one chip now, by NVML or amd-smi; None where nobody tells."""

    def __init__(self, adapter: Adapter, device: torch.device) -> None:
        """Asks nothing yet."""
        self._index = device.index or 0
        readers: dict[Maker, Callable[[], float | None]] = {
            "NVIDIA": self._nvidia,
            "AMD": self._amd,
        }
        # Neither TPUs nor Trainium tell their power to a guest.
        self._read = readers.get(adapter.maker)

    def power_w(self) -> float | None:
        """Of the chip's package. Takes up to some 50 ms where a tool has to be run."""
        return None if self._read is None else self._read()

    def _nvidia(self) -> float | None:
        try:
            import pynvml  # pyright: ignore[reportMissingImports]
        except ImportError:
            return self._nvidia_smi()
        try:
            pynvml.nvmlInit()
            handle: Any = pynvml.nvmlDeviceGetHandleByIndex(self._index)
            return pynvml.nvmlDeviceGetPowerUsage(handle) / 1000.0  # milliwatts
        except pynvml.NVMLError:
            return None

    def _nvidia_smi(self) -> float | None:
        query = ("--query-gpu=power.draw", "--format=csv,noheader,nounits")
        said = _said("nvidia-smi", f"--id={self._index}", *query)
        return None if said is None else _number(said)

    def _amd(self) -> float | None:
        said = _said("amd-smi", "metric", "--gpu", str(self._index), "--power", "--json")
        return None if said is None else amd_power_w(said)


def amd_power_w(said: str) -> float | None:
    """Of `amd-smi metric --power --json`: a list of GPUs, or since ROCm 7 a table with one."""
    try:
        read = json.loads(said)
        gpus = read["gpu_data"] if isinstance(read, dict) else read
        value = gpus[0]["power"]["socket_power"]
        return float(value["value"] if isinstance(value, dict) else value)
    except (ValueError, KeyError, IndexError, TypeError):
        return None


def _said(*command: str) -> str | None:
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run(
            (program, *command[1:]), capture_output=True, text=True, timeout=_ASK_S_MAX, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _number(text: str) -> float | None:
    try:
        return float(text.strip())
    except ValueError:
        return None  # "[N/A]"
