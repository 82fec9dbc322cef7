"""Does what a tick asks for: starts and stops, each replica's one after the other.

Asked the same at every tick, it begins what is not under way and remembers nothing else. What came
of it is told at the next tick.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping

from argosy.control.reconcile import Action, Start, Stop
from argosy.control.records import StartFailure
from argosy.launchers.port import Launcher, LaunchError, NoCapacityError, PoolUnseenError

logger = logging.getLogger(__name__)
_AGAIN_S = 1.0  # after a pool could not be spoken to
_CORDON_AGAIN_S = 10.0  # after a launcher refused: who lacks the right will lack it in a second too


class Actor:
    """What is under way, by replica; `wake` is called when something has come of it."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self.launchers: Mapping[str, Launcher] = {}  # by pool
        self.accepted: set[str] = set()  # since they were last taken: starts …
        self.failed: dict[str, StartFailure] = {}
        self.stopped: set[str] = set()
        self._wake = wake
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._starting: set[str] = set()  # of these
        self.cordoned: set[tuple[str, str]] = set()  # pools and their nodes
        self._cordons: Mapping[tuple[str, str], str] = {}  # that are to be, and why
        self._cordoning: dict[tuple[str, str], asyncio.Task[None]] = {}

    def do(self, actions: Iterable[Action]) -> None:
        """Begin what is not under way."""
        for action in actions:
            name = action.spec.name if isinstance(action, Start) else action.name
            if name in self._under_way:
                continue
            if isinstance(action, Start):
                self._starting.add(name)
            doing = self._start(action) if isinstance(action, Start) else self._stop(action)
            task = self._under_way[name] = asyncio.create_task(doing, name=name)
            task.add_done_callback(lambda _, name=name: self._done(name))

    def cordon(self, nodes: Mapping[tuple[str, str], str]) -> None:
        """Nothing more is to start on these, given with why, and again on those that were."""
        self._cordons = nodes
        for node in nodes.keys() ^ self.cordoned:
            if node not in self._cordoning:
                task = self._cordoning[node] = asyncio.create_task(self._cordon(*node))
                task.add_done_callback(lambda _, node=node: self._cordoning.pop(node))

    async def _cordon(self, pool: str, node: str) -> None:
        launcher = self.launchers.get(pool)
        why = self._cordons.get((pool, node))
        try:
            if why is not None and launcher is not None:
                await launcher.cordon(node, reason=why)
                self.cordoned.add((pool, node))
                return
            if launcher is not None:
                await launcher.uncordon(node)
            self.cordoned.discard((pool, node))
        except PoolUnseenError:
            await asyncio.sleep(_AGAIN_S)
        except Exception:
            logger.exception("Cordoning %s of %s failed; it is tried again", node, pool)
            await asyncio.sleep(_CORDON_AGAIN_S)

    async def finish(self, pools: Mapping[str, str], *, grace_s: float) -> None:
        """Stop these replicas, given with their pools; returns when they are gone."""
        await asyncio.gather(*(self._finish(*one, grace_s) for one in pools.items()))

    async def _finish(self, name: str, pool: str, grace_s: float) -> None:
        task = self._under_way.get(name)
        if task is not None and name in self._starting:  # a stop under way may be hurried
            await asyncio.wait({task})
        try:
            await self.launchers[pool].stop(name, grace_s=grace_s)
        except PoolUnseenError as error:
            logger.warning("%s cannot be stopped, and may run on: %s", name, error)
        except Exception:
            logger.exception("Stopping %s failed; its process may be left", name)

    def _done(self, name: str) -> None:
        self._under_way.pop(name, None)
        self._starting.discard(name)
        self._wake()

    async def _start(self, action: Start) -> None:
        spec = action.spec
        try:
            await self.launchers[spec.pool].start(spec)
            self.accepted.add(spec.name)
        except NoCapacityError as error:
            self.failed[spec.name] = StartFailure(
                reason=str(error), retry_after_s=error.retry_after_s, is_capacity=True
            )
        except LaunchError as error:
            self.failed[spec.name] = StartFailure(reason=str(error))
        except PoolUnseenError:
            await asyncio.sleep(_AGAIN_S)
        except OSError as error:
            self.failed[spec.name] = StartFailure(reason=error.strerror or str(error))
        except Exception as error:
            logger.exception("Starting %s failed", spec.name)
            self.failed[spec.name] = StartFailure(reason=repr(error))

    async def _stop(self, action: Stop) -> None:
        try:
            await self.launchers[action.pool].stop(action.name, grace_s=action.grace_s)
            self.stopped.add(action.name)
        except PoolUnseenError:
            await asyncio.sleep(_AGAIN_S)
        except Exception:
            logger.exception("Stopping %s failed; it is tried again", action.name)
            await asyncio.sleep(_AGAIN_S)
