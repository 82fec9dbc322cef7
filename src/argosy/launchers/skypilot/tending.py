"""Clusters that are up: where their replicas listen, whether they do, and how one has ended.

To ask for that takes the API server seconds, as it asks the machine in turn; so each cluster is
asked beside the looks, which tell what was last heard. What ends with the cluster is forgotten.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from urllib.parse import urlsplit

import msgspec

from argosy.launchers.port import LaunchError, PoolUnseenError
from argosy.launchers.skypilot.api import Api, Cluster, Job, RequestFailedError

_CONNECT_S = 2.0
_PAUSE_S_MAX = 15.0
_LOG_LINES = 20
_DETAIL_LENGTH_MAX = 500


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How often the API server is asked, in seconds: each question is work for it."""

    look_s: float = 5.0  # between looks, but for what we changed ourselves
    connect_s: float = 1.0  # between tries whether a replica listens
    job_s: float = 30.0  # between looks at what runs on one cluster
    refusal_s: float = 20.0  # a launch is waited for, in case it is refused


class Facts:
    """Of one cluster that is up, as far as is known."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.listens = False
        self.ended: str | None = None  # how


class Tending:
    """One task a cluster; `news` is set when one has something to tell."""

    def __init__(self, api: Api, port: int, *, pace: Pace, news: asyncio.Event) -> None:
        self._api = api
        self._port = port
        self._pace = pace
        self._news = news
        self._facts: dict[tuple[str, str, int], Facts] = {}
        self._tasks: dict[tuple[str, str, int], asyncio.Task[None]] = {}

    def facts(self, clusters: Iterable[Cluster]) -> dict[str, Facts]:
        """By name, of these, which are all that are up; those of others are forgotten."""
        known: dict[str, Facts] = {}
        keys: set[tuple[str, str, int]] = set()
        for one in clusters:
            key = (one.name, one.cluster_hash, one.launched_at)
            keys.add(key)
            if key not in self._facts:
                self._facts[key] = Facts()
                self._tasks[key] = asyncio.create_task(self._tend(one.name, self._facts[key]))
            known[one.name] = self._facts[key]
        for key in self._facts.keys() - keys:
            del self._facts[key]
            self._tasks.pop(key).cancel()
        return known

    async def close(self) -> None:
        """Ask no more."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        self._facts.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _tend(self, cluster: str, facts: Facts) -> None:
        """Until what runs there has ended."""
        loop = asyncio.get_running_loop()
        job_at_s, pause_s = loop.time(), self._pace.connect_s
        while facts.ended is None:
            try:
                if facts.url is None:
                    facts.url = _url(await self._api.address(cluster, self._port))
                if facts.url is not None and not facts.listens:
                    pause_s = self._pace.connect_s
                    await self._try(facts)
                if loop.time() >= job_at_s:
                    job_at_s = loop.time() + self._pace.job_s
                    await self._look_at_job(cluster, facts)
            except (RequestFailedError, LaunchError, PoolUnseenError):
                pause_s = min(_PAUSE_S_MAX, pause_s * 2)  # the next look says what is the matter
            await asyncio.sleep(self._pace.job_s if facts.listens else pause_s)

    async def _try(self, facts: Facts) -> None:
        facts.listens = await _answers(facts.url or "")
        if facts.listens:
            self._news.set()

    async def _look_at_job(self, cluster: str, facts: Facts) -> None:
        job = await self._api.job(cluster)
        if job is not None and job.has_ended:
            facts.ended = await self._how(cluster, job)
            self._news.set()

    async def _how(self, cluster: str, job: Job) -> str:
        told = ""
        with contextlib.suppress(LaunchError, PoolUnseenError):
            told = await self._api.log_tail(cluster, job.job_id, lines=_LOG_LINES)
        lines = [line.strip() for line in told.splitlines() if line.strip()]
        return f"its job is {job.status}: {'; '.join(lines)[-_DETAIL_LENGTH_MAX:]}"


def _url(address: str | None) -> str | None:
    if address is None or "://" in address:
        return address
    return f"http://{address}"


async def _answers(url: str) -> bool:
    """Whether somebody listens there: an engine opens its port when it has loaded."""
    where = urlsplit(url)
    port = where.port or (443 if where.scheme == "https" else 80)
    try:
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(where.hostname, port)
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True
