"""What a placed island's end says, in the words of its actor."""

import pytest

from argosy.launchers.local import how_it_ended
from argosy.training.placing import fleet_of, how_and_tail


@pytest.mark.parametrize(
    ("detail", "how", "tail"),
    [
        ("exited with status 0", how_it_ended(0), ""),
        (
            "exited with status 3 before it listened, saying:\na\nb",
            how_it_ended(3),
            "saying:\na\nb",
        ),
        ("exited with status 30, saying nothing", how_it_ended(30), "saying nothing"),
        ("killed by SIGKILL, saying:\nx", how_it_ended(-9), "saying:\nx"),
        ("killed by signal 40, saying nothing", "killed by signal 40", "saying nothing"),
        ("node n1: its node has died", "node n1: its node has died", ""),
    ],
)
def test_an_end_is_told_as_that_of_a_process_of_this_host(detail, how, tail):
    assert how_and_tail(detail) == (how, tail)


def test_two_runs_of_one_name_are_two_to_their_cluster():
    assert fleet_of("tried", b"one authority") != fleet_of("tried", b"another")
