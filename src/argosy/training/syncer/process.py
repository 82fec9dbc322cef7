"""The program of a syncer: `python -m argosy.training.syncer SPEC.json`.

Says `{"url": ...}` on one line of stdout once it listens, and ends by itself: 0 when the run is
finished or stopped, 1 with a sentence on stderr when it cannot begin or go on. It may be killed at
any time and started again with the same spec.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
from sqlalchemy import Engine

from argosy.fleet.runs import Run
from argosy.store import leases, runs
from argosy.store.errors import FencedError, StoreError
from argosy.store.leases import Held, Lease
from argosy.store.run_ledger import Ledger, lease_name
from argosy.store.schema import open_store
from argosy.training import listening
from argosy.training.credentials import CredentialsError
from argosy.training.syncer import serving
from argosy.training.syncer.affairs import Affairs, Books
from argosy.training.syncer.desk import Desk
from argosy.training.syncer.vault import FullError, Vault
from argosy.training.syncer.versions import LostError, Versions

LEASE_S = 6.0  # of the store's lease on the run, renewed after a third of it
LINGER_S = 30.0  # after the end, for islands that still fetch
_LOCK = "syncer.lock"

logger = logging.getLogger("argosy.training.syncer")


class SyncerSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a syncer needs."""

    run: Run
    text: str  # the run file, as it is kept
    store: str  # a file of SQLite's, or a URL of PostgreSQL
    folder: str  # its own: fragments and snapshots
    credentials: str  # folder with tls.crt, tls.key, ca.crt
    host: str = "127.0.0.1"
    port: int = 0


class SecondSyncerError(Exception):
    """Another syncer has this run."""


def main(arguments: list[str]) -> int:
    """Serve until the end; the exit status."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s syncer %(levelname)s %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    spec = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=SyncerSpec)
    try:
        return asyncio.run(serve(spec))
    except (
        StoreError,
        FencedError,
        SecondSyncerError,
        runs.RunExistsError,
        runs.UnknownRunError,
        LostError,
        FullError,
        CredentialsError,
        OSError,
    ) as error:
        sys.stderr.write(f"syncer of {spec.run.run}: {error}\n")
        return 1


async def serve(spec: SyncerSpec) -> int:
    """From the lease on the run to its end."""
    folder = Path(spec.folder)
    engine = open_store(spec.store if "://" in spec.store else Path(spec.store))
    try:
        with _alone(folder):
            lease = _lease(engine, spec, folder)
            desk = _desk(engine, spec, lease)
            return await _serve(engine, spec, lease, desk)
    finally:
        engine.dispose()


def _desk(engine: Engine, spec: SyncerSpec, lease: Lease) -> Desk:
    run = spec.run
    record = runs.create_run(
        engine, run.run, spec=spec.text, blocks=run.blocks, blocks_a_step=run.batch_blocks
    )
    if record.wanted == "stopped":
        raise SecondSyncerError(
            f"the run {run.run} is stopped. Go on with it: argosy runs resume {run.run}"
        )
    # The codec's header, and 4,096 bytes at least: see outer/parameters.py
    longest = max(run.outer.fragment_bytes_max, 4096) + 64
    vault = Vault(Path(spec.folder), fragment_bytes_max=longest)
    versions = Versions(Path(spec.folder), vault, fragment_bytes_max=run.outer.fragment_bytes_max)
    settled = runs.contributions_of(engine, run.run)
    books = Books(
        record=record,
        islands=tuple(runs.islands_of(engine, run.run)),
        settled=tuple(one for one in settled if one.version is not None),
    )
    affairs = Affairs(
        run,
        books,
        ledger=Ledger(engine, run.run, lease.token),
        vault=vault,
        versions=versions,
        rounds=lambda after: runs.rounds_of(engine, run.run, after=after),
    )
    return Desk(affairs)


async def _serve(engine: Engine, spec: SyncerSpec, lease: Lease, desk: Desk) -> int:
    renewing = asyncio.create_task(_renew(engine, lease, desk))
    context = serving.context_of(Path(spec.credentials))
    await desk.start()
    listener = listening.bind(spec.host, spec.port)
    server = listening.make_server(serving.app_of(desk), context)
    serves = asyncio.create_task(server.serve(sockets=[listener]))
    ticking = asyncio.create_task(desk.tick_forever())
    showing = asyncio.create_task(listening.keep_renewed(context, Path(spec.credentials)))
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ending.set)
    _say_url(spec, listener)
    await _until_the_end(desk, ticking, renewing, ending)
    await desk.dismiss()
    server.should_exit = True
    await asyncio.wait([serves], timeout=5)
    for task in (ticking, renewing, showing):
        task.cancel()
    await desk.close()
    if desk.fenced is not None:
        raise desk.fenced
    leases.release(engine, lease)
    return 0


async def _until_the_end(
    desk: Desk, ticking: asyncio.Task[None], renewing: asyncio.Task[None], ending: asyncio.Event
) -> None:
    """Finished or stopped and all islands gone; told to end; or not the run's syncer any more."""
    loop = asyncio.get_running_loop()
    ended_s: float | None = None
    while not (ending.is_set() or ticking.done() or renewing.done() or desk.fenced):
        await asyncio.sleep(0.1)
        if desk.state in ("finished", "stopped"):
            ended_s = ended_s or loop.time()
            if not desk.seats.seats or loop.time() - ended_s > LINGER_S:
                return
    for task in (ticking, renewing):
        if task.done() and not task.cancelled() and (error := task.exception()):
            raise error


async def _renew(engine: Engine, lease: Lease, desk: Desk) -> None:
    """Keep the lease; every entry in the ledger checks it anyway."""
    while True:
        await asyncio.sleep(LEASE_S / 3)
        try:
            answer = await asyncio.to_thread(leases.renew, engine, lease, ttl_s=LEASE_S)
        except StoreError as error:
            logger.warning("the lease on the run cannot be renewed: %s", error)
            continue
        if isinstance(answer, Held):
            desk.fence(FencedError(f"the run's lease is {answer.holder}'s now"))
            return


def _lease(engine: Engine, spec: SyncerSpec, folder: Path) -> Lease:
    """The run's lease. A syncer that was killed gets it back at once: its folder is locked now."""
    holder = f"{socket.gethostname()}:{folder.resolve()}"
    answer = leases.acquire(engine, lease_name(spec.run.run), holder, ttl_s=LEASE_S)
    if isinstance(answer, Held):
        raise SecondSyncerError(
            f"another syncer has the run {spec.run.run}: {answer.holder}, for"
            f" {answer.free_in_s:.1f} s more unless it renews. One run has one syncer: stop that"
            " one, or wait until its lease ends if its host is gone"
        )
    return answer


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other process of this host uses the folder; a killed one's lock ends with it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SecondSyncerError(
                f"another syncer of this host uses {folder}. One run has one syncer: stop that one"
            ) from error
        yield
    finally:
        os.close(handle)


def _say_url(spec: SyncerSpec, listener: socket.socket) -> None:
    line = msgspec.json.encode({"url": listening.url_of(spec.host, listener)})
    sys.stdout.write(line.decode() + "\n")
    sys.stdout.flush()
