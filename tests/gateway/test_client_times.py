"""How long a client may take, over each part of its requests."""

import asyncio

import pytest
from raw_client import HELLO, request
from running_gateway import answering, run, running
from upstream import answers


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
            for byte in request("/health", method="GET", x="y" * 800):
                client.say(bytes([byte]))
                await asyncio.sleep(0.01)
                if asking.done():
                    break
            assert (await asking).status == 408
            assert loop.time() - start_s < 6

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
