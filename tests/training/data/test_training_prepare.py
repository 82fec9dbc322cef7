"""From texts to a dataset: what is in it, what is counted, and that nothing is lost on the way."""

import gzip
import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from argosy.training.data.manifest import MANIFEST_FILE, DatasetError
from argosy.training.data.prepare import Preparation, Prepared
from argosy.training.data.reader import Dataset
from argosy.training.data.recipe import (
    Builtin,
    Cleaning,
    Files,
    Given,
    Recipe,
    Trained,
    parse,
)
from argosy.training.data.tokens import loaded
from tests.training.data.made import text
from tests.training.data.preparing_child import Silent

_TRAINED = Trained(vocab=400)
_LOOSE = Cleaning(near_duplicate_share=None, paragraph_documents_max=1000)


def test_the_text_of_every_document_is_in_the_blocks(tmp_path: Path):
    texts = {f"{n}.txt": text(n, words=50 + 37 * n) for n in range(20)}
    prepared = _prepared(tmp_path, _recipe(tmp_path, texts))
    dataset = Dataset.open(tmp_path / "out")
    tokenizer = loaded(dataset.tokenizer_json().encode())
    every = np.arange(dataset.blocks)
    ids, starts = dataset.take(every), dataset.take_boundaries(every)
    pieces = _pieces(ids, starts)
    whole = {
        tokenizer.decode(piece[:-1]) for piece in pieces if piece[-1] == 0 and 0 not in piece[:-1]
    }
    assert len(whole & set(texts.values())) >= 3  # those that fit a block and filled no other
    manifest = prepared.manifest
    assert sum(piece.count(0) for piece in pieces) in (20, 19)  # the tail may take an end with it
    assert manifest.tokens + manifest.packing.tokens_dropped == manifest.sources[0].tokens
    assert ids.max() < dataset.vocab_size == 400


def test_the_same_again_is_found_done_and_elsewhere_has_the_same_bytes(tmp_path: Path):
    recipe = _recipe(tmp_path, {f"{n}.txt": text(n) for n in range(10)})
    first = _prepared(tmp_path, recipe)
    assert not first.is_unchanged
    assert _prepared(tmp_path, recipe).is_unchanged
    other = _prepared(tmp_path, recipe, out="other", cache="cache2", processes=2)
    assert not other.is_unchanged
    assert _bytes(tmp_path / "out") == _bytes(tmp_path / "other")


def test_another_dataset_in_the_folder_is_not_written_over(tmp_path: Path):
    recipe = _recipe(tmp_path, {f"{n}.txt": text(n) for n in range(10)})
    _prepared(tmp_path, recipe)
    changed = msgspec.structs.replace(recipe, context_tokens=32)
    with pytest.raises(DatasetError, match=r"holds another dataset.*--replace"):
        _prepared(tmp_path, changed)
    _prepared(tmp_path, changed, is_replacing=True)
    assert Dataset.open(tmp_path / "out").context_tokens == 32
    assert len([*(tmp_path / "out").glob("shard-*")]) == 2


def test_what_is_dropped_is_counted_by_its_reason(tmp_path: Path):
    good = text(1, words=400)
    texts: dict[str, str | bytes] = {
        "a.txt": good,
        "b.txt": good.upper().replace(" ", "  "),
        "c.txt": good.replace("the", "thee", 1),
        "d.txt": "short",
        "e.txt": "one and the same line\n" * 40,
        "f.txt": b"\x00\x01",
        "g.jsonl": "\n".join(json.dumps({"text": text(n)}) for n in range(2, 5)),
        "h.jsonl.gz": gzip.compress(json.dumps({"text": text(9)}).encode()),
    }
    recipe = _recipe(tmp_path, texts, cleaning=Cleaning())
    source = _prepared(tmp_path, recipe).manifest.sources[0]
    assert source.dropped == {
        "binary": 1,
        "duplicate": 1,
        "near_duplicate": 1,
        "too_repetitive": 1,
        "too_short": 1,
    }
    assert (source.documents_found, source.documents_kept, source.files) == (10, 5, 8)
    assert source.examples["near_duplicate"] == ("c.txt",)


def test_a_paragraph_of_many_documents_stays_in_the_first_alone(tmp_path: Path):
    licence = "Permission is granted to whoever asks for it, without any warranty whatsoever."
    texts = {f"{n}.txt": f"{text(n)}\n\n{licence}" for n in range(12)}
    recipe = _recipe(tmp_path, texts, cleaning=Cleaning(paragraph_documents_max=5))
    prepared = _prepared(tmp_path, recipe)
    dataset = Dataset.open(tmp_path / "out")
    tokenizer = loaded(dataset.tokenizer_json().encode())
    read = tokenizer.decode(dataset.take(np.arange(dataset.blocks)).ravel().tolist())
    assert read.count("without any warranty") <= 1
    assert prepared.manifest.sources[0].paragraphs_dropped == 11


def test_weights_repeat_and_subsample_whole_documents(tmp_path: Path):
    for folder, first in (("one", 0), ("two", 100)):
        (tmp_path / folder).mkdir()
        for n in range(40):
            (tmp_path / folder / f"{n}.txt").write_text(text(first + n))
    sources = tuple(
        Files(name=name, paths=(str(tmp_path / name),), weight=weight)
        for name, weight in (("one", 1.0), ("two", 3.0))
    )
    recipe = Recipe(
        corpus="mix", sources=sources, tokenizer=_TRAINED, context_tokens=64, cleaning=_LOOSE
    )
    one, two = _prepared(tmp_path, recipe).manifest.sources
    assert one.epochs == pytest.approx(0.5, abs=0.05)
    assert two.epochs == pytest.approx(1.5, abs=0.05)
    scarce = msgspec.structs.replace(recipe, tokens=10 * (one.tokens + two.tokens))
    with pytest.raises(DatasetError, match=r"more than 4 epochs.*is the most"):
        _prepared(tmp_path, scarce, out="other")


def test_a_given_tokenizer_is_taken_as_it_is(tmp_path: Path):
    recipe = _recipe(tmp_path, {f"{n}.txt": text(n) for n in range(10)})
    first = _prepared(tmp_path, recipe).manifest
    path = tmp_path / "out" / first.tokenizer.file
    given = msgspec.structs.replace(recipe, tokenizer=Given(path=str(path)))
    again = _prepared(tmp_path, given, out="other").manifest
    assert again.tokenizer.sha256 == first.tokenizer.sha256
    assert not again.tokenizer.is_trained
    assert [one.sha256 for one in again.shards] == [one.sha256 for one in first.shards]
    unknown = Given(path=str(path), end_token="<stop>")
    with pytest.raises(DatasetError, match="has no token <stop>"):
        _prepared(tmp_path, msgspec.structs.replace(recipe, tokenizer=unknown), out="third")


def test_what_python_has_becomes_a_dataset_without_a_network(tmp_path: Path):
    recipe = Recipe(
        corpus="builtin",
        sources=(Builtin(bytes_max=300_000),),
        tokenizer=_TRAINED,
        context_tokens=64,
    )
    manifest = _prepared(tmp_path, recipe).manifest
    assert manifest.tokens > 50_000
    assert manifest.sources[0].origin.startswith("Python 3.")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    recipe = _recipe(tmp_path, {"a.txt": text(1)})
    (tmp_path / "texts" / "b.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(DatasetError, match=r"b\.txt cannot be read: No such file.*is kept"):
        _prepared(tmp_path, recipe)
    (tmp_path / "texts" / "b.txt").unlink()
    (tmp_path / "texts" / "c.txt.gz").write_bytes(b"\x1f\x8b\x08 cut short")
    with pytest.raises(DatasetError, match=r"c\.txt\.gz cannot be read"):
        _prepared(tmp_path, recipe)


def test_too_little_text_says_so(tmp_path: Path):
    recipe = _recipe(tmp_path, {"a.txt": text(1, words=60)})
    with pytest.raises(DatasetError, match=r"do not fill one block of 10001"):
        _prepared(tmp_path, msgspec.structs.replace(recipe, context_tokens=10_000))
    with pytest.raises(DatasetError, match="nothing is left"):
        _prepared(tmp_path, _recipe(tmp_path, {"a.txt": "short"}))
    with pytest.raises(DatasetError, match="nothing is at"):
        _prepared(tmp_path, msgspec.structs.replace(recipe, sources=(_nowhere(tmp_path),)))


def test_problems_of_a_recipe_come_with_their_lines():
    text_ = "corpus: x\nsources:\n  - {kind: files, name: a, paths: [x], weight: 1}\n"
    text_ += "  - {kind: files, name: a, paths: [y]}\n"
    with pytest.raises(Exception, match=r"r\.yaml:4.*is there twice") as told:
        parse(text_, source="r.yaml")
    assert "give all sources a weight, or none" in str(told.value)


def test_a_preparation_that_is_killed_goes_on_where_it_was(tmp_path: Path):
    recipe = _written(tmp_path, documents=150)
    assert _ended(_child(recipe, tmp_path / "alone", tmp_path / "cache1")) == (0, "")
    cache = tmp_path / "cache2"
    kept: dict[Path, int] = {}
    for wanted in (2, 6, 9, 11):
        child = _child(recipe, tmp_path / "killed", cache)
        while child.poll() is None and len(_entries(cache)) < wanted:
            time.sleep(0.002)
        child.kill()
        child.communicate()
        assert not (tmp_path / "killed" / MANIFEST_FILE).exists()
        now = _entries(cache)
        assert kept.items() <= now.items()  # what was made is not made again
        kept = now
    assert _ended(_child(recipe, tmp_path / "killed", cache)) == (0, "")
    assert kept.items() <= _entries(cache).items()
    assert _bytes(tmp_path / "killed") == _bytes(tmp_path / "alone")


def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path):
    recipe = _written(tmp_path, documents=60)
    code, told = _ended(_child(recipe, tmp_path / "out", tmp_path / "cache", "30000"))
    assert code == 1
    assert "no room for" in told
    assert "run the same again" in told
    before = _entries(tmp_path / "cache")
    assert not (tmp_path / "out" / MANIFEST_FILE).exists()
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]  # no halves
    assert _ended(_child(recipe, tmp_path / "out", tmp_path / "cache")) == (0, "")
    assert before.items() <= _entries(tmp_path / "cache").items()
    assert Dataset.open(tmp_path / "out").verify() > 0


def _recipe(
    tmp_path: Path, texts: dict[str, str | bytes] | dict[str, str], cleaning: Cleaning = _LOOSE
) -> Recipe:
    folder = tmp_path / "texts"
    folder.mkdir(exist_ok=True)
    for name, body in texts.items():
        (folder / name).write_bytes(body if isinstance(body, bytes) else body.encode())
    return Recipe(
        corpus="made",
        sources=(Files(name="made", paths=(str(folder),)),),
        tokenizer=_TRAINED,
        context_tokens=255,
        cleaning=cleaning,
    )


def _prepared(
    tmp_path: Path,
    recipe: Recipe,
    *,
    out: str = "out",
    cache: str = "cache",
    processes: int = 1,
    is_replacing: bool = False,
) -> Prepared:
    return Preparation(
        recipe,
        out=tmp_path / out,
        cache=tmp_path / cache,
        processes=processes,
        progress=Silent(),
        chunk_bytes=10_000,
    ).run(is_replacing=is_replacing)


def _pieces(ids: np.ndarray, starts: np.ndarray) -> list[list[int]]:
    return [
        piece.tolist()
        for row, begins in zip(ids, starts, strict=True)
        for piece in np.split(row, np.flatnonzero(begins)[1:])
    ]


def _nowhere(tmp_path: Path) -> Files:
    return Files(name="nowhere", paths=(str(tmp_path / "nowhere"),))


def _written(tmp_path: Path, *, documents: int) -> Path:
    """A recipe file over texts of about 1.2 KB each, in chunks of 20 KB."""
    (tmp_path / "texts").mkdir()
    for n in range(documents):
        (tmp_path / "texts" / f"{n:03}.txt").write_text(text(n))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"corpus: made\ncontext_tokens: 64\ntokenizer: {{kind: train, vocab: 400}}\n"
        f"sources:\n  - {{kind: files, name: made, paths: [{tmp_path / 'texts'}]}}\n"
    )
    return recipe


def _child(recipe: Path, out: Path, cache: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.training.data.preparing_child"]
    arguments = [str(recipe), str(out), str(cache), *more]
    return subprocess.Popen(command + arguments, stderr=subprocess.PIPE, text=True)


def _ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    told = child.communicate()[1]
    return child.returncode, told


def _entries(cache: Path) -> dict[Path, int]:
    """Whole entries, and when they were written."""
    found = [path for path in cache.glob("*/*/*") if not path.name.startswith(".")]
    return {path: path.stat().st_mtime_ns for path in found}


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}
