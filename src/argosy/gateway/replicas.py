"""The gateway's side of a replica: its connections, what is in flight on it, what it saw of it."""

import msgspec

from argosy.engines.port import Engine
from argosy.engines.registry import adapter
from argosy.fleet.messages import Replica, ReplicaLoad
from argosy.gateway.upstream import ReplicaLink
from argosy.observability.recent import Recent
from argosy.policies import breaker
from argosy.policies.breaker import Breaker
from argosy.policies.rates import DEFAULT
from argosy.policies.routing import ReplicaView
from argosy.policies.routing.places import SLOTS_ASSUMED

_DOUBT_S = 1.0  # longer than the control plane needs to notice a death


class LiveReplica:
    """One replica that listens; made anew when it comes back with another process or URL."""

    def __init__(self, replica: Replica, *, watch: "Watch", bearer: str | None) -> None:
        assert replica.url is not None
        self.name = replica.name
        self.model = replica.model
        self.pool = replica.pool
        self.watch = watch
        self.view = watch.view
        self.engine: Engine = adapter(replica.engine)
        self.abilities = self.engine.abilities(replica.engine)
        self.link = ReplicaLink(replica.url, bearer=bearer)
        self.state = replica.state
        self.patience_s: float | None = None  # with a silent stream, while there is doubt about it
        self.is_unsure = True  # what `view.is_ready` says may be over by now: `look_again`
        self.slots: int | None = None  # all of them; `view.slots` has those that count
        self._config = replica.engine
        self._url, self._pid = replica.url, replica.pid
        self._doubted_until_s = float("-inf")
        self._breaker = Breaker()

    def is_same(self, replica: Replica) -> bool:
        """True when the table's row is this very process at this URL."""
        return (replica.url, replica.pid, replica.engine) == (self._url, self._pid, self._config)

    def become(self, replica: Replica) -> None:
        """What the control plane says of it now."""
        self.state = replica.state
        self.is_unsure = True
        slots = self.slots
        if replica.share < 1.0:
            slots = max(1, int((slots or SLOTS_ASSUMED) * replica.share))
        self.view.slots = slots

    def adapt(self, fields: dict[str, msgspec.Raw], model: str) -> dict[str, msgspec.Raw]:
        """The body as its engine wants it."""
        return self.engine.adapt(fields, config=self._config, model=model)

    def doubt(self, now_s: float) -> None:
        """A connection to it failed: prefer others for a moment."""
        self._doubted_until_s = now_s + _DOUBT_S
        self.is_unsure = True

    def failed(self, now_s: float) -> None:
        """An attempt on it failed by its fault."""
        self._breaker = breaker.failed(self._breaker, now_s=now_s)
        self.is_unsure = True

    def tried(self, now_s: float) -> None:
        """An attempt on it begins."""
        if self._breaker.failures:
            self._breaker = breaker.tried(self._breaker, now_s=now_s)
            self.is_unsure = True

    def answered(self) -> None:
        """It gave a first token, or a whole answer."""
        if self._breaker.failures:
            self._breaker = breaker.succeeded()
            self.is_unsure = True

    def is_trusted(self, now_s: float) -> bool:
        """Ready, and not left alone for failing again and again."""
        return self.state == "ready" and not self._breaker.is_open(now_s)

    def look_again(self, now_s: float) -> None:
        """Bring `view.is_ready` up to date; it stays unsure while only time has to pass."""
        is_doubted = now_s < self._doubted_until_s
        self.view.is_ready = self.is_trusted(now_s) and not is_doubted
        self.is_unsure = is_doubted or self._breaker.is_open(now_s)


class Watch:
    """What is kept about a replica's name across its restarts."""

    def __init__(self, name: str) -> None:
        self.view = ReplicaView(
            replica=name,
            is_ready=False,
            requests_in_flight=0,
            slots=None,
            prefill_s_per_byte=DEFAULT.prefill_s_per_byte,
            base_s=DEFAULT.base_s,
            service_s=DEFAULT.service_s,
        )
        self.recent = Recent()
        self.is_ready = False  # for the metrics

    @property
    def in_flight(self) -> int:
        """Requests that it works on."""
        return self.view.requests_in_flight

    def load(self, name: str, now_s: float) -> ReplicaLoad:
        """A row of `argosy status`."""
        recent = self.recent
        return ReplicaLoad(
            replica=name,
            requests_in_flight=self.in_flight,
            requests_finished=recent.requests_finished,
            tokens_out_per_s=recent.tokens_out_per_s(now_s),
            ttft_s_p50=recent.ttft_s(now_s, 0.50),
            ttft_s_p95=recent.ttft_s(now_s, 0.95),
        )
