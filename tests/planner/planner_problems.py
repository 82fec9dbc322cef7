"""Small problems made by hand, and a strategy that draws small ones; tests share them."""

from hypothesis import strategies as st

from argosy.fleet.layout import Layout
from argosy.planner.problem import (
    Need,
    Option,
    Period,
    Problem,
    Slot,
    Spread,
    Supply,
    SupplyPool,
    Survival,
)


def slots(count: int = 2, days: float = 365.0, period: int = 0) -> tuple[Slot, ...]:
    """Hours of a typical day, each standing for its part of the days."""
    return tuple(
        Slot(period=period, hour=hour * 24 // count, hours=24.0 * days / count)
        for hour in range(count)
    )


def pool(name: str, region: str, maker: str = "nvidia", **more) -> SupplyPool:
    """A pool of 100 nodes of 8 chips."""
    given = {"chip": "H100-SXM", "chips_per_node": 8, "nodes_max": 100, "pue": 1.2}
    given |= {"carbon_g_per_kwh": 300.0} | more
    return SupplyPool(name=name, region=region, cloud=region.split("/")[0], maker=maker, **given)


def supply(place: int, kind: str = "on_demand", price: float = 2.0, **more) -> Supply:
    """Of pool `place`."""
    given = {"name": f"{kind}-{place}", "nodes_max": 100, "periods": (0,)} | more
    return Supply(pool=place, kind=kind, price_usd_per_chip_hour=price, **given)


def option(model: str, place: int, rates: tuple[float, ...] = (1.0,), **more) -> Option:
    """On pool `place`."""
    given = {"engine": "vllm", "layout": Layout(), "chips": 1, "power_w": 700.0} | more
    given.setdefault("power_w_idle", 100.0)
    return Option(
        model=model,
        pool=place,
        requests_per_s=rates,
        requests_per_s_low=rates,
        requests_per_s_high=rates,
        **given,
    )


def need(model: str, rates: tuple[float, ...], regions: tuple[str, ...], **more) -> Need:
    """A consumer's demand."""
    given = {"tier": "consumer", "origin": "eu", "length_class": 0} | more
    given.setdefault("name", f"{model}/{given['tier']}/{given['origin']}/{given['length_class']}")
    return Need(
        model=model,
        tokens_in=1000.0,
        tokens_out=200.0,
        requests_per_s=rates,
        regions=regions,
        **given,
    )


def period(days: float = 365.0, name: str = "2027") -> Period:
    """One stretch of the horizon."""
    return Period(name=name, begin="2027-01-01", days=days)


def problem(**more) -> Problem:
    """Two clouds, one model, two slots."""
    given = {
        "periods": (period(),),
        "slots": slots(2),
        "pools": (pool("a", "aws/eu"), pool("g", "gcp/eu", maker="google")),
        "supplies": (
            supply(0, price=4.0),
            supply(0, "reserved", price=2.0),
            supply(1, price=3.0),
        ),
        "options": (option("m", 0, (2.0,)), option("m", 1, (1.0,))),
        "needs": (need("m", (10.0, 4.0), ("aws/eu", "gcp/eu")),),
        "headroom": 0.0,
    }
    return Problem(**(given | more))


REGIONS = ("aws/eu", "gcp/eu", "aws/us", "azure/us")
MAKERS = ("nvidia", "google", "nvidia", "amd")


@st.composite
def problems(draw) -> Problem:
    """Small problems with a bit of everything; most can be solved."""
    count, hours = draw(st.integers(2, 4)), draw(st.integers(1, 3))
    classes = draw(st.integers(1, 2))
    pools = tuple(
        pool(
            f"p{i}",
            REGIONS[i],
            maker=MAKERS[i],
            chips_per_node=4,
            nodes_max=draw(st.integers(4, 20)),
        )
        for i in range(count)
    )
    models = ("m", "n")[: draw(st.integers(1, 2))]
    price = st.integers(1, 8).map(lambda quarter: quarter / 4)
    supplies = []
    for i in range(count):
        supplies.append(supply(i, price=draw(price), nodes_max=draw(st.integers(2, 20))))
        if draw(st.booleans()):
            supplies.append(supply(i, "reserved", price=draw(price) / 2, nodes_max=6))
        if draw(st.integers(0, 3)) == 0:
            spot = {"price": draw(price) / 2, "survives": False, "availability": 0.8}
            supplies.append(supply(i, "spot", nodes_max=5, **spot))
    rate = st.integers(1, 12).map(lambda third: third / 3)
    options = tuple(
        option(name, i, tuple(draw(rate) for _ in range(classes)), chips=chips)
        for name in models
        for i in range(count)
        for chips in draw(st.sampled_from(((1,), (2,), (1, 2))))
    )
    amount = st.integers(0, 24).map(lambda half: half / 2)
    regions = tuple(p.region for p in pools)
    needs = tuple(
        need(
            name,
            tuple(draw(amount) for _ in range(hours)),
            draw(st.sampled_from((regions, regions[:2], regions[1:]))),
            length_class=c,
            tier=tier,
            may_wait=tier == "batch",
        )
        for name in models
        for c in range(classes)
        for tier in draw(st.sampled_from((("consumer",), ("consumer", "batch"))))
    )
    kinds = draw(st.sampled_from(((), ("cloud",), ("maker",), ("pool", "cloud"))))
    survivals = tuple(Survival(model=models[0], kind=kind) for kind in kinds)
    spreads = (
        (Spread(model=models[0], kind="region", share_max=0.75),) if draw(st.booleans()) else ()
    )
    return Problem(
        periods=(period(),),
        slots=slots(hours),
        pools=pools,
        supplies=tuple(supplies),
        options=options,
        needs=needs,
        survivals=survivals,
        spreads=spreads,
        headroom=draw(st.sampled_from((0.0, 0.25))),
    )
