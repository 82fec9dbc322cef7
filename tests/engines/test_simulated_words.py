"""Laws of the simulated engine's words; nothing here takes time or touches a socket."""

import json

from hypothesis import given
from hypothesis import strategies as st

from argosy.engines import simulated_text as text
from argosy.engines.simulated import SimulatedSpec
from argosy.engines.simulated_requests import Plan, read_chat, read_completion
from argosy.engines.simulated_schema import instance
from argosy.fleet.config import SimulatedEngine

SPEC = SimulatedSpec(model="m", engine=SimulatedEngine())
words = st.text(st.sampled_from("ab \n.é"), max_size=60)


def chat(prompt: str, so_far: str = "", **fields: object) -> Plan:
    messages = [{"role": "user", "content": prompt}]
    if so_far:
        messages.append({"role": "assistant", "content": so_far})
    return read_chat(json.dumps({"model": "m", "messages": messages, **fields}).encode(), SPEC)


def completion(prompt: str) -> Plan:
    return read_completion(json.dumps({"model": "m", "prompt": prompt}).encode(), SPEC)


@given(st.text())
def test_tokens_joined_are_the_text(anything: str) -> None:
    assert "".join(text.tokens_of(anything)) == anything


@given(words, st.data())
def test_a_chat_continued_from_any_character_gives_the_rest(
    prompt: str, data: st.DataObject
) -> None:
    whole = chat(prompt).choices[0].text
    at = data.draw(st.integers(0, len(whole)))
    assert chat(prompt, whole[:at]).choices[0].text == whole[at:]


@given(words, st.data())
def test_a_completion_continued_from_any_character_gives_the_rest(
    prompt: str, data: st.DataObject
) -> None:
    whole = completion(prompt).choices[0].text
    at = data.draw(st.integers(0, len(whole)))
    assert completion(prompt + whole[:at]).choices[0].text == whole[at:]


@given(words, st.data())
def test_a_forced_shape_continued_from_any_character_gives_the_rest(
    prompt: str, data: st.DataObject
) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    whole = chat(prompt, response_format=wanted).choices[0].text
    at = data.draw(st.integers(0, len(whole)))
    assert chat(prompt, whole[:at], response_format=wanted).choices[0].text == whole[at:]
    assert json.loads(whole) == {"name": "word"}


@given(words)
def test_an_answer_has_16_to_64_tokens_and_ends_by_itself(prompt: str) -> None:
    answer = chat(prompt).choices[0]
    assert 16 <= len(answer.pieces) <= 64
    assert answer.finish_reason == "stop"


@given(
    words, st.integers(1, 70), st.lists(st.text(st.sampled_from("aeinst "), min_size=1, max_size=3))
)
def test_a_cut_answer_is_the_start_of_the_whole_without_a_stop_sequence(
    prompt: str, tokens_max: int, stop: list[str]
) -> None:
    whole = chat(prompt).choices[0]
    answer = chat(prompt, max_tokens=tokens_max, stop=stop).choices[0]
    assert whole.text.startswith(answer.text)
    assert not any(sequence in answer.text for sequence in stop)
    assert len(answer.pieces) <= tokens_max
    if answer.stop_reason is not None:
        made = "".join(text.tokens_of(whole.text)[: len(answer.pieces)])
        assert made.startswith(answer.text + answer.stop_reason)
    elif answer.finish_reason == "stop":
        assert answer.text == whole.text
    else:
        assert len(answer.pieces) == tokens_max


def test_choices_differ_and_the_first_is_the_only_ones() -> None:
    choices = chat("a", n=3).choices
    assert len({choice.text for choice in choices}) == 3
    assert choices[0] == chat("a").choices[0]


def test_the_seed_changes_nothing() -> None:
    assert chat("a", seed=1) == chat("a", seed=2)


def test_the_context_ends_an_answer() -> None:
    spec = SimulatedSpec(model="m", engine=SimulatedEngine(context_tokens=10))
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "a"}]}).encode()
    plan = read_chat(body, spec)
    assert len(plan.prompts[0]) + len(plan.choices[0].pieces) == 10
    assert plan.choices[0].finish_reason == "length"


@given(st.text(), st.integers(1, 300))
def test_an_embedding_has_length_one(anything: str, dimensions: int) -> None:
    vector = text.unit_vector(anything, dimensions=dimensions)
    assert len(vector) == dimensions
    assert abs(sum(number * number for number in vector) - 1) < 1e-9


def test_an_instance_follows_its_schema() -> None:
    schema = {
        "$defs": {"port": {"enum": ["north", "south"]}},
        "type": "object",
        "properties": {
            "port": {"$ref": "#/$defs/port"},
            "knots": {"type": "integer", "minimum": 3, "multipleOf": 5},
            "depth": {"type": "number", "exclusiveMinimum": 0},
            "crew": {"type": "array", "items": {"type": "string", "minLength": 7}, "minItems": 2},
            "kind": {"anyOf": [{"const": "tug"}, {"type": "null"}]},
            "away": {"type": ["boolean", "null"]},
            "note": {"type": "string"},
        },
        "required": ["port", "knots", "depth", "crew", "kind", "away"],
    }
    assert instance(schema) == {
        "port": "north",
        "knots": 5,
        "depth": 1,
        "crew": ["wordsss", "wordsss"],
        "kind": "tug",
        "away": False,
    }


def test_a_schema_that_refers_to_itself_has_an_end() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
    assert "next" in instance(node)
