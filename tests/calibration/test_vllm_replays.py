"""Recorded runs of real vLLM, request by request, against the simulator: docs/REPLAYS.md.

The tolerances of the calibrated runs are the project's goal for recorded runs (TPOT 3 %, TTFT 10 %
off in the mean), held on requests that the fit did not see; those of the shipped calibration are
what it reaches on chips that it has never seen, with a little room.
"""

from functools import cache

import numpy as np
import pytest

from argosy.perf.roofline import IDEAL
from bench.replays.figures import Stage, after_first, as_shipped, is_inside
from bench.replays.fitted import Fit, physics_of, step_time
from bench.replays.recorded import FIRST, Recorded, Times, read, runs
from bench.replays.replayed import Replica, replayed

TPOT_MEAN_MAX, TTFT_MEAN_MAX = 0.03, 0.10
SHIPPED_TPOT_MAX, SHIPPED_TTFT_MAX = 0.15, 0.25  # 0.13 and 0.22 on 2026-11-21

RUNS = {run.name: run for run in runs()}
every_run = pytest.mark.parametrize("name", RUNS)


@cache
def calibrated(name: str) -> tuple[Fit, Stage]:
    return after_first(read(RUNS[name]), FIRST)


@every_run
def test_a_run_calibrated_on_its_first_requests_foretells_the_others(name: str) -> None:
    _, judged = calibrated(name)
    assert abs(judged.tpot.error) <= TPOT_MEAN_MAX
    assert abs(judged.ttft.error) <= TTFT_MEAN_MAX


@every_run
def test_the_shipped_interval_holds_a_run_that_was_never_seen(name: str) -> None:
    model, judged = as_shipped(read(RUNS[name]))
    assert is_inside(model, judged) == (True, True)
    assert abs(judged.tpot.error) <= SHIPPED_TPOT_MAX
    assert abs(judged.ttft.error) <= SHIPPED_TTFT_MAX


def test_the_fit_does_not_look_at_the_requests_that_judge_it() -> None:
    recorded = read(RUNS["RTXPRO6000_Qwen3-32B"])
    forged = recorded._replace(measured=_doubled_after(recorded, FIRST))
    assert after_first(forged, FIRST)[0] == calibrated("RTXPRO6000_Qwen3-32B")[0]


@every_run
def test_no_factor_makes_a_step_faster_than_the_datasheet(name: str) -> None:
    physics = physics_of(read(RUNS[name]))
    bold = step_time(physics, Fit(1e-3, 1e-3, 1e-3, 0.0))
    ideal = step_time(physics._replace(reached=IDEAL), Fit(1.0, 1.0, 1.0, 0.0))
    assert np.all(np.array(bold.knots_s) >= np.array(ideal.knots_s))
    assert bold.context_s_per_token >= ideal.context_s_per_token
    assert bold.pair_s >= ideal.pair_s


def test_prompts_preempted_in_the_recorded_run_find_a_part_of_their_blocks_again() -> None:
    recorded = read(RUNS["RTX4090_Llama-3.1-8B"])
    assert recorded.kv_tokens is not None
    step = step_time(physics_of(recorded), Fit(1.0, 1.0, 1.0, 0.0))
    told = replayed(recorded, Replica(step, recorded.kv_tokens))
    assert told.preemptions > 0
    assert 0 < told.tokens_spared < recorded.prompt_tokens.sum()


def _doubled_after(recorded: Recorded, first: int) -> Times:
    measured = recorded.measured
    later = np.where(np.arange(recorded.at_s.size) < first, 1.0, 2.0)
    return measured._replace(ttft_s=measured.ttft_s * later, tpot_s=measured.tpot_s * later)
