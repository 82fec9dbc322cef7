"""`argosy plan`: whole runs on a small fleet, and every refusal in words with exit code 1."""

import re
from pathlib import Path

import msgspec
import platformdirs
import pytest
import typer
from typer.testing import CliRunner

from argosy.cli.main import app
from argosy.cli.planning import asking
from argosy.cli.planning.offer import OfferReport
from argosy.cli.planning.report import ConflictReport, PlanReport
from argosy.cli.planning.what_if import WhatIfReport

HOUSE = Path(__file__).parents[2]
SMALL = """
fleet: small
pools:
  - {name: near, launcher: {kind: planned}, region: aws/us-east-1, chip: H100-SXM, nodes: {max: 9},
     price_usd_per_chip_hour: 6.0}
  - {name: far, launcher: {kind: planned}, region: azure/eastus, chip: H100-SXM, nodes: {max: 9},
     price_usd_per_chip_hour: 5.0}
models:
  - {name: chat, architecture: Llama-3.1-8B, slo: {ttft_s_p95: 1.0, itl_s_p99: 0.05}}
deployments:
  - {model: chat, pool: near, replicas: 2, engine: {kind: vllm, requests_max: 8}}
tenants:
  - {name: web, tier: consumer}
demand:
  - model: chat
    origin: aws/us-east-1
    requests_per_s: 50
    prompt_tokens: {mean: 500}
    output_tokens: {mean: 50}
contracts:
  - {kind: reserved, name: far-1y, pools: [far], price_usd_per_chip_hour: 2.0, nodes: {max: 2},
     from: 2027-01-01, until: 2028-01-01}
plan: {from: 2027-01-01}
"""
QUICK = ("--no-replay", "--no-baselines")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One for the module: rates that a test's run found serve the next."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def argosy(cache, monkeypatch):
    """Runs the command; a traceback of it is an error of the test."""
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda _: cache)

    def run(*words: str):
        shown = CliRunner().invoke(app, ["plan", *words])
        if shown.exception is not None and not isinstance(shown.exception, SystemExit):
            raise shown.exception
        return shown

    return run


@pytest.fixture
def small(tmp_path):
    """Writes the small fleet, changed; its path."""

    def write(old: str = "", new: str = "") -> str:
        assert old in SMALL
        path = tmp_path / "small.yaml"
        path.write_text(SMALL.replace(old, new) if old else SMALL, "utf-8")
        return str(path)

    return write


def refused(shown) -> str:
    """What stderr says, where it is a refusal and nothing else."""
    assert shown.exit_code == 1
    assert shown.stdout == ""
    assert "Traceback" not in shown.stderr
    return " ".join(shown.stderr.split())


def test_a_plan_is_printed_drawn_replayed_and_compared(argosy, small, tmp_path):
    page = tmp_path / "report.html"
    shown = argosy(small(), "--html", str(page))
    assert shown.exit_code == 0
    told = " ".join(shown.stdout.split())
    assert "small, 2027-01-01 to 2028-01-01: 140,160 USD, 16 USD an hour" in told
    assert "far-1y reserved new far H100-SXM 1 node, 8 chips 2.00" in told
    assert "azure alone" in told
    assert "every promise was kept" in told
    assert "every promise was kept" in page.read_text("utf-8")


def test_the_same_fleet_gives_the_same_bytes_and_json_that_decodes(argosy, small):
    first, again = (argosy(small(), *QUICK, "--json") for _ in range(2))
    assert first.stdout_bytes == again.stdout_bytes
    report = msgspec.json.decode(first.stdout_bytes, type=PlanReport)
    # 8 chips at 2 USD for 8,760 hours: on demand, the 5 that are needed would cost 25 an hour.
    assert report.cost_usd == pytest.approx(8 * 2.0 * 8760)
    assert report.usd_per_hour == pytest.approx(16.0)
    assert 0 <= report.gap < 1
    [chat] = report.replicas
    assert (chat.pool, chat.chips) == ("far", 1)
    need = 50.0 * 1.5 / chat.requests_per_s[0]
    assert all(need <= count < need + 1 for count in chat.replicas)


def test_ten_times_the_users_and_growth_are_planned_for(argosy, small):
    words = (small(), *QUICK, "--json", "--scale", "4", "--growth", "1.44")
    report = msgspec.json.decode(argosy(*words).stdout_bytes, type=PlanReport)
    assert report.requests_per_s_mean == pytest.approx(50 * 4 * 1.2, rel=0.01)  # in the middle
    assert report.demand == "the fleet file's, 4 times as many users, growing 1.44 times a year"


def test_rates_are_kept_for_the_next_run(argosy, small, cache):
    argosy(small(), *QUICK)
    kept = (cache / asking.RATES_FILE).read_bytes()
    assert len(msgspec.json.decode(kept)) >= 1
    (cache / asking.RATES_FILE).write_bytes(b"not json")
    assert argosy(small(), *QUICK).exit_code == 0
    assert (cache / asking.RATES_FILE).read_bytes() == kept


def test_what_cannot_be_served_is_a_conflict_in_words(argosy, small):
    shown = argosy(small(), *QUICK, "--scale", "1000")
    assert "small: no plan keeps all of these together" in refused(shown)
    as_json = argosy(small(), *QUICK, "--scale", "1000", "--json")
    assert as_json.exit_code == 1
    report = msgspec.json.decode(as_json.stdout_bytes, type=ConflictReport)
    assert report.conflict


def test_an_offer_is_worth_what_it_saves(argosy, small):
    words = ("--chip", "H100-SXM", "--region", "aws/us-east-1", "--count", "8", "--term", "1y")
    shown = argosy("offer", small(), *words, "--price", "9", "--json")
    report = msgspec.json.decode(shown.stdout_bytes, type=OfferReport)
    assert (report.chips, report.nodes, report.years) == (8, 1, 1)
    # Without it a node of 8 chips is held at 2 USD, of which 5 are needed: all of it is spared.
    assert report.is_whole
    assert report.break_even_usd == pytest.approx(2.0, rel=1e-6)
    assert [bid.is_taken for bid in report.bids] == [True, False]
    assert not report.is_worth_it
    odd = argosy("offer", small("near", "offered"), *words, "--count", "9")
    assert "Assumed: 9 chips are 2 nodes of 8: 16" in odd.stdout
    assert "16 H100-SXM in aws/us-east-1" in odd.stdout
    printed = argosy("offer", small(), *words).stdout
    assert "8 H100-SXM in aws/us-east-1 for 1 year from 2027-01-01 are worth at most" in printed
    assert "to leave it aside: --without near" in printed


def test_an_offers_page_is_written(argosy, small, tmp_path):
    page = tmp_path / "offer.html"
    words = ("--chip", "H100-SXM", "--region", "aws/us-east-1", "--count", "8", "--term", "1y")
    assert argosy("offer", small(), *words, "--html", str(page)).exit_code == 0
    assert "what are they worth?" in page.read_text("utf-8")


def test_a_change_is_planned_again(argosy, small, tmp_path):
    changes = ("--change", "users=2", "--change", "gone:cloud:azure")
    shown = argosy("what-if", small(), *changes, "--json")
    report = msgspec.json.decode(shown.stdout_bytes, type=WhatIfReport)
    assert [one.asked for one in report.outcomes] == ["users=2", "gone:cloud:azure"]
    more, gone = report.outcomes
    assert more.usd_per_hour is not None
    assert more.usd_per_hour > report.usd_per_hour_before == pytest.approx(16.0)
    assert gone.usd_per_hour == pytest.approx(30.0)  # five chips at 6 USD
    page = tmp_path / "what-if.html"
    printed = argosy("what-if", small(), *changes, "--html", str(page)).stdout
    assert "cloud azure is gone: 30 USD an hour, 14 more" in printed
    assert "in chips in use on average: far 5 to 0, near 0 to 5." in printed
    assert "cloud azure is gone</h2>" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--scale", "0"), "--scale 0 is not possible. Write a number above 0"),
        (("--growth", "-1"), "--growth -1 is not possible. Write the factor of a year"),
        (("--gap", "2"), "--gap 2 is no share. Write one between 0 and 1"),
        (("--seconds", "0"), "--seconds 0 is no time. Write seconds above 0"),
        (("--model", "chat"), "--model says whose requests a recording's are"),
        (("--demand", "none.csv"), "none.csv: there is no such file"),
        (("--html", "report.txt"), "--html report.txt is no page. Name a file that ends in .html"),
        (("--html", "no/such/report.html"), "no folder no/such"),
    ],
)
def test_numbers_and_names_that_cannot_be_are_refused(argosy, small, words, told):
    assert told in refused(argosy(small(), *QUICK, *words))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--chip", "H100-SMX"), 'Did you mean "H100-SXM"'),
        (("--term", "3 years"), '--term "3 years" is no term. Write whole years, 1y to 10y.'),
        (("--region", "moon"), '--region "moon" is no region. Write cloud/region'),
        (("--without", "nowhere"), '--without "nowhere" is no pool of fleet small'),
    ],
)
def test_an_offer_that_cannot_be_is_refused(argosy, small, words, told):
    usual = ("--chip", "H100-SXM", "--region", "aws/us-east-1", "--count", "8", "--term", "1y")
    assert told in refused(argosy("offer", small(), *usual, *words))


def test_a_change_that_is_none_is_refused(argosy, small):
    told = refused(argosy("what-if", small(), "--change", "weather=bad"))
    assert '--change "weather=bad" is no change. Write one of: users=10' in told
    told = refused(argosy("what-if", small(), "--change", "gone:cloud:gcp"))
    assert "gcp" in told


def test_a_fleet_without_demand_is_refused(argosy, small):
    text = SMALL[SMALL.index("demand:") : SMALL.index("contracts:")]
    told = refused(argosy(small(text, ""), *QUICK))
    assert "fleet small has no demand section, so there is nothing to plan for" in told


def test_the_grammar_leads_to_the_plan_unless_a_command_is_named(argosy):
    assert "Usage: argosy plan [OPTIONS]" in " ".join(
        CliRunner().invoke(app, ["plan", "--help"], prog_name="argosy").stdout.split()
    )
    assert "--chip" in argosy("offer", "--help").stdout
    assert "--change" in argosy("what-if", "--help").stdout
    assert "no such file" in refused(argosy("no-such.yaml")).lower()


def test_the_plan_is_listed_among_the_verbs():
    assert isinstance(app, typer.Typer)
    assert " plan " in CliRunner().invoke(app, ["--help"]).stdout


def test_the_case_by_hand_in_the_guide_prints_as_it_stands_there(argosy, tmp_path):
    guide = (HOUSE / "docs/PLAN.md").read_text("utf-8")
    case = guide[guide.index("## A case by hand") :]
    fleet, told = re.findall(r"```(?:yaml)?\n(.*?)```", case, flags=re.DOTALL)[:2]
    command, _, printed = told.partition("\n")
    path = tmp_path / "two-clouds.yaml"
    path.write_text(fleet, "utf-8")
    shown = argosy(str(path), *command.split()[4:])
    assert [line.rstrip() for line in shown.stdout.splitlines()] == printed.splitlines()


def test_recorded_demand_is_planned_for(argosy, small, tmp_path):
    recording = tmp_path / "hour.csv"
    rows = "".join(f"{second / 2},500,50\n" for second in range(7200))
    recording.write_text(f"t_s,input_tokens,output_tokens\n{rows}", "utf-8")
    words = (small(), *QUICK, "--json", "--demand", str(recording), "--scale", "25")
    report = msgspec.json.decode(argosy(*words).stdout_bytes, type=PlanReport)
    assert report.demand == "of hour.csv, 25 times as many users"
    assert report.requests_per_s_mean == pytest.approx(50, rel=0.01)
    assert report.usd_per_hour == pytest.approx(16.0)
