"""The body of Anthropic's `POST /v1/messages`, field by field. Holds no rule beyond the shape.

`/v1/messages/count_tokens` reads the same body, so that what is counted is what would be sent.
"""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from argosy.gateway.surfaces.decode import decode, refused
from argosy.gateway.surfaces.port import RefusedError


class TextBlock(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type",
    tag="text",
):  # fmt: skip
    """Text in a prompt. `cache_control` is a hint and `citations` a decoration: neither is used."""

    text: str
    cache_control: object = None
    citations: object = None


class ToolUseBlock(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type",
    tag="tool_use",
):  # fmt: skip
    """A call that the assistant made. Values of `input` are kept as they were written."""

    id: Annotated[str, Meta(min_length=1)]
    name: str
    input: dict[str, msgspec.Raw]
    cache_control: object = None
    caller: object = None
    toolset_name: str | None = None


class ToolResultBlock(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type",
    tag="tool_result",
):  # fmt: skip
    """What a call gave."""

    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None
    cache_control: object = None
    toolset_name: str | None = None


class ThinkingBlock(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="thinking"):
    """Earlier reasoning; the API itself leaves it out of later turns."""


class RedactedThinkingBlock(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="redacted_thinking"
):
    """Earlier reasoning that only its maker can read."""


Block = TextBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class CustomTool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool. Unknown fields are let through: those of the API's own tools, told by `type`."""

    name: str
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, object] | None = None
    strict: bool | None = None


class AutoChoice(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="auto"):
    """The model may call a tool."""

    disable_parallel_tool_use: bool | None = None


class AnyChoice(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="any"):
    """The model must call a tool."""

    disable_parallel_tool_use: bool | None = None


class ToolChoice(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="tool"):
    """The model must call this tool."""

    name: str
    disable_parallel_tool_use: bool | None = None


class NoChoice(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="none"):
    """The model must not call a tool."""


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """How much to reason."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: int | None = None
    display: str | None = None


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of the answer."""

    type: Literal["json_schema"]
    schema: dict[str, msgspec.Raw]


class OutputConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The shape of the answer, and how hard to try."""

    format: OutputFormat | None = None
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None


class Metadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who asks, as the client knows them."""

    user_id: str | None = None


class MessagesRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every field of the API; those after `workspace_id` are of its betas."""

    model: str
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=100_000)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None  # None only where tokens are counted
    system: str | list[TextBlock] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    tools: list[CustomTool] | None = None
    tool_choice: AutoChoice | AnyChoice | ToolChoice | NoChoice | None = None
    output_config: OutputConfig | None = None
    thinking: Thinking | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    speed: Literal["standard", "fast"] | None = None
    cache_control: object = None
    container: object = None
    diagnostics: object = None
    inference_geo: str | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None
    mcp_servers: object = None
    context_management: object = None
    output_format: object = None


_decoder = msgspec.json.Decoder(MessagesRequest)
_BLOCK_TYPE = re.compile(r"(?:content|system)\[\d+\]\.type$")
_INVALID_VALUE = re.compile(r"Invalid value '(.*)'", re.DOTALL)
_TEXT_ONLY = "The models served here read text only: send what it says in a text block."
_NO_SERVER_TOOLS = "Tools of the API's own are not served: run the tool and send a tool_result."
_BLOCK_ADVICE = {
    "image": _TEXT_ONLY,
    "document": _TEXT_ONLY,
    "search_result": _TEXT_ONLY,
    "container_upload": _TEXT_ONLY,
    "server_tool_use": _NO_SERVER_TOOLS,
    "web_search_tool_result": _NO_SERVER_TOOLS,
    "web_fetch_tool_result": _NO_SERVER_TOOLS,
    "code_execution_tool_result": _NO_SERVER_TOOLS,
}


def read_request(body: bytes) -> MessagesRequest:
    """The request. Raises `RefusedError`; a block that is not served is `unsupported`."""
    try:
        return decode(_decoder, body)
    except RefusedError as error:
        raise _explained(error) from None


def _explained(error: RefusedError) -> RefusedError:
    param = error.refusal.param or ""
    said = _INVALID_VALUE.search(error.refusal.message)
    if said is None or not _BLOCK_TYPE.search(param):
        return error
    kind = said.group(1)[:100]
    message = f"{param}: a block of type '{kind}' is not served there."
    return refused("unsupported", f"{message} {_BLOCK_ADVICE.get(kind, _TEXT_ONLY)}", param=param)
