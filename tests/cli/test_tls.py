"""TLS of the control API, with real certificates: who is refused, by whom, and in which words."""

import asyncio
import shutil
import socket
import ssl

import httpx
import pytest
from typer.testing import CliRunner

from argosy.cli.main import app
from argosy.cli.tls import Certificate, Identity, TlsError, in_words, trusting
from argosy.control.api import Answer, Api, ControlStatus
from argosy.fleet.config import Tls
from tests.cli.certificates import Authority, ExtendedKeyUsageOID

TOKEN = "a-secret-of-the-tests-alone"
_BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def ca() -> Authority:
    return Authority("ours")


@pytest.fixture(scope="module")
def stranger() -> Authority:
    return Authority("theirs")


class _Desk:
    """Says who it is."""

    async def report(self, gateway, report):
        raise NotImplementedError

    async def status(self):
        return ControlStatus(
            fleet="f", answered_by="c", leader=None, token=None, version=0, age_s=None,
            replicas=(), waits=None, gateways=(),
        )  # fmt: skip

    async def events(self, asked):
        return Answer(status=200, body=b"[]")

    async def operate(self, body, *, is_forwarded):
        raise NotImplementedError


async def _asked(server: Identity, tls: object) -> int | str | None:
    """The status of the API's answer, or why there is none."""
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    api = Api(_Desk(), listener, token=TOKEN, tls=server.server)
    api.start()
    try:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1/status"
        async with httpx.AsyncClient(verify=tls, trust_env=False, headers=_BEARER) as client:
            began_s = loop.time()
            while True:
                try:
                    return (await client.get(url)).status_code
                except (httpx.HTTPError, ssl.SSLError) as error:
                    if in_words(error) or loop.time() - began_s > 5:
                        return in_words(error)
                    await asyncio.sleep(0.05)
    finally:
        await api.stop()


def test_both_ends_with_certificates_of_one_ca_talk(ca, tmp_path):
    server = Identity(ca.folder(tmp_path / "c1"), listens=True)
    client = Identity(ca.folder(tmp_path / "g1"), listens=False)
    assert asyncio.run(_asked(server, client.client)) == 200


def test_a_caller_without_a_certificate_is_refused_though_it_has_the_token(ca, tmp_path):
    folder = ca.folder(tmp_path / "c1")
    server = Identity(folder, listens=True)
    bare = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    told = asyncio.run(_asked(server, bare))
    assert told == "it takes only callers with a certificate of its CA: --tls DIR"


def test_a_caller_of_another_ca_is_refused(ca, stranger, tmp_path):
    server = Identity(ca.folder(tmp_path / "c1"), listens=True)
    foreign = ssl.create_default_context(cafile=str(tmp_path / "c1" / "ca.crt"))
    other = stranger.folder(tmp_path / "g1")
    foreign.load_cert_chain(other / "tls.crt", other / "tls.key")
    told = asyncio.run(_asked(server, foreign))
    assert told == "our certificate is of a CA that it does not trust"


def test_a_control_plane_of_another_ca_is_refused(ca, stranger, tmp_path):
    server = Identity(stranger.folder(tmp_path / "c1"), listens=True)
    client = Identity(ca.folder(tmp_path / "g1"), listens=False)
    told = str(asyncio.run(_asked(server, client.client)))
    assert told == "its certificate is refused: self-signed certificate in certificate chain"


def test_a_caller_whose_certificate_has_expired_meanwhile_is_refused(ca, tmp_path):
    server = Identity(ca.folder(tmp_path / "c1"), listens=True)
    late = ssl.create_default_context(cafile=str(tmp_path / "c1" / "ca.crt"))
    folder = ca.folder(tmp_path / "g1", days=-1)
    late.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    assert asyncio.run(_asked(server, late)) == "our certificate has expired"


def test_what_others_would_refuse_is_refused_before_anything_starts(ca, stranger, tmp_path):
    def told(folder, *, listens=True):
        with pytest.raises(TlsError) as error:
            Identity(folder, listens=listens)
        return str(error.value)

    expired = ca.folder(tmp_path / "expired", days=-1)
    assert "tls.crt is refused as a server's" in told(expired)
    assert told(expired).endswith("certificate has expired")
    assert told(expired, listens=False).endswith("certificate has expired")
    assert "issuer" in told(ca.folder(tmp_path / "of-another", ca=stranger))
    one_use = ca.folder(tmp_path / "one", usages=[ExtendedKeyUsageOID.SERVER_AUTH])
    assert "as a client's" in told(one_use)
    mixed = ca.folder(tmp_path / "mixed")
    shutil.copy(expired / "tls.key", mixed / "tls.key")
    assert "are no certificate and its key" in told(mixed)
    (mixed / "ca.crt").write_text("none\n")
    shutil.copy(ca.folder(tmp_path / "whole") / "tls.key", mixed / "tls.key")
    shutil.copy(tmp_path / "whole" / "tls.crt", mixed / "tls.crt")
    assert "ca.crt holds no certificate of a CA" in told(mixed)
    (mixed / "tls.crt").unlink()
    assert "tls.crt cannot be read: No such file" in told(mixed)


def test_a_gateway_s_certificate_may_be_for_callers_alone(ca, tmp_path):
    server = Identity(ca.folder(tmp_path / "c1"), listens=True)
    folder = ca.folder(tmp_path / "g1", usages=[ExtendedKeyUsageOID.CLIENT_AUTH])
    client = Identity(folder, listens=False)
    assert asyncio.run(_asked(server, client.client)) == 200


def test_renewed_files_are_used_on_the_same_context_and_bad_ones_are_not(ca, tmp_path):
    folder = ca.folder(tmp_path / "c1")
    certificate = Certificate(Tls(cert=str(folder / "tls.crt"), key=str(folder / "tls.key")))
    first = _shown(certificate.context, trusting(folder / "tls.crt"))
    assert not certificate.refresh()
    ca.folder(folder)
    assert certificate.refresh()
    second = _shown(certificate.context, trusting(folder / "tls.crt"))
    assert first != second
    (folder / "tls.key").write_text("half")
    with pytest.raises(TlsError, match="no certificate and its key"):
        certificate.refresh()
    assert _shown(certificate.context, trusting(folder / "tls.crt")) == second


def _shown(server: ssl.SSLContext, client: ssl.SSLContext) -> bytes:
    """The certificate, after a handshake."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    one, two = client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)
    for side in (one, two, one, two):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    shown = one.getpeercert(binary_form=True)
    assert shown is not None
    return shown


# The commands.


@pytest.fixture
def refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ARGOSY_CONTROL_TOKEN", TOKEN)

    def run(*arguments):
        state = ("--state", str(tmp_path / "state"))
        result = CliRunner().invoke(app, [*map(str, arguments), *state])
        assert result.exit_code == 1, result.output
        return " ".join(result.output.split())

    return run


def test_a_control_api_in_the_clear_is_refused_where_others_reach_it(refused, tmp_path):
    asked = ("control", "--store", tmp_path / "s.db", "--allow-local", "--listen")
    for place in ("0.0.0.0:0", "192.0.2.7:0", "[::]:0", "control-1.example:0"):
        said = refused(*asked, place)
        assert "would speak to them in the clear" in said
        assert "--tls DIR" in said
    assert "cannot listen on 192.0.2.7:0" in refused(*asked, "192.0.2.7:0", "--clear-text")


def test_a_url_without_tls_is_refused_beside_certificates(refused, ca, tmp_path):
    folder = ca.folder(tmp_path / "g1")
    for command in (("gateway",), ("status",)):
        said = refused(*command, "--tls", folder, "--control", "http://127.0.0.1:1")
        assert "is without TLS, though --tls is given" in said
    assert "Name them: --control URL" in refused("status", "--tls", folder)
    ca.folder(folder, days=-1)
    said = refused("status", "--tls", folder, "--control", "https://127.0.0.1:1")
    assert "certificate has expired" in said
