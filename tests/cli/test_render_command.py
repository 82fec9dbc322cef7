"""`argosy render`: what it prints, and what it refuses."""

from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

from argosy.cli.render import render

EXAMPLES = Path(__file__).parents[2] / "examples"
EXAMPLE = str(EXAMPLES / "kubernetes.yaml")
app = typer.Typer()
app.command()(render)


def argosy(*words: str):
    return CliRunner().invoke(app, list(words))


def kinds(text: str) -> list[str]:
    return [one["kind"] for one in yaml.safe_load_all(text)]


def test_every_replica_of_every_cluster_is_printed():
    shown = argosy(EXAMPLE)
    assert shown.exit_code == 0
    assert shown.stderr == ""
    found = kinds(shown.stdout)
    assert found.count("Deployment") == 9
    assert found.count("LeaderWorkerSet") == 1
    assert found.count("ResourceClaimTemplate") == 2
    assert "maia" not in shown.stdout.lower()


def test_the_same_file_prints_the_same_bytes():
    assert argosy(EXAMPLE).stdout == argosy(EXAMPLE).stdout


def test_a_deployment_or_a_pool_is_printed_alone():
    shown = argosy(EXAMPLE, "--deployment", "huge@azure-h100")
    assert kinds(shown.stdout) == ["LeaderWorkerSet"]
    shown = argosy(EXAMPLE, "--pool", "own-mi300x")
    assert kinds(shown.stdout) == ["ResourceClaimTemplate", "Deployment"] * 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((EXAMPLE, "--deployment", "large"), "large is no deployment on a kubernetes pool"),
        ((EXAMPLE, "--pool", "azure-maia"), "pool azure-maia is no deployment"),
        ((str(EXAMPLES / "simulated.yaml"),), "nothing to render"),
    ],
)
def test_what_is_not_there_is_told_on_stderr(words, told):
    shown = argosy(*words)
    assert shown.exit_code == 1
    assert shown.stdout == ""
    assert told in shown.stderr


def test_what_no_cluster_could_run_is_refused(tmp_path):
    text = Path(EXAMPLE).read_text("utf-8").replace("layout: {tp: 16}", "layout: {tp: 32}")
    file = tmp_path / "fleet.yaml"
    file.write_text(text, "utf-8")
    shown = argosy(str(file))
    assert shown.exit_code == 1
    assert shown.stdout == ""
    assert "large@aws-trn2-1: vllm with dp = 1 on Trainium2 does not span nodes" in shown.stderr
