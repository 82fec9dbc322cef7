"""What is printed and drawn of the questions to a plan: what an offer is worth, and what if."""

import re
import xml.etree.ElementTree as ET

import pytest
from msgspec.structs import replace

from argosy.cli.planning.offer import OfferAsked, offer_report, print_offer
from argosy.cli.planning.offer_html import offer_html
from argosy.cli.planning.what_if import (
    UnreadableChangeError,
    WhatIfReport,
    change_of,
    outcome_of,
    print_what_if,
)
from argosy.cli.planning.what_if_html import what_if_html
from argosy.planner.plan import (
    Conflict,
)
from argosy.planner.questions.changes import Energy, Gone, Growth, Priced, Scarce, Users
from argosy.planner.questions.losses_told import LossTold
from argosy.planner.questions.offer import Bid, Displaced, Offer, Resilience, Worth
from argosy.planner.questions.reliefs import Relief
from argosy.planner.questions.what_if import FirstBound, Moved, WhatIf
from tests.cli.plan_by_hand import (
    PLAN,
)


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
