"""One island against a plain PyTorch loop of the same model: step time, MFU, equal losses, saves.

    python -m bench.training.step                                   # 10M, CPU, two minutes
    python -m bench.training.step --device auto --size 1b --dtype bfloat16 --compile
    python -m bench.training.step --saves                           # what a checkpoint costs

Steps of both alternate, so that other load hits both; the ratio is of neighbours. Losses are
compared bit for bit (on a GPU with --deterministic: its fastest attention adds in no fixed order).
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from argosy.fleet.runs import Data, Island, NewModel, Optimizer, Run
from argosy.training.torch_island.adapters import (
    PowerMeter,
    adapter_of,
    autocast,
    chip_of,
    device_name,
    device_of,
    peak_flops,
)
from argosy.training.torch_island.inner import TorchInner
from argosy.training.torch_island.model import new_llama
from argosy.training.torch_island.schedule import lr_at
from argosy.training.torch_island.shape import LlamaShape, flops_per_token, new_shape, parameters_of

VOCABULARY = {"tiny": 512, "10m": 8192, "100m": 32_000, "1b": 32_000}
SIZES = {
    "tiny": NewModel(layers=2, hidden=128, heads=4, kv_heads=2, mlp=256),
    "10m": NewModel(layers=6, hidden=320, heads=5, kv_heads=5, mlp=896),
    "100m": NewModel(layers=12, hidden=768, heads=12, kv_heads=12, mlp=2048),
    "1b": NewModel(layers=22, hidden=2048, heads=32, kv_heads=4, mlp=5632),  # TinyLlama's
}
DEFAULTS = {"tiny": (8, 64), "10m": (4, 256), "100m": (4, 512), "1b": (8, 2048)}  # blocks, context


def main() -> None:
    asked = arguments()
    torch.set_num_threads(asked.threads)
    if asked.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    run, island = setting(asked)
    shape = new_shape(
        SIZES[asked.size], vocabulary=VOCABULARY[asked.size], context_tokens=run.context_tokens
    )
    device = device_of(asked.device)
    print(
        f"{parameters_of(shape) / 1e6:.1f} M parameters, {run.batch_blocks} x {run.context_tokens} "
        f"tokens a step, {asked.dtype}{', compiled' if asked.compile else ''}, "
        f"{device_name(device)}, {asked.threads} threads, torch {torch.__version__}, "
        f"load {os.getloadavg()[0]:.1f}"
    )
    if asked.saves:
        saves(run, island)
    else:
        steps(asked, run, island, shape)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu, or auto (cpu)")
    parser.add_argument("--size", choices=SIZES, default="10m", help="of the model (10m)")
    parser.add_argument("--steps", type=int, default=30, help="of each, after 3 to warm up (30)")
    parser.add_argument("--blocks", type=int, help="of a step")
    parser.add_argument("--micro", type=int, help="blocks at once (all)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="both")
    parser.add_argument("--deterministic", action="store_true")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (1)")
    parser.add_argument("--saves", action="store_true", help="checkpoints instead of steps")
    return parser.parse_args()


def setting(asked: argparse.Namespace) -> tuple[Run, Island]:
    blocks, context = DEFAULTS[asked.size]
    blocks = asked.blocks or blocks
    island = Island(
        name="bench",
        device=asked.device,
        dtype=asked.dtype,
        is_compiled=asked.compile,
        micro_batch_blocks=asked.micro,
    )
    run = Run(
        run="bench",
        model=SIZES[asked.size],
        data=Data(path="none"),
        tokens=1000 * blocks * context,
        context_tokens=context,
        batch_blocks=blocks,
        islands=(island,),
    )
    return run, island


class PlainLoop:
    """What a person writes: nothing of Argosy's but the model."""

    def __init__(self, asked: argparse.Namespace, run: Run, shape: LlamaShape) -> None:
        self.device, self.dtype, self.micro = device_of(asked.device), asked.dtype, asked.micro
        self.model = new_llama(shape, seed=run.seed).to(self.device)
        self.asked: Optimizer = run.optimizer
        parameters = list(self.model.parameters())
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [one for one in parameters if one.dim() >= 2]},
                {"params": [one for one in parameters if one.dim() < 2], "weight_decay": 0.0},
            ],
            betas=(self.asked.beta1, self.asked.beta2),
            eps=self.asked.epsilon,
            weight_decay=self.asked.weight_decay,
            fused=True,
        )
        self.loss = torch.compile(self._loss, dynamic=False) if asked.compile else self._loss

    def _loss(self, ids: torch.Tensor) -> torch.Tensor:
        with autocast(self.device, self.dtype):
            logits = self.model(ids[:, :-1])
        return functional.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

    def step(self, blocks: np.ndarray, lr: float) -> float:
        ids = torch.from_numpy(blocks).to(self.device)
        total = 0.0
        for part in ids.split(self.micro or len(ids)):
            share = len(part) / len(ids)
            loss = self.loss(part)
            (loss if share == 1.0 else loss * share).backward()
            total += loss.detach() * share
        nn.utils.clip_grad_norm_(self.model.parameters(), self.asked.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return float(total)  # waits for the device


def steps(asked: argparse.Namespace, run: Run, island: Island, shape: LlamaShape) -> None:
    plain = PlainLoop(asked, run, shape)
    ours = TorchInner(run, island, vocabulary=shape.vocabulary)
    if ours.compile_refused:
        print(f"not compiled: {ours.compile_refused}")
    generator = np.random.default_rng(0)
    size = (run.batch_blocks, run.context_tokens + 1)
    seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    cpu_seconds: dict[str, list[float]] = {"plain": [], "ours": []}
    unlike = 0
    for number in range(asked.steps + 3):
        blocks = generator.integers(0, shape.vocabulary, size)
        share = number / 1000
        lr = lr_at(run.optimizer, share + run.batch_blocks / run.blocks)
        calls = {
            "plain": lambda blocks=blocks, lr=lr: plain.step(blocks, lr),
            "ours": lambda blocks=blocks, share=share: ours.step(blocks, share_done=share).loss,
        }
        order = ("plain", "ours") if number % 2 else ("ours", "plain")
        losses: dict[str, float] = {}
        for name in order:
            begun_s, cpu_begun_s = time.perf_counter(), time.process_time()
            losses[name] = calls[name]()
            if number >= 3:
                seconds[name].append(time.perf_counter() - begun_s)
                cpu_seconds[name].append(time.process_time() - cpu_begun_s)
        unlike += losses["plain"] != losses["ours"]
    report(asked, seconds, shape, run)
    ratio("of wall time", seconds)
    if asked.device == "cpu":
        ratio("of CPU time", cpu_seconds)  # on a busy machine the steadier one
    said = "equal bit for bit" if unlike == 0 else f"unlike in {unlike} steps"
    print(f"losses {said}, {asked.steps + 3} steps")


def report(
    asked: argparse.Namespace,
    seconds: dict[str, list[float]],
    shape: LlamaShape,
    run: Run,
) -> None:
    device = device_of(asked.device)
    peak = peak_flops(chip_of(device_name(device)), asked.dtype)
    tokens = run.batch_blocks * run.context_tokens
    work = tokens * flops_per_token(shape, context_tokens=run.context_tokens)
    for name, values in seconds.items():
        middle = statistics.median(values)
        mfu = "" if peak is None else f"   MFU {work / middle / peak:6.1%}"
        print(
            f"{name:6} {middle * 1e3:9.2f} ms a step (median of {len(values)})"
            f"{tokens / middle:12,.0f} tokens/s{work / middle / 1e9:12.1f} GFLOP/s{mfu}"
        )
    watts = PowerMeter(adapter_of(device), device).power_w()
    if watts is not None:
        print(f"power  {watts:.0f} W just now")


def ratio(what: str, seconds: dict[str, list[float]]) -> None:
    pairs = sorted(
        ours / plain for ours, plain in zip(seconds["ours"], seconds["plain"], strict=True)
    )
    low, high = pairs[len(pairs) // 4], pairs[-1 - len(pairs) // 4]
    middle = statistics.median(pairs)
    print(f"ratio {what:13} {middle:.4f} (quartiles {low:.4f} to {high:.4f})")


def saves(run: Run, island: Island) -> None:
    """What a save costs the training: ours, and PyTorch's DCP, sync and in a thread."""
    inner = TorchInner(run, island, vocabulary=VOCABULARY["10m"])
    generator = np.random.default_rng(0)
    size = (run.batch_blocks, run.context_tokens + 1)
    batch = generator.integers(0, 500, size)

    def stepped() -> float:
        begun_s = time.perf_counter()
        inner.step(batch, share_done=0.1)
        return time.perf_counter() - begun_s

    stepped()
    step_s = statistics.median(stepped() for _ in range(5))
    mb = inner.parameters().size * 12 / 1e6
    print(f"{mb:.0f} MB of parameters and moments; a step takes {step_s * 1e3:.0f} ms")
    folder = Path(tempfile.mkdtemp())
    try:
        ways = {"ours": _ours(inner), "DCP, sync": _dcp_sync(inner)}
        ways["DCP, in a thread"] = _dcp_async(inner)
        for turn in range(3):
            for name, save in ways.items():
                _timed_save(f"{name} {turn}", save, str(folder / f"{name}-{turn}"), stepped, step_s)
    finally:
        shutil.rmtree(folder)


def _timed_save(name: str, save, path: str, stepped, step_s: float) -> None:
    begun_s = time.perf_counter()
    wait = save(path)
    stall_s = time.perf_counter() - begun_s
    during = [stepped() for _ in range(3)]
    wait()
    total_s = time.perf_counter() - begun_s
    print(
        f"{name:20} stalls {stall_s * 1e3:7.1f} ms ({stall_s / step_s:4.2f} steps), whole after "
        f"at most {total_s:5.2f} s, 3 steps meanwhile take {statistics.mean(during) / step_s:.2f} x"
    )


def _ours(inner: TorchInner):
    def save(path: str):
        inner.save(path)
        return inner._trainer.close

    return save


def _state(inner: TorchInner) -> dict[str, torch.Tensor]:
    return dict(inner._trainer._tensors())


def _dcp_sync(inner: TorchInner):
    from torch.distributed import checkpoint

    def save(path: str):
        checkpoint.save(_state(inner), checkpoint_id=path)
        return lambda: None

    return save


def _dcp_async(inner: TorchInner):
    from torch import distributed
    from torch.distributed import checkpoint

    if not distributed.is_initialized():
        store = distributed.HashStore()
        distributed.init_process_group("gloo", store=store, rank=0, world_size=1)

    def save(path: str):
        return checkpoint.async_save(_state(inner), checkpoint_id=path).result

    return save


if __name__ == "__main__":
    main()
