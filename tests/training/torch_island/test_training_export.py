"""A finished run as a model that engines serve: the same tokens come out of llama.cpp."""

import json
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch_tries import MODEL, VOCABULARY, a_llama, a_run, island, shape

from argosy.fleet.config import LlamaCppEngine
from argosy.training.export import ExportError, export_vector, permuted, write_folder, write_gguf
from argosy.training.torch_island.gguf_file import split_of
from argosy.training.torch_island.inner import TorchInner
from argosy.training.torch_island.model import Llama, load_pretrained, new_llama, save_pretrained
from argosy.training.torch_island.shape import new_shape
from tests.engines.real_replica import command, running

TEXT = "What a machine can check, no reviewer should: 1234 über's naïve   spaces\n\tand 東京. "


WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
GPT_2 = pre_tokenizers.ByteLevel(add_prefix_space=False)


def split_by(pattern: str) -> pre_tokenizers.PreTokenizer:
    first = pre_tokenizers.Split(Regex(pattern), "isolated")
    return pre_tokenizers.Sequence([first, BYTES])


SPLITS = {
    "gpt-2": GPT_2,
    "llama-bpe": split_by(WORDS + r"\p{N}{1,3}" + REST),
    "qwen2": split_by(WORDS + r"\p{N}" + REST),
    "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), GPT_2]),
}


def written_tokenizer(folder: Path, split: pre_tokenizers.PreTokenizer) -> Path:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = split
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([TEXT * 3], trainer)
    made.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_tokenizer(tmp_path_factory.mktemp("tokenizer"), GPT_2)


def decided(vocabulary: int, *, is_tied: bool) -> Llama:
    """Random, but with logits far enough apart that no rounding changes the best."""
    model = msgspec.structs.replace(MODEL, hidden=96, heads=6, kv_heads=2, tie_embeddings=is_tied)
    made = new_llama(new_shape(model, vocabulary=vocabulary, context_tokens=128), seed=1)
    with torch.no_grad():
        for one in made.parameters():
            if one.dim() > 1:
                one.mul_(6.0)
    return made.eval()


def greedy(model: Llama, ids: list[int], count: int) -> list[int]:
    out = list(ids)
    with torch.no_grad():
        for _ in range(count):
            logits = model(torch.tensor([out]))[0, -1]
            logits[0] = -torch.inf  # llama.cpp is told to ignore the end, too
            out.append(int(logits.argmax()))
    return out[len(ids) :]


@pytest.mark.parametrize(
    ("split", "is_tied"),
    [("gpt-2", True), ("gpt-2", False), ("llama-bpe", True), ("qwen2", True), ("smollm", True)],
)
def test_a_served_gguf_says_the_tokens_that_torch_says(
    tmp_path: Path, split: str, is_tied: bool
) -> None:
    tokenizer = written_tokenizer(tmp_path, SPLITS[split])
    assert split_of(json.loads(tokenizer.read_bytes())) == split
    known = Tokenizer.from_file(str(tokenizer))
    model = decided(known.get_vocab_size(), is_tied=is_tied)
    save_pretrained(model, tmp_path / "model", tokenizer=tokenizer)
    write_gguf(tmp_path / "model", tmp_path / "model.gguf")
    ids = known.encode(TEXT).ids

    replica = command(LlamaCppEngine(context_tokens=128, slots=1), tmp_path / "model.gguf")
    # What `argosy up` starts.
    with running(replica) as (_, url), httpx.Client(base_url=url, timeout=60) as asked:
        assert asked.post("/tokenize", json={"content": TEXT}).json()["tokens"] == ids
        body = {"prompt": ids, "n_predict": 32, "temperature": 0, "return_tokens": True}
        said = asked.post("/completion", json=body | {"ignore_eos": True}).json()
    assert said["tokens"] == greedy(model, ids, 32)


def test_a_runs_vector_becomes_the_model_that_was_trained(tmp_path: Path, tokenizer: Path) -> None:
    one = TorchInner(a_run(), island(), vocabulary=VOCABULARY)
    export_vector(
        one.parameters(), one.tensors(), tmp_path / "m", source=shape(), tokenizer=tokenizer
    )
    again = load_pretrained(tmp_path / "m")
    flat = np.concatenate([each.detach().numpy().reshape(-1) for each in again.parameters()])
    assert flat.tobytes() == one.parameters().tobytes()
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["eos_token_id"] == 0  # <|endoftext|>
    # A run that went on from that folder takes over its configuration and tokenizer.
    export_vector(
        one.parameters(), one.tensors(), tmp_path / "n", source=tmp_path / "m", tokenizer=None
    )
    assert json.loads((tmp_path / "n" / "config.json").read_text()) == config
    assert (tmp_path / "n" / "tokenizer.json").read_bytes() == tokenizer.read_bytes()


def test_transformers_reads_the_tokenizer_of_the_folder(tmp_path: Path, tokenizer: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = decided(Tokenizer.from_file(str(tokenizer)).get_vocab_size(), is_tied=True)
    save_pretrained(model, tmp_path / "model", tokenizer=tokenizer)
    read = transformers.AutoTokenizer.from_pretrained(tmp_path / "model")
    assert read.encode(TEXT) == Tokenizer.from_file(str(tokenizer)).encode(TEXT).ids
    assert read.decode(read.encode(TEXT)) == TEXT
    assert read.eos_token == "<|endoftext|>"


def test_sixteen_bits_take_half_the_room(tmp_path: Path, tokenizer: Path) -> None:
    model = decided(Tokenizer.from_file(str(tokenizer)).get_vocab_size(), is_tied=True)
    save_pretrained(model, tmp_path / "model", tokenizer=tokenizer)
    sizes = {}
    for dtype in ("f32", "f16", "bf16"):
        write_gguf(tmp_path / "model", tmp_path / dtype, dtype=dtype)
        sizes[dtype] = (tmp_path / dtype).stat().st_size
    assert sizes["f16"] == sizes["bf16"] < 0.6 * sizes["f32"]


def test_what_cannot_be_written_is_refused_and_leaves_nothing(
    tmp_path: Path, tokenizer: Path
) -> None:
    save_pretrained(a_llama(), tmp_path / "model")
    with pytest.raises(ExportError, match="exists"):
        save_pretrained(a_llama(), tmp_path / "model")
    with pytest.raises(ExportError, match=r"tokenizer\.json cannot be read"):
        write_gguf(tmp_path / "model", tmp_path / "model.gguf")
    with pytest.raises(ExportError, match=r"has no tokenizer\.json"):
        write_folder(shape(), {}, tmp_path / "new", tokenizer=tmp_path)
    with pytest.raises(ExportError, match="of two models"):
        export_vector(np.zeros(3, np.float32), (), tmp_path / "new", source=shape(), tokenizer=None)
    assert [one.name for one in tmp_path.iterdir()] == ["model"]


def test_a_way_to_split_text_that_llama_cpp_cannot_name_is_refused() -> None:
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    with pytest.raises(ExportError, match="ByteLevel alone"):
        split_of({"pre_tokenizer": byte_level})
    other = {"type": "Split", "pattern": {"Regex": r"...|\p{N}{1,3}|..."}, "behavior": "Isolated"}
    with pytest.raises(ExportError, match=r"\.\.\.\|"):
        split_of({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [other, byte_level]}})
    for foreign in (
        {"pre_tokenizer": {"type": "Metaspace"}},
        {"pre_tokenizer": byte_level | {"use_regex": True}, "normalizer": {"type": "NFKC"}},
        {"pre_tokenizer": byte_level | {"use_regex": True, "add_prefix_space": True}},
    ):
        with pytest.raises(ExportError, match="changes nothing of the text"):
            split_of(foreign)


def test_rows_are_reordered_as_llama_cpps_pairs_want_them() -> None:
    weight = np.arange(8, dtype=np.float32)[:, None]  # two heads of width 4
    assert permuted(weight, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
