"""`argosy check` and `argosy schema`, as an operator meets them."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from argosy.cli.check import check
from argosy.cli.schema import schema
from argosy.fleet import load

EXAMPLES = Path(__file__).parents[2] / "examples"

app = typer.Typer()
app.command()(check)
app.command()(schema)


def argosy(*args: str):
    return CliRunner().invoke(app, args)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_check_passes_every_example(path):
    assert argosy("check", str(path)).exit_code == 0


def test_check_prints_what_the_file_describes():
    result = argosy("check", str(EXAMPLES / "simulated.yaml"))
    for told in ("simulated", "small@local", "large@local", "acme", "enterprise", "32768 tokens"):
        assert told in result.stdout
    assert result.stderr == ""


def test_check_prints_problems_on_stderr_and_exits_1(tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text("fleet: no\n", encoding="utf-8")
    result = argosy("check", str(file))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert f"{file}:1  fleet = no is read as false" in result.stderr


def test_check_says_what_is_wrong_with_a_file_that_cannot_be_read(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("fleet: caf\u00e9".encode("latin-1"))
    for path, told in (
        (tmp_path / "missing.yaml", "No such file"),
        (tmp_path, "directory"),
        (latin, "UTF-8"),
    ):
        result = argosy("check", str(path))
        assert result.exit_code == 1
        assert told in result.stderr
        assert isinstance(result.exception, SystemExit)


def test_check_without_a_file_is_misuse():
    assert argosy("check").exit_code == 2


def test_schema_prints_the_schema_as_json():
    result = argosy("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == msgspec.json.decode(msgspec.json.encode(load.schema()))


def test_the_commands_load_nothing_heavy():
    code = "import sys, argosy.cli.check, argosy.cli.schema; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "argosy.cli.check" in loaded
    assert not loaded & {"rich", "numba", "sqlalchemy", "xllamacpp", "uvicorn"}
