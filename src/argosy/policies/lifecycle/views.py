"""What the lifecycle policy is told at one tick, and what it answers. Pure data."""

import msgspec


class ReplicaView(msgspec.Struct, frozen=True, kw_only=True):
    """One replica that exists, or that was asked for."""

    name: str
    deployment: str
    model: str
    generation: str
    created_at_s: float
    is_ready: bool = False
    is_serving: bool = False  # ready, or in doubt and perhaps answering all the same
    is_leaving: bool = False  # it takes no new requests and ends what it has
    is_seen: bool = True  # its pool and node can be looked at; else it is not to be removed
    is_lost: bool = False  # unseen for so long that another is to do its work
    is_unwelcome: bool = False  # its node, its pool or itself was drained: it is to go elsewhere
    why_unwelcome: str = "it is drained"
    is_crash_looping: bool = False  # it does not come up, again and again
    requests_in_flight: int | None = None  # None: not known

    @property
    def number(self) -> int:
        """Of its name: what comes after the last dash, 0 where that is none."""
        last = self.name.rpartition("-")[2]
        return int(last) if last.isdecimal() else 0


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment as it is to be."""

    deployment: str
    model: str
    generation: str
    replicas: int
    is_open: bool = True  # replicas may be started: its pool is seen and not drained
    is_kept: bool = False  # none may be started, and those that are there are needed all the same
    has_room: bool = True  # for one replica more than are wanted


class View(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known at one tick."""

    now_s: float
    replicas: tuple[ReplicaView, ...]
    wanted: tuple[Wanted, ...]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How quickly things may change."""

    surge: int = 1  # replicas of a deployment beyond what is wanted, while old ones are replaced
    removal_share_max: float = 0.25  # of a model's ready replicas, within the interval; one always
    removal_interval_s: float = 60.0


class Peak(msgspec.Struct, frozen=True, kw_only=True):
    """So many replicas of a model were ready until then."""

    model: str
    until_s: float
    ready: int


class Lifecycle(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered from tick to tick: how many were ready of late."""

    peaks: tuple[Peak, ...] = ()


class Create(msgspec.Struct, frozen=True, kw_only=True):
    """One more replica of the deployment, as it is wanted now."""

    deployment: str
    reason: str


class Remove(msgspec.Struct, frozen=True, kw_only=True):
    """Let it end what it has, and go."""

    replica: str
    reason: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done now, and what has to wait and why."""

    create: tuple[Create, ...]
    remove: tuple[Remove, ...]
    waits: tuple[str, ...]
