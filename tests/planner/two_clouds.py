"""A problem small enough to solve by hand: one model, two clouds and a site of one's own."""

from msgspec.structs import replace

from argosy.fleet.layout import Layout
from argosy.planner.problem import (
    Need,
    Option,
    Period,
    Problem,
    Slot,
    Supply,
    SupplyPool,
    Survival,
)
from argosy.planner.questions.changed import Solving
from argosy.planner.solving.solve import solve

DAYS = 365.0
DAY = (40.0, 100.0)  # requests/s by night and by day

POOLS = (
    ("azure-h100", "azure/west", "NVIDIA", "H100"),
    ("gcp-v6e", "gcp/east", "Google", "TPU-v6e"),
    ("own-mi300x", "own/here", "AMD", "MI300X"),
)


def pool(name: str, region: str, maker: str, chip: str) -> SupplyPool:
    return SupplyPool(
        name=name,
        region=region,
        cloud=region.split("/")[0],
        maker=maker,
        chip=chip,
        chips_per_node=1,
        nodes_max=400,
        pue=1.25,
        carbon_g_per_kwh=300.0,
    )


def supply(place: int, kind: str, price: float, **changes) -> Supply:
    one = Supply(
        name=f"{POOLS[place][0]} {kind}",
        pool=place,
        kind=kind,
        price_usd_per_chip_hour=price,
        nodes_max=400,
        periods=(0,),
    )
    return replace(one, **changes)


def option(place: int, requests_per_s: float, *, chips: int = 1, spread: float = 0.2) -> Option:
    return Option(
        model="chat",
        pool=place,
        engine="vllm",
        layout=Layout(tp=chips),
        chips=chips,
        requests_per_s=(requests_per_s,),
        requests_per_s_low=(requests_per_s * (1 - spread),),
        requests_per_s_high=(requests_per_s * (1 + spread),),
        power_w=700.0 * chips,
        power_w_idle=100.0 * chips,
    )


def need(name: str, tier: str = "consumer", *, day=DAY, regions=None, **changes) -> Need:
    one = Need(
        name=name,
        model="chat",
        tier=tier,
        origin="azure/west",
        length_class=0,
        tokens_in=500.0,
        tokens_out=100.0,
        requests_per_s=day,
        regions=regions or tuple(region for _, region, _, _ in POOLS),
    )
    return replace(one, **changes)


def problem(**changes) -> Problem:
    """H100 serves 2 requests/s at 4 USD, v6e 1 at 1.5 USD; own chips 2 at 2 USD, used or not."""
    half = DAYS * 12.0
    one = Problem(
        periods=(Period(name="2027", begin="2027-01-01", days=DAYS),),
        slots=(Slot(period=0, hour=0, hours=half), Slot(period=0, hour=12, hours=half)),
        pools=tuple(pool(*row) for row in POOLS),
        supplies=(
            supply(0, "on_demand", 4.0),
            supply(1, "on_demand", 1.5),
            supply(2, "own", 2.0, nodes_max=20),
        ),
        options=(option(0, 2.0), option(1, 1.0), option(2, 2.0)),
        needs=(need("web"),),
        headroom=0.0,
    )
    return replace(one, **changes)


SURVIVES_CLOUDS = (Survival(model="chat", kind="cloud"),)


def solving(gap: float = 1e-4, seconds_max: float = 10.0) -> Solving:
    return Solving(solve=solve, gap=gap, seconds_max=seconds_max)
