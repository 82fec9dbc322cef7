"""What there is of a fleet on one cluster: records, actors, nodes, what the actors said last."""

# An extra, which make test-ray installs.
# pyright: reportMissingImports=false

from collections.abc import Iterable
from typing import Any

import msgspec
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from argosy.fleet.messages import Observation, ObservedNode, ObservedReplica
from argosy.launchers.ray import cluster
from argosy.launchers.ray.cluster import ActorState, Book, Node
from argosy.launchers.ray.placing import free_chips
from argosy.launchers.ray.protocol import Description, Record, Resources

_ANSWER_S = 1.0


class Sight:
    """Of all pools of a fleet on one cluster. `silent`: the actors that owe an answer for long."""

    def __init__(self, namespace: str, book: Book) -> None:
        self._namespace = namespace
        self._book = book
        self._handles: dict[str, ActorHandle[Any]] = {}
        self._dead: dict[str, ActorState] = {}
        self._told: dict[str, Description] = {}
        self.silent: set[str] = set()

    def observe(self, pool: str, resources: Resources) -> Observation:
        """`Launcher.observe`."""
        records = [record for record in self._book.records() if record.pool == pool]
        actors = cluster.unfinished_actors()
        nodes = cluster.nodes()
        self._ask_the_untold(records, actors)
        names = {node.id: node.name for node in nodes}
        return Observation(
            replicas=tuple(self._replica(record, actors, names) for record in records),
            nodes=_observed_nodes(nodes, resources, self._book.cordons()),
            wanted=tuple(want.chips for want in self._book.wants_of_host() if want.pool == pool),
        )

    def look(self) -> tuple[tuple[Any, ...], dict[str, str]]:
        """Something that differs when the cluster says something new; the actors to listen to.

        The latter are names by id.
        """
        records = self._book.records()
        actors = cluster.unfinished_actors()
        ours = [actors.get(record.actor or "") for record in records]
        self._forget_but({record.actor for record in records})
        there = tuple(
            (node.id, node.state) for node in cluster.nodes() if node.state in ("up", "draining")
        )
        wanted = {(want.pool, want.chips) for want in self._book.wants_of_host()}
        cordons = self._book.cordons()
        signature = (records, ours, there, cordons, wanted, frozenset(self.silent))
        return signature, dict(_alive(records, actors))

    def version(self, id: str) -> int:
        """Of the last that this actor said."""
        told = self._told.get(id)
        return told.version if told is not None else 0

    def hear(self, id: str, ref: ray.ObjectRef[Any]) -> bool:
        """Take an answer of an actor; False when there is none, as it has died."""
        try:
            said = msgspec.convert(ray.get(ref, timeout=_ANSWER_S), Description)
        except (RayError, TimeoutError):
            return False
        if said.version >= self.version(id):
            self._told[id] = said
        return True

    def handle(self, id: str, name: str) -> ActorHandle[Any] | None:
        """Of an actor that lives."""
        if id not in self._handles and (found := named(name, self._namespace)) is not None:
            self._handles[id] = found
        return self._handles.get(id)

    def _ask_the_untold(self, records: Iterable[Record], actors: dict[str, ActorState]) -> None:
        """Those that we see for the first time: after a start of ours, all."""
        refs: dict[Any, str] = {}
        for id, name in _alive(records, actors):
            if id not in self._told and (handle := self.handle(id, name)) is not None:
                refs[handle.describe.remote()] = id
        if refs:
            answered, _ = ray.wait(list(refs), num_returns=len(refs), timeout=_ANSWER_S)
            for ref in answered:
                self.hear(refs[ref], ref)

    def _replica(
        self, record: Record, actors: dict[str, ActorState], names: dict[str, str]
    ) -> ObservedReplica:
        actor = self._actor(record, actors)
        seen = ObservedReplica(name=record.name, generation=record.generation, state="starting")
        if actor is None:
            return msgspec.structs.replace(seen, detail="Ray has no actor of it yet")
        seen = msgspec.structs.replace(seen, node=names.get(actor.node or "", actor.node))
        if actor.state == "waiting":
            detail = f"waits for a node with {record.chips} free chips"
            return msgspec.structs.replace(seen, detail=detail)
        if actor.state == "dead":
            detail = f"node {seen.node}: {actor.death}" if seen.node else actor.death
            return msgspec.structs.replace(seen, state="ended", detail=detail)
        return self._as_told(seen, actor.id)

    def _as_told(self, seen: ObservedReplica, id: str) -> ObservedReplica:
        said = self._told.get(id)
        if said is not None and id not in self.silent:
            return msgspec.structs.replace(
                seen, state=said.state, url=said.url, pid=said.pid, detail=said.detail
            )
        return msgspec.structs.replace(
            seen,
            state="unreachable",
            url=said.url if said is not None else None,
            pid=said.pid if said is not None else None,
            detail=f"its actor on node {seen.node} does not answer",
        )

    def _actor(self, record: Record, actors: dict[str, ActorState]) -> ActorState | None:
        id = record.actor
        if id is None:
            handle = named(record.name, self._namespace)
            if handle is None:
                return None
            id = handle._actor_id.hex()
        found = actors.get(id) or self._dead.get(id) or cluster.actor(id)
        if found is None:
            found = ActorState(id=id, state="dead", node=None, death="Ray has forgotten its actor")
        if found.state == "dead":
            self._dead[id] = found
        return found

    def _forget_but(self, ids: set[str | None]) -> None:
        for kept in (self._handles, self._dead, self._told):
            for id in set(kept) - ids:
                kept.pop(id, None)


def named(name: str, namespace: str) -> ActorHandle[Any] | None:
    """The actor of that name; None when there is none, or it has died."""
    try:
        return ray.get_actor(name, namespace=namespace)
    except ValueError:
        return None


def _alive(records: Iterable[Record], actors: dict[str, ActorState]) -> Iterable[tuple[str, str]]:
    for record in records:
        actor = actors.get(record.actor or "")
        if actor is not None and actor.state == "alive":
            yield actor.id, record.name


def _observed_nodes(
    nodes: list[Node], resources: Resources, cordons: dict[str, str]
) -> tuple[ObservedNode, ...]:
    pool = [node for node in nodes if node.bears(resources.labels)]
    free = free_chips(pool, resources)
    seen = {
        node.name: ObservedNode(name=node.name, state="lost")
        for node in pool
        if node.state == "lost"
    }
    for node in pool:  # one that came back is no longer lost
        if node.state in ("up", "draining"):
            closed = node.name in cordons or node.state == "draining"
            seen[node.name] = ObservedNode(
                name=node.name,
                state="draining" if closed else "up",
                chips=node.chips(resources),
                chips_free=free.get(node.id),
            )
    return tuple(seen[name] for name in sorted(seen))
