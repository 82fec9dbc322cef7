"""The learning rate by the share of tokens, MFU and cost; no torch."""

import pytest

from argosy.fleet.runs import NewModel, Optimizer
from argosy.training.torch_island.report import figures
from argosy.training.torch_island.schedule import lr_at
from argosy.training.torch_island.shape import (
    NotOurs,
    flops_per_token,
    from_config,
    new_shape,
    parameters_of,
    to_config,
)


@pytest.mark.parametrize("schedule", ["cosine", "wsd", "constant"])
def test_the_rate_rises_to_its_height_and_never_after(schedule) -> None:
    optimizer = Optimizer(lr=0.3, schedule=schedule, warmup_share=0.1, lr_end_share=0.05)
    rates = [lr_at(optimizer, n / 1000) for n in range(1001)]
    assert rates[:101] == sorted(rates[:101])
    assert rates[100:] == sorted(rates[100:], reverse=True)
    assert max(rates) == rates[100] == pytest.approx(0.3)
    assert rates[50] == pytest.approx(0.15)
    assert rates[1000] == pytest.approx(0.3 if schedule == "constant" else 0.015)


def test_wsd_stays_until_its_last_share() -> None:
    optimizer = Optimizer(lr=1.0, schedule="wsd", decay_share=0.25, lr_end_share=0.0)
    assert lr_at(optimizer, 0.75) == 1.0
    assert lr_at(optimizer, 0.875) == pytest.approx(0.5)
    assert lr_at(optimizer, 1.0) == 0.0


def test_no_warm_up_begins_at_the_height_and_shares_beyond_the_end_are_the_end() -> None:
    optimizer = Optimizer(lr=1.0, warmup_share=0.0)
    assert lr_at(optimizer, 0.0) == 1.0
    assert lr_at(optimizer, 1.7) == lr_at(optimizer, 1.0) == pytest.approx(0.1)


def test_a_decay_longer_than_the_run_begins_when_warm() -> None:
    optimizer = Optimizer(lr=1.0, schedule="wsd", warmup_share=0.5, decay_share=1.0)
    assert lr_at(optimizer, 0.5) == 1.0
    assert lr_at(optimizer, 0.75) == pytest.approx(0.55)


def test_parameters_and_flops_are_those_of_llama_3_8b() -> None:
    model = NewModel(layers=32, hidden=4096, heads=32, kv_heads=8, mlp=14_336, tie_embeddings=False)
    shape = new_shape(model, vocabulary=128_256, context_tokens=8192)
    assert parameters_of(shape) == 8_030_261_248  # as its model card and its files have it
    matrices = 8_030_261_248 - 128_256 * 4096
    attention = 6 * 32 * 4096 * 8192
    assert flops_per_token(shape, context_tokens=8192) == 6 * matrices + attention


def test_a_shape_survives_its_config_and_a_foreign_one_is_not_ours() -> None:
    model = NewModel(layers=2, hidden=64, heads=4, kv_heads=2, mlp=96, rope_theta=5e5)
    shape = new_shape(model, vocabulary=100, context_tokens=32)
    assert from_config(to_config(shape)) == shape
    with pytest.raises(NotOurs, match="rope_type = llama3"):
        from_config(to_config(shape) | {"rope_scaling": {"rope_type": "llama3"}})
    with pytest.raises(NotOurs, match="Qwen3"):
        from_config({"architectures": ["Qwen3ForCausalLM"]})


def test_an_old_config_without_rope_parameters_is_read() -> None:
    shape = new_shape(
        NewModel(layers=1, hidden=8, heads=2, kv_heads=1, mlp=8, rope_theta=5e5),
        vocabulary=10,
        context_tokens=32,
    )
    old = {key: value for key, value in to_config(shape).items() if key != "rope_parameters"}
    assert from_config(old | {"rope_scaling": None}) == shape


def test_mfu_and_cost_of_an_island_of_eight_chips() -> None:
    found = figures(
        tokens=1_000_000,
        seconds=10.0,
        flops_per_token=4e10,
        peak_flops=8e15,
        power_w=5600.0,
        price_usd_per_hour=36.0,
    )
    assert found.mfu == pytest.approx(0.5)
    assert found.energy_j_per_million_tokens == pytest.approx(56_000.0)
    assert found.cost_usd_per_million_tokens == pytest.approx(0.1)
    with pytest.raises(ValueError, match="above zero"):
        figures(
            tokens=0,
            seconds=1.0,
            flops_per_token=1.0,
            peak_flops=None,
            power_w=None,
            price_usd_per_hour=None,
        )
