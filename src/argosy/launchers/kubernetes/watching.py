"""When a look at the pool may say something new: watches that run for as long as it is asked.

A watch only wakes: what has changed, `observe` lists anew. So a change that is missed, or told
twice, costs a look and no more.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Node, Pod

from argosy.launchers.kubernetes.api import Api, LeaderWorkerSet, WatchExpiredError
from argosy.launchers.port import PoolUnseenError

_PAUSE_S_MIN = 0.1
_PAUSE_S_MAX = 15.0
# A connection that died without a word says nothing for ever, so watches are renewed.
_RENEW_S = 330.0


class Watching:
    """Watches on all that a pool's observation is made of; they begin when first asked."""

    def __init__(self, api: Api, labels: dict[str, str], nodes: dict[str, str]) -> None:
        self._api = api
        self._labels = labels
        self._nodes = nodes
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def changed(self) -> None:
        """Returns when something may have changed since it last returned."""
        if not self._tasks:
            self._begin()
        await self._news.wait()
        self._news.clear()

    async def close(self) -> None:
        """End the watches."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self) -> None:
        watches: list[Callable[[], Coroutine[Any, Any, None]]] = [
            lambda: self._watch(Pod, self._labels),
            lambda: self._watch(Deployment, self._labels),
            lambda: self._watch(LeaderWorkerSet, self._labels),
        ]
        if self._nodes:
            watches.append(lambda: self._watch(Node, self._nodes))
        self._tasks = [asyncio.create_task(watch()) for watch in watches]

    async def _watch(self, kind: type[Any], labels: dict[str, str]) -> None:
        """Never ends by itself: an API server that is gone is asked again, ever more slowly."""
        since: str | None = None
        pause_s = _PAUSE_S_MIN
        while True:
            try:
                if since is None:
                    since = await self._api.version(kind, labels)
                    if since is not None:
                        self._news.set()  # what happened before that was not watched
                if since is not None:  # else the cluster has no such kind, or not yet
                    async with asyncio.timeout(_RENEW_S):
                        async for version in self._api.changes(kind, labels, since=since):
                            since, pause_s = version, _PAUSE_S_MIN
                            self._news.set()
            except TimeoutError:
                pause_s = _PAUSE_S_MIN
            except WatchExpiredError:
                since = None
            except PoolUnseenError:
                self._news.set()  # the next look will say so
            await asyncio.sleep(pause_s)
            pause_s = min(_PAUSE_S_MAX, pause_s * 2)
