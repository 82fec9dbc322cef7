"""What the launcher says beside the probes: who is unreachable, who is at fault, who is gone."""

import pytest

from argosy.fleet.messages import Observation, ObservedNode, ObservedReplica
from argosy.policies.health import (
    HealthSettings,
    Healthy,
    Probe,
    SeenState,
    Suspect,
    Unreachable,
    Unresponsive,
    judge_seen,
    sights,
)

SETTINGS = HealthSettings()
GOOD = Probe(ok=True, seconds=0.01, detail="HTTP 200")
BAD = Probe(ok=False, seconds=1.0, detail="no answer within 1.0 s")


def looks(*rows, every_s=1.5):
    """The verdicts on (sight, probe) pairs, one after the other."""
    state, now_s, verdicts = SeenState(), 100.0, []
    for sight, probe in rows:
        now_s += every_s
        state, verdict = judge_seen(state, probe, sight, now_s=now_s, settings=SETTINGS)
        verdicts.append(verdict)
    return verdicts


def test_a_launcher_s_words_become_sights_and_what_ended_is_gone():
    observation = Observation(
        replicas=(
            ObservedReplica(name="up", generation="g", state="listening", node="n-1"),
            ObservedReplica(name="over", generation="g", state="ended", node="n-1"),
            ObservedReplica(name="cut", generation="g", state="unreachable", node="n-1"),
            ObservedReplica(name="dark", generation="g", state="listening", node="n-2"),
        ),
        nodes=(ObservedNode(name="n-1", state="up"), ObservedNode(name="n-2", state="lost")),
    )
    seen = sights(observation, ["up", "over", "cut", "dark", "never"])
    assert seen == {"up": "seen", "cut": "node_unseen", "dark": "node_unseen"}


def test_of_a_pool_that_is_not_seen_no_replica_is_gone():
    assert sights(None, ["a", "b"]) == {"a": "pool_unseen", "b": "pool_unseen"}


def test_a_replica_of_an_unseen_pool_that_answers_serves_on():
    (verdict,) = looks(("pool_unseen", GOOD))
    assert verdict == Healthy(reason="answers its probes, though its pool is not seen")


def test_a_replica_of_a_lost_node_that_answers_is_used_when_nothing_better_is_left():
    (verdict,) = looks(("node_unseen", GOOD))
    assert isinstance(verdict, Suspect)


@pytest.mark.parametrize("sight", ["node_unseen", "pool_unseen"])
@pytest.mark.parametrize("probe", [BAD, None])
def test_what_is_neither_seen_nor_answers_is_unreachable_and_never_unresponsive(sight, probe):
    verdicts = looks(*[(sight, probe)] * 200)
    assert all(isinstance(verdict, Unreachable) for verdict in verdicts)


def test_it_is_given_up_for_a_substitute_after_unreachable_s_and_not_before():
    verdicts = looks(*[("pool_unseen", BAD)] * 60)
    for n, verdict in enumerate(verdicts):
        unseen_s = 1.5 * n + BAD.seconds
        assert verdict.is_given_up == (unseen_s >= SETTINGS.unreachable_s)
    assert "it gets a substitute elsewhere and is kept" in verdicts[-1].reason


def test_the_time_of_being_unreachable_runs_on_while_node_and_pool_take_turns():
    *_, verdict = looks(*[("pool_unseen", BAD), ("node_unseen", BAD)] * 30)
    assert verdict.is_given_up


def test_a_replica_that_is_seen_again_has_all_of_the_patience_before_it():
    verdicts = looks(*[("pool_unseen", BAD)] * 50, *[("seen", BAD)] * 6)[50:]
    kinds = [type(verdict) for verdict in verdicts]
    assert kinds == [Suspect] * 4 + [Unresponsive] * 2  # 6 s after it is seen again


def test_a_replica_that_fails_while_it_is_seen_is_at_fault():
    *_, verdict = looks(*[("seen", BAD)] * 6)
    assert isinstance(verdict, Unresponsive)


def test_one_that_is_seen_and_not_asked_is_what_it_was():
    assert isinstance(looks(("seen", None))[-1], Healthy)
    assert isinstance(looks(("seen", BAD), ("seen", None))[-1], Suspect)
    assert isinstance(looks(("node_unseen", BAD), ("seen", None))[-1], Suspect)
