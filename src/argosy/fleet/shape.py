"""The values of a fleet file against the types in `config.py`, which know nothing of lines.

Owns how a value that does not fit is told: what was asked, what YAML had to do with it, what
would work. Where the values come from is left to `document.py`, what relates two of them to
`rules.py`, and what a type accepts to msgspec.
"""

import math
import re
from typing import Annotated, Any, Literal, TypeAlias, cast, get_args, get_origin

import msgspec

from argosy.fleet.document import UNREADABLE, Document, Path, Value, did_you_mean, printable

_Type: TypeAlias = Any  # an annotation of config.py

_VARIABLE = re.compile(r"\$\{\w+\}")


def check_type(value: Value, path: Path, type_: _Type, document: Document) -> None:
    """Notes in `document` all that does not fit `type_` in the value at `path`."""
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
            check_type(item, (*path, index), get_args(bare)[0], document)
    elif get_origin(bare) is dict and isinstance(value, dict):
        _check_mapping(cast("dict[str, Value]", value), path, get_args(bare), document)
    elif get_origin(bare) is Literal:
        _check_choice(value, path, get_args(bare), document)
    else:
        _check_leaf(value, path, type_, document)


def _is_struct(type_: _Type) -> bool:
    return isinstance(type_, type) and issubclass(type_, msgspec.Struct)


def _kinds(type_: _Type) -> dict[str, _Type]:
    """The Structs of a tagged union by their tags; empty for any other type."""
    members = get_args(type_)
    return {_kind(member): member for member in members} if all(map(_is_struct, members)) else {}


def _kind(struct: _Type) -> str:
    return str(struct.__struct_config__.tag)


def _check_kinds(value: Value, path: Path, kinds: dict[str, _Type], document: Document) -> None:
    noun = next(part for part in reversed(path) if isinstance(part, str)).removesuffix("s")
    if not isinstance(value, dict) or "kind" not in value:
        asked = "" if isinstance(value, dict) else f"{document.asked(path, value)} "
        told = f"{asked}lacks a kind. Write {{kind: {next(iter(kinds))}}}, for example."
        document.note(path, told + did_you_mean(value, noun, list(kinds)))
        return
    kind = cast("dict[str, Value]", value)["kind"]
    if isinstance(kind, str) and kind in kinds:
        _check_struct(value, path, kinds[kind], document)
    elif kind is not UNREADABLE:
        inner = (*path, "kind")
        told = f"is not {'an' if noun == 'engine' else 'a'} {noun}."
        told += did_you_mean(kind, noun, list(kinds))
        document.note(inner, f"{document.asked(inner, kind)} {told}")


def _check_struct(value: Value, path: Path, struct: _Type, document: Document) -> None:
    fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    tag_field = struct.__struct_config__.tag_field
    names = [*([tag_field] if tag_field else []), *fields]
    if not isinstance(value, dict):
        told = f"{document.asked(path, value)} is not a mapping. Fields: {', '.join(names)}"
        document.note(path, told)
        return
    for key, inner in cast("dict[str, Value]", value).items():
        if key in fields:
            check_type(inner, (*path, key), fields[key].type, document)
        elif key != tag_field:
            told = f"is not a field here.{did_you_mean(key, 'field', names)}"
            document.note((*path, key), told)
    for name, field in fields.items():
        if field.required and name not in value:
            document.note(path, f"lacks the field {name}.{_about(field.type)}")


def _check_mapping(
    value: dict[str, Value], path: Path, types: tuple[_Type, _Type], document: Document
) -> None:
    """Names that the operator chooses, each with one value."""
    for key, inner in value.items():
        _check_leaf(key, (*path, key), types[0], document)
        check_type(inner, (*path, key), types[1], document)


def _about(type_: _Type) -> str:
    """The description of a type, as a sentence to append."""
    return _description(_metas(type_))


def _about_pattern(type_: _Type) -> str:
    """What a type's pattern wants: its own description, or else that of the whole type."""
    own = [meta for meta in _metas(type_) if meta.pattern is not None]
    return _description(own) or _about(type_)


def _metas(type_: _Type) -> list[msgspec.Meta]:
    return [meta for meta in getattr(type_, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]


def _description(metas: list[msgspec.Meta]) -> str:
    told = next((meta.description for meta in reversed(metas) if meta.description), None)
    return f" {told}" if told else ""


def _check_choice(
    value: Value, path: Path, choices: tuple[str | int, ...], document: Document
) -> None:
    if value in choices:
        return
    asked = document.asked(path, value).removeprefix("= ").strip('"')
    told = f"is not a choice here.{did_you_mean(asked, 'choice', [str(one) for one in choices])}"
    document.note(path, f"{document.asked(path, value)} {told}")


def _check_leaf(value: Value, path: Path, type_: _Type, document: Document) -> None:
    asked = document.asked(path, value)
    raw = document.raws.get(path)
    try:
        wanted = msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        said = str(error).replace("`array`", "a list").replace("`object`", "a mapping")
        if " matching regex " in said and (wanted := _about_pattern(type_)):
            document.note(path, f"{asked} does not fit.{wanted}")
        else:
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
        told = f"{asked} is read as {printable(value)} by YAML, not as text."
        return f"{told} Quote it: {printable(raw)}."
    hint = _number(value) if "got `str`" in said else ""
    return f"{asked} does not fit: {said}.{hint}"


def _number(text: str) -> str:
    """How to write a number that YAML took for text, as it does with "4" and 5e3."""
    try:
        number = float(text)
        return f" Write {int(number) if number.is_integer() else number}."
    except (ValueError, OverflowError):  # no number, or an infinite one
        return ""
