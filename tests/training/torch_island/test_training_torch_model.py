"""The model: what Hugging Face's own says of the same weights, and documents kept apart."""

import json
from pathlib import Path

import msgspec
import pytest
import torch
from torch_tries import (
    CONTEXT,
    MODEL,
    VOCABULARY,
    a_llama,
    a_run,
    island,
    shape,
    some_blocks,
)

from argosy.fleet.runs import PretrainedModel
from argosy.training.torch_island.inner import TorchInner
from argosy.training.torch_island.model import (
    ModelError,
    document_mask,
    load_pretrained,
    logits_of,
    new_llama,
    save_pretrained,
)
from argosy.training.torch_island.shape import sizes_of

UNTIED = msgspec.structs.replace(MODEL, tie_embeddings=False, rope_theta=500.0)
IDS = torch.from_numpy(some_blocks(3))


def test_its_parameters_are_those_that_the_shape_says() -> None:
    for model in (MODEL, UNTIED):
        said = list(sizes_of(shape(model)))
        built = a_llama(model).named_parameters()
        assert said == [(name, tuple(one.shape)) for name, one in built]


def test_a_folder_is_read_as_it_was_written(tmp_path: Path) -> None:
    for number, model in enumerate((MODEL, UNTIED)):
        first = a_llama(model)
        save_pretrained(first, tmp_path / str(number))
        again = load_pretrained(tmp_path / str(number))
        assert torch.equal(again(IDS[:, :CONTEXT]), first(IDS[:, :CONTEXT]))


@pytest.mark.parametrize("model", [MODEL, UNTIED])
def test_transformers_computes_the_same_logits_and_what_it_saves_is_read(
    tmp_path: Path, model
) -> None:
    transformers = pytest.importorskip("transformers")
    ours = a_llama(model)
    save_pretrained(ours, tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    ids = IDS[:, :CONTEXT]
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=1e-5, atol=1e-6)
        theirs.save_pretrained(tmp_path / "theirs")
        torch.testing.assert_close(load_pretrained(tmp_path / "theirs")(ids), ours(ids))


def test_a_causal_model_of_another_architecture_trains_too(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    theirs = transformers.Qwen2ForCausalLM(config)
    theirs.save_pretrained(tmp_path / "qwen")
    run = a_run(model=PretrainedModel(path=str(tmp_path / "qwen")))
    one = TorchInner(run, island(), vocabulary=VOCABULARY)
    assert "model.layers.0.self_attn.q_proj.bias" in [each.name for each in one.tensors()]
    ids = IDS[:, :CONTEXT]
    with torch.no_grad():
        torch.testing.assert_close(logits_of(one._trainer.model, ids), theirs(ids).logits)
    blocks = some_blocks()
    before = one.loss(blocks)
    for _ in range(3):
        one.step(blocks, share_done=0.5)
    assert one.loss(blocks) < before
    with pytest.raises(ModelError, match="only our own Llama"):
        TorchInner(run, island(), vocabulary=VOCABULARY, separator=0)


def test_attention_does_not_pass_a_separator() -> None:
    masked = new_llama(shape(), seed=7, separator=0)
    plain = a_llama()
    ids = torch.randint(1, VOCABULARY, (2, CONTEXT))
    with torch.no_grad():
        assert torch.allclose(masked(ids), plain(ids), atol=1e-6)  # one document
        ids[:, 6] = 0
        # Rotary attention sees only distances, so that a document alone gives the same.
        whole = masked(ids)
        assert torch.allclose(whole[:, :7], plain(ids[:, :7]), atol=1e-5)
        assert torch.allclose(whole[:, 7:], plain(ids[:, 7:]), atol=1e-5)
        assert not torch.allclose(whole[:, 7:], plain(ids)[:, 7:], atol=1e-5)


def test_a_separator_belongs_to_the_document_that_it_ends() -> None:
    mask = document_mask(torch.tensor([[5, 0, 6, 7]]), 0)[0, 0].tolist()
    assert mask == [
        [True, False, False, False],
        [True, True, False, False],
        [False, False, True, False],
        [False, False, True, True],
    ]


def test_a_folder_without_a_model_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        load_pretrained(tmp_path)
    save_pretrained(a_llama(), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ModelError, match="is damaged"):
        load_pretrained(tmp_path / "model")
    weights.unlink()
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickled ones run code"):
        load_pretrained(tmp_path / "model")


def test_weights_that_do_not_belong_to_the_config_are_refused(tmp_path: Path) -> None:
    save_pretrained(a_llama(), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_hidden_layers": 3}))
    with pytest.raises(ModelError, match=r"9 parameters .*model\.layers\.2"):
        load_pretrained(tmp_path / "model")
