"""The launcher of a pool of machines that SkyPilot rents.

What it started is found again by the names of clusters, and by what the API server remembers of
requests, so another control plane may take over. What is kept here only spares questions.
"""

import asyncio
import contextlib
import logging

from argosy.fleet.messages import Observation, ReplicaSpec
from argosy.launchers.port import LaunchError, NoCapacityError, PoolUnseenError
from argosy.launchers.skypilot import observing, task
from argosy.launchers.skypilot.api import Api, Cluster, Request, RequestFailedError, refusal
from argosy.launchers.skypilot.cell import Cell
from argosy.launchers.skypilot.observing import Known
from argosy.launchers.skypilot.tending import Pace, Tending

logger = logging.getLogger(__name__)

_GONE = "ClusterDoesNotExist"
_DOWN_S = 300.0  # of one request; clouds take a minute or two
_POLL_S_MIN = 0.2
_POLL_S_MAX = 5.0
_FINAL_GRACE_S = 5.0
_FAILED = ("FAILED", "CANCELLED")


class SkyPilotPool:
    """`launchers.port.Launcher` upon a SkyPilot API server.

    `token` is for the server, `key` what replicas ask of whoever speaks to them.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        token: str | None = None,
        key: str | None = None,
        pace: Pace | None = None,
    ) -> None:
        self._cell = cell
        self._key = key
        self._pace = Pace() if pace is None else pace
        self._api = Api(cell.launcher.api, token=token)
        self._news = asyncio.Event()
        self._tending = Tending(self._api, cell.launcher.port, pace=self._pace, news=self._news)
        self._asking = asyncio.Lock()  # what is there and what is asked for must agree
        self._told: set[str] = set()  # failed launches that `start` has told of
        self._failures: dict[str, str] = {}  # by request
        self._ours: dict[str, task.Ours | None] = {}  # by request
        self._last: tuple[float, Observation] | None = None  # when, by the loop's clock
        self._full: tuple[float, str] | None = None  # until when, and what was said

    async def start(self, spec: ReplicaSpec) -> None:
        told, name = task.task(spec, self._cell, key=self._key), self._cell.cluster(spec.name)
        async with self._asking:
            there = await self._all()
            if await self._has(spec, there.get(name)):
                return
            self._check_room(spec, there)
            self._last = None
            request_id = await self._api.launch(name, told)
        await self._refused(spec, request_id)

    async def stop(self, name: str, *, grace_s: float) -> None:
        cluster = self._cell.cluster(name)
        last = observing.newest(await self._requests(cluster), cluster).get(cluster)
        is_up = any(one.status == "UP" for one in await self._clusters(cluster))
        if last is not None and last.name == observing.LAUNCH and last.is_active:
            with contextlib.suppress(RequestFailedError):  # it ended in between
                await self._api.cancel_request(last.request_id)
        if is_up and grace_s > 0:
            await self._let_end(cluster, grace_s=grace_s)
        await self._take_down(cluster)
        self._last = None
        self._news.set()

    async def observe(self) -> Observation:
        now_s = asyncio.get_running_loop().time()
        is_young = self._last is not None and now_s - self._last[0] < self._pace.look_s
        if self._last is not None and is_young and not self._news.is_set():
            return self._last[1]
        self._news.clear()
        there = await self._all()
        up = [
            one.cluster
            for one in there.values()
            if one.cluster is not None and one.cluster.status == "UP"
        ]
        facts = self._tending.facts(up)
        found = (observing.replica(one, facts) for one in there.values())
        replicas = sorted((one for one in found if one is not None), key=lambda one: one.name)
        observation = Observation(replicas=tuple(replicas))
        self._last = (now_s, observation)
        return observation

    async def changed(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(_POLL_S_MIN, self._pace.look_s)):
                await self._news.wait()

    async def cordon(self, node: str, *, reason: str) -> None:
        """Nothing: a machine is rented for one replica, and ends with it."""

    async def uncordon(self, node: str) -> None:
        """Nothing."""

    async def close(self, *, is_final: bool) -> None:
        try:
            if is_final:
                await self._end_all()
        except PoolUnseenError as error:  # what cannot be seen cannot be ended, and costs money
            told = "Pool %s: rented machines may run on. Look: sky status; end them: sky down. %s"
            logger.warning(told, self._cell.pool, error)
        finally:
            await self._tending.close()
            await self._api.close()

    async def _end_all(self) -> None:
        self._last = None
        there = (await self.observe()).replicas
        ends = [self.stop(one.name, grace_s=_FINAL_GRACE_S) for one in there]
        ended = await asyncio.gather(*ends, return_exceptions=True)
        for one in ended:
            if isinstance(one, BaseException):
                raise one

    # -- what is there -------------------------------------------------------------------------

    async def _all(self) -> dict[str, Known]:
        """By cluster. Raises PoolUnseenError."""
        clusters, requests = await asyncio.gather(self._clusters(), self._requests())
        newest = observing.newest(requests, self._cell.prefix)
        of_name = {one.name: one for one in clusters if one.name.startswith(self._cell.prefix)}
        names = sorted(of_name.keys() | newest.keys())
        known = await asyncio.gather(
            *(self._known(of_name.get(name), newest.get(name)) for name in names)
        )
        self._forget({one.request_id for one in newest.values()})
        return {
            name: one
            for name, one in zip(names, known, strict=True)
            if one is not None
            and (one.ours.fleet, one.ours.pool) == (self._cell.fleet, self._cell.pool)
        }

    async def _known(self, cluster: Cluster | None, newest: Request | None) -> Known | None:
        """None where nothing is left of it, or it is not ours."""
        launch = newest if newest is not None and newest.name == observing.LAUNCH else None
        if cluster is None and (launch is None or launch.request_id in self._told):
            return None
        ours = None if cluster is None else task.read(cluster.last_creation_yaml)
        if ours is None and launch is not None:
            ours = await self._ours_of(launch)
        if ours is None:
            return None
        failure = await self._failure(launch) if launch and launch.status in _FAILED else None
        return Known(cluster=cluster, newest=newest, failure=failure, ours=ours)

    async def _ours_of(self, launch: Request) -> task.Ours | None:
        if launch.request_id not in self._ours:
            for one in await self._requests(launch.cluster_name):
                if one.request_id == launch.request_id:
                    self._ours[one.request_id] = task.read(one.task)
        return self._ours.get(launch.request_id)

    async def _failure(self, launch: Request) -> str:
        """How it failed, in the words of the port's exceptions."""
        known = self._failures.get(launch.request_id)
        if known is not None:
            return known
        told = f"its launch is {launch.status}"
        try:
            await self._api.outcome(launch.request_id, timeout_s=_POLL_S_MAX)
        except RequestFailedError as error:
            meant = refusal(error, "SkyPilot launched nothing")
            told = str(meant)
            if isinstance(meant, NoCapacityError):
                until_s = asyncio.get_running_loop().time() + (meant.retry_after_s or 0.0)
                self._full = (until_s, error.message)
        except TimeoutError:
            return told
        self._failures[launch.request_id] = told
        return told

    async def _clusters(self, name: str | None = None) -> list[Cluster]:
        try:
            return await self._api.clusters(name)
        except (RequestFailedError, LaunchError) as error:
            raise PoolUnseenError(f"pool {self._cell.pool}: {error}") from error

    async def _requests(self, cluster: str | None = None) -> list[Request]:
        try:
            return await self._api.requests(cluster)
        except LaunchError as error:
            raise PoolUnseenError(f"pool {self._cell.pool}: {error}") from error

    def _forget(self, newest: set[str]) -> None:
        """What requests said that are no longer the last of their cluster."""
        self._told &= newest
        for kept in (self._failures, self._ours):
            for request_id in kept.keys() - newest:
                del kept[request_id]

    # -- starting ------------------------------------------------------------------------------

    async def _has(self, spec: ReplicaSpec, there: Known | None) -> bool:
        """Whether it is there already. Raises NoCapacityError while another one is."""
        if there is None or not there.is_there:
            return False
        if there.ours.generation == spec.generation:
            return True
        told = f"{spec.name}: one of that name and another generation has not ended yet"
        raise NoCapacityError(told, retry_after_s=1.0)

    def _check_room(self, spec: ReplicaSpec, there: dict[str, Known]) -> None:
        """No more is rented than the fleet file allows, whoever asks. Raises NoCapacityError."""
        taken = sum(_chips(one) for one in there.values() if one.is_there)
        most = self._cell.chips_max
        if taken + max(1, spec.chips) > most:
            told = f"{spec.name} takes {max(1, spec.chips)} chips, and {taken} of {most} are rented"
            raise NoCapacityError(f"{told} in pool {self._cell.pool}: its nodes.max allows no more")
        now_s = asyncio.get_running_loop().time()
        if self._full is not None and now_s < self._full[0]:
            told = f"{spec.name} waits: a moment ago there was no room, {self._full[1]}"
            raise NoCapacityError(told, retry_after_s=self._full[0] - now_s)

    async def _refused(self, spec: ReplicaSpec, request_id: str) -> None:
        """Wait a little, in case it is. Raises LaunchError, NoCapacityError, PoolUnseenError."""
        what = f"{spec.name} in {self._cell.region}"
        try:
            await self._api.outcome(request_id, timeout_s=self._pace.refusal_s)
        except TimeoutError:
            return  # a launch takes minutes; what comes of it, a look tells
        except RequestFailedError as error:
            self._told.add(request_id)
            raise refusal(error, what) from error
        finally:
            self._last = None

    # -- stopping ------------------------------------------------------------------------------

    async def _let_end(self, cluster: str, *, grace_s: float) -> None:
        """Ask its engine to end, and wait for that no longer than the grace.

        Another call, with less grace, may take the cluster down meanwhile.
        """
        loop = asyncio.get_running_loop()
        until_s, pause_s = loop.time() + grace_s, _POLL_S_MIN
        with contextlib.suppress(RequestFailedError, LaunchError, PoolUnseenError, TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._api.cancel_jobs(cluster)
        while loop.time() < until_s:
            try:
                async with asyncio.timeout(max(0.0, until_s - loop.time())):
                    job = await self._api.job(cluster)
                    if job is None or job.has_ended:
                        return
            except (RequestFailedError, LaunchError):
                return  # it is gone, or cannot tell
            except (PoolUnseenError, TimeoutError):
                pass
            await asyncio.sleep(min(pause_s, max(0.0, until_s - loop.time())))
            pause_s = min(_POLL_S_MAX, pause_s * 1.5)

    async def _take_down(self, cluster: str) -> None:
        """Until its machines are ended, and its launch is no longer the last word on it."""
        last = observing.newest(await self._requests(cluster), cluster).get(cluster)
        is_there = bool(await self._clusters(cluster))
        if not is_there and (last is None or last.name == observing.DOWN):
            return
        try:
            await self._api.down(cluster, timeout_s=_DOWN_S)
        except RequestFailedError as error:
            if error.kind != _GONE:
                told = f"{cluster} is not ended, and costs on: {error}"
                raise PoolUnseenError(told) from error
        except (LaunchError, TimeoutError) as error:
            raise PoolUnseenError(f"{cluster} is not ended yet, and costs on: {error}") from error


def _chips(known: Known) -> int:
    """That its machine was asked for with; one at least."""
    return max(1, int(known.ours.chips)) if known.ours.chips.isdigit() else 1
