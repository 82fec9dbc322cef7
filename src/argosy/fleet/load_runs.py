"""Text of a run file in; a checked `Run` out, or every problem with its line.

As `load.py` for fleets: the same three passes, with the types of `runs.py` and the rules of
`rules_runs.py`. Whether the data is there and fits is asked later, of its manifest.
"""

import re
from typing import Any

import msgspec

from argosy.fleet.document import FileProblemsError, read
from argosy.fleet.rules_runs import cross_check
from argosy.fleet.runs import Run
from argosy.fleet.shape import check_type

_FIRST_KEY = re.compile(r"""^(?P<quote>["']?)(?P<key>[\w-]+)(?P=quote)\s*:""", re.MULTILINE)


def parse(text: str, *, source: str) -> Run:
    """The run that `text` describes; `source` is the name that `RunFileError` shows."""
    fields = [field.name for field in msgspec.structs.fields(Run)]
    value, document = read(text, fields=fields, noun="run")
    check_type(value, (), Run, document)
    if document.problems:
        raise RunFileError(source, document.problems)
    run = msgspec.convert(value, Run)
    for path, told in cross_check(run):
        document.note(path, told)
    if document.problems:
        raise RunFileError(source, document.problems)
    return run


def first_key(text: str) -> str | None:
    """Which tells runs (`run`) and recipes of data (`corpus`) from fleets; None: there is none."""
    first = _FIRST_KEY.search(text)
    return None if first is None else first["key"]


def schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of the run file, for editors; it cannot say the rules."""
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Argosy run file",
    }
    return {**about, **msgspec.json.schema(Run)}


class RunFileError(FileProblemsError):
    """The run file cannot be used."""
