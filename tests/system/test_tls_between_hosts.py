"""A control plane, a gateway and clients that speak TLS alone, on real sockets."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from far_fleet import ENV, Part, endpoint, fleet_of
from fleet_process import ARGOSY, run_argosy, wait_until
from streams import stream_once

from argosy.store.keys import mint
from argosy.store.schema import open_store
from tests.cli.certificates import Authority

pytestmark = pytest.mark.timeout(120)


class TlsFleet:
    """One of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = Authority("ours")
        self.store = folder / "s.db"
        self.control_tls = self.ca.folder(folder / "c1")
        self.gateway_tls = self.ca.folder(folder / "g1")
        self.public = self.ca.folder(folder / "public")
        self.replica, url = endpoint()
        self.file = folder / "fleet.yaml"
        tls = f"gateway: {{drain_s: 5, tls: {{cert: {self.public / 'tls.crt'}, key: "
        tls += f"{self.public / 'tls.key'}}}}}"
        self.file.write_text(fleet_of([url]).replace("gateway: {drain_s: 20}", tls))
        _, self.headers = self.made_key("t")
        self.control = self._part(
            "c1", "control", self.file, "--store", self.store, "--listen", "127.0.0.1:0",
            "--tls", self.control_tls,
        )  # fmt: skip
        self.control.wait("Ctrl-C ends it")
        self.gateway = self.another("g1", self.gateway_tls, "--store", self.store)
        self.gateway.wait("serves fleet")

    def made_key(self, name: str) -> tuple[str, dict[str, str]]:
        """Its id, and the headers of who has it."""
        store = open_store(self.store)
        try:
            secret, key = mint(store, tenant="acme", tier="consumer", name=name, now_s=0.0)
        finally:
            store.dispose()
        return key.id, {"authorization": f"Bearer {secret}"}

    def another(self, name: str, tls: Path, *more: object) -> Part:
        return self._part(
            name, "gateway", self.file, "--control", self.control.url, "--port", 0, "--tls", tls,
            *more,
        )  # fmt: skip

    def _part(self, name: str, *arguments: object) -> Part:
        state = self.folder / f"state-{name}"
        return Part(name, (*arguments, "--state", state), self.folder / f"{name}.log")

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.public / "ca.crt"))

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.gateway.url, headers=self.headers, verify=self.trust(), trust_env=False
        )

    def connected(self, url: str) -> ssl.SSLSocket:
        host, _, port = url.removeprefix("https://").rpartition(":")
        bare = socket.create_connection((host, int(port)), 5.0)
        return self.trust().wrap_socket(bare, server_hostname=host)

    def shown(self, url: str) -> bytes | None:
        """The certificate at that URL."""
        with self.connected(url) as wrapped:
            return wrapped.getpeercert(binary_form=True)

    def ask(self, *arguments: object, tls: Path | None) -> subprocess.CompletedProcess[str]:
        more = () if tls is None else ("--tls", str(tls))
        return run_argosy(*map(str, arguments), "--control", self.control.url, *more, env=ENV)

    def close(self) -> None:
        for part in (self.control, self.gateway):
            part.kill()
        self.replica.kill()
        self.replica.wait(10)
        self.replica.stdin.close()
        self.replica.stdout.close()


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsFleet]:
    fleet = TlsFleet(tmp_path_factory.mktemp("tls"))
    yield fleet
    fleet.close()


def _is_ready(fleet: TlsFleet) -> bool:
    answer = httpx.get(f"{fleet.gateway.url}/ready", verify=fleet.trust(), trust_env=False)
    return answer.status_code == 200


def test_a_stream_goes_over_tls_from_a_gateway_that_knows_replicas_over_tls(fleet: TlsFleet):
    assert fleet.control.url.startswith("https://")
    assert fleet.gateway.url.startswith("https://")
    wait_until(lambda: _is_ready(fleet), 20.0)

    async def three() -> list[str]:
        async with fleet.client() as client:
            return [(await stream_once(client, tokens=24)).end for _ in range(3)]

    assert asyncio.run(three()) == ["whole"] * 3
    wrapped = fleet.connected(fleet.gateway.url)
    wrapped.sendall(b"GET /ready HTTP/1.1\r\nhost: g\r\n\r\n" * 2)  # pipelined
    got = b""
    while got.count(b"HTTP/1.1 200") < 2:
        got += wrapped.recv(4096)
    wrapped.close()
    with pytest.raises(httpx.HTTPError):  # no answer in the clear
        httpx.get(fleet.gateway.url.replace("https", "http") + "/ready", trust_env=False)


def test_operators_need_a_certificate_too_and_read_why_they_are_refused(fleet: TlsFleet):
    told = fleet.ask("status", tls=fleet.gateway_tls)
    assert told.returncode == 0, told.stderr
    assert "1 leads" in told.stdout or "leads; table" in told.stdout
    bare = fleet.ask("status", tls=None)
    assert bare.returncode == 1
    assert "its certificate is refused" in bare.stderr
    stranger = Authority("theirs").folder(fleet.folder / "x", ca=None)
    (stranger / "ca.crt").write_bytes((fleet.control_tls / "ca.crt").read_bytes())
    assert "--tls" in fleet.ask("status", tls=stranger).stderr  # refused here already


def test_a_gateway_of_another_ca_hears_nothing_and_says_why(fleet: TlsFleet):
    other = fleet.another("g2", Authority("theirs").folder(fleet.folder / "g2"))
    try:
        other.wait("its certificate is refused: self-signed certificate", 20.0)
        fleet.control.wait("A caller is refused in the handshake", 5.0)
        told = fleet.ask("status", "--json", tls=fleet.gateway_tls).stdout
        assert '"url": "' + other.url not in told
    finally:
        other.kill()


def test_a_gateway_without_the_store_knows_the_keys_that_its_control_plane_tells(fleet: TlsFleet):
    far = fleet.another("g3", fleet.gateway_tls)
    try:
        far.wait("serves fleet")

        def status(headers: dict[str, str]) -> int:
            url = f"{far.url}/v1/models"
            answer = httpx.get(url, headers=headers, verify=fleet.trust(), trust_env=False)
            return answer.status_code

        wait_until(lambda: status(fleet.headers) == 200, 5.0)
        id_, headers = fleet.made_key("brief")
        wait_until(lambda: status(headers) == 200, 5.0)
        done = run_argosy("keys", "revoke", id_, "--store", str(fleet.store))
        assert done.returncode == 0, done.stderr
        wait_until(lambda: status(headers) == 401, 5.0)
        assert status(fleet.headers) == 200
    finally:
        far.kill()


def test_renewed_certificates_are_shown_without_a_restart(fleet: TlsFleet):
    before = [fleet.shown(fleet.gateway.url)]
    fleet.ca.folder(fleet.public)
    wait_until(lambda: fleet.shown(fleet.gateway.url) != before[0], 10.0)
    fleet.ca.folder(fleet.gateway_tls)
    fleet.ca.folder(fleet.control_tls)
    fleet.control.wait("is read again", 10.0)
    assert fleet.ask("status", tls=fleet.gateway_tls).returncode == 0


def test_commands_on_the_gateway_s_own_host_trust_its_own_certificate(fleet: TlsFleet):
    state = fleet.folder / "state-g1"
    said = subprocess.run(
        [*ARGOSY, "chat", "Hello.", "--max-tokens", "8", "--state", str(state)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip()
