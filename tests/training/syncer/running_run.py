"""Real syncers and islands as processes, with credentials and a store of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from argosy.fleet.runs import Data, Island, NewModel, Outer, Run
from argosy.store import runs
from argosy.store.schema import open_store
from argosy.training.credentials import folder_of, make_credentials
from argosy.training.island.process import IslandSpec
from argosy.training.syncer.process import SyncerSpec

VOCABULARY = 64
CONTEXT = 16


def a_run(*, blocks=800, islands=("ann", "bob"), slowdowns=(1.0, 1.0, 1.0), **outer):
    """A run of that many blocks, 4 a step, of the reference model."""
    settings = {"inner_steps": 10, "lease_s": 5.0, "grace_s_max": 1.0, "fragment_bytes_max": 4096}
    return Run(
        run="test",
        model=NewModel(layers=1, hidden=16, heads=1, kv_heads=1, mlp=16),
        data=Data(path="none", validation_blocks=8),
        tokens=blocks * CONTEXT,
        context_tokens=CONTEXT,
        batch_blocks=4,
        outer=Outer(**{**settings, **outer}),
        islands=tuple(
            Island(name=name, slowdown=slowdown)
            for name, slowdown in zip(islands, slowdowns, strict=False)
        ),
    )


class Child:
    """A process whose stdout is JSON lines."""

    def __init__(self, module, spec_path, log):
        self.log = log
        self.events = []
        self.came_s = []
        self._changed = threading.Condition()
        self.started_s = time.monotonic()
        threads = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(spec_path)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, **threads},
            )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        for line in self.process.stdout:
            with self._changed:
                self.events.append(json.loads(line))
                self.came_s.append(time.monotonic())
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, is_it, timeout_s=120.0):
        """The first event that is it."""
        end_s = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for event in self.events:
                    if is_it(event):
                        return event
                left_s = end_s - time.monotonic()
                if left_s <= 0 or self.process.poll() is not None:
                    raise AssertionError(f"it never came; {self.events[-3:]}; {self.tail()}")
                self._changed.wait(min(left_s, 0.2))

    def count(self, event):
        return sum(one.get("event") == event for one in self.events)

    def tail(self):
        return self.log.read_text()[-2000:]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self, timeout_s=120.0):
        """Its exit status, once it ended by itself."""
        status = self.process.wait(timeout_s)
        self._thread.join()
        self.process.stdout.close()
        return status

    @property
    def outcome(self):
        ended = [event for event in self.events if event.get("event") == "ended"]
        assert ended, self.tail()
        return ended[0]


class RunningRun:
    """One run in a folder. `close` kills what is left; `store`: a URL, else a file there."""

    def __init__(self, folder: Path, run: Run, *, step_s=0.01, now_s=None, store=None):
        self.folder = folder
        self.run = run
        self.store = store or folder / "store" / "argosy.db"
        self.step_s = step_s
        self.children = []
        names = [island.name for island in run.islands]
        self.credentials = folder / "credentials"
        make_credentials(self.credentials, run.run, names, now_s=now_s or time.time())
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"

    def syncer(self, **changes):
        fields = {
            "run": self.run,
            "text": "spec",
            "store": str(self.store),
            "folder": str(self.folder / "syncer"),
            "credentials": str(folder_of(self.credentials, "syncer")),
            "port": self.port,
        }
        return self._child("argosy.training.syncer", SyncerSpec(**{**fields, **changes}), "syncer")

    def island(self, name, **changes):
        fields = {
            "run": self.run,
            "island": name,
            "url": self.url,
            "credentials": str(folder_of(self.credentials, "island", name)),
            "folder": str(self.folder / f"island-{name}"),
            "inner": "reference",
            "vocabulary": VOCABULARY,
            "step_s": self.step_s,
        }
        return self._child("argosy.training.island", IslandSpec(**{**fields, **changes}), name)

    def _child(self, module, spec, name):
        path = self.folder / f"{name}-{len(self.children)}.json"
        path.write_bytes(msgspec.json.encode(spec))
        child = Child(module, path, self.folder / f"{name}.log")
        self.children.append(child)
        return child

    def read(self, read, *args, **kwargs):
        """From the store, by one of `store.runs`' functions."""
        engine = open_store(self.store)
        try:
            return read(engine, self.run.run, *args, **kwargs)
        finally:
            engine.dispose()

    def check_books(self):
        """Every block that is done is done exactly once; of a finished run, all are."""
        record = self.read(runs.read_run)
        leases = {lease.lease: lease for lease in self.read(runs.leases_of)}
        counted = [one for one in self.read(runs.contributions_of) if one.state != "refused"]
        done = sorted(
            position
            for one in counted
            for start, stop in leases[one.lease].spans
            for position in range(start, stop)
        )
        assert len(set(done)) == len(done) == record.blocks_done
        if record.state == "finished":
            assert done == list(range(self.run.blocks))
        return record, counted, leases

    def close(self):
        for child in self.children:
            if child.process.poll() is None:
                child.kill()
            child._thread.join()
            child.process.stdout.close()
