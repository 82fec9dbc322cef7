"""Gateway processes under their parent: a generation comes up whole or not at all."""

import asyncio
import random
import socket
from pathlib import Path

import httpx
import pytest
import uvloop

from argosy.cli.gateway_child import GatewayStartError
from argosy.cli.gateways import GENERATIONS, Gateways, GatewayTerms
from argosy.cli.listeners import Listeners
from argosy.cli.state import STORE_FILE
from argosy.fleet.config import Deployment, EndpointEngine, Fleet, Gateway, Model, Pool
from argosy.fleet.launchers import EndpointLauncher
from argosy.fleet.messages import Key
from argosy.store.schema import open_store

KEY = Key(id="key_1", sha256="", tenant="acme", tier="consumer", name="up", created_at_s=0.0)


def a_fleet(*, key_env: str | None = None, model: str = "m", processes: int = 1) -> Fleet:
    launcher = EndpointLauncher(url="http://127.0.0.1:1/v1", key_env=key_env)
    return Fleet(
        fleet="test",
        gateway=Gateway(port=0, processes=processes, keys="none"),
        pools=(Pool(name="there", launcher=launcher),),
        models=(Model(name=model),),
        deployments=(Deployment(model=model, pool="there", engine=EndpointEngine()),),
    )


def with_gateways(state: Path, fleet: Fleet, story) -> None:
    async def main() -> None:
        open_store(state / STORE_FILE).dispose()
        listeners = Listeners(fleet.gateway)
        said: list[str] = []
        terms = GatewayTerms(
            state=state, operator_token="token", up_key=KEY, say=said.append,
            chance=random.Random(1),
        )  # fmt: skip
        gateways = Gateways(fleet, terms, listeners)
        try:
            await gateways.start()
            async with httpx.AsyncClient(base_url=listeners.url, trust_env=False) as client:
                await story(gateways, client)
        finally:
            await gateways.stop()

    uvloop.run(asyncio.wait_for(main(), 30))


async def models(client: httpx.AsyncClient) -> list[str]:
    answer = await client.get("/v1/models", headers={"connection": "close"})
    return [model["id"] for model in answer.json()["data"]]


def test_a_generation_that_does_not_come_up_changes_nothing(tmp_path: Path, capfd):
    async def story(gateways: Gateways, client: httpx.AsyncClient) -> None:
        before = (await gateways.collect()).snapshots[0].pid
        with pytest.raises(GatewayStartError, match="exited with status 1 before it was ready"):
            await gateways.replace(a_fleet(key_env="ARGOSY_TEST_UNSET_KEY", model="other"))
        assert [one.pid for one in (await gateways.collect()).snapshots] == [before]
        assert await models(client) == ["m"]
        await gateways.replace(a_fleet(model="other"))
        # A kept connection is the old generation's until that closes it.
        for _ in range(50):
            if (said := await models(client)) == ["other"]:
                break
            await asyncio.sleep(0.1)
        assert said == ["other"]

    with_gateways(tmp_path, a_fleet(), story)
    assert "ARGOSY_TEST_UNSET_KEY" in capfd.readouterr().err


@pytest.mark.slow
def test_reloads_wait_for_those_before_them_to_end_their_streams(tmp_path: Path):
    async def story(gateways: Gateways, client: httpx.AsyncClient) -> None:
        host, port = client.base_url.host, client.base_url.port
        idle: list[socket.socket] = []
        try:
            for _ in range(GENERATIONS - 1):
                idle.append(socket.create_connection((host, port)))  # keeps its generation
                idle[-1].sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
                await asyncio.to_thread(idle[-1].recv, 4096)
                await gateways.replace(a_fleet())
                await gateways.collect()  # the old one has heard that it retires
            with pytest.raises(GatewayStartError, match="still end their streams"):
                await gateways.replace(a_fleet())
            states = [one.is_draining for one in (await gateways.collect()).snapshots]
            assert states == [True] * (GENERATIONS - 1) + [False]
        finally:
            for connection in idle:
                connection.close()

    with_gateways(tmp_path, a_fleet(), story)


def test_a_port_that_another_listens_on_is_refused_also_when_sockets_are_shared():
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            Listeners(Gateway(port=port, processes=2))


def test_every_process_has_a_socket_on_the_same_port():
    listeners = Listeners(Gateway(host="localhost", port=0, processes=3))
    try:
        ports = {one.getsockname()[1] for group in listeners.groups for one in group}
        assert len(listeners.groups) == 3
        assert listeners.url == f"http://localhost:{ports.pop()}"
        assert not ports
    finally:
        listeners.close()
