"""The engine port: what the gateway and the control plane may ask of an adapter.

Every replica is spoken to in the OpenAI shape (`/v1/chat/completions`, `/v1/completions`,
`/v1/embeddings`); an adapter says where its engine departs from it.
"""

from pathlib import Path
from typing import Literal, Protocol

import msgspec

from argosy.fleet.config import EngineConfig, Model
from argosy.fleet.layout import Layout
from argosy.fleet.messages import Command, Refusal


class Abilities(msgspec.Struct, frozen=True, kw_only=True):
    """What one engine honours; the gateway makes up for the rest."""

    forces_tool_choice: bool  # tool_choice "required" or a named function
    reports_stop_sequence: bool  # choices[].stop_reason names the sequence that ended the text
    continuation: Literal["trailing", "flags"] | None  # goes on from a trailing assistant message
    running_counts: str | None  # the body field that makes every event carry its counts so far
    counts_every_choice: bool  # usage sums the tokens of n > 1 choices and of several prompts
    counts_tokens_at_messages: bool  # POST /v1/messages/count_tokens exists
    embeddings: bool
    context_tokens: int | None  # prompt plus answer of one request; None: unknown
    slots: int | None  # requests decoded together; None: unknown
    keeps_body: bool = False  # `adapt` changes nothing in a body that names the fleet's own model


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica is to run, as far as its command line depends on it."""

    host: str = "127.0.0.1"  # it binds; NODE_HOST where its launcher starts it on other machines
    chip: str | None = None  # as the catalogue names it; None: the processor
    maker: str | None = None  # of the chip
    layout: Layout = Layout()


# In a command's words, for whoever starts it on a node to fill in: the node's own address, and a
# port that is free there. A program that is told its port need not say its URL.
NODE_HOST, NODE_PORT = "{host}", "{port}"
THIS_MACHINE = Place()


class Engine(Protocol):
    """One engine's adapter. Stateless: everything that it must know is in the arguments."""

    kind: str
    health_path: str  # GET: 200 when it can answer requests

    def abilities(self, config: EngineConfig) -> Abilities:
        """What a replica with this configuration honours."""
        ...

    def command(
        self,
        config: EngineConfig,
        *,
        model: Model,
        weights: Path | None,
        threads: int,
        place: Place = THIS_MACHINE,
    ) -> Command | None:
        """How to start a replica; None when nothing is to be started, or its launcher knows."""
        ...

    def needs_weights(self) -> bool:
        """True when `command` wants the model's weights as a local file."""
        ...

    def adapt(
        self, fields: dict[str, msgspec.Raw], *, config: EngineConfig, model: str
    ) -> dict[str, msgspec.Raw]:
        """The OpenAI-shaped body as this engine wants it: its name of the model, its quirks."""
        ...

    def read_refusal(self, status: int, body: bytes) -> Refusal:
        """What an answer with status >= 400 says; never raises, whatever the bytes."""
        ...
