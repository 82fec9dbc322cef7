"""One question to the performance model: a deployment under a load test."""

from functools import lru_cache

import msgspec

from argosy.fleet.architectures import Architecture, architectures
from argosy.fleet.catalogue import Chip
from argosy.fleet.layout import Layout
from argosy.perf.engine_settings import EngineName

_NOT_DIMENSIONS = ("name", "huggingface_ids", "sources", "notes")


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Replicas of one kind: all of an aggregated deployment, or one side of a disaggregated one."""

    layout: Layout
    replicas: int | None = 1  # None: not known


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What runs where, and who asks: so many clients, each with one request at a time."""

    model: Architecture
    chip: Chip
    engine: EngineName
    engine_version: str = ""  # "": not known
    decode: Part  # aggregated: everything
    prefill: Part | None = None  # None: aggregated
    input_tokens: int
    output_tokens: int
    clients: int  # of the whole deployment
    measured: str = ""  # the day of the software, as a date; "": not known
    is_ramped: bool = False  # clients do not start at once, lengths do not vary

    @property
    def configuration(self) -> tuple[str, ...]:
        """All but how many clients there are, and when."""
        return (
            self.model.name,
            self.chip.name,
            self.engine,
            self.engine_version,
            repr(self.decode),
            "" if self.prefill is None else repr(self.prefill),
            str(self.input_tokens),
            str(self.output_tokens),
        )


@lru_cache(maxsize=512)
def shape_name(model: Architecture) -> str:
    """The first published model of the same dimensions, or its own name: weights cost no time."""
    own = _dimensions(model)
    for other in architectures():
        if _dimensions(other) == own:
            return other.name
    return model.name


def _dimensions(model: Architecture) -> tuple[object, ...]:
    return tuple(
        value
        for name, value in msgspec.structs.asdict(model).items()
        if name not in _NOT_DIMENSIONS
    )
