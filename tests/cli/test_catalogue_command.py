"""`argosy catalogue`: what it prints, where, and with which exit code."""

import json

import pytest
import typer
from typer.testing import CliRunner

from argosy.cli.catalogue import catalogue
from argosy.fleet.architectures import architectures
from argosy.fleet.catalogue import chips, offers

app = typer.Typer()
app.command()(catalogue)


@pytest.fixture
def argosy():
    def run(*words: str):
        return CliRunner().invoke(app, list(words))

    return run


def test_the_table_has_every_chip_by_its_whole_name(argosy):
    shown = argosy()
    assert shown.exit_code == 0
    lines = {line.split()[0]: line for line in shown.stdout.splitlines() if line.strip()}
    for one in chips():
        assert one.maker in lines[one.name]
    assert "…" not in shown.stdout


def test_the_cheapest_price_is_shown_and_flagged_when_its_list_is_old(argosy):
    line = next(one for one in argosy().stdout.splitlines() if one.startswith("H100-SXM"))
    assert "6.88*" in line  # the list is of 2026-07-20; this year is over 45 days later
    assert "989" in line
    line = next(one for one in argosy().stdout.splitlines() if one.startswith("MI355X"))
    assert line.split()[-1] == "-"


def test_a_chip_s_page_has_figures_offers_and_sources(argosy):
    shown = argosy("h100-sxm").stdout
    assert "989  TFLOP/s  AIC TTI KLO" in shown
    assert "aws/us-east-1" in shown
    assert "gcp/us-central1" in shown
    for code in ("AIC", "KAWS", "KAZ", "KGCP"):
        assert any(line.startswith(f"{code} ") for line in shown.splitlines())
    assert "Apache-2.0" in shown
    assert "read 2026-11-21" in shown


def test_a_chip_without_offers_says_so(argosy):
    shown = argosy("Maia-200").stdout
    assert "No offer of a cloud is known." in shown
    assert "2,800  GB/s" in shown
    assert "of 2026-01-26" in shown


@pytest.mark.parametrize("name", ["CPU-Arm", "A10G", "GB200", "TPU-v7", "Trainium3"])
def test_pages_of_chips_that_lack_figures_or_offers_can_be_shown(argosy, name):
    assert name in argosy(name).stdout


@pytest.mark.parametrize("name", ["BLOOM-176B", "GLM-5", "Nemotron-Nano-9B-v2", "Llama-4-Scout"])
def test_a_model_s_page_has_its_dimensions_and_source(argosy, name):
    shown = argosy("--models", name).stdout
    assert "parameters_total" in shown
    assert "config.json" in shown


def test_models_are_listed_with_parameters_and_kv(argosy):
    shown = argosy("--models")
    assert shown.exit_code == 0
    line = next(one for one in shown.stdout.splitlines() if one.startswith("DeepSeek-V3 "))
    assert line.split()[1:4] == ["671.03", "37.55", "68.6"]


def test_json_is_whole_and_can_be_read(argosy):
    lines = json.loads(argosy("--json").stdout)
    assert [line["chip"]["name"] for line in lines] == [one.name for one in chips()]
    page = json.loads(argosy("L4", "--json").stdout)
    assert len(page["offers"]) == len(offers("L4"))
    assert page["offers"][0]["is_old"] is True
    cited = {code for figure in page["chip"]["figures"] for code in figure["sources"]}
    assert cited <= {one["code"] for one in page["sources"]}
    models = json.loads(argosy("--models", "--json").stdout)
    assert len(models) == len(architectures())
    one = json.loads(argosy("--models", "Llama-3.1-8B", "--json").stdout)
    assert one["parameters_total"] == 8_030_261_248
    assert one["kv_bytes_per_token_bf16"] == 131_072


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["H100-SMX"], 'Did you mean "H100-SXM"'),
        (["--models", "Qwen3-9B"], 'Did you mean "Qwen3-8B"'),
    ],
)
def test_an_unknown_name_is_refused_with_exit_code_1(argosy, words, says):
    refused = argosy(*words)
    assert refused.exit_code == 1
    assert refused.stdout == ""
    assert says in refused.stderr
