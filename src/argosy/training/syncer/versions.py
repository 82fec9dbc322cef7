"""The parameters of a run at its newest version: computed from the rounds in the ledger, and kept.

A round is in the ledger before it is computed here. So whatever is lost here, down to all but the
last snapshot, is computed again from there on, with the same bits. A snapshot is a folder
`snapshots/VERSION` that appears whole; two are kept. Not thread-safe: one thread at a time.
"""

import hashlib
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from argosy.store.runs import RoundRecord, Seed, SeedFragment
from argosy.training.inner import Tensor, Vector
from argosy.training.outer.codec import DamagedError, decode
from argosy.training.outer.parameters import ParameterMap
from argosy.training.outer.step import (
    OuterFragment,
    OuterSettings,
    OuterState,
    close_fragment,
    first_state,
)
from argosy.training.syncer.vault import Vault, disk_errors, sync_folder
from argosy.training.wire import FragmentName

SNAPSHOT_EVERY = 8  # rounds; so many are computed again after a restart, at most
UPDATES_KEPT = 8  # of the newest versions; who is further behind fetches the parameters
_SNAPSHOTS_KEPT = 2


class LostError(Exception):
    """What the ledger names is not on the disk; the message says what and what would work."""


class MadeVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version, as those who follow it need it."""

    version: int
    update: tuple[str, ...]  # SHA-256 of each encoded fragment; (): of version 0, or not known
    fragments: tuple[FragmentName, ...]


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    version: int
    tensors: tuple[Tensor, ...]
    fragment_bytes_max: int
    sha256: str  # of state.f32: by fragment its parameters, momentum and published values


class Versions:
    """The newest state, the updates that led to it, and the snapshots."""

    def __init__(self, folder: Path, vault: Vault, *, fragment_bytes_max: int) -> None:
        self._folder = folder
        self._vault = vault
        self._fragment_bytes_max = fragment_bytes_max
        self._tensors: tuple[Tensor, ...] = ()
        self._state: OuterState | None = None
        self._published: dict[str, Vector] = {}  # fragments of the last two versions, by SHA-256
        self.made: dict[int, MadeVersion] = {}  # the newest ones
        self.map: ParameterMap | None = None

    @property
    def version(self) -> int | None:
        """None: nobody has sent parameters yet."""
        return None if self._state is None else self._state.version

    @property
    def newest(self) -> MadeVersion | None:
        """What joiners fetch."""
        return None if self.version is None else self.made[self.version]

    def published_fragment(self, name: str) -> memoryview | None:
        """fp32 bytes of a fragment of the newest version or the one before."""
        values = self._published.get(name)
        return None if values is None else values.data.cast("B")

    def published(self) -> Vector:
        """The newest version, all of it."""
        return self._known().published()

    def seed(
        self, island: str, tensors: Sequence[Tensor], fragments: Sequence[FragmentName]
    ) -> Seed:
        """Version 0 out of fragments in the vault, on the disk; it is in force by `begin`.

        Raises ValueError for fragments that are not those of the tensors, or not finite.
        """
        parameter_map = ParameterMap(tensors, self._fragment_bytes_max)
        asked = [(part.index, part.start, part.values) for part in fragments]
        cut = [(part.index, part.start, part.values) for part in parameter_map.fragments]
        if asked != cut:
            raise ValueError(
                f"{len(asked)} fragments were sent; these tensors are cut into {len(cut)},"
                f" of {self._fragment_bytes_max} bytes at most"
            )
        parts: list[Vector] = []
        for part in fragments:
            content = self._vault.read(part.sha256)
            if len(content) != 4 * part.values:
                raise ValueError(f"fragment {part.index} has {len(content)} bytes")
            parts.append(np.frombuffer(content, "<f4").astype(np.float32))
            if not bool(np.isfinite(parts[-1]).all()):
                raise ValueError(f"fragment {part.index} has values that are not finite")
        self._tensors = tuple(tensors)
        self._write_snapshot(first_state(np.concatenate(parts), parameter_map))
        return Seed(
            island=island,
            tensors_sha256=parameter_map.tensors_sha256,
            fragments=tuple(SeedFragment(**msgspec.structs.asdict(part)) for part in fragments),
        )

    def begin(self, version: int, rounds: Callable[[int], Sequence[RoundRecord]]) -> None:
        """Be at this version of the ledger: from the newest snapshot, and rounds after it.

        `rounds(after)` reads the ledger. Raises LostError, FullError.
        """
        state = self._newest_snapshot(version)
        self.map = ParameterMap(self._tensors, self._fragment_bytes_max)
        self._take(state, ())
        for closed in rounds(state.version):
            if closed.version <= version:
                self.close(closed)
        if self.version != version:
            raise LostError(
                f"the ledger is at version {version}, and its rounds lead to {self.version} only"
            )

    def close(self, closed: RoundRecord) -> MadeVersion:
        """Compute that round. Raises LostError, FullError; it may then be tried again."""
        state = self._known()
        settings = OuterSettings(
            lr=closed.settings.lr, momentum=closed.settings.momentum, bits=closed.settings.bits
        )
        fragments: list[OuterFragment] = []
        names: list[str] = []
        for index, before in enumerate(state.fragments):
            deltas = [
                (self._delta(one.fragments[index], before.parameters.size), one.weight)
                for one in closed.contributions
            ]
            after, update = close_fragment(before, deltas, settings)
            names.append(hashlib.sha256(update).hexdigest())
            self._vault.put(names[-1], update)
            fragments.append(after)
        self._take(OuterState(version=closed.version, fragments=tuple(fragments)), tuple(names))
        return self.made[closed.version]

    def norm(self, names: Sequence[str], bits: int) -> float:
        """Of a delta in the vault, after a look at each of its bytes.

        Raises DamagedError where it is none of these parameters, in so many bits.
        """
        parts = self._map().fragments
        if len(names) != len(parts):
            raise DamagedError(f"{len(names)} fragments were sent; there are {len(parts)}")
        total = 0.0
        for part, name in zip(parts, names, strict=True):
            content = self._vault.read(name)
            if len(content) > 5 and content[5] != bits:
                raise DamagedError(
                    f"fragment {part.index} has {content[5]} bits; agreed are {bits}"
                )
            values = decode(content, values=part.values)
            total += float(np.dot(values, values))
        return math.sqrt(total)

    def products(self, deltas: Sequence[Sequence[str]]) -> list[list[float]]:
        """The scalar product of each delta with each: norms and cosines follow from these."""
        gram = np.zeros((len(deltas), len(deltas)))
        for part in self._map().fragments:
            values = np.stack([self._delta(names[part.index], part.values) for names in deltas])
            gram += values @ values.T
        return gram.tolist()

    def snapshot_if_due(self, *, always: bool = False) -> int | None:
        """Deltas of rounds up to the version it returns are needed no more. Raises FullError."""
        state = self._known()
        kept = self._snapshots()
        newest = kept[-1] if kept else -1
        if state.version > newest and (always or state.version - newest >= SNAPSHOT_EVERY):
            self._write_snapshot(state)
            kept = self._snapshots()
        for version in kept[:-_SNAPSHOTS_KEPT]:
            shutil.rmtree(self._folder / "snapshots" / str(version), ignore_errors=True)
        return kept[-_SNAPSHOTS_KEPT:][0] if kept else None

    def write_final(self) -> Path:
        """`final/`: what all islands have now, as one vector of fp32 values, and what it means."""
        state = self._known()
        folder = self._folder / "final"
        vector = state.published().astype("<f4", copy=False)
        described = {
            "version": state.version,
            "sha256": hashlib.sha256(vector.data).hexdigest(),
            "tensors": msgspec.to_builtins(self._tensors),
        }
        with disk_errors(folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            _write_synced(folder / "parameters.f32", [vector])
            _write_synced(folder / "parameters.json", [msgspec.json.encode(described)])
            sync_folder(folder)
        return folder

    def live_names(self) -> set[str]:
        """Fragments of updates that may still be asked for."""
        return {name for made in self.made.values() for name in made.update}

    def _take(self, state: OuterState, update: tuple[str, ...]) -> None:
        """The next version is in force; what is served of the one before stays one version more."""
        names: list[FragmentName] = []
        published: dict[str, Vector] = {}
        for part, fragment in zip(self._map().fragments, state.fragments, strict=True):
            values = fragment.published.astype("<f4", copy=False)
            name = hashlib.sha256(values.data).hexdigest()
            published[name] = values
            names.append(
                FragmentName(index=part.index, start=part.start, values=part.values, sha256=name)
            )
        before = self.newest
        old = {} if before is None else {part.sha256 for part in before.fragments}
        kept = {name: values for name, values in self._published.items() if name in old}
        self._published = {**kept, **published}
        made = MadeVersion(version=state.version, update=update, fragments=tuple(names))
        self.made = {
            version: one
            for version, one in {**self.made, state.version: made}.items()
            if version > state.version - UPDATES_KEPT
        }
        self._state = state

    def _delta(self, name: str, values: int) -> Vector:
        try:
            return decode(self._vault.read(name), values=values)
        except (OSError, DamagedError) as error:
            raise LostError(
                f"the fragment {name} of a delta that the ledger has accepted cannot be read:"
                f" {error}. Restore the run's folder, or start another run from its last snapshot"
            ) from error

    def _known(self) -> OuterState:
        if self._state is None:
            raise LostError("nobody has sent parameters yet")
        return self._state

    def _map(self) -> ParameterMap:
        if self.map is None:
            raise LostError("nobody has sent parameters yet")
        return self.map

    # Snapshots.

    def _snapshots(self) -> list[int]:
        folder = self._folder / "snapshots"
        if not folder.exists():
            return []
        return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())

    def _newest_snapshot(self, version: int) -> OuterState:
        faults: list[str] = []
        for found in reversed(self._snapshots()):
            if found > version:
                continue
            try:
                return self._read_snapshot(found)
            except (OSError, ValueError) as error:
                faults.append(f"{found}: {error}")
        told = "; ".join(faults) or "there is none"
        raise LostError(
            f"the ledger is at version {version}, and {self._folder / 'snapshots'} has no usable"
            f" snapshot of it or before ({told}). Restore that folder from where the syncer ran"
        )

    def _write_snapshot(self, state: OuterState) -> None:
        folder = self._folder / "snapshots"
        fresh = folder / f"{state.version}.new"
        sha = hashlib.sha256()
        arrays = [
            values.astype("<f4", copy=False)
            for part in state.fragments
            for values in (part.parameters, part.momentum, part.published)
        ]
        for values in arrays:
            sha.update(values.data)
        manifest = _Manifest(
            version=state.version,
            tensors=self._tensors,
            fragment_bytes_max=self._fragment_bytes_max,
            sha256=sha.hexdigest(),
        )
        with disk_errors(folder / "x"):
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(mode=0o700, parents=True)
            try:
                _write_synced(fresh / "state.f32", arrays)
                _write_synced(fresh / "manifest.json", [msgspec.json.encode(manifest)])
                sync_folder(fresh)
                shutil.rmtree(folder / str(state.version), ignore_errors=True)
                fresh.replace(folder / str(state.version))
            except OSError:
                shutil.rmtree(fresh, ignore_errors=True)
                raise
            sync_folder(folder)

    def _read_snapshot(self, version: int) -> OuterState:
        """Raises OSError, ValueError where it is damaged."""
        folder = self._folder / "snapshots" / str(version)
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=_Manifest)
        parameter_map = ParameterMap(manifest.tensors, manifest.fragment_bytes_max)
        content = (folder / "state.f32").read_bytes()
        if hashlib.sha256(content).hexdigest() != manifest.sha256:
            raise ValueError("its SHA-256 is not the one that was written")
        if manifest.fragment_bytes_max != self._fragment_bytes_max:
            raise ValueError(f"it is cut into fragments of {manifest.fragment_bytes_max} bytes")
        values = np.frombuffer(content, "<f4").astype(np.float32)
        fragments: list[OuterFragment] = []
        for part in parameter_map.fragments:
            at = 3 * part.start
            three = values[at : at + 3 * part.values].reshape(3, part.values)
            fragments.append(
                OuterFragment(parameters=three[0], momentum=three[1], published=three[2])
            )
        self._tensors = manifest.tensors
        return OuterState(version=manifest.version, fragments=tuple(fragments))


def _write_synced(path: Path, parts: Sequence[bytes | Vector]) -> None:
    with path.open("wb") as file:
        for part in parts:
            file.write(part if isinstance(part, bytes) else part.data)
        file.flush()
        os.fsync(file.fileno())
