"""Text of a fleet file in; a checked `Fleet` out, or every problem with its line.

Owns the order of the three passes, each of which reports all that it finds: `document.py` reads
the YAML as plain values with their lines, `shape.py` holds the values against the types in
`config.py`, and `rules.py` relates two places of the fleet. The rules run once the types hold, so
that one slip is not reported twice. Reading the file, environment variables and whether a path or
URL exists are left to the caller.
"""

import importlib.resources
from typing import Any

import msgspec

from argosy.fleet.config import Fleet
from argosy.fleet.document import FileProblemsError, read
from argosy.fleet.rules import cross_check
from argosy.fleet.shape import check_type


def parse(text: str, *, source: str) -> Fleet:
    """The fleet that `text` describes; `source` is the name that `FleetFileError` shows."""
    value, document = read(text, fields=[field.name for field in msgspec.structs.fields(Fleet)])
    check_type(value, (), Fleet, document)
    if document.problems:
        raise FleetFileError(source, document.problems)
    fleet = msgspec.convert(value, Fleet)
    for path, told in cross_check(fleet):
        document.note(path, told)
    if document.problems:
        raise FleetFileError(source, document.problems)
    return fleet


def embedded() -> str:
    """The text of the fleet that runs when no file is given."""
    return importlib.resources.files("argosy.fleet").joinpath("embedded.yaml").read_text("utf-8")


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the fleet file, for editors; it cannot say the rules."""
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Argosy fleet file",
    }
    return {**about, **msgspec.json.schema(Fleet)}


class FleetFileError(FileProblemsError):
    """The fleet file cannot be used."""
