"""Looks at the pools: what each launcher last found, and when.

One task a launcher, so that a pool that answers slowly holds up no other.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping

import msgspec

from argosy.fleet.messages import Observation, ObservedNode, ObservedReplica
from argosy.launchers.port import Launcher, PoolUnseenError

logger = logging.getLogger(__name__)
_LOOK_EVERY_S = 2.0  # though nothing is said to have changed
_LOOK_S_MAX = 10.0
_AGAIN_S = 1.0  # after it could not be seen


class PoolSight(msgspec.Struct, frozen=True, kw_only=True):
    """A pool as it was last seen."""

    observation: Observation | None  # None: it cannot be seen now
    at_s: float
    reason: str = ""  # why it cannot be seen


class Watcher:
    """All pools of a run; `wake` is called when one shows something else than before."""

    def __init__(self, wake: Callable[[], None], now_s: Callable[[], float]) -> None:
        self._wake = wake
        self._now_s = now_s
        self._launchers: dict[str, Launcher] = {}
        self._sights: dict[str, PoolSight] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def watch(self, launchers: Mapping[str, Launcher]) -> None:
        """These pools from now on."""
        for pool, launcher in list(self._launchers.items()):
            if launchers.get(pool) is not launcher:
                self._tasks.pop(pool).cancel()
                self._sights.pop(pool, None)
                del self._launchers[pool]
        for pool, launcher in launchers.items():
            if pool not in self._launchers:
                self._launchers[pool] = launcher
                self._tasks[pool] = asyncio.create_task(self._look_forever(pool, launcher))

    def stop(self) -> None:
        """Look no more."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def sight(self, pool: str) -> PoolSight | None:
        """None before the first look has ended."""
        return self._sights.get(pool)

    def unseen(self) -> frozenset[str]:
        """Pools that could be looked at no more."""
        return frozenset(pool for pool, one in self._sights.items() if one.observation is None)

    def seen(self) -> frozenset[str]:
        """Pools as they are now."""
        return frozenset(self._sights) - self.unseen()

    def replicas(self) -> Iterator[tuple[str, ObservedReplica, float]]:
        """All that were seen at the last look: pool, replica, when."""
        for pool, sight in self._sights.items():
            if sight.observation is not None:
                for one in sight.observation.replicas:
                    yield pool, one, sight.at_s

    def nodes(self) -> Iterator[tuple[str, ObservedNode]]:
        """All nodes, by pool."""
        for pool, sight in self._sights.items():
            if sight.observation is not None:
                yield from ((pool, node) for node in sight.observation.nodes)

    async def _look_forever(self, pool: str, launcher: Launcher) -> None:
        while True:
            is_seen = await self._look(pool, launcher)
            try:
                async with asyncio.timeout(_LOOK_EVERY_S if is_seen else _AGAIN_S):
                    await (launcher.changed() if is_seen else asyncio.sleep(_AGAIN_S))
            except TimeoutError:
                continue
            except Exception:
                logger.exception("Waiting for news of pool %s failed; it is looked at again", pool)
                await asyncio.sleep(_AGAIN_S)

    async def _look(self, pool: str, launcher: Launcher) -> bool:
        at_s = self._now_s()  # of the question: what was accepted later may not be in the answer
        observation, reason = None, ""
        try:
            async with asyncio.timeout(_LOOK_S_MAX):
                observation = await launcher.observe()
        except TimeoutError:
            reason = f"no answer within {_LOOK_S_MAX:g} s"
        except PoolUnseenError as error:
            reason = str(error)
        except Exception as error:
            logger.exception("Looking at pool %s failed", pool)
            reason = repr(error)
        before = self._sights.get(pool)
        self._sights[pool] = PoolSight(observation=observation, at_s=at_s, reason=reason)
        if before is None or before.observation != observation:
            if observation is None:
                logger.warning("Pool %s cannot be seen: %s", pool, reason)
            self._wake()
        return observation is not None
