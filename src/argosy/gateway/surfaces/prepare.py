"""Fits an ask to a replica: what its engine does not honour, the gateway does itself."""

import msgspec

from argosy.engines.port import Abilities
from argosy.gateway.surfaces.answers import PassThrough, Translated
from argosy.gateway.surfaces.decode import raw, refused
from argosy.gateway.surfaces.port import Ask, Encoder, Prepared, Tool
from argosy.gateway.surfaces.transforms import (
    ForcedCall,
    StopCutter,
    Transform,
    forced_instruction,
    forced_schema,
)

_TRUE = msgspec.Raw(b"true")
_STREAM_OPTIONS = msgspec.Raw(b'{"include_usage":true}')


def prepare_pass_through(ask: Ask) -> Prepared:
    """The request as it is; a stream always brings its usage, for the meter."""
    fields = _streamed(ask.fields) if ask.stream else ask.fields
    answer = PassThrough(usage_event=ask.usage_event)
    return Prepared(path=ask.path, fields=fields, stream=ask.stream, answer=answer)


def prepare_chat(
    ask: Ask, abilities: Abilities, *, encoder: Encoder, must_stream: bool = False
) -> Prepared:
    """A chat request for a replica with these abilities, its answer written by `encoder`.

    With `must_stream` the replica streams even where the client wants a whole answer.
    """
    fields = dict(ask.fields)
    transforms: list[Transform] = []
    stream = ask.stream or must_stream
    if ask.stop and ask.names_stop and not abilities.reports_stop_sequence:
        # The replica must not stop by itself, or nobody could tell which sequence it met; and it
        # must stream, or it would go on past it.
        del fields["stop"]
        transforms.append(StopCutter(ask.stop))
        stream = True
        if abilities.running_counts:
            fields[abilities.running_counts] = _TRUE
    if ask.must_call and not abilities.forces_tool_choice:
        wanted = _wanted(ask)
        _force(fields, wanted)
        transforms.append(ForcedCall(wanted))
    return Prepared(
        path=ask.path,
        fields=_streamed(fields) if stream else fields,
        stream=stream,
        answer=Translated(encoder, tuple(transforms), collect=stream and not ask.stream),
    )


def needs_transform(ask: Ask, abilities: Abilities) -> bool:
    """True when the answer cannot pass through as it comes."""
    return ask.must_call and not abilities.forces_tool_choice


def _streamed(fields: dict[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    return {**fields, "stream": _TRUE, "stream_options": _STREAM_OPTIONS}


def _wanted(ask: Ask) -> tuple[Tool, ...]:
    named = tuple(tool for tool in ask.tools if tool.name == ask.must_call_name)
    return named or ask.tools


def _force(fields: dict[str, msgspec.Raw], tools: tuple[Tool, ...]) -> None:
    for field in ("tools", "tool_choice", "parallel_tool_calls"):
        fields.pop(field, None)
    try:
        schema = {"name": "call", "strict": True, "schema": forced_schema(tools)}
        fields["response_format"] = raw({"type": "json_schema", "json_schema": schema})
        fields["messages"] = _with_instruction(fields["messages"], forced_instruction(tools))
    except RecursionError:  # what could just be read is too deep once it is wrapped
        raise refused("bad_request", "The body is nested too deeply.") from None


def _with_instruction(messages: msgspec.Raw, instruction: str) -> msgspec.Raw:
    """The instruction at the end of the system prompt, or as one."""
    turns: list[dict[str, object]] = msgspec.json.decode(messages)
    first = turns[0] if turns else {}
    if first.get("role") == "system" and isinstance(first.get("content"), str):
        turns[0] = {**first, "content": f"{first['content']}\n\n{instruction}"}
    else:
        turns.insert(0, {"role": "system", "content": instruction})
    return raw(turns)
