"""Islands and the syncer of a run are killed again and again: what that costs.

    python -m bench.training.churn --seconds 600 --json measurements/training/churn.json

One run of three unlike reference islands (real processes, TLS, ledger; a step is a real one of a
small model and a pause, so that the machine's own load decides little). Stretches with and without
kills take turns, so that both see the same load: with them, a random island is killed (-9) each
--island-every seconds and relaunched at once, and the syncer each --syncer-every. Reported: tokens
that the ledger counted a second with kills, against without; steps that survivors lost, those of
refused deltas among them; how long a relaunched island took until its delta was accepted, from its
first line of Python after imports; that all ends bit-equal with every block counted once.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec

from argosy.fleet.runs import Data, Island, NewModel, Outer, Run
from argosy.store import runs
from argosy.store.errors import StoreError
from argosy.store.schema import open_store
from argosy.training.credentials import folder_of, make_credentials
from argosy.training.island.process import IslandSpec
from argosy.training.island.reference import ReferenceSource
from argosy.training.syncer.process import SyncerSpec

CONTEXT, BATCH, VOCABULARY = 16, 4, 64
_SETTLE_S = 4.0
ISLANDS = {"fast": 1.0, "middle": 2.0, "slow": 4.0}


class Child:
    """A process whose stdout is JSON lines, with the time at which each came."""

    def __init__(self, module: str, spec: msgspec.Struct, folder: Path, name: str) -> None:
        self.name = name
        path = folder / f"{name}.json"
        path.write_bytes(msgspec.json.encode(spec))
        self.events: list[tuple[float, dict]] = []
        threads = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with (folder / f"{name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(path)],
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **threads},
            )
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.events.append((time.monotonic(), json.loads(line)))

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.thread.join()

    def first(self, event: str) -> float | None:
        return next((at for at, one in self.events if one.get("event") == event), None)


class Churn:
    """The run and its processes."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.folder = folder
        rate = sum(1 / (args.step_s * slow) for slow in ISLANDS.values()) * BATCH
        seconds = args.seconds + (args.turns + 1) * args.free_s
        blocks = round(seconds * 1.03 * rate / BATCH) * BATCH
        mean = rate / BATCH / len(ISLANDS)
        self.args = args
        self.run = Run(
            run="churn",
            model=NewModel(layers=1, hidden=16, heads=1, kv_heads=1, mlp=16),
            data=Data(path="none", validation_blocks=0),
            tokens=blocks * CONTEXT,
            context_tokens=CONTEXT,
            batch_blocks=BATCH,
            outer=Outer(
                inner_steps=max(1, round(mean * args.round_s)),
                lease_s=args.lease_s,
                grace_s_max=args.round_s,
                staleness_max=args.staleness_max,
            ),
            islands=tuple(Island(name=name, slowdown=slow) for name, slow in ISLANDS.items()),
        )
        make_credentials(folder / "tls", "churn", list(ISLANDS), now_s=time.time())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.all: list[Child] = []
        self.syncer = self.start_syncer()
        self.islands = {name: self.start_island(name) for name in ISLANDS}

    def start_syncer(self) -> Child:
        spec = SyncerSpec(
            run=self.run,
            text="churn",
            store=str(self.folder / "store" / "argosy.db"),
            folder=str(self.folder / "syncer"),
            credentials=str(folder_of(self.folder / "tls", "syncer")),
            port=self.port,
        )
        return self._child("argosy.training.syncer", spec, "syncer")

    def start_island(self, name: str) -> Child:
        spec = IslandSpec(
            run=self.run,
            island=name,
            url=f"https://127.0.0.1:{self.port}",
            credentials=str(folder_of(self.folder / "tls", "island", name)),
            folder=str(self.folder / f"checkpoints-{name}"),
            inner="reference",
            vocabulary=VOCABULARY,
            step_s=self.args.step_s,
            tells_steps=False,
        )
        return self._child("argosy.training.island", spec, name)

    def _child(self, module: str, spec: msgspec.Struct, name: str) -> Child:
        child = Child(module, spec, self.folder, name)
        self.all.append(child)
        return child

    def read(self, what, *args, **kwargs):
        engine = open_store(self.folder / "store" / "argosy.db")
        try:
            return what(engine, "churn", *args, **kwargs)
        finally:
            engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="with kills, all turns")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--free-s", type=float, default=30.0, help="before, between, after")
    parser.add_argument("--island-every", type=float, default=30.0)
    parser.add_argument("--syncer-every", type=float, default=90.0)
    parser.add_argument("--step-s", type=float, default=0.05, help="of the fastest island")
    parser.add_argument("--round-s", type=float, default=2.0, help="of training between two deltas")
    parser.add_argument("--lease-s", type=float, default=10.0)
    parser.add_argument("--staleness-max", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        churn = Churn(Path(folder), args)
        try:
            report = measure(churn, args)
        finally:
            for child in churn.all:
                if child.process.poll() is None:
                    child.kill()
    print(json.dumps(report, indent=2))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def measure(churn: Churn, args: argparse.Namespace) -> dict:
    """Undisturbed and disturbed in turns, then to its end."""
    loads = [os.getloadavg()]
    wait(lambda: churn.read(runs.read_run).version, 120)
    killer = Killer(churn, args)
    last = mark(churn)
    free, disturbed = [], []
    for turn in range(args.turns + 1):
        time.sleep(args.free_s)
        before, last = last, mark(churn)
        free.append((last[1] - before[1], last[0] - before[0]))
        loads.append(os.getloadavg())
        if turn < args.turns:
            killer.disturb(args.seconds / args.turns - _SETTLE_S)
            time.sleep(_SETTLE_S)  # what the last kill costs belongs to it
            before, last = last, mark(churn)
            disturbed.append((last[1] - before[1], last[0] - before[0]))
            loads.append(os.getloadavg())
    wait(lambda: all(c.process.poll() is not None for c in churn.islands.values()), 3600)
    for child in churn.islands.values():
        child.thread.join()
    churn.syncer.process.wait(60)
    return {
        "what": "bench.training.churn",
        "arguments": {k: v for k, v in vars(args).items() if k != "json"},
        "outer": msgspec.to_builtins(churn.run.outer),
        "load_average_1_min": [round(one[0], 1) for one in loads],
        **figures(churn, killer.kills, free, disturbed),
        **proof(churn),
    }


class Killer:
    """Who dies when; one clock over all turns."""

    def __init__(self, churn: Churn, args: argparse.Namespace) -> None:
        self.churn = churn
        self.args = args
        self.chance = random.Random(args.seed)
        self.kills: list[dict] = []
        self.clock_s = 0.0
        self.next_island = self.chance.expovariate(1 / args.island_every)
        self.next_syncer = args.syncer_every

    def disturb(self, seconds: float) -> None:
        begun_s = self.clock_s
        start_s = time.monotonic()
        while self.clock_s < begun_s + seconds:
            self.clock_s = begun_s + time.monotonic() - start_s
            if self.clock_s >= self.next_syncer:
                self.next_syncer += self.args.syncer_every
                self.churn.syncer.kill()
                self.churn.syncer = self.churn.start_syncer()
                self.kills.append({"who": "syncer", "child": self.churn.syncer})
            if self.clock_s >= self.next_island:
                self.next_island += self.chance.expovariate(1 / self.args.island_every)
                name = self.chance.choice(list(ISLANDS))
                if self.churn.islands[name].process.poll() is None:
                    self.churn.islands[name].kill()
                    self.churn.islands[name] = self.churn.start_island(name)
                    self.kills.append({"who": name, "child": self.churn.islands[name]})
            time.sleep(0.05)


def figures(churn: Churn, kills: list[dict], free: list, disturbed: list) -> dict:
    rejoins, imports = [], []
    for kill in kills:
        child = kill["child"]
        if kill["who"] == "syncer":
            continue
        started, accepted = child.first("started"), child.first("accepted")
        if started is not None and accepted is not None:
            rejoins.append(accepted - started)
            joined = child.first("joined")
            imports.append(joined - started)
    closed = churn.read(runs.rounds_of)
    gaps = [b.at_s - a.at_s for a, b in itertools.pairwise(closed)]
    lost = [
        {"island": child.name, **event}
        for child in churn.all
        for _, event in child.events
        if event.get("event") == "lost" and event["steps"]
    ]
    ended = [e for c in churn.islands.values() for _, e in c.events if e.get("event") == "ended"]
    refused = [one for one in churn.read(runs.contributions_of) if one.state == "refused"]
    round_s = statistics.median(gaps)
    return {
        "kills_of_islands": sum(kill["who"] != "syncer" for kill in kills),
        "kills_of_syncer": sum(kill["who"] == "syncer" for kill in kills),
        "blocks_per_s_undisturbed": [round(blocks / took, 1) for blocks, took in free],
        "blocks_per_s_disturbed": [round(blocks / took, 1) for blocks, took in disturbed],
        "goodput_share": rate_of(disturbed) / rate_of(free),
        "lost_steps_of_survivors": sum(event["steps"] for event in lost)
        + sum(one.steps for one in refused if not one.reason.startswith("stale_epoch")),
        "lost": lost[:20],
        "refused": [f"{one.island} {one.epoch} #{one.number}: {one.reason}" for one in refused][
            :20
        ],
        "rounds": len(closed),
        "round_s_median": round_s,
        "s_until_joined": summary(imports),
        "s_until_counted": summary(rejoins),
        "counted_within_a_round_and_2_s": sum(one <= round_s + 2 for one in rejoins),
        "waited_share": {
            name: round(e["waited_s"] / e["wall_s"], 4)
            for name, e in ((c.name, e) for c in churn.islands.values() for _, e in c.events)
            if e.get("event") == "ended"
        },
        "stopped_share": [round(e["stopped_s"] / e["wall_s"], 4) for e in ended],
    }


def proof(churn: Churn) -> dict:
    """Equal bits, and every block once."""
    record = churn.read(runs.read_run)
    leases = {lease.lease: lease for lease in churn.read(runs.leases_of)}
    merged = [one for one in churn.read(runs.contributions_of) if one.state == "merged"]
    done = sorted(
        position
        for one in merged
        for start, stop in leases[one.lease].spans
        for position in range(start, stop)
    )
    source = ReferenceSource(churn.run, vocabulary=VOCABULARY)
    wrong = 0
    for one in random.Random(0).sample(merged, min(50, len(merged))):
        seen = hashlib.sha256()
        for start, stop in leases[one.lease].spans:
            for at in range(start, stop, BATCH):
                seen.update(source.read(at, at + BATCH).astype("<u4").tobytes())
        wrong += seen.hexdigest() != one.tokens_sha256
    ends = {
        e["published_sha256"]
        for c in churn.islands.values()
        for _, e in c.events
        if e.get("event") == "ended"
    }
    return {
        "state": record.state,
        "blocks": record.blocks,
        "every_block_once": done == list(range(record.blocks)),
        "token_hashes_checked": min(50, len(merged)),
        "token_hashes_wrong": wrong,
        "all_islands_equal": len(ends) == 1,
    }


def mark(churn: Churn) -> tuple[float, int]:
    record = churn.read(runs.read_run)
    points = [p for p in churn.read(runs.points_of) if p.kind == "training"]
    return (points[-1].at_s if points else record.created_at_s, record.blocks_done)


def rate_of(stretches: list) -> float:
    """Blocks a second, of pairs of blocks and seconds."""
    return sum(blocks for blocks, _ in stretches) / sum(took for _, took in stretches)


def summary(values: list[float]) -> dict:
    if not values:
        return {}
    return {
        "median": round(statistics.median(values), 3),
        "max": round(max(values), 3),
        "count": len(values),
    }


def wait(is_it, timeout_s: float) -> None:
    end_s = time.monotonic() + timeout_s
    while True:
        try:
            if is_it() not in (None, False):
                return
        except (runs.UnknownRunError, StoreError) as error:
            if time.monotonic() > end_s:
                raise TimeoutError(str(error)) from error
        if time.monotonic() > end_s:
            raise TimeoutError("it did not come")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
