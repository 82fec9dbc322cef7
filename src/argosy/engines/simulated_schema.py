"""A small value for a JSON Schema: what the simulated engine answers when a shape is asked for."""

from typing import Any

Json = Any

_DEPTH_MAX = 16  # of a schema that refers to itself


def instance(schema: Json) -> Json:
    """A small value that a JSON Schema accepts. `pattern`, `not` and `if` are not looked at."""
    return _instance(schema, schema, depth=0)


def _instance(schema: Json, root: Json, *, depth: int) -> Json:
    if not isinstance(schema, dict) or depth > _DEPTH_MAX:
        return None
    for key, choose in _BY_KEYWORD.items():
        if key in schema:
            return choose(schema, root, depth + 1)
    return _BY_TYPE.get(_type_of(schema), _null)(schema, root, depth + 1)


def _type_of(schema: dict[str, Json]) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind is None:
        kind = "object" if "properties" in schema else "array" if "items" in schema else "string"
    return str(kind)


def _referred(schema: Json, root: Json, depth: int) -> Json:
    target = root
    for key in str(schema["$ref"]).removeprefix("#").strip("/").split("/"):
        name = key.replace("~1", "/").replace("~0", "~")
        if key:
            target = target.get(name) if isinstance(target, dict) else None
    return _instance(target, root, depth=depth)


def _all_of(schema: Json, root: Json, depth: int) -> Json:
    merged: dict[str, Json] = {key: schema[key] for key in schema if key != "allOf"}
    for part in schema["allOf"]:
        merged["properties"] = {**merged.get("properties", {}), **part.get("properties", {})}
        merged["required"] = [*merged.get("required", []), *part.get("required", [])]
        merged = {**part, **merged}
    return _instance(merged, root, depth=depth)


def _object(schema: Json, root: Json, depth: int) -> Json:
    properties = schema.get("properties", {})
    required = schema.get("required", ())
    return {name: _instance(properties.get(name, {}), root, depth=depth) for name in required}


def _array(schema: Json, root: Json, depth: int) -> Json:
    item = _instance(schema.get("items", {}), root, depth=depth)
    return [item] * schema.get("minItems", 0)


def _number(schema: Json, root: Json, depth: int) -> Json:
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    start = low if high is None or low <= high else high
    number = -(-start // step) * step
    if number == schema.get("exclusiveMinimum"):
        number += step
    return number


def _string(schema: Json, root: Json, depth: int) -> Json:
    known = {
        "date": "2000-01-01",
        "date-time": "2000-01-01T00:00:00Z",
        "time": "00:00:00Z",
        "email": "a@example.org",
        "uri": "https://example.org",
        "uuid": "00000000-0000-0000-0000-000000000000",
    }
    text = known.get(schema.get("format", ""), "word")
    return text.ljust(schema.get("minLength", 0), "s")[: schema.get("maxLength")]


def _null(schema: Json, root: Json, depth: int) -> Json:
    return None


_BY_KEYWORD = {
    "const": lambda schema, root, depth: schema["const"],
    "enum": lambda schema, root, depth: schema["enum"][0],
    "$ref": _referred,
    "anyOf": lambda schema, root, depth: _instance(schema["anyOf"][0], root, depth=depth),
    "oneOf": lambda schema, root, depth: _instance(schema["oneOf"][0], root, depth=depth),
    "allOf": _all_of,
}
_BY_TYPE = {
    "object": _object,
    "array": _array,
    "integer": _number,
    "number": _number,
    "string": _string,
    "boolean": lambda schema, root, depth: False,
    "null": _null,
}
