"""What `perf.replica` promises: physics holds whatever was learned, refusals say what works."""

import itertools

import msgspec
import pytest

from argosy.fleet.architectures import architecture
from argosy.fleet.catalogue import chip, chips
from argosy.fleet.layout import Layout
from argosy.perf.chip_peaks import peaks_of
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.groups import efficiency_of
from argosy.perf.refusal import DoesNotFit
from argosy.perf.replica import KNOTS_TOKENS, ReplicaModel, joules_per_token, replica
from argosy.perf.roofline import (
    IDEAL,
    context_s_per_token,
    held_to_peaks,
    pair_s,
    tokens_s,
)
from argosy.perf.work import work

MODELS = ("Llama-3.1-8B", "Llama-3.1-70B", "DeepSeek-V3", "gpt-oss-120b", "Qwen3.5-397B-A17B")
CHIPS = ("H100-SXM", "B200", "GB300", "A100-80GB", "MI300X", "TPU-v6e", "Maia-200", "Trainium2")
ENGINE = EngineSettings()


def fitting(model: str, chip_name: str, tp: int = 8, dtype: str = "fp8") -> ReplicaModel | None:
    layout = msgspec.convert({"tp": tp, "dtype": dtype}, Layout)
    made = replica(architecture(model), chip(chip_name), layout, ENGINE)
    return None if isinstance(made, DoesNotFit) else made


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("chip_name", CHIPS)
def test_a_step_of_more_tokens_never_takes_less_time(model: str, chip_name: str) -> None:
    made = fitting(model, chip_name)
    if made is None:
        return
    knots = made.step_time.knots_s
    assert all(later >= earlier for earlier, later in itertools.pairwise(knots))
    assert made.step_time.context_s_per_token >= 0.0
    assert made.step_time.pair_s > 0.0


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("chip_name", CHIPS)
def test_nothing_is_faster_than_the_datasheet(model: str, chip_name: str) -> None:
    made = fitting(model, chip_name)
    if made is None:
        return
    layout = Layout(tp=8, dtype="fp8")
    asked = work(architecture(model), layout)
    peaks = peaks_of(architecture(model), chip(chip_name), layout)
    assert peaks is not None
    for tokens in (1.0, 7.0, 100.0, 3000.0, 50_000.0):
        floor = float(tokens_s(asked, peaks, IDEAL, tokens))
        assert made.step_time.linear_s(tokens) >= floor * 0.999
    assert made.step_time.context_s_per_token >= float(context_s_per_token(asked, peaks, IDEAL))
    assert made.step_time.pair_s >= float(pair_s(asked, peaks, IDEAL))


@pytest.mark.parametrize("model", MODELS)
def test_the_reduced_step_time_is_within_one_percent_of_the_whole(model: str) -> None:
    layout = Layout(tp=8, dtype="fp8")
    asked = work(architecture(model), layout)
    peaks = peaks_of(architecture(model), chip("H200"), layout)
    assert peaks is not None
    from argosy.perf.calibration import shipped
    from argosy.perf.step_time import StepTime

    reached = efficiency_of(architecture(model), chip("H200"), layout, "vllm", shipped())
    whole = [float(tokens_s(asked, peaks, reached, knot)) for knot in KNOTS_TOKENS]
    reduced = StepTime(
        knots_tokens=KNOTS_TOKENS,
        knots_s=tuple(whole),
        context_s_per_token=0.0,
        pair_s=0.0,
    )
    for tokens in (1, 3, 5, 9, 13, 27, 40, 77, 150, 300, 600, 900, 2500, 5000, 12_000, 30_000):
        exact = float(tokens_s(asked, peaks, reached, float(tokens)))
        assert abs(reduced.linear_s(float(tokens)) / exact - 1) < 0.01, tokens


def test_more_chips_never_hold_fewer_kv_tokens() -> None:
    for model in MODELS:
        held = [
            made.kv_tokens if (made := fitting(model, "H200", tp)) else 0 for tp in (1, 2, 4, 8)
        ]
        assert held == sorted(held), model


def test_a_longer_context_never_makes_a_step_shorter() -> None:
    made = fitting("Llama-3.1-70B", "H100-SXM", 4)
    assert made is not None
    steps = [
        made.step_time.step_s(tokens=32, contexts=32 * length) for length in (0, 10, 1000, 9000)
    ]
    assert steps == sorted(steps)


def test_a_model_that_does_not_fit_is_refused_with_what_would() -> None:
    made = replica(architecture("Llama-3.1-70B"), chip("L4"), Layout(), ENGINE, kv_tokens=8192)
    assert isinstance(made, DoesNotFit)
    assert "Llama-3.1-70B (bf16) does not fit 1 x L4" in made.message
    assert "141.1 GB weights" in made.message
    assert made.tp_that_fits is not None
    wider = replica(
        architecture("Llama-3.1-70B"),
        chip("L4"),
        Layout(tp=made.tp_that_fits),
        ENGINE,
        kv_tokens=8192,
    )
    assert isinstance(wider, ReplicaModel)
    for other in made.chips_that_fit:
        able = replica(architecture("Llama-3.1-70B"), chip(other), Layout(), ENGINE, kv_tokens=8192)
        assert isinstance(able, ReplicaModel), other


def test_too_much_kv_is_refused_with_how_much_would_fit() -> None:
    asked = (architecture("Llama-3.1-8B"), chip("L4"), Layout(), ENGINE)
    made = replica(*asked, kv_tokens=10**7)
    assert isinstance(made, DoesNotFit)
    assert f"kv_tokens <= {made.kv_tokens_possible}" in made.message
    assert isinstance(replica(*asked, kv_tokens=made.kv_tokens_possible), ReplicaModel)


def test_a_chip_without_figures_is_refused_not_guessed() -> None:
    made = replica(architecture("Llama-3.1-8B"), chip("CPU-x86"), Layout(), ENGINE)
    assert isinstance(made, DoesNotFit)
    assert "CPU-x86" in made.message


def test_every_chip_says_on_which_rung_it_stands() -> None:
    for one in chips():
        made = replica(architecture("Llama-3.2-1B"), one, Layout(), ENGINE)
        if isinstance(made, DoesNotFit):
            continue
        assert made.uncalibrated == (made.rung == "spec sheet"), one.name
        assert made.interval.tpot_low < 1.0 < made.interval.tpot_high
        assert made.interval.ttft_low < 1.0 < made.interval.ttft_high
        if one.maker in ("AWS", "Microsoft"):
            assert made.uncalibrated
            assert made.interval.tpot_high >= 2.0, one.name


def test_power_grows_with_load_and_stays_below_the_maximum() -> None:
    made = fitting("Llama-3.1-70B", "H100-SXM", 4)
    assert made is not None
    assert made.power_w_idle is not None
    assert made.power_w_busy is not None
    assert 0 < made.power_w_idle < made.power_w_busy <= 4 * 700.0


def test_a_token_of_a_full_batch_takes_less_energy_than_a_lone_one() -> None:
    layout = Layout(tp=4, dtype="fp8")
    model, where = architecture("Llama-3.1-70B"), chip("H100-SXM")
    made = replica(model, where, layout, ENGINE)
    assert isinstance(made, ReplicaModel)
    joules = [
        joules_per_token(model, where, layout, made, requests=count, context_tokens=1000.0)
        for count in (1.0, 8.0, 64.0, 256.0)
    ]
    assert all(one is not None for one in joules)
    assert joules == sorted(joules, key=lambda one: -(one or 0.0))


def test_shares_of_peak_are_never_above_one() -> None:
    fast = IDEAL._replace(linear_memory=0.9, slowness=0.5)
    assert float(held_to_peaks(fast).linear_memory) == 1.0
