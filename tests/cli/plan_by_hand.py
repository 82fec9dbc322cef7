"""A plan that was made by hand: two hours, two pools, three contracts.

At night 10 requests/s, in the day 20; a replica of four chips serves 5. Own nodes hold 8 chips; the
rest is on demand and out of a credit, at 4 USD, of which a fifth is paid for nothing.
"""

from argosy.fleet.layout import Layout
from argosy.planner.plan import (
    Binding,
    Bought,
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
