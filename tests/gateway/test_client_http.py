"""What a client may do wrong, or unusually, with HTTP itself; and that nothing of it is kept."""

import asyncio
import json

import pytest
from raw_client import HELLO, request
from running_gateway import OPERATOR, SECRET, answering, eventually, run, running
from upstream import answers, hangs

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


@pytest.mark.parametrize("stream", [False, True])
def test_http_10_is_answered_without_chunks_and_closed(stream):
    async def test():
        async with answering() as house:
            client = await house.client()
            said = request(body={**HELLO, "stream": stream}).replace(b"HTTP/1.1", b"HTTP/1.0")
            client.say(said)
            answer = await client.answer()
            assert "transfer-encoding" not in answer.headers
            assert answer.headers["connection"] == "close"
            if stream:
                assert answer.text == "Hello world"
                assert answer.events[-1] == b"[DONE]"
            assert await client.is_closed()

    run(test())


def test_http_10_with_keep_alive_is_kept_after_a_whole_answer_and_closed_after_a_stream():
    async def test():
        async with answering() as house:
            client = await house.client()
            keep = {"connection": "keep-alive"}
            client.say(request(**keep).replace(b"HTTP/1.1", b"HTTP/1.0"))
            answer = await client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")
            stream = request(body={**HELLO, "stream": True}, **keep)
            client.say(stream.replace(b"HTTP/1.1", b"HTTP/1.0"))
            answer = await client.answer()
            assert (answer.text, answer.headers["connection"]) == ("Hello world", "close")
            assert await client.is_closed()

    run(test())


def test_connection_close_is_honoured():
    async def test():
        async with answering() as house:
            client = await house.client()
            answer = await client.ask(connection="close")
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await client.is_closed()

    run(test())


def test_pipelined_requests_are_answered_in_their_order():
    async def test():
        async with answering() as house:
            client = await house.client()
            paths = [f"/v1/models/m{number}" for number in range(10)]
            for path in paths:
                client.say(request())
                client.say(request(path, method="GET"))
            for path in paths:
                assert (await client.answer()).status == 200
                answer = await client.answer()
                assert answer.status == 404
                assert f"'{path.rpartition('/')[2]}'" in answer.error["message"]
            await house.recorded(10)

    run(test())


def test_more_than_32_waiting_requests_are_refused_after_those_before_them():
    async def test():
        async with answering() as house:
            client = await house.client()
            client.say(request() + request("/health", method="GET") * 40)
            statuses = [(await client.answer()).status for _ in range(33)]
            assert statuses == [200] * 32 + [429]
            assert await client.is_closed()

    run(test())


def test_garbage_after_good_requests_is_answered_after_them():
    async def test():
        async with answering() as house:
            client = await house.client()
            client.say(request("/health", method="GET") + request() + b"garbage\r\n\r\n")
            assert [(await client.answer()).status for _ in range(3)] == [200, 200, 400]
            assert await client.is_closed()
            [record] = await house.recorded()
            assert record.outcome == "finished"

    run(test())


def test_the_next_request_waits_while_the_client_does_not_read():
    async def test():
        async with running(answers("x" * 12_000_000)) as house:
            client = await house.client(receive_bytes=4096)
            client.say(request() * 3)
            [upstream] = house.upstreams
            await eventually(lambda: len(house.records) == 1)
            await asyncio.sleep(0.2)
            assert len(upstream.calls) == 1
            for _ in range(3):
                assert len((await client.answer()).body) > 12_000_000
            assert len(upstream.calls) == 3

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


def test_a_client_that_closes_its_side_after_a_page_still_reads_it():
    async def test():
        async with answering() as house:
            client = await house.client()
            client.say(request("/health", method="GET") * 3)
            client.writer.write_eof()
            assert [(await client.answer()).status for _ in range(3)] == [200] * 3
            assert await client.is_closed()

    run(test())


@pytest.mark.parametrize("sent", [1, 40, 300, -1])
@pytest.mark.parametrize("way", ["reset", "eof"])
def test_a_client_that_leaves_in_the_middle_of_its_request_leaves_nothing_behind(sent, way):
    async def test():
        async with running(hangs) as house:
            client = await house.client()
            client.say(request(body=json.dumps(HELLO).encode() + b" " * 5000)[:sent])
            await eventually(lambda: house.gateway._connections)
            await asyncio.sleep(0.02)
            client.reset() if way == "reset" else client.writer.write_eof()
            await eventually(lambda: not house.gateway._connections)
            assert house.gateway.body_bytes_pending == 0
            assert house.records == []

    run(test())


def test_a_client_that_leaves_while_its_next_request_waits_leaves_nothing_behind():
    async def test():
        async with running(hangs) as house:
            client = await house.client()
            client.say(request() + request() + request()[:-5])
            await eventually(lambda: house.in_flight() == 1)
            client.reset()
            await eventually(lambda: not house.gateway._connections)
            records = await house.recorded(2)
            assert [record.outcome for record in records] == ["cancelled", "cancelled"]

    run(test())


@pytest.mark.parametrize(
    ("sent", "what"), [(b"POST /v1/chat/comp", "head"), (request()[:-5], "body")]
)
def test_a_slow_request_gets_408_and_the_connection_closes(sent, what):
    async def test():
        async with answering(head_timeout_s=0.2, body_timeout_s=0.2) as house:
            client = await house.client()
            client.say(sent)
            answer = await client.answer()
            assert (answer.status, answer.error["code"]) == (408, "request_timeout")
            assert what in answer.error["message"]
            assert await client.is_closed()

    run(test())


def test_a_second_request_has_its_own_time_from_its_first_byte():
    async def test():
        async with answering(head_timeout_s=0.3) as house:
            client = await house.client()
            assert (await client.ask()).status == 200
            await asyncio.sleep(0.5)
            client.say(b"GET /health HT")
            answer = await client.answer(timeout_s=1.5)
            assert answer.status == 408

    run(test())


@pytest.mark.parametrize(("body_timeout_s", "status"), [(5.0, 200), (0.1, 408)])
def test_a_body_that_began_behind_another_request_has_a_body_s_time(body_timeout_s, status):
    async def test():
        slow = answers("Hello", " world", gap_s=0.1)
        async with running(slow, head_timeout_s=0.1, body_timeout_s=body_timeout_s) as house:
            client = await house.client()
            client.say(request() + request()[:-5])
            assert (await client.answer()).status == 200
            await asyncio.sleep(0.6)
            client.say(request()[-5:])
            assert (await client.answer()).status == status

    run(test())


def test_a_client_that_trickles_its_head_is_not_given_more_time_for_each_byte():
    async def test():
        async with answering(head_timeout_s=0.3) as house:
            client = await house.client()
            loop = asyncio.get_running_loop()
            start_s = loop.time()
            asking = asyncio.create_task(client.answer())
            for byte in request("/health", method="GET", x="y" * 200):
                client.say(bytes([byte]))
                await asyncio.sleep(0.01)
                if asking.done():
                    break
            assert (await asking).status == 408
            assert loop.time() - start_s < 1.5

    run(test())


@pytest.mark.parametrize("after", [0, 1])
def test_an_idle_connection_is_closed_in_time_without_a_word(after):
    async def test():
        async with answering(idle_timeout_s=0.2, head_timeout_s=0.2) as house:
            client = await house.client()
            for _ in range(after):
                assert (await client.ask()).status == 200
            assert await client.is_closed(timeout_s=1.5)

    run(test())


def test_no_timeout_of_the_client_s_runs_while_it_is_answered():
    async def test():
        slow = answers("Hello", " world", gap_s=0.5)
        async with running(
            slow, idle_timeout_s=0.1, head_timeout_s=0.1, body_timeout_s=0.1
        ) as house:
            answer = await (await house.client()).ask(body={**HELLO, "stream": True})
            assert answer.text == "Hello world"

    run(test())


def test_a_client_that_reads_its_last_answer_slowly_is_not_cut_for_having_asked_long_ago():
    async def test():
        text = "x" * 5_000_000
        async with running(answers(text, gap_s=0.5), body_timeout_s=0.1) as house:
            client = await house.client(receive_bytes=4096)
            client.say(request(connection="close"))
            await house.recorded()
            await asyncio.sleep(0.6)  # longer than the gateway takes to look after its clients
            answer = await client.answer()
            assert answer.is_whole
            assert len(answer.json["choices"][0]["message"]["content"]) == len(text)

    run(test())


def test_too_many_connections_are_told_so():
    async def test():
        async with answering(connections_max=3) as house:
            clients = [await house.client() for _ in range(3)]
            for client in clients:
                assert (await client.ask("/health", method="GET")).status == 200
            late = await house.client()
            answer = await late.answer()
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert answer.headers["retry-after"] == "1"
            assert await late.is_closed()
            await late.close()
            await clients.pop().close()
            await eventually(lambda: len(house.gateway._connections) == 2)
            assert (await (await house.client()).ask()).status == 200

    run(test())


def test_bodies_of_all_clients_together_are_bounded():
    async def test():
        async with answering(body_bytes_pending_max=10_000, body_bytes_max=9_000) as house:
            first, second = await house.client(), await house.client()
            first.say(request(body=b" " * 8_000)[:-1])
            await eventually(lambda: house.gateway.body_bytes_pending == 7_999)
            answer = await second.ask(body=b" " * 8_000)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert (await second.ask()).status == 200
            first.say(b" ")
            assert (await first.answer()).status == 400
            assert house.gateway.body_bytes_pending == 0

    run(test())


def test_a_draining_gateway_finishes_what_runs_and_refuses_what_comes():
    async def test():
        async with running(answers("Hello", " world", gap_s=0.3)) as house:
            busy, late, idle = [await house.client() for _ in range(3)]
            assert (await idle.ask("/health", method="GET")).status == 200
            late.say(request()[:-1])
            asking = asyncio.create_task(busy.ask(body={**HELLO, "stream": True}))
            await eventually(lambda: house.in_flight() == 1)
            draining = asyncio.create_task(house.gateway.drain(5.0))
            assert await idle.is_closed(timeout_s=1)
            late.say(request()[-1:])
            answer = await late.answer()
            assert (answer.status, answer.headers["connection"]) == (503, "close")
            assert await late.is_closed()
            answer = await asking
            assert (answer.text, answer.events[-1]) == ("Hello world", b"[DONE]")
            assert await busy.is_closed()
            assert await draining == 0
            with pytest.raises(ConnectionRefusedError):
                await house.client()

    run(test())


def test_a_drain_cuts_what_does_not_end_in_time_with_an_error():
    async def test():
        async with running(hangs) as house:
            client = await house.client()
            client.say(request())
            await eventually(lambda: house.in_flight() == 1)
            assert await house.gateway.drain(0.1) == 1
            assert (await client.answer()).status == 503
            assert await client.is_closed()
            [record] = await house.recorded()
            assert record.outcome == "refused"

    run(test())


def test_a_request_that_waits_for_a_replica_is_refused_when_the_gateway_drains():
    async def test():
        async with running() as house:
            client = await house.client()
            client.say(request())
            await eventually(lambda: house.gateway.status().requests_waiting == 1)
            assert await house.gateway.drain(1.0) == 0
            assert (await client.answer()).status == 503

    run(test())
