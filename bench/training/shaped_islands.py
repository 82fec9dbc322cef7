"""A run of islands over a network of namespaces: the real programs, and all versions afterwards.

The syncer is in a place of its own, each island in one. Deltas are kept beside the syncer's folder
as they come, so that each version's parameters can be computed again from the ledger.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from argosy.fleet.runs import Run
from argosy.store import runs
from argosy.store.schema import open_store
from argosy.training.credentials import folder_of, make_credentials
from argosy.training.inner import Tensor
from argosy.training.island.process import IslandSpec
from argosy.training.outer.parameters import ParameterMap
from argosy.training.outer.step import OuterSettings, close, first_state
from argosy.training.syncer.process import SyncerSpec
from tests.launchers.machines import Machines

SYNCER = "syncer"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PORT = 4711


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """Parameters that all islands had; seconds since the islands were started."""

    version: int
    at_s: float
    blocks: int
    path: Path


class IslandsRun:
    """From the start of the syncer on; `close` ends what is left of it."""

    def __init__(self, run: Run, machines: Machines, folder: Path) -> None:
        self.run, self._machines, self._folder = run, machines, folder
        folder.mkdir(parents=True)
        names = [island.name for island in run.islands]
        make_credentials(folder / "tls", run.run, names, now_s=time.time())
        self._store = folder / "argosy.db"
        self._syncer = Process(
            machines, SYNCER, "argosy.training.syncer", self._syncer_spec(), folder / "syncer.json"
        )
        self._url = json.loads(self._syncer.line())["url"]
        self._kept = folder / "kept"
        self._kept.mkdir()
        self._is_over = threading.Event()
        self._keeper = threading.Thread(target=self._keep)
        self._keeper.start()
        self._islands: dict[str, Process] = {}

    def train(self) -> dict[str, object]:
        """Until the run is over: what the islands tell of their lives. Raises RuntimeError."""
        self.begun_unix_s, begun_s = time.time(), time.monotonic()
        for island in self.run.islands:
            spec = self._island_spec(island.name)
            self._islands[island.name] = Process(
                self._machines,
                island.name,
                "argosy.training.island",
                spec,
                self._folder / f"{island.name}.json",
            )
        ends = {name: process.ended() for name, process in self._islands.items()}
        self._syncer.ended()
        self.close()
        events = {name: [json.loads(line) for line in lines] for name, lines in ends.items()}
        return {
            "seconds_with_leaving": time.monotonic() - begun_s,
            "islands": {name: told[-1] for name, told in events.items()},
        }

    def versions(self) -> list[Version]:
        """All of them, written as files. Raises ValueError where the last is not the run's."""
        engine = open_store(self._store)
        try:
            record = runs.read_run(engine, self.run.run)
            rounds = runs.rounds_of(engine, self.run.run)
        finally:
            engine.dispose()
        assert record.seed is not None
        final = json.loads((self._folder / "syncer" / "final" / "parameters.json").read_text())
        parts = [np.frombuffer(self._read(one.sha256), "<f4") for one in record.seed.fragments]
        tensors = msgspec.convert(final["tensors"], list[Tensor])
        cut = ParameterMap(tensors, self.run.outer.fragment_bytes_max)
        state = first_state(np.concatenate(parts), cut)
        found = []
        for one in rounds:
            deltas = [
                ([self._read(name) for name in each.fragments], each.weight)
                for each in one.contributions
            ]
            settings = OuterSettings(**msgspec.structs.asdict(one.settings))
            state, _ = close(state, deltas, settings)
            path = self._folder / f"version-{one.version}.npy"
            np.save(path, state.published())
            at_s = one.at_s - self.begun_unix_s
            found.append(Version(version=one.version, at_s=at_s, blocks=one.blocks_done, path=path))
        published = state.published().astype("<f4", copy=False)
        if hashlib.sha256(published.data).hexdigest() != final["sha256"]:
            raise ValueError("the versions that were computed again are not those of the run")
        return found

    def close(self) -> None:
        """Nothing of it goes on."""
        for process in (*self._islands.values(), self._syncer):
            process.kill()
        self._is_over.set()
        self._keeper.join()

    def _read(self, name: str) -> bytes:
        return (self._kept / name).read_bytes()

    def _keep(self) -> None:
        """The syncer throws away what it needs no more."""
        fragments = self._folder / "syncer" / "fragments"
        while True:
            is_last = self._is_over.is_set()
            with contextlib.suppress(FileNotFoundError):
                for path in fragments.iterdir():
                    with contextlib.suppress(FileExistsError, FileNotFoundError):
                        os.link(path, self._kept / path.name)
            if is_last:
                return
            self._is_over.wait(1.0)

    def _syncer_spec(self) -> SyncerSpec:
        return SyncerSpec(
            run=self.run,
            text=msgspec.json.encode(self.run).decode(),
            store=str(self._store),
            folder=str(self._folder / "syncer"),
            credentials=str(folder_of(self._folder / "tls", "syncer")),
            host=self._machines.address_of(SYNCER),
            port=PORT,
        )

    def _island_spec(self, name: str) -> IslandSpec:
        return IslandSpec(
            run=self.run,
            island=name,
            url=self._url,
            credentials=str(folder_of(self._folder / "tls", "island", name)),
            folder=str(self._folder / f"checkpoints-{name}"),
            tells_steps=False,
            peer_host=self._machines.address_of(name),
        )


class Process:
    """A program of one place that takes a spec and tells lines of JSON; one CPU thread."""

    def __init__(
        self, machines: Machines, place: str, module: str, spec: msgspec.Struct, path: Path
    ) -> None:
        path.write_bytes(msgspec.json.encode(spec))
        self._log = path.with_suffix(".log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*machines.on(place), sys.executable, "-m", module, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # as argosy train does it: CPU is shared by sessions
                env={**os.environ, **dict.fromkeys(THREADS, "1"), "GLOO_SOCKET_IFNAME": "eth0"},
            )

    def line(self) -> bytes:
        """The next one that it tells."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def ended(self) -> list[bytes]:
        """The other lines, once it is over. Raises RuntimeError where it failed."""
        lines = list(self._lines())
        if self._process.wait():
            raise RuntimeError(self._log.read_text())
        return lines

    def kill(self) -> None:
        """Nothing happens where it is over."""
        self._process.kill()
        self._process.wait()

    def _lines(self) -> Iterator[bytes]:
        assert self._process.stdout is not None
        yield from self._process.stdout
