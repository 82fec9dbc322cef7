"""Files and batches as the gateway serves them: keys, sizes, pace, cut downloads, draining."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from raw_client import request
from running_gateway import OPERATOR, answering, eventually, run

from argosy.gateway.batches.api import BatchApi
from argosy.store.batches import Batches
from argosy.store.files import CHUNK_BYTES, Files
from argosy.store.schema import open_store

FORM = {"content_type": "multipart/form-data; boundary=xx"}
HEAD = b'--xx\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--xx\r\n'
NAMED = b'Content-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n'
CHUNKS = 40
CONTENT = bytes(range(256)) * (CHUNKS * CHUNK_BYTES // 256)
AS_OPERATOR = {"authorization": f"Bearer {OPERATOR}"}


class Shelf(Files):
    """Files that count how often they are read, and fail from one piece on."""

    reads = 0
    fails_after = 1_000_000

    def read(self, file, *, after):
        self.reads += 1
        if self.reads > self.fails_after:
            raise OSError("the disk is gone")
        return super().read(file, after=after)


@asynccontextmanager
async def serving(tmp_path, **settings):
    """A gateway with a store, and its files."""
    store = open_store(tmp_path / "argosy.db")
    files = Shelf(store)
    api = BatchApi(
        files=files, batches=Batches(store), unix_time_s=lambda: 1e9, changed=lambda: None
    )
    try:
        async with answering(batches=api, **settings) as house:
            yield house, files
    finally:
        store.dispose()


def form(content: bytes) -> bytes:
    return HEAD + NAMED + content + b"\r\n--xx--\r\n"


async def upload(client, content: bytes) -> str:
    answer = await client.ask("/v1/files", form(content), **FORM)
    assert answer.status == 200, answer.body
    assert answer.json["bytes"] == len(content)
    return f"/v1/files/{answer.json['id']}/content"


def test_a_download_waits_for_its_reader_and_arrives_whole(tmp_path):
    async def test():
        async with serving(tmp_path) as (house, files):
            path = await upload(await house.client(), CONTENT)
            slow = await house.client(receive_bytes=4096)
            slow.say(request(path, method="GET"))
            await eventually(lambda: files.reads)
            await asyncio.sleep(0.1)
            assert files.reads < CHUNKS / 2, "it was read into memory for a client that waits"
            assert (await (await house.client()).ask()).status == 200
            slow.read_fast()
            answer = await slow.answer()
            assert answer.body == CONTENT
            again = await slow.ask("/v1/files?limit=1&order=asc", method="GET")
            assert len(again.json["data"]) == 1, "the connection goes on, and a query is read"

    run(test())


def test_a_download_that_fails_halfway_is_cut_and_nothing_else(tmp_path):
    async def test():
        async with serving(tmp_path) as (house, files):
            path = await upload(await house.client(), CONTENT)
            files.fails_after = 2
            client = await house.client()
            answer = await client.ask(path, method="GET")
            assert (answer.status, answer.is_whole) == (200, False)
            assert await client.is_closed()
            assert (await (await house.client()).ask()).status == 200

    run(test())


def test_a_client_that_leaves_a_download_stops_it(tmp_path):
    async def test():
        async with serving(tmp_path) as (house, files):
            path = await upload(await house.client(), CONTENT)
            client = await house.client(receive_bytes=4096)
            client.say(request(path, method="GET"))
            await eventually(lambda: files.reads)
            client.reset()
            await house.comes_to_rest()
            reads = files.reads
            await asyncio.sleep(0.05)
            assert files.reads <= reads + 1 < CHUNKS

    run(test())


def test_a_stop_waits_for_a_download_and_cuts_one_that_nobody_reads(tmp_path):
    async def test():
        async with serving(tmp_path) as (house, files):
            path = await upload(await house.client(), CONTENT)
            clients = [await house.client(receive_bytes=4096) for _ in range(2)]
            for client in clients:
                client.say(request(path, method="GET"))
            await eventually(lambda: files.reads > 4)
            draining = asyncio.create_task(house.gateway.drain(2.0))
            await asyncio.sleep(0)
            clients[0].read_fast()
            assert (await clients[0].answer()).body == CONTENT
            assert await draining == 1

    run(test())


def test_an_upload_may_be_longer_than_other_bodies_up_to_its_own_limit(tmp_path):
    limits = {"body_bytes_max": 1000, "body_bytes_pending_max": 40_000}  # three quarters: 30,000

    async def test():
        async with serving(tmp_path, **limits) as (house, _):
            await upload(await house.client(), b"x" * 20_000)
            for path, said in (
                ("/v1/files", "invalid_request_error"),
                ("/v1/messages/batches", "request_too_large"),
            ):
                client = await house.client()
                client.say(request(path, b"", content_length="30001"))
                answer = await client.answer()  # at once: not a byte of the body was sent
                assert (answer.status, answer.error["type"]) == (413, said)
                assert "30001 bytes; the limit is 30000" in answer.error["message"]
            for path in ("/v1/batches", "/v1/chat/completions", "/v1/files/file-1"):
                assert (await (await house.client()).ask(path, b"x" * 1001)).status == 413

    run(test())


def test_an_upload_that_does_not_say_its_length_is_refused_while_it_streams_in(tmp_path):
    async def test():
        limits = {"body_bytes_max": 1000, "body_bytes_pending_max": 40_000}
        async with serving(tmp_path, **limits) as (house, _):
            client = await house.client()
            head = request("/v1/files", b"", transfer_encoding="chunked", **FORM)
            client.say(head.replace(b"content-length: 0\r\n", b""))
            for _ in range(31):
                client.say(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
            answer = await client.answer()
            assert answer.status == 413
            assert "over the limit of 30000 bytes" in answer.error["message"]
            assert house.gateway.body_bytes_pending == 0

    run(test())


def test_uploads_leave_room_for_ordinary_requests(tmp_path):
    async def test():
        limits = {"body_bytes_max": 8000, "body_bytes_pending_max": 40_000}
        async with serving(tmp_path, **limits) as (house, _):
            first, second = await house.client(), await house.client()
            whole = request("/v1/files", form(b"x" * 25_000), **FORM)
            first.say(whole[:-100])
            await eventually(lambda: house.gateway.body_bytes_pending > 24_000)
            second.say(whole)
            answer = await second.answer()
            assert answer.status == 503
            assert "retry-after" in answer.headers
            assert (await (await house.client()).ask()).status == 200
            first.say(whole[-100:])
            assert (await first.answer()).status == 200

    run(test())


@pytest.mark.parametrize(("piece", "status"), [(20_000, 200), (1000, 408)])
def test_an_upload_takes_its_time_as_long_as_it_comes_fast_enough(tmp_path, piece, status):
    async def test():
        async with serving(tmp_path, body_timeout_s=0.2) as (house, _):
            client = await house.client()
            whole = request("/v1/files", form(b"x" * 140_000), **FORM)
            asking = asyncio.create_task(client.answer())
            for start in range(0, len(whole), piece):
                client.say(whole[start : start + piece])
                await asyncio.sleep(0.1)  # 26 KB a 0.2 s are wanted
                if asking.done():
                    break
            assert (await asking).status == status

    run(test())


def test_a_batch_path_wants_a_key_and_answers_in_its_apis_shape(tmp_path):
    async def test():
        async with serving(tmp_path) as (house, _):
            client = await house.client()
            wrong = {"authorization": "Bearer wrong"}
            answer = await client.ask("/v1/batches", method="GET", **wrong)
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
            answer = await client.ask("/v1/messages/batches", method="GET", **wrong)
            assert answer.error["type"] == "authentication_error"
            assert (await client.ask("/v1/batches", method="DELETE")).status == 405
            assert (await client.ask("/v1/batches/a/b", method="GET")).status == 404
            assert (await client.ask("/v1/batchesque", method="GET")).status == 404

    run(test())


BEHALF = {"argosy_on_behalf_of": "key_1"}
BATCH = {"argosy_tier": "batch"}


@pytest.mark.parametrize(
    ("headers", "who"),
    [
        ({**AS_OPERATOR, **BEHALF, **BATCH}, ("acme", "key_1", "batch", 200)),
        ({**AS_OPERATOR, **BEHALF}, ("acme", "key_1", "enterprise", 200)),
        ({**AS_OPERATOR, **BATCH}, ("operator", "operator", "batch", 200)),
        ({**AS_OPERATOR, "argosy_on_behalf_of": "key_2"}, (None, None, None, 401)),
        ({**AS_OPERATOR, **BEHALF, "argosy_tier": "enterprise"}, (None, None, None, 400)),
        ({**BEHALF, **BATCH}, ("acme", "key_1", "enterprise", 200)),
        ({"argosy_on_behalf_of": "key_2", **BATCH}, ("acme", "key_1", "enterprise", 200)),
        ({"authorization": "Bearer wrong", **BEHALF}, (None, None, None, 401)),
        (
            {**AS_OPERATOR, "argosy_on_behalf_of": "operator", **BATCH},
            ("operator", "operator", "batch", 200),
        ),
    ],
)
def test_only_the_operator_asks_on_behalf_of_another(headers, who):
    async def test():
        async with answering() as house:
            await (await house.client()).ask(**headers)
            (record,) = await house.recorded()
            assert (record.tenant, record.key, record.tier, record.status) == who

    run(test())


def test_without_keys_the_items_of_a_batch_are_anybodys(tmp_path):
    async def test():
        async with answering(keys="none") as house:
            await (await house.client()).ask(**AS_OPERATOR, **BATCH)
            client = await house.client()
            refused = await client.ask(**AS_OPERATOR, **BATCH, argosy_on_behalf_of="key_2")
            assert refused.status == 401
            record, _ = await house.recorded(2)
            assert (record.tenant, record.key, record.tier) == ("anybody", "anybody", "batch")

    run(test())
