"""What is wrong with a body is said in the API's shape, and names the field and what would work."""

import json

import pytest
from raw_client import HELLO
from running_gateway import answering, run, running
from upstream import completion, says, whole

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
GOOD = {
    CHAT: HELLO,
    COMPLETIONS: {"model": "tiny", "prompt": "Hi"},
    EMBEDDINGS: {"model": "tiny", "input": "Hi"},
}
USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
INVALID = "invalid_request_error"
UNSUPPORTED = "unsupported_parameter"


def check(path: str, body: bytes, *, status: int, code: str | None, param: str | None, say: str):
    async def test():
        async with answering() as house:
            client = await house.client()
            answer = await client.ask(path, body)
            assert answer.status == status
            error = answer.error
            assert (error["type"], error["code"], error["param"]) == (INVALID, code, param)
            assert say in error["message"]
            assert len(error["message"]) < 2000
            [record] = await house.recorded()
            assert (record.outcome, record.status) == ("refused", status)
            assert record.attempts == 0
            assert (await client.ask(path, GOOD[path])).status == 200

    run(test())


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, EMBEDDINGS])
@pytest.mark.parametrize(
    ("body", "say"),
    [
        (b"", "no body"),
        (b"  \r\n\t", "no body"),
        (b"{", "not valid JSON"),
        (b"{'model': 1}", "not valid JSON"),
        (b"\xff\xfe{\x00}\x00", "not valid JSON"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
        (b'{"model": "\xff\xff"}', "not valid UTF-8"),
        (b'{"\xc3\x28": 1}', "not valid"),
        (b'{"model": "\\ud800"}', "not valid"),
        (b'{"model": "\\udc00\\ud800"}', "not valid"),
        (b'{"model": NaN}', "not valid JSON"),
        (b'{"model": "tiny", "user": NaN}', "not valid JSON"),
        (b'{"model": "tiny", "top_p": 1e999}', "top_p"),
        (b'{"model": "tiny", "seed": ' + b"9" * 5000 + b"}", ""),
        (b"[" * 100_000, "must be a JSON object"),
        (b'{"model": ' + b"[" * 100_000, "Expected `str`"),
        (b'{"model":' * 100_000, "model"),
        (b'{"metadata":' * 100_000, ""),
        (b'{"model": "tiny", "model' + b"x" * 100_000 + b'": 1}', "Unknown parameter"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"text"', "must be a JSON object"),
        (b"1e5", "must be a JSON object"),
    ],
)
def test_what_is_no_request_at_all_gets_400(path, body, say):
    async def test():
        async with answering() as house:
            client = await house.client()
            answer = await client.ask(path, body)
            assert answer.status == 400
            assert answer.error["type"] == INVALID
            assert say in answer.error["message"]
            assert len(answer.body) < 4000
            [record] = await house.recorded()
            assert record.outcome == "refused"
            assert (await client.ask(path, GOOD[path])).status == 200

    run(test())


# path, what is put into a good body, status, code, param, a part of the message
ROWS = [
    (CHAT, {"model": "none"}, 404, "model_not_found", "model",
     "Served here: four, long, plain, tiny, two"),
    (CHAT, {"model": "x" * 10_000}, 404, "model_not_found", "model", "does not exist"),
    (CHAT, {"model": ""}, 404, "model_not_found", "model", "does not exist"),
    (CHAT, {"model": None}, 400, None, "model", "Expected `str`, got `null`"),
    (CHAT, {"model": ["tiny"]}, 400, None, "model", "Expected `str`"),
    (CHAT, {"wat": 1}, 400, UNSUPPORTED, "wat", "This API takes: model, messages, stream"),
    (CHAT, {"messages": []}, 400, None, "messages", "length >= 1"),
    (CHAT, {"messages": {}}, 400, None, "messages", "Expected `array`"),
    (CHAT, {"messages": [1]}, 400, None, "messages[0]", "Expected `object`"),
    (CHAT, {"messages": [USER, {"content": "x"}]}, 400, None, "messages[1].role", "Missing"),
    (CHAT, {"messages": [{"role": "king", "content": ""}]}, 400, None, "messages[0].role", "king"),
    (CHAT, {"messages": [{"role": "user"}]}, 400, None, "messages[0].content", "missing"),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}, 400, None, "messages[0].content", "got"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
     400, UNSUPPORTED, "messages[0].content", "image_url"),
    (CHAT, {"messages": [USER, {"role": "tool", "content": "x", "tool_call_id": "c1"}]},
     400, None, "messages[1].tool_call_id", "no earlier tool call"),
    (CHAT, {"max_tokens": 0}, 400, None, "max_tokens", ">= 1"),
    (CHAT, {"max_tokens": -1}, 400, None, "max_tokens", ">= 1"),
    (CHAT, {"max_tokens": 1001}, 400, None, "max_tokens", "context of 1000 tokens"),
    (CHAT, {"max_tokens": 10**30}, 400, None, "max_tokens", ""),
    (CHAT, {"max_completion_tokens": 2**63}, 400, None, "max_completion_tokens", "too large"),
    (CHAT, {"max_tokens": 1.5}, 400, None, "max_tokens", "Expected `int"),
    (CHAT, {"max_tokens": "5"}, 400, None, "max_tokens", "Expected `int"),
    (CHAT, {"max_tokens": True}, 400, None, "max_tokens", "Expected `int"),
    (CHAT, {"temperature": 2.1}, 400, None, "temperature", "<= 2"),
    (CHAT, {"temperature": "hot"}, 400, None, "temperature", "Expected `float"),
    (CHAT, {"stream": "yes"}, 400, None, "stream", "Expected `bool"),
    (CHAT, {"stream_options": {"include_usage": True}}, 400, None, "stream_options", "stream"),
    (CHAT, {"n": 0}, 400, None, "n", ">= 1"),
    (CHAT, {"stop": ["x"] * 17}, 400, None, "stop", "length <= 16"),
    (CHAT, {"top_logprobs": 3}, 400, None, "top_logprobs", "logprobs"),
    (CHAT, {"response_format": {"type": "xml"}}, 400, None, "response_format.type", "xml"),
    (CHAT, {"response_format": {"type": "json_schema"}},
     400, None, "response_format.json_schema", "schema"),
    (CHAT, {"tool_choice": "required"}, 400, None, "tool_choice", "only with 'tools'"),
    (CHAT, {"tool_choice": "required", "tools": []}, 400, None, "tool_choice", "only with 'tools'"),
    (CHAT, {"tool_choice": {"type": "function", "function": {"name": "g"}}, "tools": [TOOL]},
     400, None, "tool_choice", "['f']"),
    (CHAT, {"tools": [{"type": "function", "function": {"name": ""}}]},
     400, None, "tools[0].function.name", "length >= 1"),
    (CHAT, {"tools": [{"type": "magic", "function": {"name": "f"}}]},
     400, None, "tools[0].type", "magic"),
    *[(CHAT, {field: {}}, 400, UNSUPPORTED, field, "not supported") for field in
      ("audio", "prediction", "functions", "function_call", "web_search_options", "moderation")],
    (CHAT, {"modalities": ["audio"]}, 400, UNSUPPORTED, "modalities", "Only text"),
    (CHAT, {"store": True}, 400, UNSUPPORTED, "store", "Nothing is stored"),
    (COMPLETIONS, {"model": "none"}, 404, "model_not_found", "model", "Served here"),
    (COMPLETIONS, {"wat": 1}, 400, UNSUPPORTED, "wat", "This API takes: model, prompt"),
    (COMPLETIONS, {"prompt": []}, 400, None, "prompt", "length >= 1"),
    (COMPLETIONS, {"prompt": [-1]}, 400, None, "prompt[0]", ">= 0"),
    (COMPLETIONS, {"prompt": {"a": 1}}, 400, None, "prompt", "got `object`"),
    (COMPLETIONS, {"echo": True}, 400, UNSUPPORTED, "echo", "not supported"),
    (COMPLETIONS, {"suffix": "x"}, 400, UNSUPPORTED, "suffix", "not supported"),
    (COMPLETIONS, {"best_of": 2}, 400, None, "best_of", "<= 1"),
    (COMPLETIONS, {"max_tokens": 5000}, 400, None, "max_tokens", "context of 1000"),
    (COMPLETIONS, {"stream_options": {}}, 400, None, "stream_options", "stream"),
    (EMBEDDINGS, {"model": "none"}, 404, "model_not_found", "model", "Served here"),
    (EMBEDDINGS, {"model": "plain"}, 400, UNSUPPORTED, "model", "Models that do: tiny"),
    (EMBEDDINGS, {"wat": 1}, 400, UNSUPPORTED, "wat", "This API takes: model, input"),
    (EMBEDDINGS, {"input": ""}, 400, None, "input", "length >= 1"),
    (EMBEDDINGS, {"input": ["a", ""]}, 400, None, "input", "empty string"),
    (EMBEDDINGS, {"input": []}, 400, None, "input", "length >= 1"),
    (EMBEDDINGS, {"input": ["a"] * 2049}, 400, None, "input", "length <= 2048"),
    (EMBEDDINGS, {"input": 5}, 400, None, "input", "got `int`"),
    (EMBEDDINGS, {"encoding_format": "hex"}, 400, None, "encoding_format", "hex"),
    (EMBEDDINGS, {"dimensions": 8}, 400, UNSUPPORTED, "dimensions", "one length"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "put", "status", "code", "param", "say"), ROWS)
def test_a_wrong_field_is_refused_by_name(path, put, status, code, param, say):
    body = json.dumps({**GOOD[path], **put}).encode()
    check(path, body, status=status, code=code, param=param, say=say)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS, EMBEDDINGS])
@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_field_is_named(path, missing):
    field = list(GOOD[path])[missing]
    body = {name: value for name, value in GOOD[path].items() if name != field}
    say = f"Missing required parameter: '{field}'"
    check(path, json.dumps(body).encode(), status=400, code=None, param=field, say=say)


@pytest.mark.parametrize("role", ["user", "developer"])
@pytest.mark.parametrize("model", ["tiny", "plain"])
def test_nesting_at_any_depth_is_served_or_refused_but_breaks_nothing(role, model):
    """What can just be read may be too deep to write again; `run` fails on a logged exception."""

    async def test():
        forced = '{"name": "f", "arguments": {}}'
        says_ok = says(whole(200, completion(forced)))
        async with running(says_ok) as house:
            upstream = await house.replica(says_ok, model="plain")
            client = await house.client()
            statuses = set()
            for depth in (10, *range(900, 1010), 2000):
                turn = {"role": role, "content": "x", "odd": 0}
                body = {**HELLO, "model": model, "messages": [turn]}
                if model == "plain":
                    body |= {"tools": [TOOL], "tool_choice": "required", "stream": False}
                said = json.dumps(body).replace('"odd": 0', '"odd": ' + "[" * depth + "]" * depth)
                answer = await client.ask(body=said.encode())
                assert answer.status in (200, 400), answer.body
                statuses.add(answer.status)
            assert statuses == {200, 400}
            assert upstream.calls or model == "tiny"

    run(test())


def test_what_is_odd_but_right_is_served():
    odd = [
        {"stop": ""}, {"stop": []}, {"temperature": 0}, {"seed": -1}, {"user": "\U0001f600"},
        {"messages": [{"role": "user", "content": ""}]}, {"tools": None}, {"n": 1},
        {"messages": [{"role": "system", "content": [{"type": "text", "text": "a"}]}, USER]},
        {"logit_bias": {"5": -100}}, {"metadata": {"a": [{}]}}, {"tool_choice": "none"},
        {"max_completion_tokens": 5, "max_tokens": None}, {"model": "tiny", "stream": None},
    ]  # fmt: skip

    async def test():
        async with answering() as house:
            client = await house.client()
            for put in odd:
                answer = await client.ask(body={**HELLO, **put})
                assert answer.status == 200, (put, answer.body)

    run(test())
