"""The parts of limits that hold for several gateway processes together."""

from hypothesis import given
from hypothesis import strategies as st

from argosy.fleet import load
from argosy.fleet.share import share_of, slots_of

FLEET = """\
fleet: x
gateway: {processes: %d, connections_max: 100, waiting_max: 10, body_bytes_max: 500,
  body_bytes_pending_max: 1200}
pools: [{name: local, launcher: {kind: local}}]
models: [{name: m}]
deployments: [{model: m, pool: local, engine: {kind: simulated}}]
tenants: [{name: acme, tier: enterprise, reserved_tokens_per_s: 90}]
"""


@given(slots=st.integers(1, 10_000), processes=st.integers(1, 15))
def test_the_slots_of_all_processes_are_the_models_slots(slots: int, processes: int):
    parts = [slots_of(slots, process=number, processes=processes) for number in range(processes)]
    assert sum(parts) == max(slots, processes)  # each has one, or its clients wait for ever
    assert max(parts) - min(parts) <= 1


@given(processes=st.integers(1, 15), number=st.integers(0, 14))
def test_no_slots_and_unknown_slots_stay_what_they_are(processes: int, number: int):
    assert slots_of(0, process=number, processes=processes) == 0
    assert slots_of(None, process=number, processes=processes) is None


def test_limits_of_the_whole_are_divided_and_those_of_one_request_are_not():
    share = share_of(load.parse(FLEET % 3, source="x"))
    gateway = share.gateway
    assert (gateway.connections_max, gateway.waiting_max) == (34, 4)
    assert (gateway.body_bytes_max, gateway.body_bytes_pending_max) == (500, 500)
    assert share.tenants[0].reserved_tokens_per_s == 30
    assert gateway.processes == 3


def test_one_process_has_all():
    fleet = load.parse(FLEET % 1, source="x")
    assert share_of(fleet) is fleet
