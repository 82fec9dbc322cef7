"""Who takes part in a run right now: who lives, what each trains on, what the open round waits for.

All of it is in memory and follows from what islands say and from the ledger's open leases; a syncer
that starts anew gives each island that was there some time to be heard. No clock: `now_s` is given.
"""

import dataclasses

from argosy.fleet.runs import Run
from argosy.policies.elasticity import (
    Close,
    ElasticitySettings,
    IslandSeen,
    RoundView,
    Wait,
    blocks_of_lease,
    closing,
    rations,
)
from argosy.training.inner import Figures
from argosy.training.wire import Beat, IslandStatus, Peer

_BACK_S = 5.0  # islands try again every 2 s at least, see island/link.py
_RESTART_EXTRA_S = 15.0  # before one that does not come back counts as gone


@dataclasses.dataclass
class Held:
    """A lease that an island holds."""

    steps: int
    granted_s: float


@dataclasses.dataclass
class Seat:
    """One island that lives."""

    island: str
    epoch: int
    joined_s: float
    heard_s: float
    silent_at_s: float  # when it counts as gone, unless it is heard
    steps_per_s: float | None = None
    version: int | None = None
    loss: float | None = None
    waited_s: float = 0.0
    figures: Figures | None = None
    peer_url: str | None = None
    returned_s: float = 0.0  # when its last contribution came
    held: dict[str, Held] = dataclasses.field(default_factory=dict)  # the first is trained on
    inner_steps: int | None = None
    back_by_s: float | None = None  # what it trained on while the syncer was away comes until then
    asking: int = 0  # requests of it that wait for an answer: it is not silent
    is_noted: bool = False  # the ledger knows what was heard last


class Seats:
    """All that live."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.settings = ElasticitySettings(
            inner_steps=run.outer.inner_steps,
            quorum=run.outer.quorum,
            grace_s_max=run.outer.grace_s_max,
            staleness_max=run.outer.staleness_max,
        )
        self.seats: dict[str, Seat] = {}
        self.speeds: dict[str, float] = {}  # steps/s, measured in this life or the last
        self.moved: dict[str, tuple[int, int]] = {}  # bytes of fragments in and out, of all lives
        self._contributed: set[str] = set()
        self._quorum_s: float | None = None
        self._rations: dict[str, int] = {}

    def expect(self, island: str, epoch: int, *, now_s: float) -> Seat:
        """It took part; it does not know yet that the syncer is here again."""
        seat = self.sit(island, epoch, now_s=now_s)
        seat.back_by_s = now_s + _BACK_S
        seat.silent_at_s += _RESTART_EXTRA_S
        return seat

    def sit(self, island: str, epoch: int, *, now_s: float) -> Seat:
        """It takes part from now on."""
        seat = Seat(
            island=island,
            epoch=epoch,
            joined_s=now_s,
            heard_s=now_s,
            silent_at_s=now_s + self._run.outer.lease_s,
            returned_s=now_s,
            steps_per_s=self.speeds.get(island),  # else a slow one's first lease is of mean length
        )
        self.seats[island] = seat
        return seat

    def count_bytes(self, island: str, *, came: int, went: int) -> None:
        """Of fragments."""
        before_in, before_out = self.moved.get(island, (0, 0))
        self.moved[island] = (before_in + came, before_out + went)

    def hear(self, seat: Seat, *, now_s: float) -> None:
        """It lives."""
        seat.heard_s = now_s
        seat.silent_at_s = max(seat.silent_at_s, now_s + self._run.outer.lease_s)
        seat.is_noted = False

    def take(self, seat: Seat, beat: Beat) -> None:
        """What it says of itself."""
        if beat.steps_per_s is not None:
            seat.steps_per_s = self.speeds[seat.island] = beat.steps_per_s
        seat.version = beat.version
        seat.loss = beat.loss
        seat.waited_s = beat.waited_s
        seat.figures = beat.figures
        seat.peer_url = beat.peer_url
        if not beat.unsent:
            seat.back_by_s = None

    def leased(self, seat: Seat, lease: str, *, blocks: int, now_s: float) -> None:
        """It was given this one."""
        seat.held[lease] = Held(steps=blocks // self._run.batch_blocks, granted_s=now_s)

    def returned(self, seat: Seat, lease: str, *, now_s: float) -> None:
        """Its contribution for that lease was answered."""
        seat.held.pop(lease, None)
        seat.returned_s = now_s
        seat.back_by_s = None

    def contributed(self, island: str, *, now_s: float) -> None:
        """A delta of it waits for the open round."""
        self._contributed.add(island)
        if self._quorum_s is None and len(self._contributed) >= self.settings.quorum:
            self._quorum_s = now_s

    def round_closed(self) -> None:
        """What waited is in it."""
        self._contributed.clear()
        self._quorum_s = None

    def silent(self, *, now_s: float) -> list[Seat]:
        """Those that count as gone."""
        return [
            seat for seat in self.seats.values() if seat.silent_at_s <= now_s and not seat.asking
        ]

    def excuse(self, seconds: float) -> None:
        """For so long nobody could be heard."""
        for seat in self.seats.values():
            seat.silent_at_s += seconds
            if seat.back_by_s is not None:
                seat.back_by_s += seconds

    def rise(self, island: str) -> None:
        """It takes part no more."""
        self.seats.pop(island, None)

    def blocks_to_lease(self, seat: Seat, *, blocks_free: int) -> int:
        """Of its next lease; 0: nothing is free."""
        self._rations = rations(self._seen(), self.settings, self._rations)
        seat.inner_steps = self._rations[seat.island]
        return blocks_of_lease(
            seat.inner_steps,
            batch_blocks=self._run.batch_blocks,
            blocks_free=blocks_free,
            steps_of_all=sum(self._rations.values()),
        )

    def tokens_full(self) -> int:
        """Of a round to which all that live contribute their rations."""
        steps = rations(self._seen(), self.settings, self._rations) if self.seats else {}
        return sum(steps.values()) * self._run.batch_blocks * self._run.context_tokens

    def closing(self, *, is_last: bool, now_s: float) -> Close | Wait:
        """Whether the open round closes now; `is_last`: no block is free."""
        view = RoundView(
            islands=self._seen(),
            contributed=len(self._contributed),
            quorum_s=self._quorum_s,
            is_last=is_last,
        )
        return closing(view, self.settings, now_s)

    def peers(self, of: str | None = None) -> tuple[Peer, ...]:
        """Who has fragments for others."""
        return tuple(
            Peer(island=seat.island, url=seat.peer_url)
            for seat in self.seats.values()
            if seat.peer_url is not None and seat.island != of
        )

    def status(self, *, now_s: float, blocks_done: dict[str, int]) -> tuple[IslandStatus, ...]:
        """For people."""
        return tuple(
            IslandStatus(
                island=seat.island,
                epoch=seat.epoch,
                version=seat.version,
                steps_per_s=seat.steps_per_s,
                inner_steps=seat.inner_steps,
                loss=seat.loss,
                waited_s=seat.waited_s,
                joined_s=now_s - seat.joined_s,
                silent_s=now_s - seat.heard_s,
                blocks_done=blocks_done.get(seat.island, 0),
                bytes_in=self.moved.get(seat.island, (0, 0))[0],
                bytes_out=self.moved.get(seat.island, (0, 0))[1],
                figures=seat.figures,
            )
            for seat in sorted(self.seats.values(), key=lambda one: one.island)
        )

    def _seen(self) -> tuple[IslandSeen, ...]:
        return tuple(self._seen_of(seat) for seat in self.seats.values())

    def _seen_of(self, seat: Seat) -> IslandSeen:
        current = next(iter(seat.held.values()), None)
        return IslandSeen(
            island=seat.island,
            steps_per_s=seat.steps_per_s,
            has_contributed=seat.island in self._contributed,
            steps_leased=None if current is None else current.steps,
            leased_s=None if current is None else max(current.granted_s, seat.returned_s),
            back_by_s=seat.back_by_s,
        )
