"""How adapters read what an engine answers with a status of 400 or more."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.engines.registry import adapter
from argosy.fleet.config import EndpointEngine, EngineConfig, LlamaCppEngine, SimulatedEngine

CONFIGS = (LlamaCppEngine(), EndpointEngine(), SimulatedEngine())
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["error", "message", "type", "code", "detail", "param", "n_ctx"]), inner
        )
    ),
)
bodies = st.binary() | json_values.map(lambda value: json.dumps(value).encode())


@given(config=st.sampled_from(CONFIGS), status=st.integers(400, 599), body=bodies)
def test_no_body_makes_an_adapter_raise(config: EngineConfig, status: int, body: bytes) -> None:
    assert adapter(config).read_refusal(status, body).message


@pytest.mark.parametrize("config", CONFIGS)
def test_a_body_of_a_million_brackets_is_read(config: EngineConfig) -> None:
    assert adapter(config).read_refusal(400, b"[" * 1_000_000).kind == "upstream_refused"


OPENAI = {"message": "too long", "type": "invalid_request_error", "param": "messages"}
VLLM_OLD = {"object": "error", "type": "BadRequestError", "param": None, "code": 400}
OVERFLOW = "This model's maximum context length is 2048 tokens. However, you requested 3000"


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (400, {"error": {**OPENAI, "code": "context_length_exceeded"}}, "context_overflow", "long"),
        (400, {"error": {"message": OVERFLOW, "code": 400}}, "context_overflow", "2048"),
        (400, {**VLLM_OLD, "message": OVERFLOW}, "context_overflow", "2048"),
        (400, {**VLLM_OLD, "message": "bad n"}, "upstream_refused", "bad n"),
        (422, {"detail": [{"loc": ["body"], "msg": "field required"}]}, "upstream_refused", "loc"),
        (404, {"detail": "Not Found"}, "upstream_failed", "Not Found"),
        (401, {"error": {**OPENAI, "code": "invalid_api_key"}}, "upstream_failed", "own key"),
        (403, {"error": "no"}, "upstream_failed", "own key"),
        (429, {"error": {**OPENAI, "code": "rate_limit_exceeded"}}, "rate_limited", "429"),
        (500, {}, "upstream_failed", "500"),
    ],
)
def test_an_endpoints_refusal_is_read_in_each_shape(
    status: int, body: object, kind: str, words: str
) -> None:
    refusal = adapter(EndpointEngine()).read_refusal(status, json.dumps(body).encode())
    assert refusal.kind == kind
    assert words in refusal.message


@pytest.mark.parametrize(
    ("status", "body", "kind", "retry_after_s"),
    [
        (503, {"error": {"message": "Loading", "type": "unavailable_error"}}, "no_replica", 1.0),
        (503, {}, "no_replica", 1.0),
        (500, {"error": {"message": "oh", "type": "server_error"}}, "upstream_failed", None),
        (501, {"error": {"message": "no", "type": "not_supported_error"}}, "unsupported", None),
        (400, {"error": {"message": "no", "code": "x"}}, "upstream_refused", None),
    ],
)
def test_llama_cpps_refusals_are_told_apart(
    status: int, body: object, kind: str, retry_after_s: float | None
) -> None:
    refusal = adapter(LlamaCppEngine()).read_refusal(status, json.dumps(body).encode())
    assert (refusal.kind, refusal.retry_after_s) == (kind, retry_after_s)
