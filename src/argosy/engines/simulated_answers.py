"""The OpenAI JSON of the simulated engine's answers. Pure: plans and counts in, bodies out."""

import base64
import struct
from typing import Any

from argosy.engines import simulated_text as text
from argosy.engines.simulated_requests import Embeddings, Plan

Json = Any


def whole_body(plan: Plan, *, cached: int) -> dict[str, Json]:
    """The answer to a request that does not stream."""
    is_chat = plan.kind == "chat"
    choices = [
        {
            "index": index,
            **({"message": _message(plan, answer)} if is_chat else {"text": answer.text}),
            "logprobs": None,
            **_finish(plan, answer),
        }
        for index, answer in enumerate(plan.choices)
    ]
    head = _head(plan, "chat.completion" if is_chat else "text_completion")
    return {**head, "choices": choices, "usage": _usage(plan, cached)}


def stream_events(plan: Plan, step: int, *, cached: int) -> list[dict[str, Json]]:
    """The events of one decoding step: of each choice its token, and its end when it is there."""
    head = _stream_head(plan)
    if plan.include_usage:
        head["usage"] = None
    if plan.include_timings:
        head["timings"] = _timings(plan, step, cached)
    parts_of = _chat_parts if plan.kind == "chat" else _text_parts
    going_on = {"logprobs": None, "finish_reason": None, "stop_reason": None}
    return [
        {**head, "choices": [{"index": index, **going_on, **part}]}
        for index, answer in enumerate(plan.choices)
        for part in parts_of(plan, answer, step)
    ]


def usage_event(plan: Plan, *, cached: int) -> dict[str, Json]:
    """The event before [DONE] that `stream_options.include_usage` asks for."""
    return {**_stream_head(plan), "choices": [], "usage": _usage(plan, cached)}


def embeddings_body(asked: Embeddings) -> dict[str, Json]:
    """The answer to a request for embeddings."""
    tokens = sum(len(prompt) for prompt in asked.prompts)
    return {
        "object": "list",
        "model": asked.model,
        "data": [
            {"object": "embedding", "index": index, "embedding": _embedding(asked, item)}
            for index, item in enumerate(asked.texts)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def models_body(model: str, *, context_tokens: int) -> dict[str, Json]:
    """The one model that is served."""
    row = {"id": model, "object": "model", "created": 0, "owned_by": "argosy"}
    return {"object": "list", "data": [{**row, "max_model_len": context_tokens}]}


def error_body(message: str, *, code: str | None, status: int) -> dict[str, Json]:
    """An error."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _head(plan: Plan, kind: str) -> dict[str, Json]:
    # No clock in it: the same request gets the same bytes, whenever and wherever.
    return {"id": plan.id, "object": kind, "created": 0, "model": plan.model}


def _stream_head(plan: Plan) -> dict[str, Json]:
    return _head(plan, "chat.completion.chunk" if plan.kind == "chat" else "text_completion")


def _usage(plan: Plan, cached: int) -> dict[str, Json]:
    tokens_in = sum(len(prompt) for prompt in plan.prompts)
    tokens_out = sum(len(answer.pieces) for answer in plan.choices)
    return {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _timings(plan: Plan, step: int, cached: int) -> dict[str, int]:
    """The counts so far, named as llama.cpp names them."""
    return {
        "cache_n": cached,
        "prompt_n": sum(len(prompt) for prompt in plan.prompts) - cached,
        "predicted_n": sum(min(step + 1, len(answer.pieces)) for answer in plan.choices),
    }


def _finish(plan: Plan, answer: text.Answer) -> dict[str, str | None]:
    is_call = plan.tool is not None and answer.finish_reason == "stop"
    reason = "tool_calls" if is_call else answer.finish_reason
    return {"finish_reason": reason, "stop_reason": answer.stop_reason}


def _message(plan: Plan, answer: text.Answer) -> dict[str, Json]:
    if plan.tool is None:
        return {"role": "assistant", "content": answer.text}
    call = _call(plan, arguments=answer.text)
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _call(plan: Plan, *, arguments: str) -> dict[str, Json]:
    function = {"name": plan.tool, "arguments": arguments}
    return {"id": f"call_{plan.id.partition('-')[2]}", "type": "function", "function": function}


def _chat_parts(plan: Plan, answer: text.Answer, step: int) -> list[dict[str, Json]]:
    last = max(0, len(answer.pieces) - 1)
    parts: list[dict[str, Json]] = []
    if step == 0:
        parts.append({"delta": {"role": "assistant", "content": "" if plan.tool is None else None}})
    if plan.tool is not None:
        parts += _call_parts(plan, answer, is_first=step == 0, is_last=step == last)
    elif step <= last and answer.pieces and answer.pieces[step]:
        parts.append({"delta": {"content": answer.pieces[step]}})
    if step == last:
        parts.append({"delta": {}, **_finish(plan, answer)})
    return parts


def _call_parts(
    plan: Plan, answer: text.Answer, *, is_first: bool, is_last: bool
) -> list[dict[str, Json]]:
    """A call in two deltas: its name with its first token, all its arguments with its last."""
    parts: list[dict[str, Json]] = []
    if is_first:
        parts.append({"delta": {"tool_calls": [{"index": 0, **_call(plan, arguments="")}]}})
    if is_last:
        arguments = {"index": 0, "function": {"arguments": answer.text}}
        parts.append({"delta": {"tool_calls": [arguments]}})
    return parts


def _text_parts(plan: Plan, answer: text.Answer, step: int) -> list[dict[str, Json]]:
    last = max(0, len(answer.pieces) - 1)
    parts: list[dict[str, Json]] = []
    if step <= last and answer.pieces and answer.pieces[step]:
        parts.append({"text": answer.pieces[step]})
    if step == last:
        parts.append({"text": "", **_finish(plan, answer)})
    return parts


def _embedding(asked: Embeddings, item: str) -> list[float] | str:
    vector = text.unit_vector(item, dimensions=asked.dimensions)
    if not asked.as_base64:
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
