"""The prober against replicas that answer, refuse, babble, cut and fall silent."""

import asyncio
import socket
import struct

import pytest

from argosy.control.probe import HttpProber

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def probed(*answer, path="/health", scheme="http", keys=None, end="close"):
    """The probe of a server that sends these bytes, 0.05 s apart, and what it was asked.

    The connection then ends by `end`: close, reset or silence.
    """
    asked = []

    async def serve(reader, writer):
        try:
            if scheme == "http":
                asked.append(await reader.readuntil(b"\r\n\r\n"))
            for part in answer:
                writer.write(part)
                await asyncio.sleep(0.05)
            if end == "silence":
                await reader.read()
            if end == "reset":
                linger = struct.pack("ii", 1, 0)
                peer = writer.get_extra_info("socket")
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        finally:
            writer.transport.abort()

    async def story():
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}"
            probe = await HttpProber(keys=keys).probe(url, pool="here", timeout_s=0.4)
            await asyncio.sleep(0.01)
        return probe

    return asyncio.run(story()), b"".join(asked)


def probe_of(url):
    return asyncio.run(HttpProber().probe(url, pool="here", timeout_s=0.4))


def test_a_200_is_well_and_the_path_is_asked_for_as_it_is():
    probe, asked = probed(OK, path="/v1/models?limit=1")
    assert (probe.ok, probe.detail) == (True, "HTTP 200")
    assert asked.startswith(b"GET /v1/models?limit=1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"Authorization" not in asked


def test_any_other_status_is_not_well():
    for status in (204, 302, 401, 404, 503):
        probe, _ = probed(b"HTTP/1.1 %d So\r\nContent-Length: 0\r\n\r\n" % status)
        assert (probe.ok, probe.detail) == (False, f"HTTP {status}")


def test_a_key_goes_to_its_own_pool_alone():
    assert b"\r\nAuthorization: Bearer sesame\r\n" in probed(OK, keys={"here": "sesame"})[1]
    assert b"Authorization" not in probed(OK, keys={"there": "sesame"})[1]


def test_an_answer_in_pieces_is_read_and_one_that_is_kept_open_is_not_waited_for():
    assert probed(OK[:9], OK[9:30], OK[30:])[0].ok
    assert probed(b"HTTP/1.1 200 OK\r\n\r\n", end="silence")[0].ok


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"\x00\xff" * 500,
        b"A" * 200_000,
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 \r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
    ],
)
@pytest.mark.parametrize("end", ["close", "reset"])
def test_garbage_and_cut_answers_are_failures_with_a_reason(answer, end):
    probe, _ = probed(answer, end=end)
    assert not probe.ok
    assert probe.detail


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", OK[:-1]])
def test_silence_ends_at_the_timeout(start):
    probe, _ = probed(start, end="silence")
    assert (probe.ok, probe.detail) == (False, "no answer within 0.4 s")
    assert probe.seconds >= 0.39


def test_a_socket_that_nobody_accepts_on_ends_at_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as server:
        probe = probe_of(f"http://127.0.0.1:{server.getsockname()[1]}/health")
    assert (probe.ok, probe.detail) == (False, "no answer within 0.4 s")


def test_a_refused_connection_a_bad_port_and_no_tls_are_failures_with_a_reason():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "Connection refused" in probe_of(f"http://127.0.0.1:{port}/health").detail
    assert "Port out of range" in probe_of("http://127.0.0.1:99999/health").detail
    probe, _ = probed(b"HTTP/1.1 400 Bad Request\r\n\r\n", scheme="https")
    assert not probe.ok
    assert probe.detail
