"""Steps of an island's inside: what they equal, and how the vector is read and changed."""

import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from torch_tries import (
    BATCH,
    CONTEXT,
    MODEL,
    VOCABULARY,
    a_llama,
    a_run,
    island,
    plain_loop,
    some_blocks,
)

from argosy.fleet.runs import Island, NewModel, Optimizer, PretrainedModel, Run
from argosy.training.inner import Inner
from argosy.training.torch_island.adapters import NoDevice
from argosy.training.torch_island.inner import TorchInner
from argosy.training.torch_island.model import save_pretrained
from argosy.training.torch_island.schedule import lr_at


def inner(run: Run | None = None, own: Island | None = None) -> TorchInner:
    return TorchInner(run or a_run(), own or island(), vocabulary=VOCABULARY)


def stepped(one: TorchInner, steps: int) -> list[float]:
    return [one.step(some_blocks(seed=n), share_done=n / 20).loss for n in range(steps)]


@pytest.mark.parametrize("is_tied", [True, False])
def test_losses_and_parameters_equal_a_plain_loop_bit_for_bit(is_tied: bool) -> None:
    model = msgspec.structs.replace(MODEL, tie_embeddings=is_tied)
    run = a_run(model=model, optimizer=Optimizer(clip_norm=0.5))  # below the norms: it clips
    ours = inner(run)
    losses = stepped(ours, 6)

    plain = a_llama(model)
    lrs = [lr_at(run.optimizer, (n + 1) / 20) for n in range(6)]
    batches = [some_blocks(seed=n) for n in range(6)]
    assert losses == plain_loop(plain, batches, lrs, run.optimizer)
    flat = np.concatenate([one.detach().numpy().reshape(-1) for one in plain.parameters()])
    assert ours.parameters().tobytes() == flat.tobytes()


def test_it_is_what_the_loop_between_islands_asks_for() -> None:
    one: Inner = inner()  # checked by pyright as well
    report = one.step(some_blocks(), share_done=0.0)
    assert report.tokens == BATCH * CONTEXT
    assert report.grad_norm > 0
    assert report.lr == lr_at(Optimizer(), 1 / 20)
    names = [tensor.name for tensor in one.tensors()]
    assert names[0] == "model.embed_tokens.weight"
    assert sum(int(np.prod(tensor.shape)) for tensor in one.tensors()) == one.parameters().size


def test_accumulated_gradients_are_those_of_the_whole_batch() -> None:
    whole, parts = inner(), inner(own=island(micro_batch_blocks=3))  # 3 + 3 + 2
    assert stepped(parts, 4) == pytest.approx(stepped(whole, 4), rel=1e-5)
    np.testing.assert_allclose(parts.parameters(), whole.parameters(), atol=2e-5)


def test_the_same_seed_gives_the_same_model_and_another_gives_another() -> None:
    assert inner().parameters().tobytes() == inner().parameters().tobytes()
    assert inner().parameters().tobytes() != inner(a_run(seed=8)).parameters().tobytes()


def test_what_is_set_is_what_is_read() -> None:
    one = inner()
    vector = np.random.default_rng(0).standard_normal(one.parameters().size).astype(np.float32)
    one.set_parameters(vector)
    assert one.parameters().tobytes() == vector.tobytes()
    part = vector[100:5000].copy()
    part.flags.writeable = False  # as what was read from a file
    one.add(100, part)
    vector[100:5000] += part
    assert one.parameters().tobytes() == vector.tobytes()


def test_a_copy_of_the_parameters_does_not_change_with_them() -> None:
    one = inner()
    before = one.parameters()
    kept = before.copy()
    stepped(one, 1)
    assert before.tobytes() == kept.tobytes()
    assert one.parameters().tobytes() != kept.tobytes()


def test_values_beyond_the_vector_are_refused() -> None:
    one = inner()
    size = one.parameters().size
    with pytest.raises(ValueError, match=f"of {size}"):
        one.add(size - 1, np.ones(2, np.float32))
    with pytest.raises(ValueError, match="a vector of shape"):
        one.set_parameters(np.ones(size - 1, np.float32))


def test_a_loss_changes_nothing_and_is_the_mean_over_all_tokens() -> None:
    one = inner(own=island(micro_batch_blocks=3))
    before = one.parameters()
    blocks = some_blocks(7)
    singly = [one.loss(blocks[n : n + 1]) for n in range(7)]
    assert one.loss(blocks) == pytest.approx(np.mean(singly), rel=1e-6)
    assert one.parameters().tobytes() == before.tobytes()


def test_blocks_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[blocks, 17\]"):
        inner().step(some_blocks(width=9), share_done=0.0)


def test_a_slowed_island_takes_at_least_as_much_longer_as_it_was_told() -> None:
    slow = inner(own=island(slowdown=4.0))
    begun_s, cpu_begun_s = time.perf_counter(), time.process_time()
    stepped(slow, 8)
    cpu_s = time.process_time() - cpu_begun_s  # other programs do not count in it
    assert time.perf_counter() - begun_s > 3.5 * cpu_s


def test_bfloat16_multiplies_in_it_and_keeps_the_weights_in_32_bits() -> None:
    half = inner(own=island(dtype="bfloat16"))
    losses = stepped(half, 5)
    assert losses != stepped(inner(), 5)
    assert losses == pytest.approx(stepped(inner(), 5), rel=5e-3)
    assert {one.dtype for one in half._trainer.model.parameters()} == {torch.float32}


def test_training_lowers_the_loss_of_what_it_sees() -> None:
    one = inner(a_run(optimizer=Optimizer(lr=1e-2, schedule="constant")))
    blocks = some_blocks()
    before = one.loss(blocks)
    for _ in range(20):
        one.step(blocks, share_done=0.5)
    assert one.loss(blocks) < 0.7 * before


@pytest.mark.slow  # 6 s of CPU: it loads the whole compiler
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated")  # torch's own
def test_a_compiler_that_fails_is_told_of_and_done_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # nothing compiled before
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/nonexistent/c++",))
    torch._dynamo.reset()
    one = inner(own=island(is_compiled=True))
    assert one.compile_refused
    assert stepped(one, 3) == stepped(inner(), 3)


def test_a_device_that_is_not_here_is_named() -> None:
    with pytest.raises(NoDevice, match="cpu always works"):
        TorchInner(a_run(), Island(name="a", device="xpu"), vocabulary=VOCABULARY)


def test_heads_that_do_not_divide_are_refused_with_what_would() -> None:
    model = NewModel(layers=1, hidden=30, heads=4, kv_heads=2, mlp=8)
    with pytest.raises(ValueError, match="hidden = 32"):
        inner(a_run(model=model))


def test_a_pretrained_model_goes_on_from_its_weights(tmp_path: Path) -> None:
    first = a_llama()
    save_pretrained(first, tmp_path / "model")
    one = inner(a_run(model=PretrainedModel(path=str(tmp_path / "model"))))
    flat = np.concatenate([one.detach().numpy().reshape(-1) for one in first.parameters()])
    assert one.parameters().tobytes() == flat.tobytes()
    with pytest.raises(ValueError, match="a vocabulary of 62 ids, the model one of 61"):
        TorchInner(
            a_run(model=PretrainedModel(path=str(tmp_path / "model"))), island(), vocabulary=62
        )


def test_figures_come_of_the_tokens_since_the_last() -> None:
    one = inner(own=island(power_w=100.0, price_usd_per_hour=3.6))
    assert one.figures() is None
    stepped(one, 2)
    found = one.figures()
    assert found is not None
    assert found.tokens == 2 * BATCH * CONTEXT
    assert found.mfu is None  # the catalogue has no peak of a CPU
    assert found.energy_j_per_million_tokens == pytest.approx(1e8 / found.tokens_per_s)
    assert found.cost_usd_per_million_tokens == pytest.approx(1e3 / found.tokens_per_s)
    assert one.figures() is None
