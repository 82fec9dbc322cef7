"""Two attempts of one request at once, until one of them speaks: the other is then told to stop.

Only before the first byte, so the client sees one answer. The race stands between the attempts
and the exchange; when it is decided the winner answers to the exchange as any attempt does.
"""

from collections.abc import Callable
from typing import Protocol

from argosy.fleet.messages import Refusal
from argosy.gateway.attempt import Asker, Attempt
from argosy.gateway.http import Request
from argosy.gateway.router import Placed


class Racing(Asker, Protocol):
    """Whose attempts they are: an exchange."""

    def adopt(self, winner: "Contender") -> None:
        """It has but this attempt from now on."""
        ...

    def drop(self, loser: "Contender", refusal: Refusal | None) -> None:
        """That attempt is over; `refusal` says how it failed, None where it was merely slower."""
        ...


class Contender:
    """One of the two attempts, and the asker that it hears until the race is decided."""

    has_begun = False

    def __init__(self, attempt: Attempt, placed: Placed, *, request: Request) -> None:
        self.attempt = attempt
        self.placed = placed
        self.request = request
        self.win: Callable[[], Asker]  # both set by the race
        self.lose: Callable[[Refusal], None]
        self.now_s: Callable[[], float]

    def stream(self, data: bytes, now_s: float) -> None:
        self.win().stream(data, now_s)

    def tokens_came(self, count: int, gap_s: float | None, now_s: float) -> None:
        self.win().tokens_came(count, gap_s, now_s)

    def end_stream(self, data: bytes) -> None:
        self.win().end_stream(data)

    def finish_whole(self, body: bytes) -> None:
        self.win().finish_whole(body)

    def replica_lost(self) -> None:
        self.placed.live.doubt(self.now_s())

    def attempt_failed(self, refusal: Refusal) -> None:
        self.lose(refusal)

    def refuse(self, refusal: Refusal) -> None:
        self.win().refuse(refusal)


class Race:
    """From the second attempt's start to the first one's first token, or failure."""

    def __init__(
        self, racing: Racing, first: Contender, second: Contender, *, now_s: Callable[[], float]
    ) -> None:
        self._racing = racing
        self._winner: Contender | None = None
        for one, other in ((first, second), (second, first)):
            self._enter(one, other)
            one.now_s = now_s
            one.attempt.answer_to(one)

    def _enter(self, one: Contender, other: Contender) -> None:
        def win() -> Asker:
            if self._winner is None:
                self._decide(one)
                self._racing.drop(other, None)
            return self._racing

        def lose(refusal: Refusal) -> None:
            if self._winner is None:
                self._decide(other)
                self._racing.drop(one, refusal)

        one.win, one.lose = win, lose

    def _decide(self, winner: Contender) -> None:
        self._winner = winner
        winner.attempt.answer_to(self._racing)
        self._racing.adopt(winner)
