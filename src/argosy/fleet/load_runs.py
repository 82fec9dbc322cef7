"""Text of a run file in; a checked `Run` out, or every problem with its line.

As `load.py` for fleets, with the types of `runs.py` and the rules of `rules_runs.py`. Whether the
data is there and fits is asked later, of its manifest.
"""

import re
from typing import Any

from argosy.fleet.checked import checked, json_schema
from argosy.fleet.document import FileProblemsError
from argosy.fleet.rules_runs import cross_check
from argosy.fleet.runs import Run

_FIRST_KEY = re.compile(r"""^(?P<quote>["']?)(?P<key>[\w-]+)(?P=quote)\s*:""", re.MULTILINE)


def parse(text: str, *, source: str) -> Run:
    """The run that `text` describes; `source` is the name that `RunFileError` shows."""
    return checked(text, Run, noun="run", rules=cross_check, error=RunFileError, source=source)


def first_key(text: str) -> str | None:
    """Which tells runs (`run`) and recipes of data (`corpus`) from fleets; None: there is none."""
    first = _FIRST_KEY.search(text)
    return None if first is None else first["key"]


def schema() -> dict[str, Any]:
    """JSON Schema of the run file."""
    return json_schema(Run, title="Argosy run file")


class RunFileError(FileProblemsError):
    """The run file cannot be used."""
