"""Finds a shipped architecture by its name or by the Hugging Face id of its weights."""

from functools import cache
from importlib import resources
from typing import Any

import msgspec

from argosy.fleet.architectures.architecture import Architecture
from argosy.fleet.architectures.from_config import from_config
from argosy.fleet.catalogue.lookup import NotInCatalogue, not_in


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One line of the data file: the fields of a config.json that decide costs."""

    name: str
    huggingface_ids: tuple[str, ...]
    sources: tuple[str, ...]
    notes: str | None = None
    config: dict[str, Any]


def architectures() -> tuple[Architecture, ...]:
    """All that are shipped, in the order of the data file: by maker."""
    return tuple(_by_name().values())


def architecture(name: str) -> Architecture:
    """By name ("Llama-3.1-70B") or Hugging Face id; case, hyphens and the owner do not matter.

    Raises `NotInCatalogue` with the nearest names.
    """
    known = _by_name()
    own = _by_any_name().get(_key(name)) or _by_any_name().get(_key(_own(name)))
    if own is not None:
        return known[own]
    raise NotInCatalogue(not_in(name, known, what="model", listing="argosy catalogue --models"))


@cache
def _by_name() -> dict[str, Architecture]:
    data = (
        resources.files("argosy.fleet.architectures") / "data" / "architectures.json"
    ).read_bytes()
    entries = msgspec.json.decode(data, type=tuple[_Entry, ...])
    return {entry.name: _architecture(entry) for entry in entries}


@cache
def _by_any_name() -> dict[str, str]:
    """Names and ids, and ids without their owner, to names."""
    found: dict[str, str] = {}
    for one in architectures():
        found[_key(one.name)] = one.name
        for known in one.huggingface_ids:
            found[_key(known)] = one.name
            found.setdefault(_key(_own(known)), one.name)
    return found


def _own(name: str) -> str:
    """An id without its owner."""
    return name.rpartition("/")[2]


def _key(name: str) -> str:
    """How a name is compared: published tables write llama2-70b, Llama-2-70b and Llama_2_70B."""
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def _architecture(entry: _Entry) -> Architecture:
    return msgspec.structs.replace(
        from_config(entry.config, entry.name),
        huggingface_ids=entry.huggingface_ids,
        sources=entry.sources,
        notes=entry.notes,
    )
