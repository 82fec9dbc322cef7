"""What a client may do wrong, or unusually, with HTTP itself; and that nothing of it is kept."""

import asyncio
import json

import pytest
from raw_client import HELLO, request
from running_gateway import OPERATOR, SECRET, answering, eventually, run

CHAT = "/v1/chat/completions"
UPGRADE = b"host: x\r\nconnection: upgrade\r\nupgrade: h2c"
NO_KEY = {"authorization": "x"}


async def gets_hello(house) -> None:
    """The gateway still works, for others."""
    answer = await (await house.client()).ask()
    assert answer.status == 200
    assert answer.json["choices"][0]["message"]["content"] == "Hello world"


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = request(body=b"", transfer_encoding="chunked").replace(b"content-length: 0\r\n", b"")
    return head + b"".join(b"%x\r\n%b\r\n" % (len(data), data) for data in chunks) + end


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nno colon here\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 1x\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /health HTTP/1.1\r\nx: a\x00b\r\n\r\n",
    ],
)
def test_what_is_not_http_gets_400_and_the_connection_closes(garbage):
    async def test():
        async with answering() as house:
            client = await house.client()
            client.say(garbage)
            answer = await client.answer()
            assert answer.status == 400
            assert answer.headers["connection"] == "close"
            assert answer.error["type"] == "invalid_request_error"
            assert await client.is_closed()
            await gets_hello(house)

    run(test())


@pytest.mark.parametrize("pieces", [1, 40])
@pytest.mark.parametrize("form", ["one long header", "many headers", "a long path"])
def test_a_head_over_64_kib_gets_431_however_it_arrives(pieces, form):
    long = {
        "one long header": b"GET /health HTTP/1.1\r\nx: " + b"a" * 66_000,
        "many headers": b"GET /health HTTP/1.1\r\n" + b"x-a: bcd\r\n" * 7_000 + b"y: z",
        "a long path": b"GET /" + b"a" * 66_000 + b" HTTP/1.1",
    }[form] + b"\r\n\r\n"

    async def test():
        async with answering() as house:
            client = await house.client()
            size = len(long) // pieces + 1
            for start in range(0, len(long), size):
                client.say(long[start : start + size])
                await asyncio.sleep(0.0 if pieces == 1 else 0.002)
            answer = await client.answer()
            assert answer.status == 431
            assert answer.error["code"] == "request_headers_too_large"
            assert await client.is_closed()
            await gets_hello(house)

    run(test())


def test_an_endless_head_is_cut_off_long_before_its_time():
    async def test():
        async with answering() as house:
            client = await house.client()
            assert (await client.ask()).status == 200
            client.say(b"GET /health HTTP/1.1\r\nx: ")
            for _ in range(70):
                client.say(b"a" * 1000)
                await asyncio.sleep(0.001)
            assert (await client.answer(timeout_s=1)).status == 431

    run(test())


def test_a_head_just_under_64_kib_is_served_on_every_request_of_a_connection():
    async def test():
        async with answering() as house:
            client = await house.client()
            for _ in range(3):
                answer = await client.ask("/health", method="GET", x="a" * 64_000)
                assert answer.status == 200
            client.say(request("/health", method="GET", x="a" * 66_000))
            assert (await client.answer()).status == 431

    run(test())


@pytest.mark.parametrize(
    ("path", "read_type"),
    [
        (CHAT, lambda said: said["error"]["code"]),
        ("/v1/messages", lambda said: said["error"]["type"]),
    ],
)
@pytest.mark.parametrize("form", ["length", "chunked"])
def test_a_body_over_the_limit_gets_413_in_the_api_s_shape(path, read_type, form):
    async def test():
        async with answering(body_bytes_max=1000) as house:
            client = await house.client()
            if form == "length":
                client.say(request(path, b"a" * 1001))
            else:
                client.say(chunked(b"a" * 600, b"a" * 600).replace(CHAT.encode(), path.encode()))
            answer = await client.answer()
            assert answer.status == 413
            assert read_type(answer.json) == "request_too_large"
            assert "1000" in answer.json["error"]["message"]
            assert await client.is_closed()
            [record] = await house.recorded()
            assert (record.outcome, record.status) == ("refused", 413)

    run(test())


def test_who_sends_too_much_can_send_on_and_then_read_why_it_is_refused():
    async def test():
        async with answering(body_bytes_max=1000) as house:
            client = await house.client()
            client.say(request(body=b"a" * 20_000_000))
            await client.writer.drain()  # raises when the connection is reset
            await asyncio.sleep(0.1)
            client.say(b"more")
            answer = await client.answer()
            assert (answer.status, answer.is_whole) == (413, True)

    run(test())


def test_chunked_bodies_are_read_however_they_are_cut():
    body = json.dumps(HELLO).encode()

    async def test():
        async with answering() as house:
            client = await house.client()
            for chunks in (
                [body],
                [body[:9], body[9:]],
                [body[i : i + 1] for i in range(len(body))],
            ):
                client.say(chunked(*chunks))
                assert (await client.answer()).status == 200
            client.say(chunked(body, end=b"0\r\nx-trailer: 1\r\nauthorization: x\r\n\r\n"))
            assert (await client.answer()).status == 200
            client.say(chunked(body, end=b"zz\r\nnot a chunk\r\n"))
            assert (await client.answer()).status == 400
            assert await client.is_closed()

    run(test())


def test_endless_trailers_are_cut_off():
    async def test():
        async with answering() as house:
            client = await house.client()
            client.say(chunked(b"{}", end=b"0\r\n"))
            for number in range(400):
                client.say(b"x-%d: %b\r\n" % (number, b"a" * 1000))
            answer = await client.answer()
            assert answer.status == 431
            assert await client.is_closed()

    run(test())


def test_a_body_of_tiny_chunks_does_not_cost_more_memory_than_its_bytes():
    async def test():
        async with answering() as house:
            client = await house.client()
            client.say(chunked(*[b"ab"] * 20_000, end=b""))
            await eventually(lambda: house.gateway.body_bytes_pending == 40_000)
            [connection] = house.gateway._connections
            assert len(connection._body) == 40_000
            assert isinstance(connection._body, bytearray)

    run(test())


def test_expect_100_continue_is_answered_before_the_body_comes():
    body = json.dumps(HELLO).encode()

    async def test():
        async with answering() as house:
            client = await house.client()
            client.say(request(body=body, expect="100-continue")[: -len(body)])
            said = await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 1)
            assert said == b"HTTP/1.1 100 Continue\r\n\r\n"
            client.say(body)
            assert (await client.answer()).status == 200

    run(test())


def test_expect_100_continue_of_a_too_large_body_is_answered_with_413_instead():
    async def test():
        async with answering(body_bytes_max=1000) as house:
            client = await house.client()
            client.say(request(body=b"", expect="100-continue", content_length="5000"))
            said = await asyncio.wait_for(client.reader.readuntil(b"\r\n"), 1)
            assert said.startswith(b"HTTP/1.1 413")

    run(test())


@pytest.mark.parametrize("upgrade", ["websocket", "h2c"])
def test_an_upgrade_is_declined_by_ignoring_it(upgrade):
    async def test():
        async with answering() as house:
            client = await house.client()
            headers = {"upgrade": upgrade, "connection": "Upgrade, HTTP2-Settings"}
            assert (await client.ask("/health", method="GET", **headers)).status == 200
            assert (await client.ask(**headers)).status == 200
            client.say(request("/health", method="GET", **headers) * 5 + request(**headers) * 2)
            for byte in request(**headers):
                client.say(bytes([byte]))
            client.say(chunked(json.dumps(HELLO).encode()).replace(b"host: x", UPGRADE))
            client.say(request(body=b"", **headers) + request())
            statuses = [(await client.answer()).status for _ in range(11)]
            assert statuses == [200] * 9 + [400, 200]

    run(test())


def test_head_gets_the_head_alone_whatever_the_answer_is():
    async def test():
        async with answering() as house:
            client = await house.client()
            for path, status in (
                ("/health", 200), ("/v1/models", 200), ("/v1/models/none", 404), (CHAT, 405),
                ("/nothing", 404), ("/argosy/status", 401),
            ):  # fmt: skip
                answer = await client.ask(path, method="HEAD")
                assert answer.status == status
                assert int(answer.headers["content-length"]) > 0
            # Had a body followed one of them, this would not be read.
            assert (await client.ask("/health", method="GET")).json == {"status": "ok"}

    run(test())


@pytest.mark.parametrize(
    ("method", "path", "status", "headers", "expected"),
    [
        ("GET", "/nothing", 404, {}, ("invalid_request_error", "unknown_url")),
        ("POST", "/v1/chat", 404, {}, ("invalid_request_error", "unknown_url")),
        ("GET", CHAT, 405, {}, ("invalid_request_error", "method_not_supported")),
        ("DELETE", "/v1/models", 405, {}, ("invalid_request_error", "method_not_supported")),
        ("GET", "/v1/messages", 405, {}, ("invalid_request_error", None)),
        ("GET", "/v1/messages/batches", 404, {}, ("not_found_error", None)),
        ("GET", "/nothing", 404, {"anthropic_version": "x"}, ("not_found_error", None)),
        ("GET", "/v1/models/x", 404, {"anthropic_version": "x"}, ("not_found_error", None)),
    ],
)
def test_unknown_paths_and_methods_are_refused_in_the_client_s_dialect(
    method, path, status, headers, expected
):
    async def test():
        async with answering() as house:
            client = await house.client()
            answer = await client.ask(
                path, b"" if method == "POST" else None, method=method, **headers
            )
            assert answer.status == status
            assert (answer.error["type"], answer.error.get("code")) == expected
            assert (answer.json.get("type") == "error") == (expected[1] is None)
            assert (await client.ask()).status == 200  # the connection was kept

    run(test())


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"authorization": f"Bearer {SECRET}"}, 200, None),
        ({"authorization": f"bEaReR   {SECRET}  "}, 200, None),
        ({**NO_KEY, "x_api_key": SECRET}, 200, None),
        ({"authorization": f"Bearer {OPERATOR}"}, 200, None),
        (NO_KEY, 401, None),
        ({"authorization": "Bearer "}, 401, None),
        ({"authorization": f"Basic {SECRET}"}, 401, None),
        ({"authorization": "Bearer wrong"}, 401, "invalid_api_key"),
        ({**NO_KEY, "x_api_key": "wrong"}, 401, "invalid_api_key"),
        ({"authorization": "Bearer \xff\xfe\x80"}, 401, "invalid_api_key"),
        ({**NO_KEY, "x_api_key": "\xe9" * 5000}, 401, "invalid_api_key"),
    ],
)
def test_a_key_is_taken_from_either_header_or_refused(headers, status, code):
    async def test():
        async with answering() as house:
            answer = await (await house.client()).ask(**headers)
            assert answer.status == status
            if status == 401:
                assert answer.error["code"] == code
                client = await house.client()
                in_other_shape = await client.ask("/v1/messages", **headers)
                assert in_other_shape.error["type"] == "authentication_error"

    run(test())


def test_who_asks_is_on_the_record():
    async def test():
        async with answering() as house:
            for secret in (SECRET, OPERATOR, "wrong"):
                await (await house.client()).ask(authorization=f"Bearer {secret}")
            records = await house.recorded(3)
            assert [(r.tenant, r.key, r.tier, r.status) for r in records] == [
                ("acme", "key_1", "enterprise", 200),
                ("operator", "operator", "consumer", 200),
                (None, None, None, 401),
            ]

    run(test())


def test_without_keys_everyone_is_served_but_for_the_status():
    async def test():
        async with answering(keys="none") as house:
            client = await house.client()
            for headers in (NO_KEY, {"authorization": "Bearer wrong"}, {"x_api_key": "\xff"}):
                assert (await client.ask(**headers)).status == 200
                assert (await client.ask("/v1/models", method="GET", **headers)).status == 200
                status = await client.ask("/argosy/status", method="GET", **headers)
                assert status.status == 401

    run(test())


def test_unusual_bytes_in_head_and_path_do_no_harm():
    async def test():
        async with answering() as house:
            client = await house.client()
            assert (await client.ask(x_odd="\xe9\xff\x80\t!")).status == 200
            answer = await client.ask("/caf\xe9/%00/\xff?\xfe=1", method="GET")
            assert answer.status in (400, 404)
            await gets_hello(house)

    run(test())
