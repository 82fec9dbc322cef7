"""Replicas as named, detached actors: start, stop.

A replica is a record in the cluster's store and an actor of the same name. The record is written
first and struck out last, so that one whose actor has died is still known, with how. Blocking, for
threads; the refusals are the port's exceptions.
"""

# An extra, which make test-ray installs.
# pyright: reportMissingImports=false

import threading
from time import sleep, time  # noqa: TID251  (of real hosts; nothing here is simulated)
from typing import Any

import msgspec
import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError

from argosy.launchers.port import LaunchError, PoolUnseenError
from argosy.launchers.ray import cluster
from argosy.launchers.ray.actor import ReplicaActor
from argosy.launchers.ray.cluster import Book
from argosy.launchers.ray.placing import FullError, actor_options, find_room
from argosy.launchers.ray.protocol import Launch, Record, Want
from argosy.launchers.ray.sight import named

_GONE_S = 5.0  # after SIGKILL, for its process; after ray.kill, for its actor
_STEP_S = 0.02
_ANSWER_S = 3.0


class Replicas:
    """Of one fleet on one cluster."""

    def __init__(self, namespace: str, book: Book) -> None:
        self._namespace = namespace
        self._book = book
        self._actor_class = ray.remote(ReplicaActor)
        self._starting = threading.Lock()  # two at once would be promised the same chips

    def start(self, launch: Launch) -> None:
        """`Launcher.start`."""
        with self._starting:
            record = Record(
                name=launch.name,
                pool=launch.pool,
                generation=launch.generation,
                chips=launch.chips,
            )
            there = self._book.record(launch.name)
            if there is not None and self._is_there(there, launch):
                return
            self._find_room(launch)
            if there is None and not self._book.put(record, is_new=True):
                return  # another control plane was first by a millisecond
            self._make(launch, record)

    def _find_room(self, launch: Launch) -> None:
        try:
            find_room(launch, self._book)
        except FullError:
            want = Want(pool=launch.pool, chips=launch.chips, at_s=time())
            self._book.want(launch.name, want)
            raise
        self._book.unwant(launch.name)

    def _is_there(self, there: Record, launch: Launch) -> bool:
        if there.generation != launch.generation or there.pool != launch.pool:
            raise LaunchError(
                f"{launch.name} is there as generation {there.generation} of pool {there.pool}; "
                f"it was to be {launch.generation} of {launch.pool}. Stop it first"
            )
        return there.actor is not None or named(there.name, self._namespace) is not None

    def _make(self, launch: Launch, record: Record) -> None:
        options = actor_options(launch, self._book, self._namespace)
        # What an actor is made with is kept in the cluster's store; a call goes to its process.
        bare = msgspec.json.encode(msgspec.structs.replace(launch, files={}))
        try:
            made: Any = self._actor_class.options(**options).remote(bare, bool(launch.files))
            if launch.files:
                _send(made, launch.files)
        except ValueError as error:  # the name is taken
            made = named(launch.name, self._namespace)
            if made is None:
                raise LaunchError(f"{launch.name}: {error}") from error
        assert made is not None
        id = made._actor_id.hex()
        self._book.put(msgspec.structs.replace(record, actor=id), is_new=False)

    def send(self, name: str, files: dict[str, bytes]) -> None:
        """`RayPool.send_files`."""
        handle = named(name, self._namespace)
        if handle is not None:
            try:
                ray.get(_send(handle, files), timeout=_ANSWER_S)
            except (RayError, GetTimeoutError) as error:
                raise PoolUnseenError(f"{name}: its files did not come there: {error}") from error

    def stop(self, name: str, grace_s: float) -> None:
        """`Launcher.stop`."""
        record = self._book.record(name)
        if record is None:
            return
        handle = named(name, self._namespace)
        if handle is not None:
            self._end(name, handle, grace_s)
        with self._starting:  # its successor may be on record by now
            if self._book.record(name) == record:
                self._book.forget(name)

    def _end(self, name: str, handle: ActorHandle[Any], grace_s: float) -> None:
        id = handle._actor_id.hex()
        actor = cluster.actor(id)
        try:
            if actor is not None and actor.state == "alive":  # else it has no process
                ray.get(handle.stop.remote(grace_s), timeout=grace_s + _GONE_S)
        except GetTimeoutError:
            raise PoolUnseenError(f"{name}: its node does not answer; it may run on") from None
        except RayError:  # it has died meanwhile, and its process with it
            pass
        ray.kill(handle)
        for _ in range(round(_GONE_S / _STEP_S)):
            actor = cluster.actor(id)
            if actor is None or actor.state == "dead":
                return
            sleep(_STEP_S)
        raise PoolUnseenError(f"{name}: Ray has not ended its actor within {_GONE_S:.0f} s")

    def cordon(self, node: str, reason: str | None) -> None:
        """`Launcher.cordon` and, without a reason, `uncordon`."""
        self._book.cordon(node, reason)


def _send(handle: Any, files: dict[str, bytes]) -> Any:  # noqa: ANN401  (an actor's own; Ray's reference)
    """Each an argument of its own: Ray would put longer ones into its object store."""
    return handle.take_files.remote(list(files), *files.values())
