"""A real gateway on a real loop and real sockets, with replicas of the test's own making.

`run` runs one test under uvloop, as production does, and fails it on anything that the loop or a
log calls an error. Leaving `running` checks the law of rest: nothing is held, waited for or
counted once every client has gone.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

import uvloop
from raw_client import Client
from upstream import Behaviour, Upstream, answers

from argosy.fleet.config import Deployment, EndpointEngine, Fleet, Model, Pool, Tenant
from argosy.fleet.config import (
    Gateway as Settings,
)
from argosy.fleet.launchers import EndpointLauncher
from argosy.fleet.messages import Key, Replica, ReplicaState, ReplicaTable, Usage
from argosy.gateway.batches.api import BatchApi
from argosy.gateway.ledger import Ledger
from argosy.gateway.quotas import Quotas
from argosy.gateway.server import Gateway
from argosy.gateway.wiring import Wiring

SECRET = "argosy-secret"
OPERATOR = "operator-secret"
KEY = Key(id="key_1", sha256="", tenant="acme", tier="enterprise", name="k", created_at_s=0.0)
ENGINES = {
    "tiny": EndpointEngine(context_tokens=1000, embeddings=True),
    "long": EndpointEngine(context_tokens=1000, continuation="trailing"),
    "plain": EndpointEngine(context_tokens=1000, forces_tool_choice=False),
    "two": EndpointEngine(context_tokens=1000, slots=2),
    "four": EndpointEngine(slots=4),
}


class Errors(logging.Handler):
    """Everything that is logged as an error, by us or by the loop."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


def run(test: Coroutine[object, object, None], *, timeout_s: float = 20.0) -> None:
    """Run one test to its end; fails when an error was logged or left unhandled."""
    errors = Errors()
    logging.getLogger().addHandler(errors)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(asyncio.wait_for(test, timeout_s))
    finally:
        logging.getLogger().removeHandler(errors)
    assert errors.said == []


class House:
    """The gateway, its replicas, its clients and what it recorded."""

    def __init__(self, gateway: Gateway, records: list[Usage]) -> None:
        self.gateway = gateway
        self.records = records
        self.upstreams: list[Upstream] = []
        self.clients: list[Client] = []
        self.replicas: dict[str, Replica] = {}
        self._version = 0

    async def client(self, *, receive_bytes: int | None = None) -> Client:
        """A new connection."""
        port = int(self.gateway.url.rpartition(":")[2])
        client = await Client.connect(port, receive_bytes=receive_bytes)
        self.clients.append(client)
        return client

    async def replica(
        self, behaves: Behaviour, *, model: str = "tiny", pool: str = "there"
    ) -> Upstream:
        """One more ready replica."""
        upstream = Upstream(behaves)
        url = await upstream.start()
        self.upstreams.append(upstream)
        self.publish(url, model=model, pool=pool)
        return upstream

    def publish(
        self, url: str, *, model: str = "tiny", state: ReplicaState = "ready", pool: str = "there"
    ) -> str:
        """Put a replica at that URL into the table; its name."""
        name = f"{model}-{len(self.replicas) + 1}"
        self.replicas[name] = Replica(
            name=name,
            deployment=f"{model}@there",
            model=model,
            pool=pool,
            engine=ENGINES[model],
            state=state,
            url=url,
        )
        self._push()
        return name

    def turns(self, name: str, state: ReplicaState, **changed: object) -> None:
        """The control plane now calls it so, or says other things of it too."""
        fields = {field: getattr(self.replicas[name], field) for field in Replica.__struct_fields__}
        self.replicas[name] = Replica(**{**fields, "state": state, **changed})
        self._push()

    def _push(self) -> None:
        self._version += 1
        replicas = tuple(self.replicas.values())
        self.gateway.replace_table(ReplicaTable(version=self._version, replicas=replicas))

    async def recorded(self, count: int = 1) -> list[Usage]:
        """The records, once there are so many."""
        await eventually(lambda: len(self.records) >= count)
        assert len(self.records) == count
        return self.records

    def in_flight(self) -> int:
        return self.gateway.status().requests_in_flight

    async def close_clients(self) -> None:
        for client in self.clients:
            await client.close()
        self.clients.clear()

    async def comes_to_rest(self) -> None:
        """The law: nothing is held for clients that are gone."""
        await self.close_clients()
        await eventually(self._is_at_rest)
        status = self.gateway.status()
        assert self.gateway.body_bytes_pending == 0
        assert (status.requests_waiting, status.connections) == (0, 0)
        assert [row.load.requests_in_flight for row in status.replicas if row.replica.url] == [
            0
        ] * len(status.replicas)
        ids = [record.request for record in self.records]
        assert len(ids) == len(set(ids)), "one record a request"

    def _is_at_rest(self) -> bool:
        status = self.gateway.status()
        counts = (status.connections, status.requests_waiting, status.requests_in_flight)
        return not any(counts) and self.gateway.body_bytes_pending == 0


def bearer_of(tenant: Tenant) -> dict[str, str]:
    """The header with that tenant's key, in a gateway that was given the tenant."""
    return {"authorization": f"Bearer argosy-{tenant.name}"}


def _keys(tenants: tuple[Tenant, ...]) -> dict[str, Key]:
    made = {
        f"argosy-{tenant.name}": Key(
            id=f"key_{tenant.name}", sha256="", tenant=tenant.name, tier=tenant.tier,
            name=tenant.name, created_at_s=0.0,
        )
        for tenant in tenants
    }  # fmt: skip
    return {SECRET: KEY, **made}


@asynccontextmanager
async def running(
    *behaviours: Behaviour,
    tenants: tuple[Tenant, ...] = (),
    ledger: Ledger | None = None,
    models: tuple[Model, ...] = tuple(Model(name=name) for name in ENGINES),
    batches: BatchApi | None = None,
    quotas: Quotas | None = None,
    **settings: object,
) -> AsyncIterator[House]:
    """A gateway with one replica of `tiny` per behaviour."""
    records: list[Usage] = []
    defaults = {"port": 0, "replica_wait_s": 2.0, "attempts_max": 3}
    fleet = Fleet(
        fleet="test",
        gateway=Settings(**{**defaults, **settings}),  # type: ignore[arg-type]
        pools=(Pool(name="there", launcher=EndpointLauncher(url="http://127.0.0.1:1/v1")),),
        models=models,
        deployments=tuple(
            Deployment(model=name, pool="there", engine=engine) for name, engine in ENGINES.items()
        ),
        tenants=tenants or (Tenant(name="default"),),
    )
    wiring = Wiring(
        find_key=_keys(tenants).get,
        find_key_by_id={key.id: key for key in _keys(tenants).values()}.get,
        batches=batches,
        ledger=ledger,
        quotas=quotas,
        record=records.append,
        usage_unwritten=lambda: 0,
        usage_is_overloaded=lambda: False,
        unix_time_s=lambda: 1_700_000_000.0,
        operator_token=OPERATOR,
        chance=random.Random(1),
    )
    gateway = Gateway(fleet, wiring)
    await gateway.start()
    house = House(gateway, records)
    try:
        for behaves in behaviours:
            await house.replica(behaves)
        yield house
        await house.comes_to_rest()
    finally:
        await house.close_clients()
        await gateway.drain(0.0)
        await gateway.stop()
        for upstream in house.upstreams:
            await upstream.stop()
        await asyncio.sleep(0.001)


def answering(**settings: object):
    """A gateway whose one replica answers "Hello world"."""
    return running(answers("Hello", " world"), **settings)


async def eventually(condition, timeout_s: float = 3.0) -> None:
    """Return when it holds; fail when it does not in time."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + timeout_s
    while not condition():
        assert loop.time() < end_s, "it did not come to hold in time"
        await asyncio.sleep(0.002)
