"""Text of a file in; a checked Struct out, or every problem with its line.

Owns the order of the three passes, each of which reports all that it finds: `document.py` reads
the YAML as plain values with their lines, `shape.py` holds the values against the Struct's types,
and the rules that are given relate two places of it. The rules run once the types hold, so that
one slip is not reported twice. Reading the file, environment variables and whether a path or URL
exists are left to the caller.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from argosy.fleet.document import FileProblemsError, Path, read
from argosy.fleet.shape import check_type

_S = TypeVar("_S", bound=msgspec.Struct)


def checked(
    text: str,
    struct: type[_S],
    *,
    noun: str,
    rules: Callable[[_S], Iterable[tuple[Path, str]]],
    error: type[FileProblemsError],
    source: str,
) -> _S:
    """What `text` says of one `struct`; raises `error`, which names `source`.

    `noun` is what the text should describe; `rules` say where it is wrong, and how.
    """
    fields = [field.name for field in msgspec.structs.fields(struct)]
    value, document = read(text, fields=fields, noun=noun)
    check_type(value, (), struct, document)
    if document.problems:
        raise error(source, document.problems)
    made = msgspec.convert(value, struct)
    for path, told in rules(made):
        document.note(path, told)
    if document.problems:
        raise error(source, document.problems)
    return made


def json_schema(struct: type[msgspec.Struct], *, title: str) -> dict[str, Any]:
    """JSON Schema (2020-12), for editors; it cannot say the rules."""
    about = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return {**about, **msgspec.json.schema(struct)}
