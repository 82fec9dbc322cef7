"""Joining: an epoch of one's own, and the newest parameters, or one's own for all others."""

from collections.abc import Sequence

import msgspec

from argosy.fleet.runs import Run
from argosy.training.inner import Inner, Vector
from argosy.training.island import fragments
from argosy.training.island.link import GoneError, Link
from argosy.training.outer.parameters import ParameterMap
from argosy.training.wire import (
    WIRE_VERSION,
    FragmentName,
    Join,
    Parameters,
    Peer,
    Refused,
    Seed,
    Seeding,
)

_WAIT_S = 10.0  # of a long poll for another's parameters


class RejectedError(Exception):
    """The syncer does not take this island; the message says why."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An island takes part."""

    epoch: int
    map: ParameterMap
    version: int
    published: Vector
    names: tuple[FragmentName, ...]  # of its fragments
    blocks: int  # of the run
    bits: int
    lease_s: float
    peers: tuple[Peer, ...]


def enter(link: Link, inner: Inner, *, run: Run, island: str, speed: float | None) -> Entry:
    """Join, and have the newest version inside. Raises RejectedError, AwayError, DeniedError."""
    tensors = tuple(inner.tensors())
    parameter_map = ParameterMap(tensors, run.outer.fragment_bytes_max)
    joined = link.join(
        Join(
            wire_version=WIRE_VERSION,
            island=island,
            run=run.run,
            tensors_sha256=parameter_map.tensors_sha256,
            steps_per_s=speed,
            version=None,
        )
    )
    if isinstance(joined, Refused):
        raise RejectedError(f"{island} may not join: {joined.reason}")
    if joined.fragment_bytes_max != run.outer.fragment_bytes_max:
        parameter_map = ParameterMap(tensors, joined.fragment_bytes_max)
    newest: Parameters | Seeding = joined.parameters or Seeding(island=joined.seeder or "")
    known: dict[str, bytes] = {}  # what it sends for all is not fetched again
    while isinstance(newest, Seeding):
        if newest.island == island:
            named = fragments.named(parameter_map, inner.parameters())
            known = {name.sha256: content for name, content in named}
            names = tuple(name for name, _ in named)
            seed = Seed(
                island=island, epoch=joined.epoch, tensors=parameter_map.tensors, fragments=names
            )
            newest = _seeded(link, seed, known)
        else:
            newest = link.parameters(wait_s=min(_WAIT_S, joined.lease_s / 3))
    version, published = fetch_whole(link, parameter_map, newest, peers=joined.peers, known=known)
    inner.set_parameters(published)
    return Entry(
        epoch=joined.epoch,
        map=parameter_map,
        version=version,
        published=published,
        names=tuple(name for name, _ in fragments.named(parameter_map, published)),
        blocks=joined.blocks,
        bits=joined.bits,
        lease_s=joined.lease_s,
        peers=joined.peers,
    )


def fetch_whole(
    link: Link,
    parameter_map: ParameterMap,
    newest: Parameters,
    *,
    peers: Sequence[Peer] = (),
    known: dict[str, bytes] | None = None,
) -> tuple[int, Vector]:
    """That version, or a newer one where it is kept no more; what was fetched of it is kept."""
    have = dict(known or {})
    while True:
        sizes = {one.sha256: 4 * one.values for one in newest.fragments if one.sha256 not in have}
        try:
            have |= link.fetch(sizes, peers=peers)
        except GoneError:
            found = link.parameters()
            if isinstance(found, Seeding) or found.version == newest.version:
                raise
            newest = found
            continue
        return newest.version, fragments.joined(parameter_map, newest.fragments, have)


def _seeded(link: Link, seed: Seed, contents: dict[str, bytes]) -> Parameters:
    answer = link.seed(seed, contents)
    if isinstance(answer, Refused):
        raise RejectedError(f"the parameters of {seed.island} were refused: {answer.reason}")
    return answer
