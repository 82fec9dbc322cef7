"""An island's side: what to send of its training, and how it moves when a version comes. Pure.

Three things are known: `published`, the newest version that was taken up, the same on all islands;
`pending`, the encoded deltas that were sent and are in no version yet; and `now`, the parameters
inside the island, which this module never holds. What was not yet told of the island's training is

    anchor - now,   anchor = published - sum of what is decoded from pending

at any time, and that is the next delta. Whatever changes `anchor` by an update or a refusal moves
`now` by the same values, so the difference stays:
- a version comes: published' - published, plus what is decoded of the own deltas that are in it;
- a delta is refused: plus what is decoded of it; its blocks are trained on anew by whoever.
Sending changes only `pending`. What the codec could not say of a delta is thereby still in
anchor - now and goes with the next one (error feedback without a residual of its own, and without
pulling the island off its way), and so does whatever fp32 rounds away in moving. The order of
snapshots, sendings, versions and refusals does not matter; nothing is lost or counted twice.

Where a delta was refused because it made no sense (a chip that computes wrongly, NaN), what came
after it makes none either: take up `published` whole by `restart`.
"""

from collections.abc import Sequence

import msgspec
import numpy as np

from argosy.training.inner import Vector
from argosy.training.outer.codec import decode
from argosy.training.outer.parameters import ParameterMap
from argosy.training.outer.step import publish


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """A delta on its way: in no version yet, as far as the island knows."""

    number: int
    fragments: tuple[bytes, ...]  # encoded


class UnknownNumberError(Exception):
    """A contribution was named that is not pending."""


class LocalState:
    """What an island knows of the published parameters and of its own deltas.

    Not thread-safe. In host memory, `published` is 4 bytes a value, each pending delta of 4 bits
    0.53.
    """

    def __init__(
        self,
        parameter_map: ParameterMap,
        published: Vector,
        *,
        version: int,
        pending: Sequence[Sent] = (),
    ) -> None:
        self.map = parameter_map
        self.published = published.astype(np.float32)
        self.version = version
        self.pending = tuple(pending)

    def anchor(self) -> Vector:
        """What `now` would be had the island trained nothing since its last snapshot."""
        anchor = self.published.copy()
        for part in self.map.fragments:
            for sent in self.pending:
                anchor[part.start : part.stop] -= decode(
                    sent.fragments[part.index], values=part.values
                )
        return anchor

    def snapshot(self, now: Vector) -> Vector:
        """The raw delta: all that was not yet told, up to `now`; changes nothing.

        To be encoded by fragment and told by `sent` before the next snapshot; versions and refusals
        may come in between.
        """
        delta = self.anchor()
        delta -= now
        return delta

    def sent(self, number: int, fragments: Sequence[bytes]) -> None:
        """The last snapshot was encoded thus and will be contribution `number`.

        Raises ValueError where numbers do not grow or a fragment is missing.
        """
        if self.pending and number <= self.pending[-1].number:
            raise ValueError(
                f"contribution {number} was sent after {self.pending[-1].number}; numbers grow"
            )
        if len(fragments) != len(self.map.fragments):
            raise ValueError(
                f"{len(fragments)} fragments were sent; there are {len(self.map.fragments)}"
            )
        self.pending += (Sent(number=number, fragments=tuple(fragments)),)

    def adopt(self, version: int, update: Sequence[bytes], *, number: int | None) -> Vector:
        """The next version: what `now` must be moved by (Inner.add from the start).

        `number` is the last own contribution in it or before; None: none is. Raises DamagedError
        with nothing changed, and ValueError for another version than the next.
        """
        if version != self.version + 1:
            raise ValueError(
                f"version {version} was given, {self.version} is what the island has; updates are "
                "taken up one by one, or the whole parameters by adopt_whole"
            )
        published = self.published.copy()
        for part in self.map.fragments:
            published[part.start : part.stop] = publish(part.of(published), update[part.index])
        return self.adopt_whole(version, published, number=number)

    def adopt_whole(self, version: int, published: Vector, *, number: int | None) -> Vector:
        """A later version, all of it: what `now` must be moved by. Keeps a copy of `published`."""
        movement = published - self.published
        done = tuple(s for s in self.pending if number is not None and s.number <= number)
        self._add_decoded(movement, done)
        self.pending = self.pending[len(done) :]
        self.published = published.astype(np.float32)
        self.version = version
        return movement

    def refused(self, number: int) -> Vector:
        """It counts for nothing: what `now` must be moved by. Raises UnknownNumberError."""
        refused = tuple(sent for sent in self.pending if sent.number == number)
        if not refused:
            known = ", ".join(str(sent.number) for sent in self.pending) or "none"
            raise UnknownNumberError(f"contribution {number} was refused; pending: {known}")
        movement = np.zeros_like(self.published)
        self._add_decoded(movement, refused)
        self.pending = tuple(sent for sent in self.pending if sent.number != number)
        return movement

    def restart(self) -> Vector:
        """Forget all own training since: what `now` is to be set to; nothing is pending then."""
        self.pending = ()
        return self.published.copy()

    def _add_decoded(self, to: Vector, sent: Sequence[Sent]) -> None:
        for part in self.map.fragments:
            for one in sent:
                to[part.start : part.stop] += decode(one.fragments[part.index], values=part.values)
