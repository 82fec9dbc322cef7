"""Training runs in virtual time: against the published formula and figures, and by their laws."""

from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from argosy.policies.elasticity import ElasticitySettings
from argosy.simulator.training import (
    Course,
    Outages,
    Part,
    Training,
    ettr,
    run_as_a_whole,
    run_of_islands,
)

DAY_S = 86_400.0
RSC_1 = 6.5e-3  # faults per node-day: arXiv 2410.21680
LLAMA_3 = 419 / (2048 * 54)  # the same, of arXiv 2407.21783, table 5


def training(nodes: int, islands: int = 1, *, faults: float = RSC_1, days: float = 30) -> Training:
    believed_s = DAY_S / (nodes * faults) if faults else 1e9
    return Training(
        parts=tuple(
            Part(
                name=f"i{k}",
                nodes=nodes // islands,
                tokens_per_s=1e6,
                faults_per_node_day=faults,
            )
            for k in range(islands)
        ),
        until_s=days * DAY_S,
        restart_s=300.0,
        checkpoint_cost_s=10.0,
        mttf_s_believed=believed_s,
    )


def shares(course: Course) -> float:
    return course.goodput + course.lost_share + course.down_share + course.stall_share


@pytest.mark.parametrize("nodes", [256, 1024, 2048])
def test_a_run_as_a_whole_is_as_good_as_the_formula_says(nodes: int) -> None:
    one = training(nodes)
    found = fmean(run_as_a_whole(replace(one, seed=seed)).goodput for seed in range(20))
    said = ettr(nodes=nodes, faults_per_node_day=RSC_1, restart_s=300, checkpoint_cost_s=10)
    assert found == pytest.approx(said, abs=0.01)


def test_faults_come_as_often_as_llama_3_had_them() -> None:
    one = replace(training(2048, faults=LLAMA_3, days=54), restart_s=600.0)
    found = [run_as_a_whole(replace(one, seed=seed)) for seed in range(20)]
    assert fmean(course.faults for course in found) == pytest.approx(419, rel=0.05)
    assert fmean(course.goodput for course in found) > 0.90  # what the paper reports


def test_islands_lose_their_own_lease_at_most_and_their_own_restart() -> None:
    nodes, islands = 2048, 16
    one = training(nodes, islands, days=8)
    found = fmean(run_of_islands(replace(one, seed=seed)).goodput for seed in range(2))
    lease_s = one.elasticity.inner_steps * one.step_s
    per_s = nodes / islands * RSC_1 / DAY_S
    stall = (one.checkpoint_cost_s * per_s / 2) ** 0.5  # of an interval by Young
    mean = 1 - per_s * (one.restart_s + lease_s / 2) - stall
    assert found == pytest.approx(mean, abs=0.002)


def test_islands_keep_what_a_whole_run_of_100_000_chips_loses() -> None:
    one = training(12_500, 50, days=1)
    assert run_of_islands(one).goodput > 0.95 > 0.75 > run_as_a_whole(one).goodput


def test_a_lost_region_takes_its_island_and_no_other() -> None:
    one = replace(
        training(200, 2, faults=0.0, days=10),
        outages=(Outages(name="east", parts=("i0",), every_s=DAY_S, for_s=0.25 * DAY_S),),
    )
    course = run_of_islands(one)
    assert course.faults == 0
    assert 0.05 < course.down_share < 0.2
    assert course.goodput > 2 * run_as_a_whole(one).goodput - 1


def test_a_syncer_that_dies_and_returns_costs_nobody_a_token() -> None:
    one = training(200, 4, faults=0.0, days=3)
    calm, shaken = run_of_islands(one), run_of_islands(replace(one, syncer_faults_per_day=48.0))
    assert shaken.goodput == pytest.approx(calm.goodput, abs=1e-6)
    assert shaken.lost_share == 0.0


def test_islands_wait_only_for_a_syncer_that_is_away_for_longer_than_their_leases() -> None:
    one = replace(training(200, 4, faults=0.0, days=3), syncer_faults_per_day=2.0)
    assert run_of_islands(replace(one, syncer_restart_s=3600.0)).stall_share > 0.02


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    islands=st.integers(1, 5),
    faults=st.sampled_from([0.0, 1e-3, 0.05]),
    repair_s=st.sampled_from([0.0, 3600.0]),
    quorum=st.integers(1, 3),
    syncer=st.sampled_from([0.0, 24.0]),
    slow=st.sampled_from([1.0, 3.7]),
)
def test_every_second_is_told_once(seed, islands, faults, repair_s, quorum, syncer, slow) -> None:
    one = training(60 * islands, islands, faults=faults, days=0.4)
    parts = [replace(part, repair_s=repair_s, spares=1) for part in one.parts]
    parts[0] = replace(parts[0], tokens_per_s=parts[0].tokens_per_s / slow)
    one = replace(
        one,
        parts=tuple(parts),
        seed=seed,
        syncer_faults_per_day=syncer,
        send_s=20.0,
        elasticity=ElasticitySettings(quorum=min(quorum, islands)),
        outages=(Outages(name="o", parts=("i0",), every_s=20_000.0, for_s=2_000.0),),
    )
    lease_s = 4.0 * one.elasticity.inner_steps * one.step_s  # whose stall is told at its end
    for course in (run_as_a_whole(one), run_of_islands(one)):
        assert shares(course) == pytest.approx(1.0, abs=0.1 * lease_s / one.until_s)
        assert min(course.goodput, course.lost_share, course.down_share, course.stall_share) >= 0
    assert run_of_islands(one) == run_of_islands(one)
