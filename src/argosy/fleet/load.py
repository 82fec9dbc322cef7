"""Text of a fleet file in; a checked `Fleet` out, or every problem with its line.

Names the types, of `config.py`, and the rules, of `rules.py`; `checked.py` holds the text against
them.
"""

import importlib.resources
from typing import Any

from argosy.fleet.checked import checked, json_schema
from argosy.fleet.config import Fleet
from argosy.fleet.document import FileProblemsError
from argosy.fleet.rules import cross_check


def parse(text: str, *, source: str) -> Fleet:
    """The fleet that `text` describes; `source` is the name that `FleetFileError` shows."""
    return checked(
        text, Fleet, noun="fleet", rules=cross_check, error=FleetFileError, source=source
    )


def embedded() -> str:
    """The text of the fleet that runs when no file is given."""
    return importlib.resources.files("argosy.fleet").joinpath("embedded.yaml").read_text("utf-8")


def schema() -> dict[str, Any]:
    """JSON Schema of the fleet file."""
    return json_schema(Fleet, title="Argosy fleet file")


class FleetFileError(FileProblemsError):
    """The fleet file cannot be used."""
