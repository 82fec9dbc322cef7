"""What the launcher and the bridge say to each other: one line of JSON each, both ways.

The launcher sends `Asked`, the bridge answers each with one `Answered`, in any order, and says
`Changed` and `Connected` unasked.
"""

from typing import Literal

import msgspec

from argosy.fleet.messages import Observation


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica's actor asks Ray for."""

    name: str | None  # Ray's resource of the chips; None: the replica runs on the processor
    per_chip: float = 1.0  # units of it that one chip is
    labels: dict[str, str] = {}  # that its node bears


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A replica as its actor starts it."""

    fleet: str
    name: str
    pool: str
    generation: str
    argv: tuple[str, ...]
    env: dict[str, str]
    chips: int
    resources: Resources
    python: str | None = None  # of the actor's process; None: the node's own
    files: dict[str, bytes] = {}  # by relative path: only its owner reads them on the node
    is_spread: bool = False  # over nodes, where there is a choice
    unheard_s_max: float | None = None  # nobody asks for so long: it ends itself


class Start(msgspec.Struct, frozen=True, kw_only=True, tag="start"):
    """`Launcher.start`."""

    launch: Launch


class Stop(msgspec.Struct, frozen=True, kw_only=True, tag="stop"):
    """`Launcher.stop`."""

    name: str
    grace_s: float


class Send(msgspec.Struct, frozen=True, kw_only=True, tag="send"):
    """`RayPool.send_files`."""

    name: str
    files: dict[str, bytes]


class Observe(msgspec.Struct, frozen=True, kw_only=True, tag="observe"):
    """`Launcher.observe` of one pool."""

    pool: str
    resources: Resources


class Cordon(msgspec.Struct, frozen=True, kw_only=True, tag="cordon"):
    """`Launcher.cordon`."""

    node: str
    reason: str | None  # None: `Launcher.uncordon`


Question = Start | Stop | Send | Observe | Cordon


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One question."""

    id: int
    question: Question


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag="answered"):
    """Its answer: done, unless `refusal` says which exception of the port it is."""

    id: int
    observation: Observation | None = None
    refusal: Literal["launch", "capacity", "unseen"] | None = None
    message: str = ""


class Connected(msgspec.Struct, frozen=True, kw_only=True, tag="connected"):
    """The bridge is a driver of the cluster from now on; or why it is not, and ends."""

    failure: str | None = None


class Changed(msgspec.Struct, frozen=True, kw_only=True, tag="changed"):
    """`Launcher.observe` may say something new."""


Said = Answered | Connected | Changed


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """A replica as its actor describes it."""

    version: int  # grows with each change
    state: Literal["starting", "listening", "ended"]
    url: str | None = None
    pid: int | None = None
    detail: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that was asked for, as the cluster's own store keeps it until it is stopped."""

    name: str
    pool: str
    generation: str
    chips: int
    actor: str | None = None  # Ray's id; None: not made yet


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """A replica that found no room, as the cluster's own store keeps it for guests to see."""

    pool: str
    chips: int  # on one node
    at_s: float  # Unix time of its last try


def namespace_of(fleet: str) -> str:
    """Of a fleet on a cluster."""
    return f"argosy-{fleet}"
