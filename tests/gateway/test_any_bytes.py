"""Whatever bytes a client sends, torn anywhere: an answer or a close, and nothing breaks."""

import asyncio
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_client import HELLO, request
from running_gateway import House, answering, run

# A gateway is started for each example, so there are not many; each holds many requests.
many = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))

GOOD = [
    request(),
    request(body={**HELLO, "stream": True}),
    request("/v1/messages", {**HELLO, "max_tokens": 5}),
    request("/v1/models", method="GET"),
    request("/health", method="HEAD", upgrade="h2c", connection="Upgrade"),
    request(body=b"", transfer_encoding="chunked").replace(b"content-length: 0\r\n", b"")
    + b'5\r\n{"a":\r\n3\r\n1} \r\n0\r\nt: 1\r\n\r\n',
]
BITS = [b"\r\n", b"\r\n\r\n", b"\x00", b"\xff", b"0\r\n\r\n", b"content-length: 3\r\n", b"{", b'"',
        b"HTTP/1.1", b"transfer-encoding: chunked\r\n", b" ", b"x" * 70_000]  # fmt: skip

edits = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 0.2), st.sampled_from(BITS) | st.binary(max_size=5)),
    max_size=3,
)


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """Good requests in a row, with a few places overwritten, cut out or filled in."""
    data = b"".join(draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=4)))
    for place, length, put in draw(edits):
        start = int(place * len(data))
        data = data[:start] + put + data[start + int(length * len(data)) :]
    return data


streams = st.lists(mutants() | st.binary(max_size=300), min_size=1, max_size=8)
tears = st.lists(st.integers(1, 400), max_size=6)


async def says_and_leaves(house: House, data: bytes, sizes: list[int], eof: bool) -> bytes:
    """Send it torn, close our side, read until the gateway closes; what it said."""
    client = await house.client()
    for size in sizes:
        client.say(data[:size])
        data = data[size:]
        await asyncio.sleep(0.001)
    client.say(data)
    if eof:
        await asyncio.sleep(0.02)
    if eof and not client.writer.is_closing():
        client.writer.write_eof()
    async with asyncio.timeout(5):  # within its timeouts it answers or closes
        said = b""
        try:
            while piece := await client.reader.read(65536):
                said += piece
        except ConnectionError:
            pass
        return said


@many
@given(streams, tears, st.booleans())
def test_any_bytes_get_an_answer_or_a_close_and_break_nothing(parts, sizes, eof):
    async def test():
        quick = {"head_timeout_s": 0.3, "body_timeout_s": 0.3, "idle_timeout_s": 0.3}
        async with answering(**quick) as house:
            asking = [says_and_leaves(house, part, sizes, eof) for part in parts]
            for said in await asyncio.gather(*asking):
                assert not said or said.startswith(b"HTTP/1.1 ")
                assert b"HTTP/1.1 500" not in said
                assert b"The gateway failed" not in said
            answer = await (await house.client()).ask()
            assert answer.status == 200

    run(test())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
FIELDS = ["model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens",
          "temperature", "top_p", "n", "stop", "seed", "logit_bias", "logprobs", "top_logprobs",
          "response_format", "tools", "tool_choice", "user", "metadata", "modalities", "store",
          "presence_penalty", "reasoning_effort", "prompt_cache_options", "odd"]  # fmt: skip
TURN = ["role", "content", "tool_calls", "tool_call_id", "x"]
messages = st.lists(
    st.dictionaries(st.sampled_from(TURN), json_values)
    | st.just({"role": "developer", "content": "Hi"}) | st.just({"role": "user", "content": "Hi"}),
    max_size=3,
)  # fmt: skip
plausible = st.fixed_dictionaries(
    {"model": st.just("tiny"), "messages": messages},
    optional={
        "stream": st.booleans() | st.none(),
        "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=3),
        "max_tokens": st.integers(),
        "temperature": st.floats(-1, 3),
        "tools": st.lists(st.just({"type": "function", "function": {"name": "f"}}), max_size=2),
        "tool_choice": st.sampled_from(["none", "auto", "required", "f", {"type": "function"}]),
        "stream_options": st.dictionaries(st.just("include_usage"), st.booleans()),
    },
)
altered = st.dictionaries(st.sampled_from(FIELDS), json_values).map(HELLO.__or__)
bodies = st.lists(json_values | plausible | altered, min_size=1, max_size=30)


@many
@given(bodies, st.sampled_from(["tiny", "plain"]))
def test_any_json_is_served_or_refused_and_recorded_once(values, model):
    async def test():
        async with answering() as house:
            await house.replica(house.upstreams[0].behaves, model="plain")
            client = await house.client()
            for number, value in enumerate(values):
                if isinstance(value, dict) and value.get("model") == "tiny":
                    value = {**value, "model": model}
                answer = await client.ask(body=json.dumps(value).encode())
                forced = isinstance(value, dict) and value.get("tool_choice") == "required"
                allowed = (200, 400, 404, 502) if forced else (200, 400, 404)
                assert answer.status in allowed, answer.body
                assert len(house.records) == number + 1
                outcome = house.records[-1].outcome
                assert (outcome == "refused") == (400 <= answer.status < 500)

    run(test())
