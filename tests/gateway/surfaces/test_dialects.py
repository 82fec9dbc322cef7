"""Both dialects answer every refusal, and list models as the official SDKs read them."""

import json
from typing import get_args

import anthropic.types
import openai.types
import pytest
from anthropic.types.shared import ErrorResponse

from argosy.fleet.messages import Refusal, RefusalKind
from argosy.gateway.surfaces.anthropic_dialect import AnthropicDialect
from argosy.gateway.surfaces.openai_dialect import OpenAIDialect
from argosy.gateway.surfaces.port import Served

KINDS = get_args(RefusalKind)
STATUS = {
    "bad_request": 400,
    "unsupported": 400,
    "context_overflow": 400,
    "no_key": 401,
    "wrong_key": 401,
    "unknown_model": 404,
    "unknown_path": 404,
    "wrong_method": 405,
    "slow_request": 408,
    "too_large": 413,
    "upstream_refused": 400,
    "rate_limited": 429,
    "head_too_large": 431,
    "internal": 500,
    "upstream_failed": 502,
    "no_replica": 503,
    "upstream_timeout": 504,
}
SERVED = Served(
    name="small",
    created_at_s=1_700_000_000,
    system_prompt=None,
    context_tokens=8192,
    counts_every_choice=False,
    embeddings=False,
)
CATALOG = {"small": SERVED}


def refusal(kind: RefusalKind, param: str | None = None) -> Refusal:
    return Refusal(kind=kind, message="It is so.", param=param)


@pytest.mark.parametrize("kind", KINDS)
def test_openai_answers_every_refusal_with_its_status_and_error_object(kind):
    status, body = OpenAIDialect().refusal(refusal(kind, "top"), request="req_1")
    assert status == STATUS[kind]
    error = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["message"], error["param"]) == ("It is so.", "top")
    assert (error["type"] == "server_error") == (status >= 500)


@pytest.mark.parametrize("kind", KINDS)
def test_anthropic_answers_every_refusal_with_its_status_and_error_object(kind):
    status, body = AnthropicDialect().refusal(refusal(kind), request="req_1")
    assert status == (529 if kind == "no_replica" else STATUS[kind])
    read = json.loads(body)
    assert read["type"] == "error"
    assert read["request_id"] == "req_1"
    if read["error"]["type"] != "request_too_large":  # sent by the API, unknown to its SDK
        ErrorResponse.model_validate_json(body, strict=True)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("unknown_model", "model_not_found"),
        ("wrong_key", "invalid_api_key"),
        ("context_overflow", "context_length_exceeded"),
        ("unsupported", "unsupported_parameter"),
        ("rate_limited", "rate_limit_exceeded"),
    ],
)
def test_openai_refusals_carry_the_code_that_clients_branch_on(kind, code):
    _, body = OpenAIDialect().refusal(refusal(kind), request="req_1")
    assert json.loads(body)["error"]["code"] == code


@pytest.mark.parametrize(
    ("kind", "error_type"),
    [
        ("bad_request", "invalid_request_error"),
        ("wrong_key", "authentication_error"),
        ("unknown_model", "not_found_error"),
        ("rate_limited", "rate_limit_error"),
        ("internal", "api_error"),
        ("no_replica", "overloaded_error"),
        ("upstream_timeout", "timeout_error"),
    ],
)
def test_anthropic_refusals_carry_the_type_that_clients_branch_on(kind, error_type):
    _, body = AnthropicDialect().refusal(refusal(kind), request="req_1")
    assert json.loads(body)["error"]["type"] == error_type


def test_an_anthropic_message_opens_with_the_parameter_at_fault_unless_it_names_it():
    def said(message: str) -> str:
        wrong = Refusal(kind="bad_request", message=message, param="top_k")
        return json.loads(AnthropicDialect().refusal(wrong, request="req_1")[1])["error"]["message"]

    assert said("must be positive.") == "top_k: must be positive."
    assert said("'top_k' must be positive.") == "'top_k' must be positive."


def test_the_openai_sdk_reads_the_model_list():
    listed = json.loads(OpenAIDialect().model_list(CATALOG))
    assert listed["object"] == "list"
    assert listed["data"] == [json.loads(OpenAIDialect().model(SERVED))]
    model = openai.types.Model.model_validate_json(OpenAIDialect().model(SERVED), strict=True)
    assert (model.id, model.created) == ("small", 1_700_000_000)


def test_the_anthropic_sdk_reads_the_model_list():
    listed = json.loads(AnthropicDialect().model_list(CATALOG))
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("small", "small", False)
    assert listed["data"] == [json.loads(AnthropicDialect().model(SERVED))]
    body = AnthropicDialect().model(SERVED)
    model = anthropic.types.ModelInfo.model_validate_json(body, strict=True)
    assert (model.id, model.created_at.timestamp()) == ("small", 1_700_000_000)


def test_an_empty_catalog_lists_no_models():
    assert json.loads(OpenAIDialect().model_list({}))["data"] == []
    listed = json.loads(AnthropicDialect().model_list({}))
    assert (listed["data"], listed["first_id"], listed["last_id"]) == ([], None, None)
