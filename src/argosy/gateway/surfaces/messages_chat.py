"""Anthropic's turns to chat messages, with the rules that the API holds about them.

A user's turn becomes its tool results, then its text; an assistant's turn one message with its
tool calls. Several text blocks of one turn are joined by line breaks.
"""

from collections.abc import Sequence

from argosy.gateway.surfaces.chat_fields import (
    CalledFunction,
    ChatMessage,
    ToolCall,
    encoded,
    joined_at_end,
)
from argosy.gateway.surfaces.decode import refused
from argosy.gateway.surfaces.messages_request import (
    Block,
    MessagesRequest,
    TextBlock,
    ToolResultBlock,
    ToolUseBlock,
    Turn,
)
from argosy.gateway.surfaces.port import RefusedError


def chat_messages(request: MessagesRequest, *, system_prompt: str | None) -> list[ChatMessage]:
    """The conversation, `system_prompt` first where the client sent none. Raises `RefusedError`."""
    messages = _system(request, system_prompt)
    called: set[str] = set()
    for position, turn in enumerate(request.messages):
        is_last = position == len(request.messages) - 1
        messages += _turn(turn, f"messages[{position}]", called, is_last=is_last)
    if all(message.role == "system" for message in messages):
        text = "'messages' holds nothing to answer; send a user message."
        raise refused("bad_request", text, param="messages")
    return joined_at_end(messages)


def _system(request: MessagesRequest, system_prompt: str | None) -> list[ChatMessage]:
    system = request.system
    if system is None:
        has_own = request.messages[0].role == "system"
        text = None if has_own else system_prompt
    else:
        text = system if isinstance(system, str) else _text(system, "system")
    return [ChatMessage(role="system", content=text)] if text else []


def _turn(turn: Turn, at: str, called: set[str], *, is_last: bool) -> list[ChatMessage]:
    content = turn.content
    if not content:
        if is_last and turn.role == "assistant":  # a prefill of nothing
            return []
        message = f"{at}.content is empty; only the last message, if the assistant's, may be."
        raise refused("bad_request", message, param=f"{at}.content")
    blocks = [TextBlock(text=content)] if isinstance(content, str) else content
    match turn.role:
        case "user":
            return _user(blocks, at, called)
        case "assistant":
            if is_last:
                _check_prefill(blocks, at)
            return _assistant(blocks, at, called)
        case "system":
            _check_kinds(blocks, at, "system", (TextBlock,))
            return [ChatMessage(role="system", content=_text(blocks, f"{at}.content"))]


def _user(blocks: Sequence[Block], at: str, called: set[str]) -> list[ChatMessage]:
    _check_kinds(blocks, at, "user", (TextBlock, ToolResultBlock))
    messages = [
        _result(block, f"{at}.content[{position}]", called)
        for position, block in enumerate(blocks)
        if isinstance(block, ToolResultBlock)
    ]
    if any(isinstance(block, TextBlock) for block in blocks):
        messages.append(ChatMessage(role="user", content=_text(blocks, f"{at}.content")))
    return messages


def _result(block: ToolResultBlock, at: str, called: set[str]) -> ChatMessage:
    if block.tool_use_id not in called:
        message = (
            f"{at}.tool_use_id = {block.tool_use_id[:100]!r} answers no earlier tool_use block; "
            "send the assistant's message that made the call before it."
        )
        raise refused("bad_request", message, param=f"{at}.tool_use_id")
    content = block.content or ""
    text = content if isinstance(content, str) else "\n".join(part.text for part in content)
    if block.is_error:
        text = f"Error: {text}" if text else "Error"
    return ChatMessage(role="tool", content=text, tool_call_id=block.tool_use_id)


def _assistant(blocks: Sequence[Block], at: str, called: set[str]) -> list[ChatMessage]:
    for position, block in enumerate(blocks):
        if isinstance(block, ToolResultBlock):
            raise _misplaced("tool_result", f"{at}.content[{position}]", "assistant")
    calls = tuple(_call(block) for block in blocks if isinstance(block, ToolUseBlock))
    called.update(call.id for call in calls)
    text = _text(blocks, f"{at}.content")
    if not text and not calls:  # nothing but reasoning, which is left out
        return []
    return [ChatMessage(role="assistant", content=text or None, tool_calls=calls)]


def _call(block: ToolUseBlock) -> ToolCall:
    arguments = bytes(encoded(block.input)).decode()
    return ToolCall(id=block.id, function=CalledFunction(name=block.name, arguments=arguments))


def _text(blocks: Sequence[Block], at: str) -> str:
    texts: list[str] = []
    for position, block in enumerate(blocks):
        if isinstance(block, TextBlock):
            if not block.text.strip():
                message = f"{at}[{position}]: text must hold more than whitespace."
                raise refused("bad_request", message, param=f"{at}[{position}].text")
            texts.append(block.text)
    return "\n".join(texts)


def _check_prefill(blocks: Sequence[Block], at: str) -> None:
    match blocks[-1]:
        case TextBlock(text=text) if text != text.rstrip():
            message = (
                f"{at}: final assistant content cannot end with trailing whitespace; "
                "strip it, the answer continues from there."
            )
            raise refused("bad_request", message, param=f"{at}.content")
        case ToolUseBlock():
            message = f"{at} ends with a tool_use block; send its tool_result in a user message."
            raise refused("bad_request", message, param=f"{at}.content")
        case _:
            return


def _check_kinds(blocks: Sequence[Block], at: str, role: str, allowed: tuple[type, ...]) -> None:
    for position, block in enumerate(blocks):
        if not isinstance(block, allowed):
            kind = str(block.__struct_config__.tag)
            raise _misplaced(kind, f"{at}.content[{position}]", role)


def _misplaced(kind: str, at: str, role: str) -> RefusedError:
    return refused(
        "bad_request", f"{at}: a {kind} block cannot be in a message of role {role}.", param=at
    )
