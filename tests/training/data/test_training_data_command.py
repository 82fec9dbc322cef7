"""`argosy data` as a person uses it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from argosy.cli.main import app
from tests.training.data.made import dataset, text


@pytest.fixture
def run(tmp_path: Path):
    (tmp_path / "texts").mkdir()
    for n in range(10):
        (tmp_path / "texts" / f"{n}.txt").write_text(text(n))

    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(app, ["data", *arguments])
        return result.exit_code, result.stdout, result.stderr

    return run


def test_texts_become_a_dataset_that_is_shown_and_verified(run, tmp_path: Path):
    out = str(tmp_path / "out")
    command = ["prepare", str(tmp_path / "texts"), "--out", out, "--vocab", "400"]
    command += ["--context-tokens", "32", "--cache", str(tmp_path / "cache"), "--processes", "1"]
    code, said, progress = run(*command)
    assert code == 0
    assert "texts: " in said
    assert "tokens in" in said
    assert "packing" in progress
    assert run(*command)[2].count("stays as it is") == 1
    code, said, _ = run("show", out, "--json")
    assert json.loads(said)["tokenizer"]["vocab_size"] == 400
    assert len(run("show", out, "--block", "0")[1].split()) > 5  # words, not ids
    code, said, _ = run("verify", out)
    assert code == 0
    assert "is whole: 1 shards" in said


def test_a_corrupt_shard_is_one_line_and_exit_1(run, tmp_path: Path):
    path = dataset(tmp_path / "made")
    shard = next(path.glob("*.u16"))
    shard.write_bytes(bytes(shard.stat().st_size))
    code, said, told = run("verify", str(path))
    assert (code, said) == (1, "")
    assert shard.name in told
    assert "is corrupt: its SHA-256 is" in told


def test_problems_of_a_recipe_are_told_by_line(run, tmp_path: Path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("corpus: x\ncontext_token: 3\nsources: [{kind: builtin}]\n")
    code, _, told = run("prepare", str(recipe), "--out", str(tmp_path / "out"))
    assert code == 1
    assert "recipe.yaml:2" in told
    assert 'Did you mean "context_tokens"?' in told


def test_what_is_not_there_says_what_would_work(run, tmp_path: Path):
    out = str(tmp_path / "out")
    code, _, told = run("prepare", str(tmp_path / "nothing"), "--out", out)
    assert code == 1
    assert "Name files, folders or globs that are there, or builtin" in told
    assert run("prepare", str(tmp_path / "no.yaml"), "--out", out)[0] == 1
    assert run("show", str(tmp_path / "nothing"))[0] == 1
    assert run("show", str(dataset(tmp_path / "made")), "--block", "100")[0] == 1
    assert run("prepare", "builtin", "--out", out, "--vocab", "9")[0] == 2
