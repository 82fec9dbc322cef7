"""A gateway's ties to the control planes: it reports to each of them, and takes the newest table.

Cut off from all of them it serves on from the table that it has, says so, and never empties it;
that table is on disk too, for a restart. Each control plane is asked for itself, so that one which
is gone or stopped holds up nothing.
"""

import asyncio
import hashlib
import logging
import os
import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx
import msgspec

from argosy.cli.gateways import Gateways
from argosy.cli.state import now_s
from argosy.cli.tls import Identity, in_words
from argosy.control.hearing import Report
from argosy.control.publication import NOTHING, WAIT_S_MAX, Orders
from argosy.fleet.messages import LiveKeys, Message, ReplicaTable

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=Message)
CUT_OFF_S = 10.0  # without any control plane's word; twice the longest wait for news
_ANSWER_S = 5.0  # beyond the wait
_AGAIN_S, _AGAIN_S_MAX = 0.2, 2.0  # after one did not answer; doubles, with jitter
_SPEC_AGAIN_S = 30.0  # after a fleet file could not be taken up


class Cell(Message, frozen=True, kw_only=True):
    """What a gateway needs to serve without any control plane."""

    at_s: float  # Unix time at which it was known to be the newest
    table: ReplicaTable
    spec: str | None = None  # the fleet file that was applied last


class CellFile:
    """`cell.json` in the state folder."""

    def __init__(self, state: Path) -> None:
        self.path = state / "cell.json"

    def read(self) -> Cell | None:
        """None where there is none that can be read, which is said."""
        return _read_json(self.path, Cell)

    def write(self, cell: Cell) -> None:
        """Whole, or not at all."""
        _write_json(self.path, cell)


class KeysFile:
    """`keys.json` in the state folder: what control planes told, no secrets, for a restart."""

    def __init__(self, state: Path) -> None:
        self.path = state / "keys.json"

    def read(self) -> LiveKeys | None:
        """None where there is none that can be read, which is said."""
        return _read_json(self.path, LiveKeys)

    def write(self, keys: LiveKeys) -> None:
        """Whole, or not at all."""
        _write_json(self.path, keys)


class ControlLink:
    """Of one gateway, from `start` until `stop`."""

    def __init__(
        self,
        gateways: Gateways,
        urls: Sequence[str],
        *,
        name: str,
        token: str,
        own_url: str,
        cell: Cell | None,
        file: CellFile,
        keys_file: KeysFile,
        take_up: Callable[[str], Awaitable[str | None]],
        say: Callable[[str], None],
        identity: Identity | None = None,
    ) -> None:
        """`take_up` is given a fleet file's text, and says why it could not be taken up."""
        self._gateways = gateways
        self._urls = urls
        self._path = f"/v1/gateways/{quote(name, safe='')}"
        self._token = token
        self._own_url = own_url
        self._file = file
        self._keys_file = keys_file
        self._take_up = take_up
        self._say = say
        self._identity = identity  # None: what https URLs show is trusted as a browser would
        self._spec = None if cell is None else cell.spec
        self._sha256 = None if self._spec is None else _sha256(self._spec)
        began_s = _loop_s()
        age_s = 0.0 if cell is None else max(0.0, now_s() - cell.at_s)
        self._confirmed_s = began_s - age_s
        self._faults: dict[str, str] = {}  # by URL
        self._is_cut_off = False
        self._has_other_past = False
        self._tasks: list[asyncio.Task[None]] = []
        self._taking: asyncio.Task[None] | None = None
        self._client: httpx.AsyncClient | None = None

    @property
    def table_age_s(self) -> float:
        """Since a control plane said that the table is the newest."""
        return max(0.0, _loop_s() - self._confirmed_s)

    def start(self) -> None:
        """Ask, from now on."""
        self._client = httpx.AsyncClient(
            headers={"authorization": f"Bearer {self._token}"},
            timeout=httpx.Timeout(WAIT_S_MAX + _ANSWER_S, connect=_ANSWER_S),
            trust_env=False,
            verify=True if self._identity is None else self._identity.client,
        )
        follows = [self._follow(self._client, url) for url in self._urls]
        self._tasks = [asyncio.create_task(one) for one in (*follows, self._watch())]
        if self._identity is not None:
            self._tasks.append(asyncio.create_task(self._identity.refresh_forever()))

    async def stop(self) -> None:
        """Say goodbye to those that answer."""
        for task in (*self._tasks, *((self._taking,) if self._taking else ())):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._client is not None:
            report = await self._report(is_leaving=True)
            await asyncio.gather(*(self._bye(self._client, url, report) for url in self._urls))
            await self._client.aclose()

    async def _bye(self, client: httpx.AsyncClient, url: str, report: Report) -> None:
        try:
            body = msgspec.json.encode(report)
            await client.post(url + self._path, content=body, timeout=1.0)
        except (httpx.HTTPError, ssl.SSLError) as error:
            logger.info("%s was not told that this gateway ends: %r", url, error)

    # One control plane.

    async def _follow(self, client: httpx.AsyncClient, url: str) -> None:
        again_s = _AGAIN_S
        while True:
            fault = await self._ask(client, url)
            if fault is None:
                again_s = _AGAIN_S
                if self._faults.pop(url, None):
                    self._say(f"{url} answers again")
                continue
            if url not in self._faults:
                self._faults[url] = fault
                self._say(f"control plane {url}: {fault}; it is asked again")
            await asyncio.sleep(again_s * random.uniform(0.5, 1.0))
            again_s = min(2 * again_s, _AGAIN_S_MAX)

    async def _ask(self, client: httpx.AsyncClient, url: str) -> str | None:
        """Why it gave no answer; None: it did."""
        try:
            body = msgspec.json.encode(await self._report())
            answer = await client.post(url + self._path, content=body)
            if answer.status_code != 200:
                return f"HTTP {answer.status_code} {answer.text[:200]}"
            self._hear(url, msgspec.json.decode(answer.content, type=Orders))
        except (httpx.HTTPError, ssl.SSLError) as error:
            return in_words(error) or str(error) or type(error).__name__
        except msgspec.MsgspecError as error:
            return f"its answer cannot be read: {error}"
        return None

    async def _report(self, *, is_leaving: bool = False) -> Report:
        version = self._gateways.table.version  # before it counts: they have it by then
        (signals,) = await self._gateways.heard(at_s=now_s())
        return Report(
            signals=signals,
            version=version,
            sha256=self._sha256,
            url=self._own_url,
            keys=self._gateways.keys_revision,
            is_leaving=is_leaving,
        )

    def _hear(self, url: str, orders: Orders) -> None:
        before = self._gateways.table
        if orders.table != NOTHING:
            table = msgspec.json.decode(orders.table, type=ReplicaTable)
            if table.version > before.version:
                self._gateways.publish(table)
                self._keep()
        if orders.keys != NOTHING:
            keys = msgspec.json.decode(orders.keys, type=LiveKeys)
            if keys.revision > self._gateways.keys_revision:
                self._gateways.tell_keys(keys)
                self._keys_file.write(keys)
        if orders.newest < before.version and orders.leader == url:
            self._tell_other_past(url, orders.newest, before.version)
        elif orders.age_s is not None:
            self._confirmed_s = max(self._confirmed_s, _loop_s() - orders.age_s)
        if orders.spec is not None and orders.sha256 != self._sha256:
            self._begin_taking_up(orders.spec)

    def _tell_other_past(self, url: str, newest: int, own: int) -> None:
        if not self._has_other_past:
            self._has_other_past = True
            self._say(
                f"{url} leads with table {newest}, this gateway has table {own} and keeps it: "
                f"their store is another one, or was set back. If that is meant, stop this "
                f"gateway, remove {self._file.path}, and start it again"
            )

    def _keep(self) -> None:
        cell = Cell(at_s=now_s(), table=self._gateways.table, spec=self._spec)
        self._file.write(cell)

    # The fleet file.

    def _begin_taking_up(self, text: str) -> None:
        self._sha256 = _sha256(text)
        if self._taking is not None:
            self._taking.cancel()
        self._taking = asyncio.create_task(self._taking_up(text))

    async def _taking_up(self, text: str) -> None:
        why_not = await self._take_up(text)
        if why_not is None:
            self._spec = text
            self._keep()
            return
        self._say(f"the fleet file that was applied is not taken up: {why_not}")
        await asyncio.sleep(_SPEC_AGAIN_S)
        self._sha256 = None  # it is told again

    # All of them.

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            is_cut_off = self.table_age_s > CUT_OFF_S
            if is_cut_off and not self._is_cut_off:
                table = self._gateways.table
                self._say(
                    f"cut off: no control plane has confirmed table {table.version} for "
                    f"{self.table_age_s:.0f} s; its {len(table.replicas)} replicas are served on"
                )
            elif self._is_cut_off and not is_cut_off:
                self._say("no longer cut off: a control plane leads, and its table is served")
            self._is_cut_off = is_cut_off


def _read_json(path: Path, kind: type[M]) -> M | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        logger.warning("%s cannot be read: %s", path, error)
        return None


def _write_json(path: Path, what: Message) -> None:
    fresh = path.with_suffix(".new")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(msgspec.json.encode(what))
        fresh.replace(path)
    except OSError as error:
        logger.warning("%s cannot be written: %s", path, error)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _loop_s() -> float:
    return asyncio.get_running_loop().time()
