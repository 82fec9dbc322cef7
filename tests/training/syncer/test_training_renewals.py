"""Certificates that are renewed while a run goes on: who gets one, and who shows it."""

import asyncio
import http.server
import socket
import threading
import time

import httpx
import pytest
from cryptography import x509
from starlette.applications import Starlette

from argosy.training.credentials import (
    CERT,
    KEY,
    SYNCER_HOST,
    CredentialsError,
    calling,
    certificate_of,
    folder_of,
    listening,
    make_credentials,
    renew_due,
    take_up,
)
from argosy.training.island.caller import Caller
from argosy.training.listening import bind, keep_renewed, make_server

DAY_S = 86_400.0


@pytest.fixture
def folder(tmp_path):
    """Of a run that goes on for eight days."""
    make_credentials(tmp_path, "test", ["ann"], now_s=time.time() - 8 * DAY_S)
    return tmp_path


@pytest.fixture
def syncer(folder):
    return folder_of(folder, "syncer")


@pytest.fixture
def ann(folder):
    return folder_of(folder, "island", "ann")


def renew(folder):
    """As `argosy train` does each minute."""
    return renew_due(folder, "test", ["ann"], now_s=time.time())


def serial_of(folder):
    return x509.load_pem_x509_certificate(certificate_of(folder)).serial_number


def names_in(pem):
    found = x509.load_pem_x509_certificate(pem).extensions
    return found.get_extension_for_class(x509.SubjectAlternativeName).value


def test_certificates_are_renewed_in_the_second_half_of_their_time_under_the_same_key(tmp_path):
    make_credentials(tmp_path, "test", ["ann"], now_s=0.0)
    ann = folder_of(tmp_path, "island", "ann")
    key, first = (ann / KEY).read_bytes(), certificate_of(ann)
    assert renew_due(tmp_path, "test", ["ann"], now_s=6 * DAY_S) == []
    assert certificate_of(ann) == first
    assert renew_due(tmp_path, "test", ["ann"], now_s=8 * DAY_S) == ["syncer", "ann"]
    assert renew_due(tmp_path, "test", ["ann"], now_s=8 * DAY_S) == []
    assert certificate_of(ann) != first
    assert (ann / KEY).read_bytes() == key
    assert names_in(certificate_of(ann)) == names_in(first)
    later = x509.load_pem_x509_certificate(certificate_of(ann)).not_valid_after_utc
    assert later.timestamp() == 22 * DAY_S


def test_a_certificate_of_another_key_is_not_taken_up(folder, syncer, ann):
    context = listening(syncer)
    (syncer / CERT).write_bytes(certificate_of(ann))
    with pytest.raises(CredentialsError, match="holds no usable"):
        take_up(context, syncer)


class Listener:
    """Listens with a syncer's certificate, and looks for another one all the time."""

    def __init__(self, folder):
        context = listening(folder)
        self.server = make_server(Starlette(), context)
        self.socket = bind("127.0.0.1", 0)
        self.port = self.socket.getsockname()[1]

        async def serve():
            showing = asyncio.create_task(keep_renewed(context, folder, look_s=0.005))
            await self.server.serve(sockets=[self.socket])
            showing.cancel()

        self.thread = threading.Thread(target=lambda: asyncio.run(serve()))
        self.thread.start()

    def shows(self, folder):
        """The serial number of the certificate that it shows to the owner of that folder."""
        with (
            socket.create_connection(("127.0.0.1", self.port)) as plain,
            calling(folder).wrap_socket(plain, server_hostname=SYNCER_HOST) as tls,
        ):
            shown = tls.getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(shown).serial_number

    def close(self):
        self.server.should_exit = True
        self.thread.join()


def test_a_listener_shows_a_renewed_certificate_without_a_restart(folder, syncer, ann):
    first = serial_of(syncer)
    listener = Listener(syncer)
    try:
        assert listener.shows(ann) == first
        whole = certificate_of(syncer)
        (syncer / CERT).write_bytes(b"half copied")
        assert listener.shows(ann) == first
        (syncer / CERT).write_bytes(whole)
        renew(folder)
        while listener.shows(ann) == first:
            time.sleep(0.01)
        assert listener.shows(ann) == serial_of(syncer) != first
    finally:
        listener.close()


class Asked(http.server.BaseHTTPRequestHandler):
    """Answers with the serial number of the caller's certificate."""

    def do_GET(self):
        body = str(int(self.connection.getpeercert()["serialNumber"], 16)).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Nobody reads it."""


def test_a_caller_shows_its_renewed_certificate_with_its_next_call(folder, syncer, ann):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Asked)
    server.socket = listening(syncer).wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,)).start()
    caller = Caller(ann, httpx.Timeout(20.0), look_s=0.0)

    def asked():
        url = f"https://127.0.0.1:{server.server_port}/"
        host = {"sni_hostname": SYNCER_HOST}
        return int(caller.client.request("GET", url, extensions=host).text)

    try:
        first = serial_of(ann)
        assert asked() == first
        renew(folder)
        assert asked() == serial_of(ann) != first
        (ann / CERT).write_bytes(b"half copied")
        second = asked()
        assert second != first, "the newest that was whole"
    finally:
        caller.close()
        server.shutdown()
        server.server_close()
