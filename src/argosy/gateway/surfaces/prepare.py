"""Fits an ask to a replica: what its engine does not honour, the gateway does itself."""

from collections.abc import Mapping

import msgspec

from argosy.engines.port import Abilities
from argosy.gateway.surfaces.answers import PassThrough, Translated
from argosy.gateway.surfaces.decode import raw, refused
from argosy.gateway.surfaces.port import Answer, Ask, AsSent, Encoder, Prepared, Tool
from argosy.gateway.surfaces.transforms import (
    ForcedCall,
    StopCutter,
    Transform,
    forced_instruction,
    forced_schema,
)

_CHAT, _COMPLETIONS = "/v1/chat/completions", "/v1/completions"
_TRUE = msgspec.Raw(b"true")
# vLLM begins a new turn after an assistant's message unless it is told both.
_GO_ON = {"continue_final_message": _TRUE, "add_generation_prompt": msgspec.Raw(b"false")}
_STREAM_OPTIONS = msgspec.Raw(b'{"include_usage":true}')


def prepare_pass_through(ask: Ask) -> Prepared:
    """The request as it is; a stream always brings its usage, for the meter."""
    if isinstance(ask.fields, AsSent):  # checked, and it asks for its usage already
        fields, may_continue = ask.fields, True
    else:
        fields = _streamed(ask.fields) if ask.stream else ask.fields
        may_continue = _may_continue(ask)
    answer = PassThrough(usage_event=ask.usage_event, may_continue=may_continue)
    return Prepared(path=ask.path, fields=fields, stream=ask.stream, answer=answer)


def prepare_chat(
    ask: Ask, abilities: Abilities, *, encoder: Encoder, must_stream: bool = False
) -> Prepared:
    """A chat request for a replica with these abilities, its answer written by `encoder`.

    With `must_stream` the answer goes on from the assistant's own last words: the replica streams
    even where the client wants a whole answer, and is told to go on where it must be told.
    """
    fields = dict(ask.fields)
    if must_stream and abilities.continuation == "flags":
        fields |= _GO_ON
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
        answer=Translated(
            encoder,
            tuple(transforms),
            collect=stream and not ask.stream,
            may_continue=_may_continue(ask),
        ),
    )


def rest_of(prepared: Prepared, abilities: Abilities, *, answer: Answer) -> Prepared | bytes | None:
    """The same request, to go on from what `answer` has said.

    Its last bytes where it had all its tokens when it was cut; None where the replica cannot go on.
    """
    rest = _rest(prepared, abilities, answer)
    if rest is None:
        return None
    last = _last_event(prepared, answer)
    answer.resume()
    return rest if last is None else answer.event(last) + answer.end()


def _rest(prepared: Prepared, abilities: Abilities, answer: Answer) -> Prepared | None:
    """It gets the beginning of its own answer, and as many tokens fewer as have been said.

    The beginning is the last message, or stands at the end of a raw prompt.
    """
    said = answer.said
    is_chat = prepared.path == _CHAT
    if said is None or (is_chat and abilities.continuation is None):
        return None
    fields = dict(prepared.fields)
    if is_chat:
        fields["messages"] = _with_beginning(fields["messages"], said)
    else:
        fields["prompt"] = raw(msgspec.json.decode(fields["prompt"], type=str) + said)
    if is_chat and abilities.continuation == "flags":
        fields |= _GO_ON
    left = _tokens_left(prepared, answer)
    if left is not None:
        fields["max_tokens"] = raw(left)
    return Prepared(path=prepared.path, fields=fields, stream=True, answer=answer)


def _last_event(prepared: Prepared, answer: Answer) -> bytes | None:
    """What the replica would have said next, had it said all of its `max_tokens`; else None."""
    left = _tokens_left(prepared, answer)
    if left is None or left > 0:
        return None
    if prepared.path == _CHAT:
        choice = {"index": 0, "delta": {}, "finish_reason": "length"}
        return msgspec.json.encode({"object": "chat.completion.chunk", "choices": [choice]})
    choice = {"index": 0, "text": "", "finish_reason": "length"}
    return msgspec.json.encode({"object": "text_completion", "choices": [choice]})


def _tokens_left(prepared: Prepared, answer: Answer) -> int | None:
    if "max_tokens" not in prepared.fields:
        return None
    limit = msgspec.json.decode(prepared.fields["max_tokens"], type=int)
    return max(0, limit - answer.meter.tokens_out)


def _may_continue(ask: Ask) -> bool:
    """False for an answer whose rest cannot be asked for: a form it must keep, several choices."""
    fields = ask.fields
    if ask.path == _COMPLETIONS and not bytes(fields["prompt"]).startswith(b'"'):
        return False
    several = bytes(fields.get("n", b"1")) != b"1"
    is_plain = "response_format" not in fields and bytes(fields.get("logprobs", b"false")) in (
        b"false",
        b"0",
    )
    return ask.path in (_CHAT, _COMPLETIONS) and is_plain and not several and not ask.must_call


def _with_beginning(messages: msgspec.Raw, said: str) -> msgspec.Raw:
    turns: list[dict[str, object]] = msgspec.json.decode(messages)
    last = turns[-1]
    if last.get("role") == "assistant" and isinstance(last.get("content"), str):
        turns[-1] = {**last, "content": f"{last['content']}{said}"}
    else:
        turns.append({"role": "assistant", "content": said})
    return raw(turns)


def needs_transform(ask: Ask, abilities: Abilities) -> bool:
    """True when the answer cannot pass through as it comes."""
    return ask.must_call and not abilities.forces_tool_choice


def _streamed(fields: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
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
