"""Pools that fail, lag and lie, in virtual time: what a launcher and a prober see of them."""

import msgspec

from argosy.control.quarantines import Quarantines
from argosy.control.reconcile import Seen, Start, Step, Stop
from argosy.control.records import SeenReplica, StartFailure
from argosy.fleet.messages import ObservedReplica, ReplicaSpec
from argosy.policies.health import Probe


class Process(msgspec.Struct):
    """What really runs."""

    spec: ReplicaSpec
    listens_at_s: float
    url: str
    ended: str | None = None
    is_frozen: bool = False


class PoolWorld:
    """One pool. `room` is how many processes it holds."""

    def __init__(self, name: str, room: int = 99) -> None:
        self.name, self.room = name, room
        self.processes: dict[str, Process] = {}
        self.is_unseen = False
        self.start_s = 1.0  # from a start to listening
        self.loses_starts = False  # accepts what it never starts
        self.refuses = False
        self.is_stale = False  # shows what it showed last
        self._shown: tuple[ObservedReplica, ...] = ()
        self._shown_at_s = 0.0

    def standing(self) -> list[Process]:
        return [one for one in self.processes.values() if one.ended is None]

    def look(self, now_s: float) -> None:
        if self.is_stale:
            return
        self._shown_at_s = now_s
        self._shown = tuple(
            ObservedReplica(
                name=name,
                generation=one.spec.generation,
                state="ended"
                if one.ended
                else ("listening" if now_s >= one.listens_at_s else "starting"),
                url=one.url if now_s >= one.listens_at_s and not one.ended else None,
                node="n1",
                detail=one.ended or "",
            )
            for name, one in self.processes.items()
        )

    def seen(self, name: str) -> tuple[ObservedReplica | None, float | None]:
        if self.is_unseen:
            return None, None
        return next((one for one in self._shown if one.name == name), None), self._shown_at_s

    def start(self, spec: ReplicaSpec, now_s: float) -> StartFailure | None:
        there = self.processes.get(spec.name)
        if there and there.spec.generation == spec.generation and there.ended is None:
            return None
        if self.refuses:
            return StartFailure(reason="the image is not there")
        if len(self.standing()) >= self.room:
            return StartFailure(reason="no room", retry_after_s=5.0, is_capacity=True)
        if not self.loses_starts:
            url = f"http://{self.name}/{spec.name}/{now_s}"
            self.processes[spec.name] = Process(spec, now_s + self.start_s, url)
        return None


class World:
    """All pools, and the results of actions that the next tick is told."""

    def __init__(self, *pools: PoolWorld) -> None:
        self.pools = {pool.name: pool for pool in pools}
        self.now_s = 1000.0
        self.failed: dict[str, StartFailure] = {}
        self.accepted: set[str] = set()
        self.stopped: set[str] = set()
        self.quarantines = Quarantines()

    def act(self, step: Step) -> None:
        self.failed, self.accepted, self.stopped = {}, set(), set()
        for action in step.actions:
            match action:
                case Start(spec=spec):
                    self._start(spec)
                case Stop(name=name, pool=pool):
                    if not self.pools[pool].is_unseen:
                        self.pools[pool].processes.pop(name, None)
                        self.stopped.add(name)

    def _start(self, spec: ReplicaSpec) -> None:
        pool = self.pools[spec.pool]
        if pool.is_unseen:
            return
        failure = pool.start(spec, self.now_s)
        if failure is None:
            self.accepted.add(spec.name)
        else:
            self.failed[spec.name] = failure

    def look(self, step: Step) -> Seen:
        for pool in self.pools.values():
            if not pool.is_unseen:
                pool.look(self.now_s)
        replicas = {}
        for name, record in step.state.records.items():
            pool = self.pools[record.spec.pool]
            observed, at_s = pool.seen(name)
            replicas[name] = SeenReplica(
                observed=observed,
                observed_at_s=at_s,
                probes=self._probes(record.row.url, pool.processes.get(name)),
                failure=self.failed.get(name),
                is_accepted=name in self.accepted,
                is_stopped=name in self.stopped,
                requests_in_flight=0,
            )
        return Seen(
            now_s=self.now_s,
            replicas=replicas,
            unseen_pools=frozenset(n for n, one in self.pools.items() if one.is_unseen),
            quarantines=self.quarantines,
        )

    def _probes(self, url: str | None, process: Process | None) -> tuple[Probe, ...]:
        if url is None:
            return ()
        is_well = (
            process is not None
            and process.url == url
            and process.ended is None
            and not process.is_frozen
            and self.now_s >= process.listens_at_s
        )
        return (Probe(ok=is_well, seconds=0.01, detail="HTTP 200" if is_well else "refused"),)
