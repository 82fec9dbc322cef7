"""All that passes between an island and the syncer, and between islands, version 1.

Control messages are JSON; fragments and deltas are bytes as `outer/codec.py` lays them out, named
by the SHA-256 of those bytes. docs/WIRE.md describes both for other implementations. Everything
runs over mutual TLS with credentials of this one run; nothing here is ever unpickled.
"""

from typing import Literal

import msgspec

from argosy.training.inner import Figures, Tensor

WIRE_VERSION = 1


class Join(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An island (again) wants to take part. It has no say over its past: the ledger has."""

    wire_version: int
    island: str
    run: str
    tensors_sha256: str  # of the JSON of its tensors: both sides speak of the same parameters
    steps_per_s: float | None  # measured; None: not yet
    version: int | None  # of the parameters that it has, None: none


class Span(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Positions of blocks in the run: start <= position < stop."""

    start: int
    stop: int


class Lease(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Blocks that this island alone may train on, for one delta. Its length decides the steps."""

    lease: str
    spans: tuple[Span, ...]  # in this order; together a whole number of inner steps


class FragmentName(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fragment of the parameters at a version."""

    index: int
    start: int  # in the vector
    values: int
    sha256: str  # of its fp32 bytes, little-endian


class Settled(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of an island's contributions are in a version, or will be in none."""

    island: str
    epoch: int  # its numbers are this epoch's
    number: int  # this one and all before it
    distrusted: str | None = None  # why the last was not believed
    begins_anew: bool = False  # it made no sense, nor does what came after: take the version whole


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The newest version and what it is made of."""

    version: int  # rounds that were closed
    fragments: tuple[FragmentName, ...]
    settled: tuple[Settled, ...] = ()


class Seeding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """There are no parameters yet: this island is to send its own, the others wait."""

    island: str


class Seed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An island's own parameters, whose fragments were sent as they are: they are version 0."""

    island: str
    epoch: int
    tensors: tuple[Tensor, ...]
    fragments: tuple[FragmentName, ...]


class Joined(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The island takes part under `epoch`: a token that its later lives make void."""

    epoch: int
    parameters: Parameters | None  # None: nobody has any yet
    blocks: int  # of the run
    blocks_done: int
    lease_s: float
    bits: int
    fragment_bytes_max: int  # fp32 bytes of a fragment
    seeder: str | None = None  # where there are no parameters: the island that is to send its own
    peers: tuple["Peer", ...] = ()  # islands that have fragments too


class Peer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An island that others may fetch from."""

    island: str
    url: str


class Beat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An island lives, and may ask for its next lease; sent at least every lease_s / 3."""

    island: str
    epoch: int
    version: int  # that it has taken up
    steps_per_s: float | None
    loss: float | None
    waited_s: float  # since it joined: without a block to train on
    wants_lease: bool
    holds: tuple[str, ...] = ()  # leases whose contribution was not answered yet
    peer_url: str | None = None
    unsent: int = 0  # deltas that are trained, and not answered yet
    figures: Figures | None = None  # of its last lease


class Beaten(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the syncer says to that."""

    state: Literal["training", "finishing", "finished", "stopped"]
    version: int  # the newest
    lease: Lease | None
    blocks_done: int
    lost: tuple[
        str, ...
    ] = ()  # of those it holds: they are another's now, train on no more of them
    evaluate: int | None = None  # a version whose loss this island is to measure
    peers: tuple[Peer, ...] = ()


class Evaluated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The loss of a version on the blocks that are kept back, mean over tokens, nats."""

    island: str
    epoch: int
    version: int
    loss: float


class Leave(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An island goes; its leases are free at once."""

    island: str
    epoch: int


class Contribution(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A delta, all of whose fragments were sent: base minus own parameters, after a lease."""

    island: str
    epoch: int
    number: int  # grows by one with each of this epoch: a replay is told from a new one
    base_version: int
    lease: str
    steps: int
    blocks: int
    loss: float
    fragments: tuple[str, ...]  # SHA-256 of each encoded fragment, in order
    tokens_sha256: str  # of all token ids trained on, in order: the proof of what was seen


class Accepted(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="accepted"
):
    """It is in the ledger and on the disk, and will be in a round."""

    closes_version: int  # the round that it is meant for


class Refused(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="refused"):
    """It counts for nothing; its blocks are leased anew."""

    code: Literal[
        "stale_epoch", "replayed", "too_stale", "unknown_lease", "damaged", "unlike", "over"
    ]
    reason: str  # what was asked, what is true, what would work


Verdict = Accepted | Refused


class Missing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="missing"):
    """These fragments are not here: send them (again), then the contribution again."""

    fragments: tuple[str, ...]


class Update(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What turns one version of the parameters into the next: encoded fragments to subtract."""

    version: int  # that it leads to
    fragments: tuple[str, ...]  # SHA-256 of each encoded one, in order
    parameters: Parameters  # what then is, to be checked; what of the own deltas is in it


class IslandStatus(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An island that lives, as the syncer sees it."""

    island: str
    epoch: int
    version: int | None
    steps_per_s: float | None
    inner_steps: int | None  # of its leases
    loss: float | None
    waited_s: float  # since it joined
    joined_s: float  # seconds ago
    silent_s: float
    blocks_done: int
    bytes_in: int
    bytes_out: int
    figures: Figures | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of the run, by the syncer that answers."""

    run: str
    state: Literal["training", "finishing", "finished", "stopped"]
    version: int | None
    blocks: int
    blocks_done: int
    blocks_leased: int
    waits: str  # what the open round waits for, in words
    refused: tuple[str, ...]  # the last refusals: who, number, why
    fault: str | None  # why the last round could not be written, e.g. a full disk
    islands: tuple[IslandStatus, ...]


class CopiedFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a checkpoint."""

    path: str  # below the checkpoint's folder, with /
    bytes: int
    sha256: str


class Copy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An island's checkpoint, of which a peer is to keep a copy in memory: its manifest."""

    island: str  # whose it is: it alone may send and fetch it
    label: str  # its folder's name; an island's later checkpoints have greater ones
    files: tuple[CopiedFile, ...]


class CopyWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the peer has not got yet: of each content, so many bytes are there. {}: it has all."""

    there: dict[str, int]


class CopyRefused(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """It does not fit what the peer gives of its memory."""

    reason: str
    bytes_asked: int
    bytes_free: int  # for this island's copy: its older one would make room
