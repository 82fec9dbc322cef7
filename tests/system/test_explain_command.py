"""`argosy explain` beside a running fleet of simulated replicas: what a person reads."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from fleet_process import FleetProcess, run_argosy

from argosy.fleet.messages import Usage
from argosy.gateway.explain import Explanation
from argosy.policies.routing import Route, replay

FLEET = """
fleet: explained
pools: [{name: local, launcher: {kind: local}}]
models: [{name: small}]
deployments:
  - {model: small, pool: local, replicas: 2, engine: {kind: simulated, decode_tokens_per_s: 5000}}
"""


class Explained(msgspec.Struct):
    """What `--json` prints."""

    explanation: Explanation | None
    usage: Usage | None


@pytest.fixture(scope="module")
def small_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetProcess]:
    folder = tmp_path_factory.mktemp("explain")
    (folder / "fleet.yaml").write_text(FLEET)
    running = FleetProcess(folder / "state", folder / "fleet.yaml", "--port", "0")
    try:
        yield running.wait_ready()
    finally:
        running.kill()


@pytest.fixture(scope="module")
def asked(small_fleet: FleetProcess) -> httpx.Response:
    answer = httpx.post(
        f"{small_fleet.url}/v1/chat/completions",
        headers={"authorization": f"Bearer {small_fleet.key}"},
        json={"model": "small", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 5},
        timeout=20.0,
    )
    assert answer.status_code == 200, answer.text
    return answer


def test_a_person_reads_where_it_went_and_why(small_fleet: FleetProcess, asked: httpx.Response):
    id_, replica = asked.headers["x-request-id"], asked.headers["argosy-replica"]
    printed = run_argosy("explain", id_, "--state", small_fleet.state)
    assert (printed.returncode, printed.stderr) == (0, "")
    assert id_ in printed.stdout
    lines = printed.stdout.splitlines()
    chosen = next(line for line in lines if line.startswith("->"))
    assert chosen.split()[1] == replica
    assert f"routed  to {replica}: predicted" in printed.stdout
    assert "2 predictions are equal within 5% and 1 ms" in printed.stdout
    assert "Replayed through predicted: the same answer." in printed.stdout
    assert lines[-1].split()[:3] == ["finished", "200", replica]


def test_a_machine_reads_all_of_it_and_can_decide_again(
    small_fleet: FleetProcess, asked: httpx.Response
):
    id_ = asked.headers["x-request-id"]
    printed = run_argosy("explain", id_, "--json", "--state", small_fleet.state)
    told = msgspec.json.decode(printed.stdout, type=Explained)
    assert told.usage is not None
    assert told.usage.request == id_
    assert told.explanation is not None
    (routing,) = told.explanation.decisions
    again = replay(routing.decision)
    assert isinstance(again, Route)
    assert again.replica == routing.decision.chosen == asked.headers["argosy-replica"]


def test_without_an_id_it_lists_the_latest(small_fleet: FleetProcess, asked: httpx.Response):
    run_argosy("explain", asked.headers["x-request-id"], "--state", small_fleet.state)
    printed = run_argosy("explain", "--state", small_fleet.state)
    assert asked.headers["x-request-id"] in printed.stdout
    assert "argosy explain REQUEST_ID" in printed.stderr


@pytest.mark.parametrize(
    ("id_", "said"),
    [
        ("req_00ff", "no decision for 'req_00ff'"),
        ("chatcmpl-7", "'chatcmpl-7' is not a request id"),
        ("req_../status", "is not a request id"),
    ],
)
def test_an_id_of_no_request_is_refused(small_fleet: FleetProcess, id_: str, said: str):
    printed = run_argosy("explain", id_, "--state", small_fleet.state)
    assert (printed.returncode, printed.stdout) == (1, "")
    assert said in printed.stderr
    assert "x-request-id" in printed.stderr


def test_no_fleet_no_story(tmp_path: Path):
    printed = run_argosy("explain", "req_00ff", "--state", tmp_path)
    assert (printed.returncode, printed.stdout) == (1, "")
    assert "no fleet runs on" in printed.stderr
