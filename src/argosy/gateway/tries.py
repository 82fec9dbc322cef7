"""What one request has tried: its attempts, those that failed, on which replicas; and its words.

Counts alone: what follows from a failure is decided by the failover policy and done by the
exchange.
"""

import msgspec

from argosy.fleet.messages import Refusal
from argosy.gateway.surfaces.chat_upstream import UNREADABLE

_MOVES_MAX = 2


class Tries:
    """Of one request; most requests have one attempt, and it does not fail."""

    attempts = 0  # begun, on all models
    failures = 0  # of attempts on the model that is being tried
    failed_s = 0.0  # when the first of them failed
    replicas: frozenset[str] = frozenset()  # that failed it or were left, by name
    forgives = False  # an attempt was given up for an event that could not be read: once is enough
    _moves = 0  # attempts given up because the replica was suspect

    def may_move(self) -> bool:
        """True a few times: a move gives up the request's place on its replica. Counts it."""
        if self._moves >= _MOVES_MAX:
            return False
        self._moves += 1
        return True

    def leave(self, replica: str | None) -> None:
        """Others are asked first from now on."""
        if replica is not None:
            self.replicas |= {replica}

    def read(self, refusal: Refusal) -> None:
        """Learn from how an attempt failed."""
        self.forgives |= refusal.code == UNREADABLE

    def failed(self, replica: str | None, now_s: float) -> None:
        """An attempt did, and another may follow."""
        if not self.failures:
            self.failed_s = now_s
        self.failures += 1
        self.leave(replica)

    def begin_anew(self) -> None:
        """With another model, whose replicas have failed nothing yet."""
        self.replicas = frozenset()
        self.failures = 0

    def in_the_end(self, refusal: Refusal, replica: str) -> Refusal:
        """The last attempt's refusal, for the client: says how often it was tried."""
        if self.attempts == 1:
            return refusal
        tries = f" ({self.attempts} attempts, the last on {replica})"
        return msgspec.structs.replace(refusal, message=refusal.message + tries)
