"""What an exchange asks of those around it: where its answer goes, and the gateway."""

from typing import TYPE_CHECKING, Protocol

from argosy.fleet.config import Gateway as Settings
from argosy.fleet.messages import Usage
from argosy.gateway.explain import StepKind
from argosy.gateway.replicas import LiveReplica
from argosy.gateway.router import Placed
from argosy.gateway.surfaces.port import Ask, Catalog
from argosy.observability.metrics import Series
from argosy.policies.failover import RetryBudget

if TYPE_CHECKING:
    from argosy.gateway.exchange import Exchange


class Client(Protocol):
    """Where the answer goes: a connection."""

    def write(self, data: bytes) -> None:
        """Bytes to the client; what it does not read is buffered."""
        ...

    def finish(self, *, keep_alive: bool) -> None:
        """The exchange has ended; the connection may take its next request."""
        ...


class Floor(Protocol):
    """What an exchange asks of the gateway."""

    catalog: Catalog
    settings: Settings
    is_draining: bool

    def now_s(self) -> float:
        """The loop's time."""
        ...

    def admit(self, exchange: "Exchange", ask: Ask, body: bytes) -> bool:
        """True: it may be routed now. False: later, or it was refused."""
        ...

    def move(self, exchange: "Exchange", ask: Ask, model: str) -> bool:
        """As `admit`, for a request that was admitted and is now for another model."""
        ...

    def route(self, exchange: "Exchange", *, stream: bool) -> Placed | None:
        """A replica for it; None: none is there, and it waits, fell back or was refused."""
        ...

    def retries(self, exchange: "Exchange") -> RetryBudget:
        """Of its model."""
        ...

    def has_untried(self, exchange: "Exchange") -> bool:
        """True when a replica of its model is ready that has not failed it."""
        ...

    def released(self, exchange: "Exchange") -> None:
        """Its attempt is over."""
        ...

    def route_later(self, exchange: "Exchange", delay_s: float) -> None:
        """Route it again, after about that long."""
        ...

    def first_token(self, exchange: "Exchange", now_s: float) -> None:
        """Its replica has read its prompt."""
        ...

    def attempt_failed(self, replica: LiveReplica, kind: str, *, is_its_fault: bool) -> None:
        """An attempt on it failed, whatever becomes of the request."""
        ...

    def asked_to_wait(self, replica: LiveReplica, seconds: float) -> None:
        """It was told by a 429 to come back after so long."""
        ...

    def hedge_later(self, exchange: "Exchange", attempts: int) -> None:
        """Call its `hedge` after the time that the fleet file says, if it may be hedged."""
        ...

    def hedge(self, exchange: "Exchange") -> Placed | None:
        """A second replica for it; None: there is none, or enough is hedged."""
        ...

    def release(self, placed: Placed) -> None:
        """That attempt is over."""
        ...

    def series(self, exchange: "Exchange", replica: LiveReplica) -> Series:
        """Where its tokens are counted when that replica gives them."""
        ...

    def happened(self, exchange: "Exchange", kind: StepKind, text: str) -> None:
        """Something unusual, for whoever asks to have the request explained."""
        ...

    def settled(self, exchange: "Exchange", usage: Usage) -> None:
        """It has ended."""
        ...
