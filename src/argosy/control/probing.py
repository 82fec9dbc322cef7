"""Asks every replica that listens whether it is well, again and again; keeps what they said."""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable

import msgspec

from argosy.control.probe import Prober
from argosy.control.records import Record
from argosy.policies.health import HealthSettings, Probe

logger = logging.getLogger(__name__)
PROBES_PER_S_MAX = 500.0  # of all together: about 0.3 ms of a core each


class _Target(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    pool: str
    is_ours: bool
    is_starting: bool


class Probing:
    """One task a replica; `wake` is called when a probe says something new."""

    def __init__(self, prober: Prober, wake: Callable[[], None], settings: HealthSettings) -> None:
        self.prober = prober
        self._wake = wake
        self._settings = settings
        self._targets: dict[str, _Target] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._said: defaultdict[str, list[Probe]] = defaultdict(list)
        self._was_well: dict[str, bool] = {}

    def watch(self, records: Iterable[Record]) -> None:
        """These from now on, where they listen."""
        targets = {record.name: target for record in records if (target := _target(record))}
        for name in [name for name in self._tasks if name not in targets]:
            self._end(name)
        for name, target in targets.items():
            before = self._targets.get(name)
            if before is None or (before.url, before.is_starting) != (
                target.url,
                target.is_starting,
            ):
                self._end(name)
                self._tasks[name] = asyncio.create_task(self._ask_forever(name, target))
        self._targets = targets

    def take(self) -> dict[str, tuple[Probe, ...]]:
        """What was said since this was last asked, the oldest first."""
        said = {name: tuple(probes) for name, probes in self._said.items()}
        self._said.clear()
        return said

    def stop(self) -> None:
        """Ask no more."""
        for name in list(self._tasks):
            self._end(name)

    def _end(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            task.cancel()
        self._said.pop(name, None)
        self._was_well.pop(name, None)

    async def _ask_forever(self, name: str, target: _Target) -> None:
        settings = self._settings
        timeout_s = (
            settings.probe_timeout_s if target.is_ours else settings.probe_timeout_s_endpoint
        )
        while True:
            try:
                probe = await self.prober.probe(target.url, pool=target.pool, timeout_s=timeout_s)
            except Exception as error:
                logger.exception("Probing %s failed", name)
                probe = Probe(ok=False, seconds=0.0, detail=repr(error))
            self._said[name].append(probe)
            if target.is_starting or not probe.ok or not self._was_well.get(name, False):
                self._wake()
            self._was_well[name] = probe.ok
            await asyncio.sleep(self._interval_s(target))

    def _interval_s(self, target: _Target) -> float:
        settings = self._settings
        if not target.is_ours:
            return settings.probe_interval_s_endpoint
        if target.is_starting:
            return settings.probe_interval_s_starting
        return max(settings.probe_interval_s, len(self._tasks) / PROBES_PER_S_MAX)


def _target(record: Record) -> _Target | None:
    row = record.row
    if row.url is None or record.leaving is not None or record.life not in ("starting", "up"):
        return None
    return _Target(
        url=row.url.rstrip("/") + record.spec.health_path,
        pool=record.spec.pool,
        is_ours=record.is_ours,
        is_starting=record.life == "starting" and record.is_ours,
    )
