"""What is remembered of a replica from tick to tick, and from one control plane to the next."""

from typing import Literal
from urllib.parse import urlsplit

import msgspec

from argosy.fleet.messages import ObservedReplica, Replica, ReplicaSpec, ReplicaState
from argosy.policies.health import HealthState, Probe, RestartState

# down: nothing runs, and nothing is asked for. starting: asked for, not yet well. up: was well.
# ending: whatever is left of it is being stopped.
Life = Literal["down", "starting", "up", "ending"]
_OUR_OWN = ("127.0.0.1", "::1", "localhost")  # no network lies between


class Leaving(msgspec.Struct, frozen=True, kw_only=True):
    """It takes no new requests, and goes when it has ended what it has."""

    until_s: float  # or then
    reason: str


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One replica. Times are Unix seconds."""

    spec: ReplicaSpec
    created_at_s: float
    life: Life = "down"
    not_before_s: float = 0.0  # it is not started earlier
    asked_at_s: float = 0.0  # of this life
    accepted_at_s: float | None = None  # by its launcher
    unseen_since_s: float | None = None  # its pool or node
    leaving: Leaving | None = None
    health: HealthState = HealthState()
    probe_good_s: float | None = None  # when it answered one last
    hang: str | None = None  # why it should be killed, where that is so
    is_killed: bool = False  # for that, and not ready again since
    restarts: RestartState = RestartState()
    had_no_room: bool = False  # its last try ended for that: no fault, and no restart
    crash_loop: str | None = None  # its last end was one more of a crash loop: how many, how fast
    quarantine: str | None = None  # it, its node or its pool is unlike its peers: how
    row: Replica  # what the table says of it

    @property
    def name(self) -> str:
        """Unique in the fleet."""
        return self.spec.name

    @property
    def is_ours(self) -> bool:
        """False for an endpoint: it is watched, and never restarted."""
        return self.spec.url is None

    @property
    def is_local(self) -> bool:
        """True where no network lies between it and the prober."""
        return self.row.url is not None and urlsplit(self.row.url).hostname in _OUR_OWN

    def told(
        self, state: ReplicaState, reason: str, *, of: ObservedReplica | None = None
    ) -> Replica:
        """Its row with this state; `of` brings where it is."""
        row = msgspec.structs.replace(self.row, state=state, reason=reason)
        if of is None:
            return row
        return msgspec.structs.replace(row, url=of.url, pid=of.pid, node=of.node)


class StartFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Its launcher could not start it."""

    reason: str
    retry_after_s: float | None = None
    is_capacity: bool = False  # there is no room for it now


class SeenReplica(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a replica at one tick, beyond its record."""

    observed: ObservedReplica | None = None  # None: its launcher does not find it
    observed_at_s: float | None = None  # None: its pool cannot be looked at
    probes: tuple[Probe, ...] = ()  # since the last tick, the oldest first
    failure: StartFailure | None = None  # of the start that was asked for
    is_accepted: bool = False  # the start that was asked for
    is_stopped: bool = False  # the stop that was asked for is done
    requests_in_flight: int | None = None
    served_s: float | None = None  # when a gateway had bytes of an answer from it last


def first_record(spec: ReplicaSpec, *, now_s: float, reason: str) -> Record:
    """Of a replica that is to be."""
    return Record(
        spec=spec,
        created_at_s=now_s,
        not_before_s=now_s,
        row=Replica(
            name=spec.name,
            deployment=spec.deployment,
            model=spec.model,
            pool=spec.pool,
            engine=spec.engine,
            state="starting",
            reason=reason,
        ),
    )
