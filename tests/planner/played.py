"""A small fleet whose plan can be replayed: one model, two clouds, rates as they were found."""

from msgspec.structs import replace

from argosy.fleet import load
from argosy.fleet.layout import Layout
from argosy.planner.capacity.lengths import classes_of
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
from argosy.planner.replay.cells import Ground

FLEET = """
fleet: small
pools:
  - name: near
    launcher: {kind: planned}
    region: aws/us-east-1
    chip: H100-SXM
    nodes: {max: 9}
  - name: far
    launcher: {kind: planned}
    region: gcp/us-east5
    chip: TPU-v6e
    nodes: {max: 9}
models:
  - name: chat
    architecture: Llama-3.1-8B
    slo: {ttft_s_p95: 1.0, itl_s_p99: 0.05}
deployments:
  - {model: chat, pool: near, engine: {kind: vllm}}
tenants:
  - {name: acme, tier: enterprise}
  - {name: web, tier: consumer}
links:
  - {between: [aws/us-east-1, gcp/us-east5], round_trip_s: 0.02}
demand:
  - model: chat
    origin: aws/us-east-1
    tier: enterprise
    requests_per_s: 20
    prompt_tokens: {mean: 800, p95: 2000}
    output_tokens: {mean: 60, p95: 150}
  - model: chat
    origin: gcp/us-east5
    tier: consumer
    requests_per_s: 60
    prompt_tokens: {mean: 500, p95: 1500}
    output_tokens: {mean: 150, p95: 400}
"""
# By class, consumer first: it asks most. What capacity_of found, to a requests/s.
RATES = {"near": (19.0, 11.0), "far": (20.0, 16.0)}


def ground() -> Ground:
    fleet = load.parse(FLEET, source="small.yaml")
    return Ground(fleet=fleet, classes=classes_of(fleet, fleet.demand))


def pool(name: str, region: str, maker: str, chip: str) -> SupplyPool:
    return SupplyPool(
        name=name,
        region=region,
        cloud=region.split("/")[0],
        maker=maker,
        chip=chip,
        chips_per_node=8,
        nodes_max=9,
        pue=1.2,
        carbon_g_per_kwh=None,
    )


def option(place: int, name: str, tp: int, *, believed: float) -> Option:
    rates = tuple(rate * believed for rate in RATES[name])
    return Option(
        model="chat",
        pool=place,
        engine="vllm",
        layout=Layout(tp=tp),
        chips=tp,
        requests_per_s=rates,
        requests_per_s_low=rates,
        requests_per_s_high=rates,
        power_w=None,
        power_w_idle=None,
    )


def need(name: str, tier: str, origin: str, length_class: int, rates: tuple[float, ...]) -> Need:
    return Need(
        name=name,
        model="chat",
        tier=tier,
        origin=origin,
        length_class=length_class,
        tokens_in=(500.0, 800.0)[length_class],
        tokens_out=(150.0, 60.0)[length_class],
        requests_per_s=rates,
        regions=("aws/us-east-1", "gcp/us-east5"),
    )


def problem(*, believed: float = 1.0, **changes) -> Problem:
    """`believed`: so many times the rates that were measured."""
    one = Problem(
        periods=(Period(name="2027", begin="2027-01-01", days=365.0),),
        slots=(Slot(period=0, hour=0, hours=4380.0), Slot(period=0, hour=12, hours=4380.0)),
        pools=(
            pool("near", "aws/us-east-1", "NVIDIA", "H100-SXM"),
            pool("far", "gcp/us-east5", "Google", "TPU-v6e"),
        ),
        supplies=tuple(
            Supply(
                name=name,
                pool=place,
                kind="on_demand",
                price_usd_per_chip_hour=price,
                nodes_max=9,
                periods=(0,),
            )
            for place, (name, price) in enumerate((("near", 4.0), ("far", 2.7)))
        ),
        options=(
            option(0, "near", 1, believed=believed),
            option(1, "far", 2, believed=believed),
        ),
        needs=(
            need("acme", "enterprise", "aws/us-east-1", 1, (10.0, 20.0)),
            need("web", "consumer", "gcp/us-east5", 0, (30.0, 60.0)),
        ),
        headroom=0.3,
    )
    return replace(one, **changes)


SURVIVES_CLOUDS = (Survival(model="chat", kind="cloud"),)
