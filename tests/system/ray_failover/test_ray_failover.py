"""The quick ones of the faults on a real Ray cluster; `make ray-failover` runs them all."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.running_postgresql import bin_folder
from tests.system.ray_failover.fleet import RayFleet
from tests.system.ray_failover.load import Load
from tests.system.ray_failover.run import break_all, rows

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
    pytest.mark.skipif(
        bin_folder() is None or importlib.util.find_spec("psycopg") is None,
        reason="PostgreSQL is not installed",
    ),
    pytest.mark.timeout(400),  # of a machine whose cores others keep busy
]


@pytest.fixture
def fleet(weights: Path) -> Iterator[RayFleet]:
    fleet = RayFleet()
    yield fleet
    fleet.close()


def test_no_stream_fails_when_a_replica_a_node_or_the_leader_is_killed(fleet: RayFleet):
    load = Load(fleet, clients=2)
    windows = break_all(fleet, load, ["replica", "raylet", "leader"])
    table = rows(fleet, load, windows)
    assert [row.failed for row in table] == [(), (), ()]
    assert all(window.broken.whole_s < float("inf") for window in windows)
    assert table[0].continued >= 1  # the fault has met somebody
    assert all(row.same_texts == row.streams for row in table)
