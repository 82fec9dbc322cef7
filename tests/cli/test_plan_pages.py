"""What is printed and drawn of the plan in plan_by_hand.py."""

import re
import xml.etree.ElementTree as ET

import msgspec
import pytest
from msgspec.structs import replace

from argosy.cli.planning import map as plan_map
from argosy.cli.planning import pages as plan_pages
from argosy.cli.planning import svg as plan_svg
from argosy.cli.planning import words as plan_words
from argosy.cli.planning.checks import baseline_row
from argosy.cli.planning.html import plan_html
from argosy.cli.planning.report import ConflictReport, PlanReport
from argosy.cli.planning.sums import report_of
from argosy.planner.plan import (
    Conflict,
    Money,
)
from argosy.planner.questions.baselines import Baseline, GivenUp
from tests.cli.plan_by_hand import (
    CREDIT_USD,
    CREDIT_USED_USD,
    DEMAND_USD,
    HOURS,
    OWN_USD,
    PLAN,
)


@pytest.fixture(scope="module")
def report() -> PlanReport:
    """With two baselines, one of which cannot be."""
    dearer = replace(PLAN, money=Money(on_demand=2 * PLAN.money.total))
    given_up = (GivenUp(promise="survive", text="surviving the loss of a cloud"),)
    naive = (
        Baseline(kind="single cloud", name="azure alone", answer=dearer, gives_up=given_up),
        Baseline(
            kind="cheapest chip",
            name="MI300X alone",
            answer=Conflict(constraints=("own-mi300x has one node",), reliefs=()),
        ),
    )
    return report_of(
        PLAN,
        fleet="by <hand>",
        demand="the fleet file's",
        baselines=[baseline_row(one, PLAN) for one in naive],
        assumed=("a PUE of 1.2",),
        refused=("chat on gcp-v6e: it does not fit",),
    )


@pytest.fixture
def printed(report, capsys) -> str:
    plan_pages.print_plan(report)
    return " ".join(capsys.readouterr().out.split())


def test_sums_by_hand_units_and_currency(report):
    hours = 2 * HOURS
    assert report.currency == "USD"
    assert report.hours == hours
    assert report.cost_usd == pytest.approx(OWN_USD + DEMAND_USD + CREDIT_USD)
    assert report.usd_per_hour == pytest.approx(16.0 + 12.0 + 10.0)
    assert report.gap == pytest.approx(0.01)
    assert report.requests_per_s_mean == 15.0
    tokens_out_per_hour = 15.0 * 3600 * 100
    assert report.tokens_out_per_day == pytest.approx(24 * tokens_out_per_hour)
    assert report.usd_per_mtok_out == pytest.approx(38.0 / tokens_out_per_hour * 1e6)
    assert report.usd_per_mtok_out == pytest.approx(7.037, abs=1e-3)


def test_held_nodes_and_credit_say_how_much_of_them_is_used(report):
    own, credit = report.commitments
    assert (own.contract, own.nodes, own.chips, own.is_signed) == ("frankfurt", 1, 8, True)
    assert own.used_share == pytest.approx(1.0)
    assert (own.begin, own.until) == ("2027-01-01", "2028-01-01")
    assert credit.used_share == pytest.approx(0.8)
    assert credit.used_usd_by_period == (pytest.approx(CREDIT_USED_USD),)


def test_the_models_cost_is_all_of_the_plans(report):
    [chat] = report.models
    assert chat.usd == pytest.approx(report.cost_usd)
    assert chat.chip_hours_per_day == pytest.approx((8 * 24) + (8 * 12))


def test_replicas_are_told_at_night_on_average_and_at_the_peak(report):
    own, azure = report.replicas
    [night_and_day] = azure.by_period
    assert (night_and_day.night, night_and_day.mean, night_and_day.peak) == (0, 1.0, 2)
    assert own.load == (pytest.approx(10 / 7.5), pytest.approx(10 / 7.5))
    assert own.is_uncalibrated


def test_the_page_says_what_is_held_what_it_costs_and_what_binds(printed):
    assert "by <hand>, 2027-01-01 to 2028-01-01: 332,880 USD, 38 USD an hour" in printed
    assert "at most 1.0% from the best" in printed
    assert "frankfurt own own-mi300x MI300X 1 node, 8 chips" in printed
    assert (
        "azure-2027 committed spend new azure-h100 H100-SXM 87,600 USD, credit, 1 unit" in printed
    )
    assert "80.0%" in printed
    assert "0 / 1 / 2" in printed
    assert "own-mi300x 66.7%, azure-h100 33.3%" in printed
    assert "azure alone 665,760 76 2.00x" in printed
    assert "Azure alone: without surviving the loss of a cloud." in printed
    assert "MI300X alone: cannot serve it: own-mi300x has one node." in printed
    assert "own-mi300x: its node is in use (14:00): 12.5 USD an hour for each node" in printed
    assert "room for 50.0% more than is expected" in printed
    assert "chat (enterprise, consumer): any one cloud" in printed
    assert "power of MI300X; carbon of own/frankfurt" in printed
    assert "UNCALIBRATED, rates from data sheets alone: chat@own-mi300x tp4 fp8." in printed
    assert "Assumed: a PUE of 1.2" in printed
    assert "Left out: chat on gcp-v6e: it does not fit" in printed


def test_json_holds_the_promised_names_on_top(report):
    told = msgspec.json.decode(msgspec.json.encode(report))
    assert told["schema"] == "argosy.plan/1"
    assert {
        "gap", "cost_usd", "usd_per_hour", "bound_usd", "commitments", "replicas", "routes",
        "binding", "baselines", "replay",
    } <= told.keys()  # fmt: skip
    assert msgspec.json.decode(msgspec.json.encode(report), type=PlanReport) == report


def test_the_page_needs_no_network_and_no_script_and_escapes_names(report):
    page = plan_html(report)
    assert "by &lt;hand&gt;" in page
    assert "by <hand>" not in page
    assert not re.search(r"https?://|<script|@import|url\(", page)
    assert "prefers-color-scheme:dark" in page
    assert 'name="viewport"' in page
    for title in ("Capacity against demand", "Burn-down of azure-2027", "Where it runs",
                  "Cost against naive ways"):  # fmt: skip
        assert title in page


def test_every_picture_is_well_formed(report):
    pictures = re.findall(r"<svg.*?</svg>", plan_html(report), flags=re.DOTALL)
    assert len(pictures) >= 3
    for picture in pictures:
        ET.fromstring(picture)


def test_a_place_on_no_map_is_named_below_it(report):
    assert plan_map.located("own/frankfurt") == plan_map.located("gcp/europe-west3")
    assert plan_map.located("own/behind-the-moon") is None
    moved = replace(report.replicas[0], region="own/behind-the-moon")
    page = plan_html(replace(report, replicas=(moved, report.replicas[1])))
    assert "On no map: own/behind-the-moon." in page


def test_every_region_of_the_catalogue_is_on_the_map():
    from argosy.fleet.catalogue import regions

    assert [one.name for one in regions() if plan_map.located(one.name) is None] == []


def test_axes_end_at_round_numbers():
    assert [plan_svg.nice(value) for value in (0.9, 1.0, 101, 367, 799, 0.03)] == [
        1.0, 1.0, 120.0, 400.0, 800.0, pytest.approx(0.032),
    ]  # fmt: skip
    assert [plan_svg.short(value) for value in (0, 950, 12_000, 3.4e6, 2e9)] == [
        "0", "950", "12 k", "3.4 M", "2 B",
    ]  # fmt: skip


def test_money_and_shares_are_rounded_but_never_to_all_or_nothing():
    assert [plan_words.usd(value) for value in (0.0, 12.345, 950.4, 1.2345e6, 3.0e10)] == [
        "0 USD", "12.35 USD", "950 USD", "1.234 M USD", "30.00 B USD",
    ]  # fmt: skip
    assert [plan_words.percent(share) for share in (0, 0.0001, 0.5, 0.99999, 1, 1.5)] == [
        "0%", "<0.1%", "50.0%", "99.9%", "100%", "150%",
    ]  # fmt: skip


def test_a_conflict_is_told_in_words_with_its_reliefs(capsys):
    told = ConflictReport(
        fleet="small",
        conflict=("eu residency of chat", "survive any_one_cloud"),
        reliefs=("a second cloud in eu",),
    )
    plan_pages.print_conflict(told)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no plan keeps all of these together" in shown.err
    assert "  - eu residency of chat\n  - survive any_one_cloud" in shown.err
    assert "What would work, the cheapest first:\n  - a second cloud in eu" in shown.err
