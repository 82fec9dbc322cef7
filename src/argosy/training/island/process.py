"""The program of an island: `python -m argosy.training.island SPEC.json`.

Says what happens as one JSON object a line on stdout: started, joined, step, version, accepted,
lost, evaluated, copied, copy refused, restored, and at the end what came of it. Ends with 0 when
the run is over, with a sentence on stderr and 1 when it cannot take part, and `DIVERGED` where
starting it again is no use. SIGTERM or SIGINT: it finishes its lease, sends it, and leaves; a
second one, or an operator's stop of the run: it leaves at its next step. It may be killed at any
time and started again with the same spec.
"""

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from argosy.fleet.runs import Island, Run
from argosy.training.credentials import CredentialsError
from argosy.training.data.ahead import Source
from argosy.training.inner import Blocks, CheckpointError, Inner
from argosy.training.island.copies import CheckpointCopies
from argosy.training.island.held_copies import MEMORY_SHARE, copies_bytes_max
from argosy.training.island.joining import RejectedError
from argosy.training.island.link import AwayError, DeniedError, Link
from argosy.training.island.loop import DivergedError, IslandLoop, Setting
from argosy.training.island.peers import PeerShare
from argosy.training.island.reference import ReferenceInner, ReferenceSource

DIVERGED = 4  # an exit status: deltas made no sense again and again


class IslandSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that an island needs."""

    run: Run
    island: str  # one of the run's
    url: str  # of the syncer
    credentials: str  # folder with its own tls.crt, tls.key, ca.crt
    folder: str | None = None  # for its checkpoints
    inner: Literal["torch", "reference"] = "torch"
    vocabulary: int = 64  # of the reference island; others' is their data's
    step_s: float = 0.0  # of the reference island: each step takes at least so long
    tells_steps: bool = True
    peer_host: str | None = "127.0.0.1"  # where peers reach it; None: it gives them nothing
    peer_port: int = 0
    copies_bytes_max: int | None = None  # of others' checkpoints in memory; None: see _copies_bytes
    chip: str | None = None  # of its pool, as the catalogue calls it; None: as its driver says
    away_s_max: float = 900.0  # a syncer that is silent for so long is given up


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """What trains, on what."""

    inner: Inner
    source: Source
    validation: Callable[[], Blocks] | None


def main(arguments: list[str]) -> int:
    """Train until the run is over; the exit status."""
    spec = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=IslandSpec)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO,
        format=f"%(asctime)s {spec.island} %(levelname)s %(message)s",
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    _write({"event": "started"})
    known = {island.name: island for island in spec.run.islands}
    if spec.island not in known:
        sys.stderr.write(f"{spec.island}: the run has islands {', '.join(known)}\n")
        return 2
    try:
        with _parts(spec, known[spec.island]) as parts:
            return _train(spec, parts)
    except DivergedError as error:
        sys.stderr.write(f"{spec.island}: {error}\n")
        return DIVERGED
    except (
        RejectedError,
        AwayError,
        DeniedError,
        CredentialsError,
        CheckpointError,
        OSError,
    ) as error:
        sys.stderr.write(f"{spec.island}: {error}\n")
        return 1


def _train(spec: IslandSpec, parts: Parts) -> int:
    link = Link(spec.url, Path(spec.credentials), away_s_max=spec.away_s_max)
    share = None
    if spec.peer_host is not None:
        share = PeerShare(
            Path(spec.credentials),
            spec.run.run,
            host=spec.peer_host,
            port=spec.peer_port,
            copies_bytes_max=_copies_bytes(spec),
        )
    say = _teller(spec)
    copies = _copies(spec, share, say)
    loop = IslandLoop(
        parts.inner,
        parts.source,
        link,
        Setting(run=spec.run, island=spec.island, folder=spec.folder, share=share, copies=copies),
        validation=parts.validation,
        say=say,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _leave(loop))
    try:
        outcome = loop.run()
    finally:
        link.close()
        if copies is not None:
            copies.close()
        if share is not None:
            share.close()
    _write({"event": "ended", **msgspec.structs.asdict(outcome)})
    return 0


def _leave(loop: IslandLoop) -> None:
    """On a signal. One that waits to take part has nothing to hand in."""
    if not loop.has_joined:
        raise SystemExit(0)
    loop.drain()


def _copies(
    spec: IslandSpec, share: PeerShare | None, say: Callable[[dict[str, object]], None]
) -> CheckpointCopies | None:
    run = spec.run
    if spec.folder is None or len(run.islands) < 2 or not run.checkpoints.is_in_peer_memory:
        return None
    return CheckpointCopies(
        Path(spec.credentials),
        spec.island,
        url=None if share is None else share.url,
        pools={island.name: island.pool for island in run.islands},
        say=say,
    )


def _copies_bytes(spec: IslandSpec) -> int:
    """A share of the machine's memory, for all islands of the run that may be on it together."""
    if not spec.run.checkpoints.is_in_peer_memory:
        return 0
    if spec.copies_bytes_max is not None:
        return spec.copies_bytes_max
    pools = {island.name: island.pool for island in spec.run.islands}
    together = sum(pool == pools[spec.island] for pool in pools.values())
    return copies_bytes_max(MEMORY_SHARE / together)


@contextlib.contextmanager
def _parts(spec: IslandSpec, island: Island) -> Iterator[Parts]:
    build = _reference if spec.inner == "reference" else _torch
    parts = build(spec, island)
    try:
        yield parts
    finally:
        parts.inner.close()


def _reference(spec: IslandSpec, island: Island) -> Parts:
    run = spec.run
    source = ReferenceSource(run, vocabulary=spec.vocabulary)
    inner = ReferenceInner(
        run, vocabulary=spec.vocabulary, step_s=spec.step_s, slowdown=island.slowdown
    )
    first = run.blocks  # beyond the run: no island trains on it
    held_back = run.data.validation_blocks
    validation = (lambda: source.read(first, first + held_back)) if held_back else None
    return Parts(inner=inner, source=source, validation=validation)


def _torch(spec: IslandSpec, island: Island) -> Parts:
    # Here, not above: the rest of an island runs without torch.
    from argosy.fleet.catalogue import chip
    from argosy.training.data.reader import Dataset, Reader
    from argosy.training.torch_island.inner import TorchInner

    run = spec.run
    dataset = Dataset.open(run.data.path)
    held_back = run.data.validation_blocks
    reader = Reader.of(dataset, seed=run.seed, held_back=held_back)
    known = None if spec.chip is None else chip(spec.chip)
    inner = TorchInner(
        run,
        island,
        vocabulary=dataset.vocab_size,
        separator=dataset.end_id if run.data.is_document_masked else None,
        chip=known,
    )
    validation = (lambda: dataset.validation_blocks(held_back)) if held_back else None
    return Parts(inner=inner, source=reader, validation=validation)


def _teller(spec: IslandSpec) -> Callable[[dict[str, object]], None]:
    def say(event: dict[str, object]) -> None:
        if spec.tells_steps or event["event"] != "step":
            _write(event)

    return say


_writing = threading.Lock()  # copies are told of by a thread of their own


def _write(event: dict[str, object]) -> None:
    with _writing:
        sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
        sys.stdout.flush()
