"""How long a stream may be silent, by what the control plane says of its replica."""

import pytest

from argosy.fleet.config import EndpointEngine
from argosy.fleet.messages import Replica
from argosy.policies.silence import LOST_S, SUSPECT_S, patience_s


def row(name: str, state: str, pool: str = "p") -> Replica:
    return Replica(
        name=name, deployment="d", model="m", pool=pool, engine=EndpointEngine(),
        state=state, url="http://r",
    )  # fmt: skip


def test_of_a_ready_replica_nothing_is_said():
    assert patience_s([row("a", "ready"), row("b", "starting"), row("c", "stopping")]) == {}


@pytest.mark.parametrize("state", ["unreachable", "dead"])
def test_a_lost_replica_has_little_patience(state):
    assert patience_s([row("a", state), row("b", "ready")]) == {"a": LOST_S}


def test_a_suspect_has_more_unless_its_whole_pool_is_in_doubt():
    alone = [row("a", "suspect")]
    assert patience_s(alone) == {"a": SUSPECT_S}
    assert patience_s([*alone, row("b", "ready")]) == {"a": SUSPECT_S}
    assert patience_s([*alone, row("b", "unreachable")]) == {"a": LOST_S, "b": LOST_S}
    assert patience_s([*alone, row("b", "suspect"), row("c", "starting")])["a"] == LOST_S
    assert patience_s([*alone, row("b", "suspect", "other")])["a"] == SUSPECT_S
