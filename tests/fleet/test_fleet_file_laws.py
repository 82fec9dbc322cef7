"""Whatever text comes in, a fleet or a `FleetFileError` with its lines comes out."""

import contextlib
import re
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from argosy.fleet import load

EXAMPLES = Path(__file__).parents[2] / "examples"
VALID = [path.read_text("utf-8") for path in sorted(EXAMPLES.glob("*.yaml"))]

TRAPS = [
    "no",
    "on",
    "~",
    "1_000",
    "12:30",
    "1:1.5",
    "0100",
    "0x1F",
    "2026-01-01",
    "2026-99-99",
    ".inf",
    ".nan",
    "-0",
    "1e400",
    "1.0e+400",
    "=",
    "<<",
    "[]",
    "{}",
    "[a]",
    "!",
    "!!int",
    "!!str",
    "*a",
    "&a",
    "*b",
    '"\\ud800"',
    '"\\U00110000"',
    "''",
    "|",
    ">",
    "-",
    "?",
    ":",
    "#",
    "@",
    "`",
    "%",
    "---",
    "...",
    "-1",
    "0",
    "4.5",
    '"4"',
    "99999999999999999999999999999999",
    "llama.cpp",
    "endpoint",
    "local",
    "${HOME}",
    "kind",
    "name",
]
SCALARS = st.sampled_from([*TRAPS, "{a: 1}", "!!bool x", "!!set {a}", "!!map x", "[{name: a}]", ""])
YAML_LIKE = st.text(
    alphabet=st.sampled_from("ab1:- \n\t,[]{}#&*!|>'\"%@`?~<=.\\ux\u2028\ufeff\x85\r")
)


@st.composite
def mutated(draw) -> str:
    text = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        cut = draw(st.integers(0, 12))
        text = text[:at] + draw(SCALARS | YAML_LIKE) + text[at + cut :]
    return text


@st.composite
def with_other_values(draw) -> str:
    """A valid file with the value of some fields replaced: reaches past the YAML."""
    rows = draw(st.sampled_from(VALID)).splitlines()
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(rows) - 1))
        key, colon, _ = rows[at].partition(": ")
        rows[at] = key + colon + draw(SCALARS)
    return "\n".join(rows)


def check(text: str) -> None:
    try:
        load.parse(text, source="fleet.yaml")
    except load.FleetFileError as error:
        refusal = error
    else:
        return
    assert refusal.problems
    assert len(str(refusal).splitlines()) == len(refusal.problems)
    lines = len(re.findall(r"[\n\r\x85\u2028\u2029]", text)) + 2
    for problem in refusal.problems:
        assert problem.message.isprintable()
        assert problem.path == "" or problem.line is not None
        assert problem.line is None or 1 <= problem.line <= lines


@settings(deadline=None)
@given(st.text() | YAML_LIKE)
@example("%YAML " + "9" * 5000 + ".1\n---\na: 1")
@example("a: !!float " + ":".join(["1"] * 40))
@example("? {a: [b]}\n: 1")
@example("!!set {a, b}")
def test_no_text_makes_the_parser_stumble(text):
    check(text)


@settings(max_examples=300, deadline=None)
@given(mutated())
def test_no_mutation_of_a_valid_file_makes_the_parser_stumble(text):
    check(text)


@settings(max_examples=300, deadline=None)
@given(with_other_values())
def test_no_other_value_of_a_field_makes_the_parser_stumble(text):
    check(text)


@settings(deadline=None)
@given(st.sampled_from(VALID), st.data())
def test_a_removed_line_leaves_a_fleet_or_a_clear_refusal(text, data):
    rows = text.splitlines(keepends=True)
    del rows[data.draw(st.integers(0, len(rows) - 1))]
    with contextlib.suppress(load.FleetFileError):
        assert load.parse("".join(rows), source="fleet.yaml").deployments
