"""A model, a replica, and requests in the shape of Anthropic: a plain one, one of all fields."""

from typing import Any

from argosy.engines.port import Abilities
from argosy.gateway.surfaces.port import Served

ABILITIES = Abilities(
    forces_tool_choice=False,
    reports_stop_sequence=True,
    continuation="trailing",
    running_counts=None,
    counts_every_choice=False,
    counts_tokens_at_messages=True,
    embeddings=False,
    context_tokens=None,
    slots=None,
)
CATALOG = {
    "small": Served(
        name="small",
        created_at_s=0,
        system_prompt="Be kind.",
        context_tokens=1000,
        counts_every_choice=False,
        embeddings=False,
    )
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
TOOL: dict[str, Any] = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": SCHEMA,
}
BASE: dict[str, Any] = {
    "model": "small",
    "max_tokens": 16,
    "messages": [{"role": "user", "content": "Hi"}],
}
CALL: dict[str, Any] = {
    "type": "tool_use",
    "id": "t1",
    "name": "weather",
    "input": {"city": "Rome"},
}
RESULT: dict[str, Any] = {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}
RICH: dict[str, Any] = BASE | {
    "system": [{"type": "text", "text": "Short.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [{"type": "text", "text": "Wait."}, CALL]},
        {"role": "user", "content": [{"type": "text", "text": "So?"}, RESULT]},
    ],
    "tools": [TOOL],
    "tool_choice": {"type": "any", "disable_parallel_tool_use": True},
    "stop_sequences": ["###"],
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 5,
    "metadata": {"user_id": "u"},
    "thinking": {"type": "disabled"},
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"},
    "service_tier": "auto",
    "stream": True,
}
