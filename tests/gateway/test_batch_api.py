"""Files and batches through the official SDKs, to the bytes, over a real store."""

import asyncio
import json

import anthropic
import httpx
import openai
import pytest
from batch_house import (
    echo,
    ended,
    house,
    line,
    lines_of,
    refusal,
    requests_of,
    submit,
    until,
)


async def never(_):
    await asyncio.sleep(60)


def messages_ended(client, batch_id):
    found = []

    def has_ended():
        found.append(client.messages.batches.retrieve(batch_id))
        return found[-1].processing_status == "ended"

    until(has_ended)
    return found[-1]


# OpenAI.


def test_a_batch_goes_from_its_file_to_its_results(tmp_path):
    with house(tmp_path) as open_house, open_house.openai() as client:
        made = submit(
            client,
            *(line(f"id-{i}", f"refuse {i}" if i % 5 == 0 else f"ask {i}") for i in range(20)),
            metadata={"purpose": "test"},
        )
        assert (made.object, made.status, made.completion_window) == ("batch", "validating", "24h")
        batch = ended(client, made.id)

        assert batch.status == "completed"
        assert batch.model == "tiny"
        assert batch.metadata == {"purpose": "test"}
        counts = batch.request_counts
        assert (counts.total, counts.completed, counts.failed) == (20, 16, 4)
        assert batch.created_at <= batch.in_progress_at <= batch.finalizing_at
        assert batch.finalizing_at == batch.completed_at
        assert batch.expires_at == batch.created_at + 24 * 3600
        output = lines_of(client, batch.output_file_id)
        assert [row["custom_id"] for row in output] == [f"id-{i}" for i in range(20) if i % 5]
        row = output[0]
        assert row["error"] is None
        assert row["response"]["status_code"] == 200
        assert row["response"]["request_id"].startswith("req_")
        assert row["response"]["body"]["choices"][0]["message"]["content"] == "re: ask 1"
        errors = lines_of(client, batch.error_file_id)
        assert [row["custom_id"] for row in errors] == ["id-0", "id-5", "id-10", "id-15"]
        assert errors[0]["response"]["status_code"] == 400
        assert errors[0]["response"]["body"]["error"]["message"] == "cannot"
        ids = [row["id"] for row in output + errors]
        assert len(set(ids)) == 20

        file = client.files.retrieve(batch.output_file_id)
        assert file.purpose == "batch_output"
        assert file.bytes == len(client.files.content(file.id).content)


def test_each_item_is_sent_for_its_owner_in_the_batch_tier(tmp_path):
    with house(tmp_path) as open_house, open_house.openai("other") as client:
        ended(client, submit(client, line("one")).id)
        (item,) = open_house.items
        assert item.path == "/v1/chat/completions"
        assert item.headers["authorization"] == "Bearer operator-secret"
        assert item.headers["argosy-on-behalf-of"] == "key_other"
        assert item.headers["argosy-tier"] == "batch"


def test_a_wrong_input_file_fails_its_batch_with_line_numbers_and_sends_nothing(tmp_path):
    wrong = (
        line("a"),
        b"{not json}\n",
        line("a"),
        line("b", method="GET"),
        line("c", url="/v1/embeddings"),
        line("d", body={"model": "big", "messages": []}),
        line("e", body={"messages": []}),
        line("f", body={"model": "tiny", "stream": True}),
    )
    with house(tmp_path) as open_house, open_house.openai() as client:
        batch = ended(client, submit(client, *wrong).id)
        assert batch.status == "failed"
        assert batch.failed_at is not None
        assert (batch.output_file_id, batch.error_file_id) == (None, None)
        found = [(fault.line, fault.code, fault.param) for fault in batch.errors.data]
        assert found == [
            (2, "invalid_json_line", None),
            (3, "duplicate_custom_id", "custom_id"),
            (4, "invalid_method", "method"),
            (5, "mismatched_url", "url"),
            (6, "mismatched_model", "body.model"),
            (7, "invalid_request", None),
            (8, "invalid_request", "body.stream"),
        ]
        assert "model" in batch.errors.data[5].message
        assert ended(client, submit(client, b"\n\n").id).errors.data[0].code == "empty_file"
        assert open_house.items == []


def test_a_cancelled_batch_keeps_what_it_has_and_says_what_it_has_not(tmp_path):
    def first_three(item):
        return echo(item) if "ask" in item.body["messages"][0]["content"] else never(item)

    with house(tmp_path, first_three) as open_house, open_house.openai() as client:
        texts = [*(f"ask {i}" for i in range(3)), *(f"hang {i}" for i in range(20))]
        made = submit(client, *(line(f"id-{i}", text) for i, text in enumerate(texts)))
        until(lambda: client.batches.retrieve(made.id).request_counts.completed == 3)
        assert client.batches.cancel(made.id).status in ("cancelling", "cancelled")
        batch = ended(client, made.id)
        assert batch.status == "cancelled"
        assert batch.cancelled_at >= batch.cancelling_at
        assert (batch.request_counts.completed, batch.request_counts.failed) == (3, 20)
        assert len(lines_of(client, batch.output_file_id)) == 3
        errors = lines_of(client, batch.error_file_id)
        assert {row["error"]["code"] for row in errors} == {"batch_cancelled"}
        assert [row["custom_id"] for row in errors] == [f"id-{i}" for i in range(3, 23)]
        with pytest.raises(openai.BadRequestError, match="status 'cancelled'"):
            client.batches.cancel(made.id)


def test_a_batch_that_is_not_done_in_a_day_expires(tmp_path):
    with house(tmp_path, never) as open_house, open_house.openai() as client:
        made = submit(client, line("a"), line("b"), line("c"))
        until(lambda: len(open_house.items) == 2)
        open_house.hurried_s = 24 * 3600.0
        batch = ended(client, made.id)
        assert batch.status == "expired"
        errors = lines_of(client, batch.error_file_id)
        assert {row["error"]["code"] for row in errors} == {"batch_expired"}
        assert batch.request_counts.failed == 3


def test_an_overloaded_gateway_is_asked_again_until_it_answers(tmp_path):
    pushed = iter([(503, {}), (429, {"retry_after": "0"}), (503, {})])

    def sometimes(item):
        status, headers = next(pushed, (200, {}))
        return echo(item) if status == 200 else refusal(item, status, "busy", **headers)

    with house(tmp_path, sometimes) as open_house, open_house.openai() as client:
        batch = ended(client, submit(client, line("a"), line("b")).id)
        assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 0)
        assert len(open_house.items) == 5


def test_a_batch_that_was_pushed_back_goes_on_with_one_request_at_a_time(tmp_path):
    log = []

    async def busy_at_first(item):
        serial = sum(event == "begin" for event in log)
        log.append("begin")
        await asyncio.sleep(0.03)
        log.append("end")
        return refusal(item, 503, "busy") if serial < 2 else echo(item)

    with house(tmp_path, busy_at_first) as open_house, open_house.openai() as client:
        batch = ended(client, submit(client, line("a"), line("b")).id)
        assert batch.request_counts.completed == 2
    assert log == ["begin", "begin", "end", "end", "begin", "end", "begin", "end"]


def test_a_gateway_that_fails_is_asked_five_times(tmp_path):
    def fails(item):
        return refusal(item, 500, "broken")

    with house(tmp_path, fails) as open_house, open_house.openai() as client:
        batch = ended(client, submit(client, line("a")).id)
        assert batch.status == "completed"
        assert batch.output_file_id is None
        (row,) = lines_of(client, batch.error_file_id)
        assert row["response"]["status_code"] == 500
        assert len(open_house.items) == 5


def test_files_are_listed_page_by_page_and_deleted(tmp_path):
    with house(tmp_path) as open_house, open_house.openai() as client:
        made = [
            client.files.create(file=(f"{i}.jsonl", b"x" * i), purpose="batch").id for i in range(5)
        ]
        assert [file.id for file in client.files.list()] == made[::-1]
        assert [file.id for file in client.files.list(limit=2)] == made[::-1]
        assert [file.id for file in client.files.list(limit=2, order="asc")] == made
        assert client.files.list(limit=2).has_more
        assert client.files.list(purpose="batch_output").data == []
        found = client.files.retrieve(made[3])
        assert (found.filename, found.bytes, found.status) == ("3.jsonl", 3, "processed")
        assert client.files.content(made[0]).content == b""
        assert client.files.delete(made[3]).deleted
        with pytest.raises(openai.NotFoundError) as missing:
            client.files.retrieve(made[3])
        assert missing.value.code == "not_found"
        with pytest.raises(openai.NotFoundError):
            client.files.delete(made[3])


def test_a_large_file_comes_back_byte_for_byte(tmp_path):
    content = b"".join(line(f"id-{i}", "x\r\n--y" * 200) for i in range(2000))
    with house(tmp_path) as open_house, open_house.openai() as client:
        file = client.files.create(file=("big \u00e9.jsonl", content), purpose="batch")
        assert file.bytes == len(content) > 2_000_000
        assert client.files.content(file.id).content == content


def test_batches_are_listed_page_by_page(tmp_path):
    with house(tmp_path) as open_house, open_house.openai() as client:
        made = [submit(client, line("a")).id for _ in range(5)]
        assert [batch.id for batch in client.batches.list(limit=2)] == made[::-1]
        page = client.batches.list(limit=2, after=made[3])
        assert [batch.id for batch in page.data] == [made[2], made[1]]
        with pytest.raises(openai.BadRequestError, match="limit"):
            client.batches.list(limit=101)


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"data": {"purpose": "fine-tune"}, "files": {"file": ("a", b"x")}}, "purpose"),
        ({"files": {"file": ("a", b"x")}}, "purpose"),
        ({"data": {"purpose": "batch"}, "files": {"other": ("a", b"x")}}, "other"),
        ({"data": {"purpose": "batch", "z": "1"}, "files": {"file": ("a", b"x")}}, "z"),
        ({"data": {"purpose": "x" * 2000}, "files": {"file": ("a", b"x")}}, "purpose"),
        ({"content": b"x"}, None),
        ({"content": b"--b\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}},
         None),
    ],
)  # fmt: skip
def test_what_is_no_upload_is_refused_in_words(tmp_path, form, param):
    headers = {"authorization": "Bearer acme", **form.pop("headers", {})}
    with house(tmp_path) as open_house:
        answer = httpx.post(f"{open_house.url}/v1/files", headers=headers, **form)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_a_batch_of_nothing_that_is_served_is_refused(tmp_path):
    with house(tmp_path) as open_house, open_house.openai() as client:
        with pytest.raises(openai.BadRequestError, match="takes no batches"):
            submit(client, line("a"), endpoint="/v1/moderations")
        with pytest.raises(openai.BadRequestError, match="no file of purpose"):
            client.batches.create(
                input_file_id="file-1", endpoint="/v1/embeddings", completion_window="24h"
            )
        with pytest.raises(openai.BadRequestError, match="completion_window"):
            submit(client, line("a"), completion_window="1h")


# Anthropic.


def test_a_batch_of_messages_goes_from_its_requests_to_its_results(tmp_path):
    with house(tmp_path) as open_house, open_house.anthropic() as client:
        batches = client.messages.batches
        made = batches.create(requests=requests_of("ask 0", "refuse 1", "ask 2"))
        assert (made.type, made.processing_status, made.results_url) == (
            "message_batch", "in_progress", None,
        )  # fmt: skip
        assert made.request_counts.processing == 3
        batch = messages_ended(client, made.id)
        counts = batch.request_counts
        assert (counts.processing, counts.succeeded, counts.errored) == (0, 2, 1)
        assert batch.ended_at >= batch.created_at

        results = list(batches.results(made.id))
        assert [row.custom_id for row in results] == ["id-0", "id-1", "id-2"]
        assert [row.result.type for row in results] == ["succeeded", "errored", "succeeded"]
        assert results[0].result.message.content[0].text == "re: ask 0"
        assert results[1].result.error.error.message == "cannot"
        assert {item.path for item in open_house.items} == {"/v1/messages"}
        assert open_house.items[0].headers["anthropic-version"] == "2023-06-01"

        assert batches.delete(made.id).type == "message_batch_deleted"
        with pytest.raises(anthropic.NotFoundError):
            batches.retrieve(made.id)


def test_a_cancelled_batch_of_messages_ends_with_each_request_told(tmp_path):
    with house(tmp_path, never) as open_house, open_house.anthropic() as client:
        batches = client.messages.batches
        made = batches.create(requests=requests_of(*"abcdef"))
        until(lambda: len(open_house.items) == 2)
        with pytest.raises(anthropic.BadRequestError, match="not ended"):
            batches.delete(made.id)
        with pytest.raises(anthropic.AnthropicError, match="results_url"):
            batches.results(made.id)
        assert batches.cancel(made.id).cancel_initiated_at is not None
        batch = messages_ended(client, made.id)
        assert batch.request_counts.canceled == 6
        assert {row.result.type for row in batches.results(made.id)} == {"canceled"}


def test_batches_of_messages_are_listed_in_both_directions(tmp_path):
    with house(tmp_path) as open_house, open_house.anthropic() as client:
        batches = client.messages.batches
        made = [batches.create(requests=requests_of("a")).id for _ in range(5)][::-1]
        assert [batch.id for batch in batches.list(limit=2)] == made
        page = batches.list(limit=2, before_id=made[3])
        assert [batch.id for batch in page.data] == made[1:3]
        assert page.has_more
        assert [batch.id for batch in batches.list(limit=2, before_id=made[1]).data] == made[:1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"params": {"max_tokens": 1}}, "requests.1.params: .*model"),
        ({"params": {"model": "tiny", "stream": True}}, "does not stream"),
        ({"custom_id": "id-0"}, "earlier request"),
        ({"custom_id": "with space"}, "custom_id"),
    ],
)
def test_a_wrong_request_refuses_the_whole_batch_of_messages(tmp_path, changes, said):
    good, other = requests_of("a", "b")
    with house(tmp_path) as open_house, open_house.anthropic() as client:
        with pytest.raises(anthropic.BadRequestError, match=said):
            client.messages.batches.create(requests=[good, other | changes])
        assert client.messages.batches.list().data == []


# Both.


def test_nobody_sees_another_tenants_files_and_batches(tmp_path):
    with (
        house(tmp_path) as open_house,
        open_house.openai() as ours,
        open_house.openai("other") as theirs,
        open_house.anthropic() as our_messages,
        open_house.anthropic("other") as their_messages,
    ):
        batch = ended(ours, submit(ours, line("a")).id)
        messages = our_messages.messages.batches.create(requests=requests_of("a"))
        for file in (batch.input_file_id, batch.output_file_id):
            for ask in (theirs.files.retrieve, theirs.files.content, theirs.files.delete):
                with pytest.raises(openai.NotFoundError):
                    ask(file)
        for ask in (theirs.batches.retrieve, theirs.batches.cancel):
            with pytest.raises(openai.NotFoundError):
                ask(batch.id)
        their_batches = their_messages.messages.batches
        for ask in (their_batches.retrieve, their_batches.cancel, their_batches.delete):
            with pytest.raises(anthropic.NotFoundError):
                ask(messages.id)
        assert theirs.files.list().data == theirs.batches.list().data == []
        assert their_batches.list().data == []
        with pytest.raises(openai.BadRequestError, match="no file"):
            theirs.batches.create(
                input_file_id=batch.input_file_id,
                endpoint="/v1/chat/completions",
                completion_window="24h",
            )


def test_other_methods_and_other_paths_are_refused_by_the_head_alone(tmp_path):
    with house(tmp_path) as open_house:
        headers = {"authorization": "Bearer acme"}
        for method, path, said in (
            ("PUT", "/v1/files", "takes GET and POST"),
            ("POST", "/v1/files/file-1/content", "takes GET"),
            ("GET", "/v1/batches/batch_1/cancel", "takes POST"),
            ("GET", "/v1/files/a/b/c", "no such path"),
            ("GET", "/v1/files/..%2f", "no such path"),
        ):
            answer = httpx.request(method, f"{open_house.url}{path}", headers=headers)
            assert said in answer.text


def test_an_answer_of_many_lines_is_one_line_of_the_results(tmp_path):
    def pretty(item):
        said = echo(item)
        said.body = json.dumps(said.body, indent=2).encode()
        return said

    with house(tmp_path, pretty) as open_house, open_house.openai() as client:
        batch = ended(client, submit(client, line("a"), line("b")).id)
        rows = lines_of(client, batch.output_file_id)
        assert [row["custom_id"] for row in rows] == ["a", "b"]
        assert rows[0]["response"]["body"]["choices"][0]["message"]["content"] == "re: Hi"
