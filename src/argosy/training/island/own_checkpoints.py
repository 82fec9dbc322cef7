"""An island's own checkpoints: when one is made, and which one it goes on from.

Owns the interval, and the choice at a return: the newest on the disk that can be read; where there
is none, or a newer one was torn, the copy in a peer's memory (`copies.py`); else the optimizer
begins anew. Parameters are the syncer's business: of a checkpoint the optimizer's state alone
counts.
"""

import logging
import shutil
import time
from pathlib import Path
from time import perf_counter

from argosy.fleet.runs import Run
from argosy.policies.checkpointing import interval_s, mttf_s
from argosy.training.inner import CheckpointError, Inner
from argosy.training.island.copied_files import label_of, labels_in
from argosy.training.island.copies import CheckpointCopies, Traffic
from argosy.training.island.joining import Entry
from argosy.training.wire import Peer

_COPY_BYTES_BASE, _COPY_BYTES_PER_VALUE = 2**26, 32  # fp32 and AdamW's two moments are 12
_LOOK_S = 0.05
_LATE_S = 1.0  # beyond a third of lease_s, in which the syncer hears of all peers

logger = logging.getLogger(__name__)


class OwnCheckpoints:
    """Of one island, in one folder. Called by the thread that trains."""

    def __init__(
        self, inner: Inner, run: Run, folder: Path | None, copies: CheckpointCopies | None = None
    ) -> None:
        """No folder: none are made. No copies: none are sent or fetched."""
        self._inner = inner
        self._run = run
        self._folder = folder
        self._copies = copies
        self._loaded: str | None = None
        self._is_torn = False
        self._started_s = self._saved_at_s = perf_counter()
        self._cost_s = 1.0

    def load(self) -> None:
        """From the disk, before joining."""
        if self._folder is None:
            return
        for label in labels_in(self._folder):
            try:
                self._inner.load(str(self._folder / label))
            except CheckpointError as error:
                self._is_torn = True
                logger.warning("the checkpoint %s cannot be used: %s", label, error)
            else:
                logger.info("goes on from the checkpoint %s", label)
                self._loaded = label
                return

    def restore(self, entry: Entry, traffic: Traffic) -> bool:
        """From a peer, where the disk had less. Whether the inside was touched.

        Its parameters are then any.
        """
        if self._copies is None:
            return False
        is_back = entry.epoch > 1 and len(self._run.islands) > 1
        if self._folder is None or not is_back or not (self._loaded is None or self._is_torn):
            return False
        folder = self._copies.restore(
            self._folder,
            self._peers(entry, traffic),
            newer_than=self._loaded,
            bytes_max=_COPY_BYTES_BASE + _COPY_BYTES_PER_VALUE * entry.map.values,
        )
        if folder is None:
            logger.info("no peer has a copy of a checkpoint of this island")
            return False
        try:
            self._inner.load(str(folder))
        except CheckpointError as error:
            logger.warning("the copy %s cannot be used: %s", folder.name, error)
            shutil.rmtree(folder, ignore_errors=True)
        else:
            logger.info("goes on from the copy %s", folder.name)
        return True

    def attach(self, traffic: Traffic) -> None:
        """Of the island's present life."""
        if self._copies is not None:
            self._copies.attach(traffic)

    def save_if_due(self, *, epoch: int, steps: int) -> float:
        """Seconds that training stood still for it; 0.0: it is not due."""
        if self._folder is None:
            return 0.0
        now_s = perf_counter()
        wanted_s = self._run.checkpoints.every_s
        if wanted_s is None:
            wanted_s = interval_s(self._cost_s, mttf_s(now_s - self._started_s, epoch - 1))
        if now_s - self._saved_at_s < wanted_s:
            return 0.0
        self._saved_at_s = now_s
        folder = self._folder / label_of(epoch, steps)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._inner.save(str(folder))
        except (CheckpointError, OSError) as error:
            logger.warning("no checkpoint: %s. Training goes on; it is tried again", error)
        else:
            if self._copies is not None:
                self._copies.offer(folder)
        self._cost_s = max(1e-3, perf_counter() - now_s)
        return self._cost_s

    def _peers(self, entry: Entry, traffic: Traffic) -> tuple[Peer, ...]:
        """A syncer that has just begun knows of them with their next beat."""
        end_s = perf_counter() + entry.lease_s / 3 + _LATE_S
        while not (entry.peers or traffic.peers) and perf_counter() < end_s:
            time.sleep(_LOOK_S)
        known = {peer.island: peer for peer in (*entry.peers, *traffic.peers)}
        return tuple(known.values())
