"""What the gateway does to an answer where an engine does not do it itself. Pure.

Each transform takes one event and gives the events that replace it; `flush` gives what it held.
"""

import json
import secrets
from collections.abc import Sequence
from typing import Protocol

import msgspec

from argosy.fleet.messages import Refusal
from argosy.gateway.surfaces.events import (
    Event,
    Finish,
    TextDelta,
    Tokens,
    ToolDelta,
    ToolStart,
)
from argosy.gateway.surfaces.port import RefusedError, Tool


class Transform(Protocol):
    """One step between the replica's events and the client's."""

    @property
    def is_complete(self) -> bool:
        """True when the answer has ended here, whatever the replica still says."""
        ...

    def feed(self, event: Event) -> list[Event]:
        """The events that replace this one."""
        ...


class StopCutter:
    """Ends the text before the first stop sequence and says which it was.

    The first is the one whose last character comes first, as for an engine that looks after each
    character; of two that end together the longer one. So the result does not depend on how the
    text was cut into deltas. Text that may be the beginning of a stop sequence is held back until
    it is known to be none.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(sequence for sequence in stop if sequence)
        self._held = ""
        self.is_complete = False

    def feed(self, event: Event) -> list[Event]:
        """Text is held and cut; all else passes, after the text that was held."""
        if self.is_complete:
            return []
        if isinstance(event, Tokens):
            return [event]  # running counts come between any two deltas of a text
        if not isinstance(event, TextDelta):
            return [*self._release(len(self._held)), event]
        self._held += event.text
        found = [(at + len(s), at, s) for s in self._stop if (at := self._held.find(s)) >= 0]
        if found:
            _, at, sequence = min(found)
            text = self._release(at)
            self.is_complete = True
            return [*text, Finish(reason="stop", stop_sequence=sequence)]
        return self._release(len(self._held) - self._may_begin())

    def _may_begin(self) -> int:
        """How many characters at the end may be the beginning of a stop sequence."""
        longest = max((len(sequence) for sequence in self._stop), default=1) - 1
        for count in range(min(longest, len(self._held)), 0, -1):
            if any(sequence.startswith(self._held[-count:]) for sequence in self._stop):
                return count
        return 0

    def _release(self, count: int) -> list[Event]:
        text, self._held = self._held[:count], self._held[count:]
        return [TextDelta(text=text)] if text else []


class _Call(msgspec.Struct):
    name: str
    arguments: msgspec.Raw


_call_decoder = msgspec.json.Decoder(_Call)


class ForcedCall:
    """Makes one tool call of a text that a JSON schema forced the model to write.

    With one possible tool the text is its arguments and streams through; with several it is
    `{"name": …, "arguments": {…}}`, which is held until it is whole.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._only = tools[0].name if len(tools) == 1 else None
        self._text = ""
        self._has_begun = False
        self.is_complete = False

    def feed(self, event: Event) -> list[Event]:
        """Text becomes a call; a stop becomes `tool_calls`; all else passes."""
        match event:
            case TextDelta(text=text) if self._only is not None:
                return [*self._begin(self._only), ToolDelta(index=0, arguments=text)]
            case TextDelta(text=text):
                self._text += text
                return []
            case Finish(reason="stop") if self._only is not None:
                return [*self._begin(self._only), Finish(reason="tool_calls")]
            case Finish(reason="stop"):
                return [*self._choose(), Finish(reason="tool_calls")]
            case _:
                return [event]

    def _begin(self, name: str) -> list[Event]:
        if self._has_begun:
            return []
        self._has_begun = True
        return [ToolStart(index=0, id=f"call_{secrets.token_hex(12)}", name=name)]

    def _choose(self) -> list[Event]:
        try:
            call = _call_decoder.decode(self._text)
        except (msgspec.DecodeError, RecursionError) as error:
            message = f"The replica was made to call a tool and wrote something else: {error}."
            raise RefusedError(Refusal(kind="upstream_failed", message=message)) from None
        arguments = bytes(call.arguments).decode()
        return [*self._begin(call.name), ToolDelta(index=0, arguments=arguments)]


def forced_schema(tools: Sequence[Tool]) -> dict[str, object]:
    """The JSON schema that makes a model write a call of one of these tools."""
    if len(tools) == 1:
        return _parameters(tools[0])
    return {"anyOf": [_named(tool) for tool in tools]}


def _parameters(tool: Tool) -> dict[str, object]:
    return tool.parameters or {"type": "object", "properties": {}, "additionalProperties": False}


def _named(tool: Tool) -> dict[str, object]:
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": _parameters(tool)},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def forced_instruction(tools: Sequence[Tool]) -> str:
    """What the model is told, since the schema alone does not say what the tools are for."""
    shown = [
        {"name": tool.name, "description": tool.description, "parameters": _parameters(tool)}
        for tool in tools
    ]
    wanted = (
        f"Call the function {tools[0].name}: answer with its arguments as JSON."
        if len(tools) == 1
        else 'Call one of the functions: answer with {"name": ..., "arguments": ...} as JSON.'
    )
    return f"{wanted}\nFunctions: {json.dumps(shown, ensure_ascii=False)}"
