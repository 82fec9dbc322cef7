"""The published schema says what the Structs say."""

from pathlib import Path

import msgspec
import pytest
import yaml

from argosy.fleet import load
from argosy.fleet.config import Gateway
from argosy.fleet.load_runs import first_key

EXAMPLES = [
    path
    for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    if first_key(path.read_text("utf-8")) == "fleet"  # not of runs, not recipes of data
]


def resolve(node: dict, schema: dict) -> dict:
    return schema["$defs"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node


def follow(value: object, node: dict, schema: dict) -> None:
    """Asserts that the schema knows each key of the value and lacks none that it requires."""
    node = resolve(node, schema)
    if "discriminator" in node:
        node = resolve({"$ref": node["discriminator"]["mapping"][value["kind"]]}, schema)
    if isinstance(value, dict) and isinstance(node.get("additionalProperties"), dict):
        for inner in value.values():  # names that the operator chooses
            follow(inner, node["additionalProperties"], schema)
    elif isinstance(value, dict):
        assert set(node["required"]) <= set(value) <= set(node["properties"])
        for key, inner in value.items():
            follow(inner, node["properties"][key], schema)
    if isinstance(value, list):
        for item in value:
            follow(item, node["items"], schema)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_follows_the_schema(path):
    schema = load.schema()
    follow(yaml.safe_load(path.read_text("utf-8")), schema, schema)


def test_the_schema_is_named_and_refuses_unknown_fields():
    schema = load.schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"]
    assert all(one["additionalProperties"] is False for one in schema["$defs"].values())


def test_every_field_has_a_description_except_the_kind_that_names_itself():
    for struct, definition in load.schema()["$defs"].items():
        for field, node in definition["properties"].items():
            assert field == "kind" or node.get("description"), f"{struct}.{field}"


def test_the_schemas_defaults_are_the_structs_defaults():
    fields = load.schema()["$defs"]["Gateway"]["properties"]
    defaults = {name: node["default"] for name, node in fields.items()}
    assert defaults == msgspec.to_builtins(Gateway())
