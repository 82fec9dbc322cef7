"""The YAML of a fleet or run file as plain values, each's line and what is wrong with it.

Owns what YAML may do here (no tags, no merge keys, no key twice, bounded size), the problems
found so far, and how a path or a value is shown in them. Which values are wanted is left to
`shape.py`, what relates two of them to `rules.py`.
"""

import contextlib
import difflib
import json
import re
from collections.abc import Iterable
from typing import Any, TypeAlias, cast

import msgspec
import yaml

TEXT_CHARS_MAX = 256 * 2**10  # some 5,000 tenants; a pure-Python YAML reader takes seconds for it
_VALUES_MAX = 50_000  # aliases expanded: a few lines of them can stand for billions of values
_DEPTH_MAX = 20
_NUMBER_CHARS_MAX = 100

Path: TypeAlias = tuple[str | int, ...]
Value: TypeAlias = Any  # None, bool, int, float, str, list or dict of these, or UNREADABLE

UNREADABLE = object()  # stands for a value whose problem is already reported

_YAML = "tag:yaml.org,2002:"
_YAML_HINTS = (
    ("'\\t'", "Indent with spaces: YAML refuses tabs."),
    ("mapping values are not allowed", 'Quote text that holds ": ", or check the indentation.'),
    ("a single document", "Put one {noun} in a file: remove the second `---`."),
    ("undefined alias", 'Quote text that begins with "*".'),
    ("could not find expected ':'", "A field is written `name: value`."),
    ("cannot start any token", "Quote text that begins with a special character."),
)
_TOO_DEEP = f"the file nests deeper than {_DEPTH_MAX} levels, or an alias stands inside itself."
_NAME = re.compile(r"[\w-]{1,60}")
_DAY_FIELDS = ("from", "until", "by")  # which hold days as one writes them, without quotes


def read(text: str, *, fields: Iterable[str], noun: str) -> tuple[Value, "Document"]:
    """The values of a YAML text and where they stand; `fields` are told where it holds none.

    `noun` is what the text should describe. Text that is not worth reading on is `UNREADABLE`,
    with that one problem in the document.
    """
    document = Document(noun)
    try:
        return _plain_value(_compose(text, noun, fields), (), document), document
    except _NotWorthReading as error:
        document.problems = [error.problem]
        return UNREADABLE, document


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a file: where, what, and what would work."""

    line: int | None  # counted from 1; None: no one line is at fault
    path: str  # e.g. "pools[1].launcher.url"; "" is the whole file
    message: str  # one line, begins with the path


class Document:
    """Where each value of the file stands, and what is wrong with it so far."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self.lines: dict[Path, int] = {}
        self.raws: dict[Path, str] = {}  # unquoted scalars as they were written
        self.values = 0  # aliases expanded
        self.problems: list[Problem] = []

    def note(self, path: Path, text: str, line: int | None = None) -> None:
        dotted = _dotted(path)
        message = f"{dotted or 'the file'} {text}"
        self.problems.append(Problem(line=line or self.line(path), path=dotted, message=message))

    def line(self, path: Path) -> int | None:
        """The line of `path`, or of what should hold it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def asked(self, path: Path, value: Value) -> str:
        """The value as it was asked for, to follow the path: `= no`."""
        quoted = printable(value)
        return f"= {quoted if isinstance(value, str) else self.raws.get(path) or quoted}"


def did_you_mean(asked: Value, noun: str, valid: list[str]) -> str:
    """The nearest valid name, if one is near, and the valid names; long lists are cut."""
    near = difflib.get_close_matches(str(asked)[:100], valid[:200], n=1)
    listed = ", ".join(valid[:20]) + (", …" if len(valid) > 20 else "")
    return (f' Did you mean "{near[0]}"?' if near else "") + f" {noun.capitalize()}s: {listed}"


def printable(value: Value) -> str:
    """A value in one printable line."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    cut = f"{value[:79]}…" if isinstance(value, str) and len(value) > 80 else value
    quoted = json.dumps(cut, ensure_ascii=False)
    return quoted if quoted.isprintable() else json.dumps(cut)


class FileProblemsError(Exception):
    """A file cannot be used; `problems` says why, in the order of its lines."""

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        super().__init__(source, self.problems)

    def __str__(self) -> str:
        return "\n".join(
            f"{self.source}{'' if problem.line is None else f':{problem.line}'}  {problem.message}"
            for problem in self.problems
        )


class _NotWorthReading(Exception):
    """Ends the reading; its problem is then the only one that is reported."""

    def __init__(self, message: str, line: int | None) -> None:
        self.problem = Problem(line=line, path="", message=message)
        super().__init__(message)


def _compose(text: str, noun: str, fields: Iterable[str]) -> yaml.Node:
    wanted = f"A {noun} has the fields: {', '.join(fields)}"
    if len(text) > TEXT_CHARS_MAX:
        raise _NotWorthReading(f"the file exceeds {TEXT_CHARS_MAX:,} characters: split it.", None)
    try:
        root = yaml.SafeLoader(text).get_single_node()
    except yaml.reader.ReaderError as error:
        line = len(re.findall(r"\r\n|[\n\r\x85\u2028\u2029]", text[: error.position])) + 1
        raise _NotWorthReading(
            f"the character U+{error.character:04X} is not text.", line
        ) from None
    except yaml.MarkedYAMLError as error:
        raise _broken_yaml(error, noun) from None
    except RecursionError:
        raise _NotWorthReading(_TOO_DEEP, None) from None
    except ValueError:  # PyYAML lets "\U00110000" and %YAML 9…9 through to chr() and int()
        raise _NotWorthReading("the file is not YAML: an escape is out of range.", None) from None
    if root is None:
        raise _NotWorthReading(f"the file is empty. {wanted}", None)
    if not isinstance(root, yaml.MappingNode):
        raise _NotWorthReading(f"the top is no mapping. {wanted}", root.start_mark.line + 1)
    return root


def _broken_yaml(error: yaml.MarkedYAMLError, noun: str) -> _NotWorthReading:
    said = ", ".join(part for part in (error.context, error.problem) if part)
    hint = next((f" {hint}" for sign, hint in _YAML_HINTS if sign in said), "").format(noun=noun)
    mark = error.problem_mark or error.context_mark
    said = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in said)
    return _NotWorthReading(f"the file is not YAML: {said}.{hint}", mark.line + 1 if mark else None)


def _plain_value(node: yaml.Node, path: Path, document: Document) -> Value:
    document.values += 1
    if document.values > _VALUES_MAX:
        raise _NotWorthReading(f"the file exceeds {_VALUES_MAX:,} values: use fewer aliases.", None)
    if len(path) > _DEPTH_MAX:
        raise _NotWorthReading(_TOO_DEEP, node.start_mark.line + 1)
    document.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode) and not node.style:
        document.raws[path] = str(node.value)
    if isinstance(node, yaml.MappingNode) and node.tag == f"{_YAML}map":
        return _mapping(node, path, document)
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_YAML}seq":
        items = enumerate(cast("list[yaml.Node]", node.value))
        return [_plain_value(item, (*path, index), document) for index, item in items]
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, path, document)
    document.note(path, _foreign_tag(node, document.noun))
    return UNREADABLE


def _mapping(node: yaml.MappingNode, path: Path, document: Document) -> dict[str, Value]:
    mapping: dict[str, Value] = {}
    for key_node, value_node in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
        key = key_node.value
        if not isinstance(key, str) or key_node.tag != f"{_YAML}str":
            told = f"has {_odd_key(key_node, document.noun)}"
            document.note(path, told, key_node.start_mark.line + 1)
            continue
        inner = (*path, key)
        if key in mapping:
            told = f"is written twice, first on line {document.line(inner)}. Keep one of them."
            document.note(inner, told, key_node.start_mark.line + 1)
            continue
        document.lines[inner] = key_node.start_mark.line + 1
        mapping[key] = _plain_value(value_node, inner, document)
    return mapping


def _odd_key(node: yaml.Node, noun: str) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return "a key that is not text. A field is written `name: value`."
    kind = node.tag.removeprefix(_YAML)
    if kind == "merge":
        return f"a merge key `<<`, which a {noun} file does not use. Write the fields out."
    asked = printable(node.value)
    return f"the key {asked[1:-1]}, which YAML reads as {kind}, not as text. Quote it: {asked}"


def _foreign_tag(node: yaml.Node, noun: str) -> str:
    asked = printable(node.tag.removeprefix(_YAML))
    return f"has the YAML tag {asked}. Write a plain value: {noun} files use no tags."


def _scalar(node: yaml.ScalarNode, path: Path, document: Document) -> Value:
    kind = node.tag.removeprefix(_YAML)
    text = str(node.value)
    asked = printable(text)
    if kind in {"int", "float", "bool", "null"}:
        loader: Any = yaml.SafeLoader("")
        with contextlib.suppress(ValueError, KeyError, IndexError, OverflowError):
            if len(text) <= _NUMBER_CHARS_MAX:
                return loader.construct_object(node)
        document.note(path, f"= {asked} is not a value that YAML can read as {kind}.")
    elif kind == "timestamp" and path and path[-1] in _DAY_FIELDS:
        return text  # their types say whether it is a day
    elif kind in {"timestamp", "value", "merge"}:
        told = f"is read as a {kind} by YAML, not as text. Quote it: {asked}"
        document.note(path, f"= {asked[1:-1]} {told}")
    elif kind != "str":
        document.note(path, _foreign_tag(node, document.noun))
    elif re.search("[\ud800-\udfff]", text):
        document.note(path, f"= {asked} holds half a character (a lone surrogate).")
    else:
        return text
    return UNREADABLE


def _dotted(path: Path) -> str:
    keys = (
        f"[{part}]"
        if isinstance(part, int)
        else f".{part if _NAME.fullmatch(part) else printable(part)}"
        for part in path
    )
    return "".join(keys).removeprefix(".")
