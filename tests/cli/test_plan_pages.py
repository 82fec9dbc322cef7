"""What is printed and drawn of a plan that was made by hand: two hours, two pools, three contracts.

At night 10 requests/s, in the day 20; a replica of four chips serves 5. Own nodes hold 8 chips; the
rest is on demand and out of a credit, at 4 USD, of which a fifth is paid for nothing.
"""

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
from argosy.cli.planning.offer import OfferAsked, offer_report, print_offer
from argosy.cli.planning.offer_html import offer_html
from argosy.cli.planning.report import ConflictReport, PlanReport
from argosy.cli.planning.sums import report_of
from argosy.cli.planning.what_if import (
    UnreadableChangeError,
    WhatIfReport,
    change_of,
    outcome_of,
    print_what_if,
)
from argosy.cli.planning.what_if_html import what_if_html
from argosy.fleet.layout import Layout
from argosy.planner.plan import (
    Binding,
    Bought,
    Conflict,
    Drawn,
    Held,
    Money,
    Plan,
    Route,
    Run,
)
from argosy.planner.problem import (
    Credit,
    Need,
    Option,
    Period,
    Problem,
    Slot,
    Supply,
    SupplyPool,
    Survival,
)
from argosy.planner.questions.baselines import Baseline, GivenUp
from argosy.planner.questions.changes import Energy, Gone, Growth, Priced, Scarce, Users
from argosy.planner.questions.losses_told import LossTold
from argosy.planner.questions.offer import Bid, Displaced, Offer, Resilience, Worth
from argosy.planner.questions.reliefs import Relief
from argosy.planner.questions.what_if import FirstBound, Moved, WhatIf

HOURS = 365.0 * 12  # that each of the two hours stands for
OWN_USD = 8 * 2.0 * 2 * HOURS
DEMAND_USD = 4 * 6.0 * HOURS
CREDIT_USED_USD = 4 * 4.0 * HOURS
CREDIT_USD = CREDIT_USED_USD / 0.8


def pool(name: str, region: str, chip: str, carbon: float | None) -> SupplyPool:
    return SupplyPool(
        name=name,
        region=region,
        cloud=region.split("/")[0],
        maker="AMD" if chip == "MI300X" else "NVIDIA",
        chip=chip,
        chips_per_node=8,
        nodes_max=9,
        pue=1.2,
        carbon_g_per_kwh=carbon,
    )


def option(at: int, power_w: float | None, *, uncalibrated: bool) -> Option:
    return Option(
        model="chat",
        pool=at,
        engine="vllm",
        layout=Layout(tp=4, dtype="fp8"),
        chips=4,
        requests_per_s=(7.5,),
        requests_per_s_low=(5.0,),
        requests_per_s_high=(9.0,),
        power_w=power_w,
        power_w_idle=power_w,
        uncalibrated=uncalibrated,
    )


PROBLEM = Problem(
    periods=(Period(name="2027", begin="2027-01-01", days=365),),
    slots=(Slot(period=0, hour=2, hours=HOURS), Slot(period=0, hour=14, hours=HOURS)),
    pools=(
        pool("own-mi300x", "own/frankfurt", "MI300X", None),
        pool("azure-h100", "azure/westus3", "H100-SXM", 300.0),
    ),
    supplies=(
        Supply(
            name="own-mi300x own", pool=0, kind="own", price_usd_per_chip_hour=2.0, nodes_min=1,
            nodes_max=1, periods=(0,), contract="frankfurt", is_signed=True,
        ),
        Supply(
            name="azure-h100 on demand", pool=1, kind="on_demand", price_usd_per_chip_hour=6.0,
            nodes_max=9, periods=(0,),
        ),
        Supply(
            name="azure-h100 azure-2027", pool=1, kind="committed_spend",
            price_usd_per_chip_hour=4.0, nodes_max=9, periods=(0,), contract="azure-2027",
        ),
    ),
    credits=(
        Credit(
            contract="azure-2027", supplies=(2,), usd_per_unit=CREDIT_USD, units_min=0,
            units_max=3, periods=(0,),
        ),
    ),
    options=(option(0, None, uncalibrated=True), option(1, 2000.0, uncalibrated=False)),
    needs=(
        Need(
            name="chat consumer from own/frankfurt", model="chat", tier="consumer",
            origin="own/frankfurt", length_class=0, tokens_in=1000, tokens_out=100,
            requests_per_s=(10.0, 20.0), regions=("own/frankfurt", "azure/westus3"),
        ),
    ),
    survivals=(Survival(model="chat", kind="cloud"),),
    headroom=0.5,
)  # fmt: skip

PLAN = Plan(
    problem=PROBLEM,
    money=Money(own=OWN_USD, on_demand=DEMAND_USD, committed_spend=CREDIT_USD),
    bound_usd=0.99 * (OWN_USD + DEMAND_USD + CREDIT_USD),
    held=(Held(supply=0, nodes=1),),
    bought=(Bought(credit=0, units=1, usd=CREDIT_USD, used_usd=CREDIT_USED_USD),),
    runs=(Run(option=0, replicas=(2, 2)), Run(option=1, replicas=(0, 2))),
    routes=(
        Route(need=0, option=0, requests_per_s=(10.0, 10.0)),
        Route(need=0, option=1, requests_per_s=(0.0, 10.0)),
    ),
    drawn=(
        Drawn(supply=0, chips=(8.0, 8.0)),
        Drawn(supply=1, chips=(0.0, 4.0)),
        Drawn(supply=2, chips=(0.0, 4.0)),
    ),
    binding=(
        Binding(
            constraint="own-mi300x: its node is in use",
            unit="node",
            usd_per_unit_hour=12.5,
            slots=(1,),
        ),
    ),
    energy_kwh_per_day=57.6,
    carbon_kg_per_day=17.3,
    losses_checked=4,
    losses_added=1,
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


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("users=10", Users(times=10)),
        ("users:chat=0.5", Users(times=0.5, model="chat")),
        ("growth=0.5", Growth(share_per_year=0.5)),
        ("price:H100-SXM=1.2", Priced(name="H100-SXM", times=1.2)),
        ("shortage:H100-SXM=0.5", Scarce(chip="H100-SXM", share=0.5)),
        ("energy=0.05", Energy(usd_per_kwh=0.05)),
        ("gone:cloud:azure", Gone(kind="cloud", name="azure")),
        ("gone:region:azure/westus3", Gone(kind="region", name="azure/westus3")),
    ],
)
def test_changes_are_read(text, change):
    assert change_of(text) == change


@pytest.mark.parametrize(
    "text",
    ["", "users", "users=", "users=-1", "users=nan", "price=2", "gone:cloud", "gone:moon:x",
     "shortage:H100-SXM=2", "growth:chat=1", "weather=bad"],
)  # fmt: skip
def test_what_is_no_change_is_refused_with_all_that_are(text):
    with pytest.raises(UnreadableChangeError, match="users=10"):
        change_of(text)


def worth(nodes: int, usd: float) -> Worth:
    return Worth(
        nodes=nodes, chips=4 * nodes, value_usd_per_hour=4 * nodes * usd, break_even_usd=usd,
        break_even_usd_low=usd / 2, break_even_usd_high=usd * 1.5, marginal_usd=usd - 0.5,
        tolerance_usd=0.01,
    )  # fmt: skip


OFFER = Offer(
    pool="offered",
    chip="Maia-200",
    region="azure/westus3",
    hours_of_term=8760.0,
    is_uncalibrated=True,
    is_whole=False,
    asked=worth(4, 2.0),
    curve=(worth(2, 3.0), worth(4, 2.0), worth(8, 1.0)),
    bids=(
        Bid(price_usd=1.96, is_taken=True, gain_usd_per_hour=0.6),
        Bid(price_usd=2.04, is_taken=False, gain_usd_per_hour=0.0),
    ),
    displaced=(
        Displaced(
            pool="azure-h100", chip="H100-SXM", chips_mean_without=4.0, chips_mean_with=1.0,
            usd_per_hour_without=22.0, usd_per_hour_with=5.0,
        ),
        Displaced(
            pool="offered", chip="Maia-200", chips_mean_without=0.0, chips_mean_with=3.0,
            usd_per_hour_without=0.0, usd_per_hour_with=0.0,
        ),
    ),
    resilience=Resilience(
        usd_per_hour_without=4.0,
        usd_per_hour_with=1.0,
        losses_without=(LossTold(kind="cloud", domain="azure", slot=1, served={"consumer": 0.5}),),
        losses_with=(LossTold(kind="cloud", domain="azure", slot=1, served={"consumer": 1.0}),),
    ),
    usd_per_hour_without=38.0,
    usd_per_hour_with=6.0,
    plan_without=PLAN,
    plan_with=PLAN,
)  # fmt: skip


def offered(price_usd: float | None):
    asked = OfferAsked(
        fleet="small", chip="Maia-200", region="azure/westus3", chips=16, nodes=4, years=1,
        price_usd=price_usd,
    )  # fmt: skip
    return offer_report(OFFER, asked, assumed=(), refused=())


def test_an_offer_says_its_break_even_and_that_its_chip_was_never_measured(capsys):
    print_offer(offered(None))
    told = " ".join(capsys.readouterr().out.split())
    assert "16 Maia-200 in azure/westus3 for 1 year from 2027-01-01 are worth at most" in told
    assert "2.00 (1.00-3.00) USD per chip-hour" in told
    assert "UNCALIBRATED: nobody has measured Maia-200" in told
    assert "at 1.96 it takes them, at 2.04 it leaves them" in told
    assert "What it displaces, all of it paid at its break-even, 2.00 USD:" in told
    assert "azure-h100 H100-SXM 4 1 22 5" in told
    assert "offered Maia-200 0 3 0 32" in told  # 16 chips at 2.00 USD, of which 3 are in use
    assert "in fractions of nodes and replicas; the whole plans cost 38 and 6 USD/h" in told
    assert "costs 4 USD an hour without it, 1 with it" in told
    assert "cloud azure consumer 50.0% all" in told


def test_a_price_is_judged_and_a_smaller_count_may_be_worth_it():
    dear, cheap = offered(2.4), offered(1.5)
    assert (dear.is_worth_it, dear.chips_worth) == (False, 8)
    assert cheap.is_worth_it
    assert "not worth it; all of them lose 6 USD an hour. 8 of them would be" in offer_html(dear)
    assert "worth it; all of them save 8 USD an hour." in offer_html(cheap)


def test_what_an_offer_displaces_is_told_at_the_price_asked_for():
    asked = offered(2.5)
    assert asked.displaced_at_usd == 2.5
    own = next(one for one in asked.displaced if one.pool == "offered")
    assert own.usd_per_hour_with == pytest.approx(16 * 2.5)
    assert "All of the offer is paid at the price asked for, 2.50 USD" in offer_html(asked)


def test_an_offer_in_whole_nodes_says_so():
    whole = replace(offered(None), is_whole=True)
    assert "in whole nodes and replicas: 38 and 6 USD/h." in offer_html(whole)


def test_the_offers_page_draws_its_demand_curve():
    page = offer_html(offered(2.4))
    [picture] = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    ET.fromstring(picture)
    assert picture.count("<circle") == 3
    assert "asked: 2.40" in picture
    assert not re.search(r"https?://|<script", page)


def test_an_offer_says_from_how_many_on_more_add_nothing():
    flat = replace(OFFER.curve[2], marginal_usd=0.0)
    report = replace(offered(None), curve=(*OFFER.curve[:2], flat))
    assert "More than 16 of them add nothing to this fleet." in offer_html(report)
    assert "add nothing" not in offer_html(offered(None))


DEARER = WhatIf(
    change="H100-SXM at 1.5 x its price",
    answer=PLAN,
    usd_per_hour_before=30.0,
    usd_per_hour=38.0,
    first_bound=None,
    possible_until=None,
    possible_extent=None,
    reliefs=(
        Relief(
            text="1 more node of own-mi300x", usd_per_hour=33.0, saves_usd_per_hour=5.0,
            is_at_least=False,
        ),
    ),
    moved=(
        Moved(
            pool="azure-h100", chip="H100-SXM", chips_mean_before=8.0, chips_mean_after=4.0,
            usd_per_hour_before=22.0, usd_per_hour_after=20.0,
        ),
        Moved(
            pool="own-mi300x", chip="MI300X", chips_mean_before=2.0, chips_mean_after=8.0,
            usd_per_hour_before=8.0, usd_per_hour_after=18.0,
        ),
    ),
)  # fmt: skip
IMPOSSIBLE = replace(
    DEARER,
    change="4 x the users <of all>",
    answer=Conflict(constraints=("own-mi300x has no more than 1 node",), reliefs=()),
    usd_per_hour=None,
    first_bound=FirstBound(constraint="own-mi300x: its node", at="2 x the users", extent=0.5),
    possible_until="3 x the users",
    possible_extent=0.8,
    reliefs=(
        Relief(
            text="2 more nodes of own-mi300x", usd_per_hour=60.0, saves_usd_per_hour=None,
            is_at_least=False,
        ),
        Relief(
            text="9 more nodes of azure-h100", usd_per_hour=90.0, saves_usd_per_hour=None,
            is_at_least=True,
        ),
    ),
    remarks=("a remark",),
)  # fmt: skip
WHAT_IF = WhatIfReport(
    fleet="by <hand>",
    begin="2027-01-01",
    usd_per_hour_before=30.0,
    gap_before=0.01,
    outcomes=(outcome_of("price:H100-SXM=1.5", DEARER), outcome_of("users=4", IMPOSSIBLE)),
)


def test_a_what_if_says_what_it_costs_what_would_help_and_what_moves(capsys):
    print_what_if(WHAT_IF)
    told = capsys.readouterr().out
    assert "H100-SXM at 1.5 x its price: 38 USD an hour, 8 more, 1.27x" in told
    assert "Cheapest relief: 1 more node of own-mi300x, then 33 USD an hour, 5 saved" in told
    assert "in chips in use on average: own-mi300x 2 to 8, azure-h100 8 to 4." in told
    assert "4 x the users <of all>: there is no plan" in told
    assert "What binds first, from 2 x the users on: own-mi300x: its node" in told
    assert "There is a plan up to 3 x the users." in told
    assert "Or: 9 more nodes of azure-h100, then at least 90 USD an hour" in told
    assert "What moves, with the cheapest relief, in chips" in told


def test_the_what_ifs_page_needs_no_network_and_shows_each_change():
    page = what_if_html(WHAT_IF)
    assert "by &lt;hand&gt;" in page
    assert "<of all>" not in page
    assert not re.search(r"https?://|<script|@import|url\(", page)
    for told in ("+8 USD", "no plan", "What an hour costs", "binds from 2 x the users",
                 "no plan beyond 3 x the users", "What would help, the cheapest first",
                 "What moves, by pool, with the cheapest relief", "a remark"):  # fmt: skip
        assert told in page
    [picture] = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    ET.fromstring(picture)


def test_a_what_if_whose_change_saves_is_green_and_one_without_any_way_out_is_drawn():
    cheaper = replace(DEARER, usd_per_hour=20.0, moved=(), reliefs=())
    lost = replace(IMPOSSIBLE, reliefs=(), moved=(), first_bound=None, possible_extent=None)
    outcomes = (outcome_of("a", cheaper), outcome_of("b", lost))
    page = what_if_html(replace(WHAT_IF, outcomes=outcomes))
    assert "\u221210 USD" in page
    assert "<svg" not in page
