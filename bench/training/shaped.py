"""Islands beside data parallelism over real links of 100 Mbit/s: the loss of each at equal time.

    sudo .venv/bin/python -m bench.training.shaped WORK OUT.json        # up to half an hour

Real processes, a thread each, in network namespaces whose links the kernel shapes (`shaped_net`).
First the islands of examples/two-islands.yaml: a syncer, TLS, all that `argosy train` starts. Then
torch's DistributedDataParallel over gloo with the same model, first parameters, text, optimizer and
unlike ranks, batches shared by measured speed (`shaped_rank`), in these ways:

    BLOCKS       its learning rate ends when the islands have ended: the fair one at equal time
    BLOCKS:all   all tokens that the islands had, for the seconds that it takes to their loss
    ...,lr=0.003   another rate;  ...,fp16   gradients travel as float16, DDP's own hook

BLOCKS are those of a step of all ranks. Time is from the start of the islands' or the ranks'
processes; losses are of parameters that were written on the way, evaluated afterwards, all alike,
with bfloat16 products, on blocks that nobody trained on. Bytes are those of the links.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch.nn import functional

from argosy.fleet.runs import Data, Island, NewModel, Optimizer, Outer, Run
from argosy.training.data.reader import Dataset, Reader
from argosy.training.torch_island.adapters import autocast, device_name
from bench.training.shaped_figures import (
    CONTEXT,
    NAMES,
    Way,
    loss_at,
    per_token,
    seconds_to,
    table,
    told,
    way_of,
)
from bench.training.shaped_islands import SYNCER, IslandsRun, Process
from bench.training.shaped_net import TOLD, Counters, measured_mbit_per_s, shaped
from bench.training.shaped_rank import RankSpec, built
from tests.launchers.machines import Machines

MODELS = {
    "10m": NewModel(layers=5, hidden=384, heads=6, kv_heads=3, mlp=1024),  # the example's
    "2m": NewModel(layers=4, hidden=192, heads=6, kv_heads=3, mlp=512),
}
ISLANDS = (
    Island(name=NAMES[0], device="cpu", dtype="bfloat16", threads=1),
    Island(name=NAMES[1], device="cpu", dtype="float32", threads=1),
)
BATCH = 8
HELD_OUT = 64  # blocks at the end of the text's order, which no way gets to
POINTS = 3  # of a curve, besides the two ends
SPEED_S = 8.0
WAYS = ("16", "48", "48,lr=0.003", "16:all")


def main() -> None:
    """Measure, print, and write what was measured."""
    asked = arguments()
    torch.set_num_threads(1)
    asked.work.mkdir(parents=True, exist_ok=True)
    run = run_of(asked)
    dataset = Dataset.open(run.data.path)
    if dataset.blocks < 2 * run.blocks + HELD_OUT:
        sys.exit(
            f"{run.data.path} has {dataset.blocks} blocks; {2 * run.blocks + HELD_OUT} are needed: "
            "fewer --tokens, or --data with more text"
        )
    parameters = sum(one.numel() for one in built(run, dataset).parameters())
    say(
        f"{parameters:,} parameters, {run.blocks * CONTEXT:,} tokens, load {os.getloadavg()[0]:.1f}"
    )
    about = {
        "what": "bench.training.shaped",
        "link": TOLD,
        "chip": device_name(torch.device("cpu")),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "system": platform.release(),
        "parameters": parameters,
        "text": {"corpus": dataset.manifest.corpus, "vocabulary": dataset.vocab_size},
        "run": msgspec.to_builtins(run) | {"data": None},
        "held_out_tokens": HELD_OUT * CONTEXT,
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    report: dict = {}
    with shaped((SYNCER, *NAMES)) as machines:
        study = Study(run, dataset, machines, asked)
        for found in study.measured([way_of(text) for text in asked.ways]):
            report = about | found
            asked.out.write_text(json.dumps(report, indent=1) + "\n")
    table(report)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("work", type=Path, help="a folder for what is made on the way")
    parser.add_argument("out", type=Path, help="a JSON file")
    parser.add_argument("--data", type=Path, help="made by argosy data prepare, 256 tokens a block")
    parser.add_argument("--text", default="builtin", help="else prepared of this (builtin)")
    parser.add_argument("--model", choices=MODELS, default="10m")
    parser.add_argument("--tokens", type=int, default=320_000, help="of the islands (320000)")
    parser.add_argument("--inner-steps", type=int, default=10, help="of a mean island (10)")
    parser.add_argument("--lr", type=float, default=0.0015)
    parser.add_argument("--seed", type=int, default=0, help="of parameters and order")
    parser.add_argument("--seconds-max", type=float, default=300.0, help="of BLOCKS:all (300)")
    parser.add_argument("--ways", nargs="+", default=WAYS, help=" ".join(WAYS))
    return parser.parse_args()


def run_of(asked: argparse.Namespace) -> Run:
    """What the islands train, as examples/two-islands.yaml says it."""
    return Run(
        run="shaped",
        model=MODELS[asked.model],
        data=Data(path=str(prepared(asked)), validation_blocks=0),
        tokens=asked.tokens,
        context_tokens=CONTEXT,
        batch_blocks=BATCH,
        optimizer=Optimizer(lr=asked.lr, warmup_share=0.05),
        outer=Outer(inner_steps=asked.inner_steps, bits=4, grace_s_max=20, lease_s=10),
        islands=ISLANDS,
        seed=asked.seed,
    )


def prepared(asked: argparse.Namespace) -> Path:
    """The data, made where it is not there yet."""
    if asked.data is not None:
        return asked.data.absolute()
    out = (asked.work / "corpus").absolute()
    if not (out / "manifest.json").exists():
        command = ["argosy.cli.main", "data", "prepare", asked.text, "--out", str(out)]
        tokens = ["--context-tokens", str(CONTEXT)]
        subprocess.run([sys.executable, "-m", *command, *tokens], check=True)
    return out


class Study:
    """One measurement: link, speeds, islands, then data parallelism in its ways."""

    def __init__(
        self, run: Run, dataset: Dataset, machines: Machines, asked: argparse.Namespace
    ) -> None:
        self._run, self._machines, self._asked = run, machines, asked
        self._judge = Judge(run, dataset)

    def measured(self, ways: list[Way]) -> Iterator[dict[str, object]]:
        """All that is known after each part, so that a study that is cut off leaves something."""
        link = measured_mbit_per_s(self._machines, *NAMES)
        say(f"TCP's payload between {' and '.join(NAMES)}, both ways at once: {link} Mbit/s")
        speeds = self._speeds()
        say(f"blocks a second, both at once: {speeds}")
        islands = self._islands()
        rows: list[dict] = []
        found = {
            "payload_mbit_per_s_received": link,
            "blocks_per_s_alone": dict(zip(NAMES, speeds, strict=True)),
            "loss_at_first": self._judge.loss_at_first,
            "islands": islands,
            "data_parallel": rows,
        }
        yield found
        for way in ways:
            row = self._data_parallel(way, speeds, islands["ended_s"])
            row["loss_at_equal_time"] = loss_at(row["curve"], islands["ended_s"])
            row["seconds_to_islands_loss"] = seconds_to(row["curve"], islands["loss"])
            rows.append(row)
            yield found

    def _speeds(self) -> list[float]:
        """Of the ranks, both at work."""
        folder = fresh(self._asked.work / "speeds")
        ranks = []
        for island in ISLANDS:
            spec = RankSpec(
                run=msgspec.structs.replace(self._run, islands=(island,)),
                rank=0,
                shares=(BATCH,),
                address="",
                folder=str(folder),
                begun_s=time.monotonic(),
                lasts_s_max=SPEED_S,
            )
            ranks.append(self._rank(island.name, spec, folder))
        return [round(json.loads(rank.ended()[-1])["blocks_per_s"], 2) for rank in ranks]

    def _rank(self, name: str, spec: RankSpec, folder: Path) -> Process:
        path = folder / f"{name}.json"
        return Process(self._machines, name, "bench.training.shaped_rank", spec, path)

    def _islands(self) -> dict:
        run = IslandsRun(self._run, self._machines, fresh(self._asked.work / "islands"))
        try:
            counters, load = Counters(self._machines, (SYNCER, *NAMES)), Load()
            lives = run.train()
            others, links = load.others_cores(), counters.since()
        finally:
            run.close()
        versions = run.versions()
        every = -(-len(versions) // (POINTS + 1))
        shown = [one for one in versions if (versions[-1].version - one.version) % every == 0]
        curve = [[0.0, 0, self._judge.loss_at_first]] + [
            [round(one.at_s, 2), one.blocks * CONTEXT, self._judge.loss(np.load(one.path))]
            for one in shown
        ]
        last = versions[-1]
        found = {
            "ended_s": round(last.at_s, 2),
            "tokens": last.blocks * CONTEXT,
            "rounds": last.version,
            "loss": curve[-1][2],
            "link_bytes": links,
            "bytes_per_token": per_token(links, last.blocks),
            "others_cores": others,
            "curve": curve,
            **lives,
        }
        say(told("islands", found))
        return found

    def _data_parallel(self, way: Way, speeds: list[float], ends_s: float) -> dict:
        shares = [round(way.blocks * speed / sum(speeds)) for speed in speeds]
        shares[0] += way.blocks - sum(shares)
        counters, load = Counters(self._machines, NAMES), Load()
        ranks = self._ranks(way, shares, ends_s)
        try:
            ended, *_ = [json.loads(rank.ended()[-1]) for rank in ranks]
        finally:
            for rank in ranks:
                rank.kill()
        others, links = load.others_cores(), counters.since()
        curve = [[0.0, 0, self._judge.loss_at_first]] + [
            [round(one["at_s"], 2), one["blocks"] * CONTEXT, self._judge.loss(np.load(one["path"]))]
            for one in ended["saved"]
        ]
        found = {
            "way": msgspec.to_builtins(way),
            "shares": dict(zip(NAMES, shares, strict=True)),
            "ended_s": round(ended["ended_s"], 2),
            "tokens": ended["blocks"] * CONTEXT,
            "steps": ended["steps"],
            "step_s": round(ended["step_s"], 3),
            "joined_s": round(ended["joined_s"], 2),
            "loss": curve[-1][2],
            "link_bytes": links,
            "bytes_per_token": per_token(links, ended["blocks"]),
            "others_cores": others,
            "curve": curve,
        }
        say(told(f"data parallel, {way.name} blocks a step", found))
        return found

    def _ranks(self, way: Way, shares: list[int], ends_s: float) -> list[Process]:
        folder = fresh(self._asked.work / way.name.replace(":", "-"))
        lasts_s = max(ends_s, self._asked.seconds_max) if way.is_all else ends_s
        optimizer = self._run.optimizer
        if way.lr is not None:
            optimizer = msgspec.structs.replace(optimizer, lr=way.lr)
        saves = sorted({ends_s, *(lasts_s * n / (POINTS + 1) for n in range(1, POINTS + 1))})
        spec = RankSpec(
            run=msgspec.structs.replace(self._run, optimizer=optimizer),
            rank=0,
            shares=tuple(shares),
            address=self._machines.address_of(NAMES[0]),
            folder=str(folder),
            begun_s=time.monotonic(),
            ends_s=None if way.is_all else ends_s,
            lasts_s_max=lasts_s,
            saves_s=tuple(saves),
            is_halved=way.is_halved,
        )
        return [
            self._rank(name, msgspec.structs.replace(spec, rank=number), folder)
            for number, name in enumerate(NAMES)
        ]


class Judge:
    """Losses of vectors of parameters on the held-out blocks."""

    def __init__(self, run: Run, dataset: Dataset) -> None:
        self._model = built(run, dataset).eval()
        reader = Reader.of(dataset, seed=run.seed)
        self._blocks = reader.read(dataset.blocks - HELD_OUT, dataset.blocks)
        self.loss_at_first = self._now()

    def loss(self, vector: np.ndarray) -> float:
        """Mean over tokens, nats."""
        start = 0
        with torch.no_grad():
            for one in self._model.parameters():
                values = torch.from_numpy(vector[start : start + one.numel()].copy())
                one.copy_(values.view_as(one))
                start += one.numel()
        return self._now()

    def _now(self) -> float:
        total = 0.0
        with torch.no_grad():
            for ids in torch.from_numpy(self._blocks).split(BATCH):
                with autocast(ids.device, "bfloat16"):
                    logits = self._model(ids[:, :-1]).flatten(0, 1)
                loss = functional.cross_entropy(logits.float(), ids[:, 1:].flatten())
                total += float(loss) * len(ids)
        return round(total / HELD_OUT, 4)


class Load:
    """CPU that others used: of all cores, less what children used that have ended since."""

    def __init__(self) -> None:
        self._before = self._now()

    def others_cores(self) -> float:
        """In cores, on average since it was made."""
        wall_s, busy_s, ours_s = (
            now - before for now, before in zip(self._now(), self._before, strict=True)
        )
        return round((busy_s - ours_s) / wall_s, 2)

    def _now(self) -> tuple[float, float, float]:
        user, nice, system, _, _, irq, softirq, *_ = map(
            int, Path("/proc/stat").read_text().split("\n")[0].split()[1:]
        )
        busy_s = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
        ours = [resource.getrusage(who) for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF)]
        return time.monotonic(), busy_s, sum(one.ru_utime + one.ru_stime for one in ours)


def fresh(folder: Path) -> Path:
    """That is not there; its parent is. Shorter runs before may have left one."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.name != "islands":
        folder.mkdir()
    return folder.absolute()


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
