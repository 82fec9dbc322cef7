"""A fleet whose pool is an endpoint: here the gateway of another fleet, with its key."""

from pathlib import Path

import anthropic
import openai
import pytest
from fleet_process import MODEL, FleetProcess, wait_until

_FLEET = """
fleet: outer
gateway: {{replica_wait_s: 2}}
pools:
  - {{name: inner, launcher: {{kind: endpoint, url: "{url}", key_env: INNER_KEY}}}}
models:
  - name: outer-model
deployments:
  - model: outer-model
    pool: inner
    engine:
      kind: endpoint
      model: {model}
      forces_tool_choice: false
      reports_stop_sequence: false
"""
_INNER = """
fleet: inner
gateway: {{keys: none}}
pools: [{{name: local, launcher: {{kind: local}}}}]
models: [{{name: {model}}}]
deployments: [{{model: {model}, pool: local, engine: {{kind: simulated}}}}]
"""
_ASK = [{"role": "user", "content": "Name the capital of France."}]
_TOOL = {
    "name": "find_capital",
    "description": "Finds the capital of a country.",
    "input_schema": {
        "type": "object",
        "properties": {"country": {"type": "string"}},
        "required": ["country"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def outer(fleet: FleetProcess, tmp_path: Path, start_fleet) -> FleetProcess:
    file = tmp_path / "outer.yaml"
    file.write_text(_FLEET.format(url=fleet.url, model=MODEL))
    return start_fleet(file, env={"INNER_KEY": fleet.key}).wait_ready()


def test_both_apis_answer_through_an_endpoint(outer: FleetProcess):
    with openai.OpenAI(base_url=f"{outer.url}/v1", api_key=outer.key, max_retries=0) as client:
        stream = client.chat.completions.create(model="outer-model", messages=_ASK, stream=True)
        assert "Paris" in "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    with anthropic.Anthropic(base_url=outer.url, api_key=outer.key, max_retries=0) as client:
        cut = client.messages.create(
            model="outer-model", max_tokens=40, messages=_ASK, stop_sequences=["Paris"]
        )
        assert (cut.stop_reason, cut.stop_sequence) == ("stop_sequence", "Paris")
        forced = client.messages.create(
            model="outer-model", max_tokens=60, messages=_ASK, tools=[_TOOL],
            tool_choice={"type": "any"},
        )  # fmt: skip
        assert forced.stop_reason == "tool_use"
        assert forced.content[0].name == "find_capital"
        assert "country" in forced.content[0].input
        count = client.messages.count_tokens(model="outer-model", messages=_ASK)
        assert count.input_tokens > 5


def test_an_endpoint_that_wants_a_key_without_one_is_refused_before_anything_starts(
    fleet: FleetProcess, tmp_path: Path, start_fleet
):
    file = tmp_path / "outer.yaml"
    file.write_text(_FLEET.format(url=fleet.url, model=MODEL))
    refused = start_fleet(file)
    assert refused.wait_exit() == 1
    assert "INNER_KEY" in refused.err


def test_an_endpoint_that_goes_away_is_refused_in_words_and_served_again_when_it_is_back(
    tmp_path: Path, start_fleet
):
    inner_file = tmp_path / "inner.yaml"
    inner_file.write_text(_INNER.format(model=MODEL))
    inner = start_fleet(inner_file, state=tmp_path / "inner").wait_ready()
    port = inner.url.rpartition(":")[2]
    outer_file = tmp_path / "outer.yaml"
    outer_file.write_text(_FLEET.format(url=inner.url, model=MODEL))
    outer = start_fleet(outer_file, env={"INNER_KEY": "any"}).wait_ready()
    asked = {"model": "outer-model", "messages": _ASK, "max_tokens": 4}
    with openai.OpenAI(base_url=f"{outer.url}/v1", api_key=outer.key, max_retries=0) as client:
        client.chat.completions.create(**asked)
        assert inner.stop() == 0
        with pytest.raises(openai.InternalServerError) as refused:
            client.chat.completions.create(**asked)
        assert refused.value.status_code in (502, 503)
        assert "outer-model" in refused.value.message

        again = start_fleet(inner_file, state=tmp_path / "inner", port=int(port)).wait_ready()
        assert again.url == inner.url

        def answers() -> bool:
            try:
                client.chat.completions.create(**asked)
            except openai.InternalServerError:
                return False
            return True

        wait_until(answers, 20)
