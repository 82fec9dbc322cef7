"""`argosy explain --decision`: a logged decision to scale, told in words and decided again."""

import itertools
import json

import msgspec
import pytest
import typer
from msgspec.structs import replace
from typer.testing import CliRunner

from argosy.cli.events import events
from argosy.cli.explain import explain
from argosy.cli.state import STORE_FILE, now_s
from argosy.control.autoscaling import inputs_of
from argosy.control.scaling import LiveScaler, ModelDecision, Signals
from argosy.fleet import load
from argosy.fleet.config import SimulatedEngine
from argosy.fleet.messages import Replica, ReplicaTable
from argosy.observability.counts import Asked
from argosy.policies.autoscaling import Decision as Scaling
from argosy.policies.autoscaling import Target
from argosy.policies.capacity import Closed, Logged
from argosy.store.control import Fenced
from argosy.store.decisions import Decision, DecisionLog
from argosy.store.leases import acquire
from argosy.store.schema import open_store

app = typer.Typer()
app.command()(explain)
app.command()(events)
FLEET = """
fleet: live
pools: [{name: here, launcher: {kind: local}, start_s: 5}]
models: [{name: chat}]
deployments:
  - {model: chat, pool: here, replicas: 1, autoscale: {min: 1, max: 9},
     engine: {kind: simulated, slots: 4, decode_tokens_per_s: 20}}
"""
BEGAN_S = 1_000_000.0 // 60 * 60


TWO = FLEET.replace(
    "start_s: 5}", "start_s: 5}, {name: there, launcher: {kind: local}, start_s: 5}"
)
TWO += """
  - {model: chat, pool: there, replicas: 1, autoscale: {min: 0, max: 9},
     engine: {kind: simulated, slots: 4, decode_tokens_per_s: 20}}
"""


def decided(
    minutes: int = 20, fleet: str = FLEET, closed: tuple[Closed, ...] = ()
) -> list[ModelDecision]:
    """A rising demand, from tick to tick, with one replica that is ready."""
    scaler, count, found = LiveScaler(load.parse(fleet, source="live.yaml")), 0, []
    scaler.constrain(closed=closed)
    row = Replica(name="chat-1", deployment="chat@here", model="chat", pool="here",
                  engine=SimulatedEngine(), state="ready")  # fmt: skip
    for step in range(6 * minutes):
        at_s, count = BEGAN_S + 10.0 * step, count + step // 3
        told = Asked(requests=count, prompt_bytes=400 * count, answered=count,
                     output_tokens=40 * count)  # fmt: skip
        said = Signals(at_s=at_s, asked={"chat": told}, queued={"chat": step // 9})
        found += scaler.decide(at_s + 1.0, ReplicaTable(version=1, replicas=(row,)), said)
    return found


@pytest.fixture
def argosy(tmp_path):
    def run(*words):
        return CliRunner().invoke(app, [*words, "--state", str(tmp_path / "state")])

    return run


@pytest.fixture
def log(tmp_path):
    store = open_store(tmp_path / "state" / STORE_FILE)

    def write(*taken: tuple[str, bytes | None]) -> None:
        token = acquire(store, "live", "up", ttl_s=60.0, now_s=now_s()).token
        with DecisionLog(Fenced(store, "live", token)) as pen:
            pen.append(
                Decision(at_s=now_s(), kind=kind, subject="chat@here", reason="1 -> 4: so it is",
                         inputs=inputs)
                for kind, inputs in taken
            )  # fmt: skip

    yield write
    store.dispose()


def test_only_what_is_new_is_given_to_be_logged():
    every = decided()
    new = [one for one in every if one.given is not None]
    targets = [one.decision.targets[0].replicas for one in every]
    assert len(every) > 100
    assert len(set(targets)) > 2
    asked = [one for one in every if one.decision.horizon_s > 0]  # of the rule
    told = [one.decision.targets[0].replicas for one in asked]
    changes = sum(old != now for old, now in itertools.pairwise(told))
    assert len(new) == changes + 1


def test_each_that_was_logged_is_decided_the_same_again_and_told_in_words(argosy, log):
    new = [one for one in decided() if one.given is not None]
    log(*(("scale", inputs_of(one)) for one in new))
    for seq, one in enumerate(new, 1):
        said = argosy("explain", "--decision", str(seq))
        assert said.exit_code == 0, said.output
        assert "the same decision" in said.output
        assert f"{one.decision.load_now:.3f}".rstrip("0") in said.output
        assert f"within {one.decision.horizon_s:.0f} s" in said.output
    assert "Panic: more is asked for" in said.output
    assert "chat@here" in said.output
    listed = argosy("events", "--kind", "scale").output.splitlines()
    assert [int(line.split()[0]) for line in listed] == list(range(1, len(new) + 1))


def test_where_replicas_were_placed_is_told_and_decided_again_too(argosy, log):
    full = Closed(pool="here", why="has no room")
    new = [one for one in decided(12, TWO, (full,)) if one.given is not None]
    log(("scale", inputs_of(next(one for one in new if one.decision.targets[1].replicas))))
    said = argosy("explain", "--decision", "1").output
    assert "Where, and why:" in said
    assert "chat@here (here has no room): stay" in said
    assert "(cheapest, after chat@here (has no room))" in said
    assert "Replayed through autoscaling and placement: the same decision" in said


def test_one_that_the_policy_would_decide_otherwise_is_told_to_be_so(argosy, log):
    one = next(one for one in decided() if one.given is not None)
    target = replace(one.decision.targets[0], replicas=9)
    forged = replace(one, decision=replace(one.decision, targets=(target,)))
    log(("scale", inputs_of(forged)))
    said = argosy("explain", "--decision", "1").output
    assert "ANOTHER DECISION" in said
    assert "It now says chat@here" in said
    told = json.loads(argosy("explain", "--decision", "1", "--json").output)
    assert told["replay"]["same"] is False
    assert told["decision"]["inputs"]["given"]["view"]["model"] == "chat"


def test_what_cannot_be_decided_again_says_why(argosy, log):
    target = Target(deployment="chat@here", replicas=1, reason="stay: nothing was heard")
    held = msgspec.json.encode(Logged(decision=Scaling(targets=(target,))))
    log(("scale", held), ("scale", None), ("scale", b'{"left_out_bytes": 9}'), ("create", None))
    said = [argosy("explain", "--decision", str(seq)).output for seq in range(1, 5)]
    assert "the rule was not asked" in said[0].lower()
    assert "nothing to replay" in said[1]
    assert "nothing to replay" in said[2]
    assert "kind create is not replayed" in said[3]


def test_a_decision_that_is_not_there_is_refused_with_what_is(argosy, log):
    refused = argosy("explain", "--decision", "7")
    assert refused.exit_code == 1
    assert "nothing was decided yet" in refused.output
    log(("create", None))
    refused = argosy("explain", "--decision", "7")
    assert refused.exit_code == 1
    assert "no decision 7 in the log; the newest is 1" in refused.output
    assert argosy("explain", "req_12", "--decision", "1").exit_code == 1


def test_what_is_too_large_for_the_log_leaves_the_decision():
    one = next(one for one in decided() if one.given is not None)
    many = replace(one.given.view.history, requests=(10**9,) * 200_000)
    large = replace(one, given=replace(one.given, view=replace(one.given.view, history=many)))
    told = msgspec.json.decode(inputs_of(large), type=Logged)
    assert told == Logged(decision=one.decision)
