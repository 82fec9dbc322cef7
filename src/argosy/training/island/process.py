"""The program of an island: `python -m argosy.training.island SPEC.json`.

Says what happens as one JSON object a line on stdout: started, joined, step, version, accepted,
lost, evaluated, and at the end what came of it. Ends with 0 when the run is over, 1 with a sentence
on stderr when it cannot take part. SIGTERM: it finishes its lease, sends it, and leaves. It may be
killed at any time and started again with the same spec.
"""

import contextlib
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from argosy.fleet.runs import Island, Run
from argosy.training.credentials import CredentialsError
from argosy.training.inner import Blocks, CheckpointError, Inner
from argosy.training.island.joining import RejectedError
from argosy.training.island.link import AwayError, DeniedError, Link
from argosy.training.island.loop import DivergedError, IslandLoop, Setting, Source
from argosy.training.island.peers import PeerShare
from argosy.training.island.reference import ReferenceInner, ReferenceSource


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
    except (
        RejectedError,
        AwayError,
        DeniedError,
        DivergedError,
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
            Path(spec.credentials), spec.run.run, host=spec.peer_host, port=spec.peer_port
        )
    loop = IslandLoop(
        parts.inner,
        parts.source,
        link,
        Setting(run=spec.run, island=spec.island, folder=spec.folder, share=share),
        validation=parts.validation,
        say=_teller(spec),
    )
    signal.signal(signal.SIGTERM, lambda *_: loop.drain())
    try:
        outcome = loop.run()
    finally:
        link.close()
        if share is not None:
            share.close()
    _write({"event": "ended", **msgspec.structs.asdict(outcome)})
    return 0


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
    from argosy.training.data.reader import Dataset, Reader
    from argosy.training.torch_island.inner import TorchInner

    run = spec.run
    dataset = Dataset.open(run.data.path)
    held_back = run.data.validation_blocks
    reader = Reader.of(dataset, seed=run.seed, held_back=held_back)
    inner = TorchInner(run, island, vocabulary=dataset.vocab_size)
    validation = (lambda: dataset.validation_blocks(held_back)) if held_back else None
    return Parts(inner=inner, source=reader, validation=validation)


def _teller(spec: IslandSpec) -> Callable[[dict[str, object]], None]:
    def say(event: dict[str, object]) -> None:
        if spec.tells_steps or event["event"] != "step":
            _write(event)

    return say


def _write(event: dict[str, object]) -> None:
    sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
    sys.stdout.flush()
