"""What gateways on other hosts are told: the newest replica table, the fleet file that holds, keys.

A leader offers its own table; whoever follows reads it in the store, four times a second, and all
read the keys there. Versions only grow, so that what comes late, or from one who leads no more,
replaces nothing.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable

import msgspec
from msgspec import Raw
from sqlalchemy import Engine as StoreEngine

from argosy.control.hearing import Report
from argosy.fleet.messages import LiveKeys, Message, ReplicaTable
from argosy.store.control import published, specs
from argosy.store.errors import StoreError
from argosy.store.keys import live_keys

logger = logging.getLogger(__name__)
WAIT_S_MAX = 5.0  # of a gateway, for news
NOTHING = Raw(b"null")
_READ_EVERY_S = 0.25
_WAIT_S_LEAVING = 0.25  # a replica goes when it has ended what it has, which gateways count


class Orders(Message, frozen=True, kw_only=True):
    """The answer to a report."""

    newest: int  # the version of the newest table known here; 0: none
    age_s: float | None = None  # since it was known to be the newest; None: never
    table: Raw = NOTHING  # a `ReplicaTable`, where there is a newer one than the report's
    sha256: str | None = None  # of the fleet file that holds
    spec: str | None = None  # its text, where the report's is another
    keys: Raw = NOTHING  # `LiveKeys`, where there are newer ones than the report's
    leader: str | None = None  # the URL of the control plane that leads


class Publication:
    """Of one control plane."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.table = ReplicaTable(version=0, replicas=())
        self.sha256: str | None = None  # of the fleet file that holds
        self.wait_s_max = WAIT_S_MAX  # for news; gateways report again after it
        self._now_s = now_s
        self._body = NOTHING
        self._keys = LiveKeys(revision=0, keys=())
        self._keys_body = NOTHING
        self._spec = ""
        self._confirmed_s: float | None = None
        self._news = asyncio.Event()
        self._is_closed = False

    def offer(self, table: ReplicaTable, body: bytes | None = None) -> None:
        """Told from now on, when it is newer."""
        if table.version <= self.table.version:
            return
        self._body = Raw(msgspec.json.encode(table) if body is None else body)
        self.table = table
        self._tell()

    def offer_spec(self, text: str) -> None:
        """The fleet file that holds."""
        sha256 = hashlib.sha256(text.encode()).hexdigest()
        if sha256 != self.sha256:
            self.sha256, self._spec = sha256, text
            self._tell()

    def offer_keys(self, keys: LiveKeys) -> None:
        """Told from now on, when they are newer."""
        if keys.revision > self._keys.revision:
            self._keys, self._keys_body = keys, Raw(msgspec.json.encode(keys))
            self._tell()

    @property
    def spec(self) -> str:
        """The text of the fleet file that holds; empty: not known yet."""
        return self._spec

    def confirm(self) -> None:
        """The newest table is known here, now."""
        self._confirmed_s = self._now_s()

    @property
    def age_s(self) -> float | None:
        """Since that was so."""
        return None if self._confirmed_s is None else max(0.0, self._now_s() - self._confirmed_s)

    async def news(self, report: Report, *, leader: Callable[[], str | None]) -> Orders:
        """What is new to a gateway, at once or when it comes, or that nothing is."""
        end_s = self._now_s() + self._wait_s()
        while not (self._is_news(report) or self._is_closed or self._now_s() >= end_s):
            try:
                async with asyncio.timeout(end_s - self._now_s()):
                    await self._news.wait()
            except TimeoutError:
                break
        is_newer = self.table.version > report.version
        is_other = self.sha256 is not None and self.sha256 != report.sha256
        return Orders(
            newest=self.table.version,
            age_s=self.age_s,
            table=self._body if is_newer else NOTHING,
            sha256=self.sha256,
            spec=self._spec if is_other else None,
            keys=self._keys_body if self._are_keys_news(report) else NOTHING,
            leader=leader(),
        )

    def close(self) -> None:
        """Whoever waits is answered."""
        self._is_closed = True
        self._tell()

    def _is_news(self, report: Report) -> bool:
        return (
            self.table.version > report.version
            or (self.sha256 is not None and self.sha256 != report.sha256)
            or self._are_keys_news(report)
        )

    def _are_keys_news(self, report: Report) -> bool:
        return report.keys is not None and self._keys.revision > report.keys

    def _wait_s(self) -> float:
        is_any_leaving = any(row.state == "stopping" for row in self.table.replicas)
        return min(self.wait_s_max, _WAIT_S_LEAVING) if is_any_leaving else self.wait_s_max

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    # What the store has.

    async def follow(self, store: StoreEngine, fleet: str) -> None:
        """Read on, for ever."""
        rounds, failed = 0, False
        while True:
            try:
                await self._read(store, fleet, is_spec_due=rounds % 4 == 0)
                if failed:
                    logger.warning("The replica table can be read in the store again")
                failed = False
            except StoreError as error:
                if not failed:
                    logger.warning("The replica table cannot be read in the store: %s", error)
                failed = True
            rounds += 1
            await asyncio.sleep(_READ_EVERY_S)

    async def _read(self, store: StoreEngine, fleet: str, *, is_spec_due: bool) -> None:
        known = self.table.version
        found = await asyncio.to_thread(published, store, fleet, newer_than=known)
        if found is not None:
            try:
                self.offer(msgspec.json.decode(found.table, type=ReplicaTable), found.table)
            except msgspec.MsgspecError:
                logger.exception("Table %d in the store cannot be read", found.version)
        self.confirm()
        keys = await asyncio.to_thread(live_keys, store, unlike=self._keys.revision)
        if keys is not None:
            self.offer_keys(keys)
        if is_spec_due:
            for spec in await asyncio.to_thread(specs, store, fleet, limit=1):
                self.offer_spec(spec.text)
