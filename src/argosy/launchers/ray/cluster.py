"""What is asked of Ray about its cluster, and what Argosy keeps in the cluster's own store.

The one file that knows Ray's inner names: its list of actors and its key-value store have no public
ones that work without the dashboard (`tests/launchers/test_ray.py` runs all of them). Each call is
about a millisecond, and hangs for as long as the head (the GCS) is gone: callers keep a deadline.
"""

# An extra, which make test-ray installs.
# pyright: reportMissingImports=false

from time import time  # noqa: TID251  (of real hosts; nothing here is simulated)
from typing import Any, Literal, Protocol

import msgspec
import ray
from ray._private import state as ray_state
from ray.experimental import internal_kv

from argosy.launchers.ray.protocol import Record, Resources, Want

_REPLICA = b"replica/"
_CORDON = b"cordon/"
_WANT = b"want/"
_WANT_S = 90.0  # one without room is tried again within 38 s; clocks differ by less than the rest
_UNFINISHED = ("DEPENDENCIES_UNREADY", "PENDING_CREATION", "ALIVE", "RESTARTING")
_UNEXPECTED = 2  # gcs.proto NodeDeathInfo.UNEXPECTED_TERMINATION: killed, not scaled away


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A machine of the cluster."""

    id: str  # another after each start of its raylet
    name: str
    state: Literal["up", "draining", "gone", "lost"]  # gone: on purpose
    labels: dict[str, str]
    resources: dict[str, float]

    def bears(self, labels: dict[str, str]) -> bool:
        """Whether it is one of those that are meant."""
        return all(self.labels.get(key) == value for key, value in labels.items())

    def chips(self, resources: Resources) -> int:
        """How many it has."""
        return int(self.resources.get(resources.name or "", 0.0) / resources.per_chip)


class ActorState(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster says of an actor."""

    id: str
    state: Literal["waiting", "alive", "dead"]
    node: str | None  # its id
    death: str = ""


def nodes() -> list[Node]:
    """All that the cluster knows, those too that are gone."""
    draining = ray_state.state.get_draining_nodes()
    return [_node(told, is_draining=told["NodeID"] in draining) for told in ray.nodes()]


def _node(told: dict[str, Any], *, is_draining: bool) -> Node:
    if told["Alive"]:
        state = "draining" if is_draining else "up"
    else:
        state = "lost" if told["DeathReason"] == _UNEXPECTED else "gone"
    return Node(
        id=told["NodeID"],
        name=told["NodeName"],
        state=state,
        labels=dict(told["Labels"]),
        resources=dict(told["Resources"]),
    )


def free_by_node() -> dict[str, dict[str, float]]:
    """Resources that are free by a node's id; behind by up to a second."""
    return ray_state.available_resources_per_node()


def unfinished_actors() -> dict[str, ActorState]:
    """Of all namespaces, by id, as they are now."""
    found: dict[str, ActorState] = {}
    for name in _UNFINISHED:  # one that moves on meanwhile is in the later answer
        told = ray_state.actors(actor_state_name=name)
        found.update({key: _actor(key, value) for key, value in told.items()})
    return found


def actor(id: str) -> ActorState | None:
    """One, dead or not; None when the cluster has forgotten it."""
    told = ray_state.actors(actor_id=id)
    return _actor(id, told) if told else None


def _actor(id: str, told: dict[str, Any]) -> ActorState:
    if told["State"] == "DEAD":
        state = "dead"
    else:
        state = "alive" if told["State"] == "ALIVE" else "waiting"
    return ActorState(
        id=id,
        state=state,
        node=told["Address"]["NodeID"] if state != "waiting" else None,
        death=_death(told["DeathCause"]) if state == "dead" else "",
    )


class _Cause(Protocol):
    """A protobuf message, gcs.proto ActorDeathCause."""

    def WhichOneof(self, group: str) -> str | None: ...


def _death(cause: _Cause) -> str:
    """Its first sentence; the others are advice for whoever uses Ray by hand."""
    kind = cause.WhichOneof("context")
    said = getattr(getattr(cause, kind), "error_message", "") if kind else ""
    first, _, rest = said.partition(". ")
    exit_detail = rest.partition("Worker exit detail: ")[2].partition(". ")[0]
    return f"{first}: {exit_detail}" if exit_detail else first or "Ray does not say why"


def _is_fresh(want: Want) -> bool:
    return abs(time() - want.at_s) < _WANT_S


class Book:
    """What one fleet asked for, in the cluster's store: outlives us, and a head that lasts.

    `host`: the namespace of the fleet that the nodes are of, where it is another, whose guest we
    are: what that one closes is closed to us, and what it has no room for we are told.
    """

    def __init__(self, namespace: str, host: str | None) -> None:
        self._namespace = namespace.encode()
        self._host = None if host is None else Book(host, None)

    def records(self) -> list[Record]:
        """Of all pools of the fleet on this cluster."""
        found = self._all(_REPLICA)
        return [msgspec.json.decode(value, type=Record) for _, value in sorted(found.items())]

    def record(self, name: str) -> Record | None:
        """One."""
        value = internal_kv._internal_kv_get(_REPLICA + name.encode(), namespace=self._namespace)
        return msgspec.json.decode(value, type=Record) if value else None

    def put(self, record: Record, *, is_new: bool) -> bool:
        """Write it down; False when it `is_new` and there is one of that name already."""
        was_there = internal_kv._internal_kv_put(
            _REPLICA + record.name.encode(),
            msgspec.json.encode(record),
            overwrite=not is_new,
            namespace=self._namespace,
        )
        return not (is_new and was_there)

    def forget(self, name: str) -> None:
        """Strike it out."""
        internal_kv._internal_kv_del(_REPLICA + name.encode(), namespace=self._namespace)

    def cordons(self) -> dict[str, str]:
        """The nodes' names, and why."""
        found = self._all(_CORDON)
        ours = {key.decode(): value.decode() for key, value in found.items()}
        return ours if self._host is None else self._host.cordons() | ours

    def cordon(self, node: str, reason: str | None) -> None:
        """Or lift it, without a reason."""
        key = _CORDON + node.encode()
        if reason is None:
            internal_kv._internal_kv_del(key, namespace=self._namespace)
        else:  # Ray's store tells an empty value from none badly
            internal_kv._internal_kv_put(key, reason or "-", namespace=self._namespace)

    def wants_of_host(self) -> list[Want]:
        """Of its replicas that lately found no room, on all pools; none where we are no guest."""
        if self._host is None:
            return []
        values = self._host._all(_WANT).values()
        found = (msgspec.json.decode(value, type=Want) for value in values)
        return [want for want in found if _is_fresh(want)]

    def want(self, name: str, want: Want) -> None:
        """Write down what found no room, for guests to see; strike out those of long ago."""
        if self._host is not None:
            return
        for key, value in self._all(_WANT).items():
            if not _is_fresh(msgspec.json.decode(value, type=Want)):
                self.unwant(key.decode())
        internal_kv._internal_kv_put(
            _WANT + name.encode(), msgspec.json.encode(want), namespace=self._namespace
        )

    def unwant(self, name: str) -> None:
        """It found room."""
        internal_kv._internal_kv_del(_WANT + name.encode(), namespace=self._namespace)

    def _all(self, prefix: bytes) -> dict[bytes, bytes]:
        keys = internal_kv._internal_kv_list(prefix, namespace=self._namespace)
        if not keys:
            return {}
        client = internal_kv.internal_kv_get_gcs_client()
        assert client is not None
        found = client.internal_kv_multi_get(list(keys), self._namespace)
        return {key[len(prefix) :]: value for key, value in found.items()}
