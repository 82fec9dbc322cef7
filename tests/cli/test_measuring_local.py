"""What timing a replica on this machine rests on: its CPU time, and the share of a core it had."""

import os
import sys
from pathlib import Path

import pytest

from argosy.cli.asking_local import MeasuringError, Timed, cpu_s_of
from argosy.cli.measuring_local import Measured, _core_share, _fastest, calibrate_local
from argosy.fleet.load import parse
from argosy.perf.local_fit import StepSample


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="schedstat is Linux's")
def test_cpu_time_rises_while_a_process_computes() -> None:
    before_s = cpu_s_of(os.getpid())
    sum(range(300_000))
    after_s = cpu_s_of(os.getpid())
    assert before_s is not None
    assert after_s is not None
    assert after_s > before_s


def test_a_process_that_is_gone_has_no_cpu_time() -> None:
    assert cpu_s_of(2**30) is None


@pytest.mark.parametrize(
    ("cpu_s", "share"),
    [((1.0, 1.5), 0.5), ((1.0, 2.4), 1.0), ((None, None), 1.0)],
)
def test_the_share_of_a_core_is_told_by_cpu_time_or_taken_to_be_all(
    cpu_s: tuple[float | None, ...], share: float
) -> None:
    answer = Timed(
        asked_s=0.0,
        tokens_s=(1.0,),
        prompt_tokens=10,
        cached_tokens=0,
        prompt_s=1.0,
        cpu_s=cpu_s,
    )
    assert _core_share(answer, 0, 1, 1.0) == pytest.approx(share)


def test_of_each_step_the_fastest_round_is_kept() -> None:
    rounds = [
        Measured(steps=(_step(seconds), _step(3.0 - seconds)), overheads_s=())
        for seconds in (1.0, 1.5, 0.5)
    ]
    assert [step.seconds for step in _fastest(rounds)] == [0.5, 1.5]


def _step(seconds: float) -> StepSample:
    return StepSample(tokens=1, contexts=60, pairs=0, seconds=seconds, is_busy=False)


def test_a_fleet_without_local_llama_cpp_replicas_is_refused(tmp_path: Path) -> None:
    fleet = parse(
        "fleet: there\npools: [{name: far, launcher: {kind: endpoint, url: http://127.0.0.1:9/v1}}]\n"
        "models: [{name: m}]\ndeployments: [{model: m, pool: far, engine: {kind: endpoint}}]\n",
        source="there.yaml",
    )
    with pytest.raises(MeasuringError, match="nothing to measure"):
        calibrate_local(fleet, weights={}, state=tmp_path, say=lambda _what, _share: None)
