"""Local calibrations: kept, found for their own deployment, refused when broken."""

from pathlib import Path

import msgspec
import pytest

from argosy.fleet.config import LlamaCppEngine, SimulatedEngine
from argosy.perf.calibration import Interval
from argosy.perf.local import (
    LocalCalibration,
    LocalCalibrations,
    Residuals,
    UnreadableLocalCalibrationError,
    load_local,
    of_given_rates,
    save_local,
)
from argosy.perf.step_time import StepTime

ENGINE = LlamaCppEngine(context_tokens=4096, slots=4)


def test_what_was_saved_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "local-calibration.json"
    assert load_local(path) == LocalCalibrations()
    kept = LocalCalibrations().with_(_made())
    save_local(path, kept)
    assert load_local(path) == kept


def test_a_calibration_holds_for_its_own_deployment_alone() -> None:
    kept = LocalCalibrations().with_(_made())
    assert kept.of("tiny", ENGINE, 2) == _made()
    assert kept.of("tiny", ENGINE, 3) is None
    assert kept.of("other", ENGINE, 2) is None
    assert kept.of("tiny", LlamaCppEngine(context_tokens=4096, slots=8), 2) is None
    assert kept.of("tiny", msgspec.structs.replace(ENGINE, threads=2), 2) is None
    assert kept.of("tiny", msgspec.structs.replace(ENGINE, threads=1), 2) == _made()


def test_a_newer_calibration_takes_the_place_of_the_older() -> None:
    newer = msgspec.structs.replace(_made(), slowdown=1.7)
    kept = LocalCalibrations().with_(_made()).with_(newer)
    assert kept.deployments == (newer,)


def test_a_broken_file_is_refused_with_what_helps(tmp_path: Path) -> None:
    path = tmp_path / "local-calibration.json"
    path.write_text('{"deployments": [{}]}')
    with pytest.raises(UnreadableLocalCalibrationError, match="argosy calibrate --local"):
        load_local(path)


def test_a_simulated_replica_decodes_and_reads_at_its_given_rates() -> None:
    engine = SimulatedEngine(slots=8, prefill_tokens_per_s=5000.0, decode_tokens_per_s=100.0)
    step_time = of_given_rates(engine).step_time
    assert step_time.step_s(tokens=1) == pytest.approx(0.01)
    assert step_time.step_s(tokens=8, contexts=9000) == pytest.approx(0.01)
    assert step_time.step_s(tokens=5009) == pytest.approx(1.01)


def _made() -> LocalCalibration:
    return LocalCalibration(
        deployment="tiny@local",
        engine="llama.cpp",
        engine_version="1",
        model="tiny",
        replicas=2,
        threads=1,
        slots=4,
        context_tokens=4096,
        step_time=StepTime(
            knots_tokens=(1.0, 4.0), knots_s=(0.01, 0.03), context_s_per_token=0.0, pair_s=0.0
        ),
        slowdown=1.4,
        overhead_s=0.01,
        interval=Interval(tpot_low=0.9, tpot_high=1.1, ttft_low=0.9, ttft_high=1.1),
        residuals=Residuals(points=10, median=0.01, p90=0.05),
        measured_on="2026-11-21",
        cpu="a CPU",
        cores=2,
        load_before=0.0,
        seconds=90.0,
    )
