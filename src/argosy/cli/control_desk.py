"""What one `argosy control` answers at its API, whether it leads or follows (`control/api.py`).

Whoever follows hears the gateways too, reads tables in the store, and passes on to the leader what
an operator asks.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence

import msgspec
from sqlalchemy import Engine as StoreEngine

from argosy.cli.control_plane import ControlPlane
from argosy.cli.operator_socket import Asked
from argosy.cli.state import now_s
from argosy.cli.tls import Identity, in_words
from argosy.control.api import (
    FORWARDED,
    Answer,
    ControlStatus,
    EventsAsked,
    error_body,
)
from argosy.control.hearing import Hearing, Report
from argosy.control.leading import Leading, url_of
from argosy.control.publication import WAIT_S_MAX, Orders, Publication
from argosy.control.scaling import Signals
from argosy.fleet.config import Fleet
from argosy.store.decisions import decision_json, read
from argosy.store.errors import StoreError

_PASS_ON_S = 610.0  # weights may have to be fetched
_CONFIRM_EVERY_S = 0.25
_EVENTS_MAX = 1_000  # in one answer
_WAIT_S_SCALED = 1.0  # between two reports of a gateway, where demand is followed


class ControlDesk:
    """Of one control plane."""

    def __init__(
        self,
        store: StoreEngine,
        fleet: Fleet,
        leading: Leading,
        *,
        url: str,
        token: str,
        identity: Identity | None = None,
    ) -> None:
        now = asyncio.get_running_loop().time
        self.publication = Publication(now)
        self.audience = FarGateways(Hearing(now, unix_s=now_s), self._use)
        self._hearing = self.audience.hearing
        self._store = store
        self._leading = leading
        self._url = url
        self._token = token
        self._identity = identity
        self._control: ControlPlane | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._use(fleet)

    def start(self) -> None:
        """Read what the store has, from now on."""
        following = self.publication.follow(self._store, self._leading.fleet)
        self._tasks = [asyncio.create_task(following), asyncio.create_task(self._confirm())]

    async def stop(self) -> None:
        """Whoever waits is answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self.publication.close()

    def leads(self, control: ControlPlane) -> None:
        """From now on this one does."""
        self._control = self.audience.control = control
        self._use(control.applier.fleet)

    def follows(self) -> None:
        """From now on it does not."""
        self._control = self.audience.control = None

    def _use(self, fleet: Fleet) -> None:
        """Gateways report more often where demand is followed."""
        is_scaled = any(one.autoscale.max is not None for one in fleet.deployments)
        self.publication.wait_s_max = _WAIT_S_SCALED if is_scaled else WAIT_S_MAX

    @property
    def leader(self) -> str | None:
        """The leader's URL, as far as it is known."""
        if self._leading.may_act():
            return self._url
        other = self._leading.other
        return None if other is None else url_of(other.holder)

    # What is asked (`api.Desk`).

    async def report(self, gateway: str, report: Report) -> Orders:
        self._hearing.hear(gateway, report)
        return await self.publication.news(report, leader=lambda: self.leader)

    async def status(self) -> ControlStatus:
        control, lease = self._control, self._leading.lease
        table = self.publication.table if control is None else control.controller.table
        other = self._leading.other
        return ControlStatus(
            fleet=self._leading.fleet,
            answered_by=self._url,
            leader=self.leader,
            token=lease.token if lease else (None if other is None else other.token),
            version=table.version,
            age_s=self.publication.age_s,
            replicas=table.replicas,
            waits=None if control is None else control.controller.waits,
            gateways=self._hearing.gateways(),
        )

    async def events(self, asked: EventsAsked) -> Answer:
        limit = min(asked.limit, _EVENTS_MAX)
        try:
            found = await asyncio.to_thread(
                read,
                self._store,
                self._leading.fleet,
                since_s=asked.since_s,
                subject=asked.subject,
                kind=asked.kind,
                after_seq=asked.after_seq,
                limit=limit,
            )
        except StoreError as error:
            return Answer(status=503, body=error_body(str(error)))
        return Answer(status=200, body=b"[" + b",".join(map(decision_json, found)) + b"]")

    async def operate(self, body: bytes, *, is_forwarded: bool) -> Answer:
        try:
            asked = msgspec.json.decode(body, type=Asked)
        except msgspec.MsgspecError as error:
            return Answer(status=400, body=error_body(f"this is nothing to ask: {error}"))
        if self._control is not None and self._leading.may_act():
            reply = await self._control.operate(asked)
            return Answer(status=200, body=msgspec.json.encode(reply))
        leader = self.leader
        if leader is None or leader == self._url or is_forwarded:
            told = f"no control plane of fleet {self._leading.fleet} leads now; try again"
            return Answer(status=503, body=error_body(told))
        return await self._pass_on(leader, body)

    async def _pass_on(self, leader: str, body: bytes) -> Answer:
        import httpx

        headers = {"authorization": f"Bearer {self._token}", FORWARDED: "1"}
        tls = True if self._identity is None else self._identity.client
        try:
            async with httpx.AsyncClient(timeout=_PASS_ON_S, trust_env=False, verify=tls) as client:
                answer = await client.post(f"{leader}/v1/operator", content=body, headers=headers)
        except (httpx.HTTPError, ssl.SSLError) as error:
            told = f"{leader} leads fleet {self._leading.fleet}, and does not answer: "
            told += in_words(error) or repr(error)
            return Answer(status=503, body=error_body(told))
        return Answer(status=answer.status_code, body=answer.content)

    async def _confirm(self) -> None:
        """A leader's table is the newest there is."""
        while True:
            await asyncio.sleep(_CONFIRM_EVERY_S)
            if self._control is not None and self._leading.may_act():
                self.publication.confirm()


class FarGateways:
    """The gateways, to the leader (`control_plane.Audience`): they take up files by themselves."""

    def __init__(self, hearing: Hearing, use: Callable[[Fleet], None]) -> None:
        self.hearing = hearing
        self._use = use
        self.control: ControlPlane | None = None

    async def replace(self, fleet: Fleet) -> None:
        """They are told with the answer to their next report."""
        self._use(fleet)

    async def in_flight(self, replica: str) -> int | None:
        if self.control is None:
            return None
        controller = self.control.controller
        self.hearing.stay({one.name for one in controller.records.values() if one.leaving})
        return self.hearing.in_flight(replica, version=controller.table.version)

    async def heard(self, *, at_s: float) -> Sequence[Signals]:
        return self.hearing.signals()
