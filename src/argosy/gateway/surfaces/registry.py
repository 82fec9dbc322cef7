"""Every API that is spoken, by path; a new one is one line here."""

from collections.abc import Callable, Mapping

from argosy.gateway.surfaces.anthropic_dialect import AnthropicDialect
from argosy.gateway.surfaces.chat import Chat
from argosy.gateway.surfaces.completions import Completions
from argosy.gateway.surfaces.count_tokens import CountTokens
from argosy.gateway.surfaces.embeddings import Embeddings
from argosy.gateway.surfaces.messages import Messages
from argosy.gateway.surfaces.openai_dialect import OpenAIDialect
from argosy.gateway.surfaces.port import Dialect, Surface
from argosy.gateway.surfaces.responses import Responses

OPENAI: Dialect = OpenAIDialect()
ANTHROPIC: Dialect = AnthropicDialect()


def surfaces(now_s: Callable[[], float]) -> Mapping[str, tuple[Surface, Dialect]]:
    """Path to surface and dialect. `now_s` gives Unix time, for the answers' `created`."""
    spoken: tuple[tuple[Surface, Dialect], ...] = (
        (Chat(now_s), OPENAI),
        (Completions(), OPENAI),
        (Embeddings(), OPENAI),
        (Responses(now_s), OPENAI),
        (Messages(now_s), ANTHROPIC),
        (CountTokens(now_s), ANTHROPIC),
    )
    return {surface.path: (surface, dialect) for surface, dialect in spoken}


def dialect_of(path: str, *, has_anthropic_header: bool) -> Dialect:
    """Whose error shape a client expects: by path, else by its `anthropic-version` header."""
    if has_anthropic_header or path.startswith("/v1/messages"):
        return ANTHROPIC
    return OPENAI
