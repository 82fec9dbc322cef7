"""python -m bench.planner.placement: how long one tick of placement takes, and what it finds.

Examples: python -m bench.planner.placement                        # 200 pools, 20 models
          python -m bench.planner.placement --pools 40 --models 5

Two layouts of each model on most pools, six chips, five clouds; committed chips on 40 % of the
pools; every model survives any one cloud, half of them any one region, a third any one maker; 40 %
of the need may be served in Europe alone. Times are CPU seconds of one core, the median of
`--times` runs.
"""

import argparse
import random
import time

from msgspec.structs import replace

from argosy.fleet.layout import Layout
from argosy.policies.placement import (
    NeedView,
    OptionView,
    Placement,
    PoolView,
    ShareView,
    Step,
    SurviveView,
    Tick,
    UpView,
    place,
)

CLOUDS = ("aws", "gcp", "azure", "oci", "own")
REGIONS = tuple(
    f"{cloud}/{area}{n}" for cloud in CLOUDS for area in ("eu", "us", "ap") for n in "12"
)
CHIPS = (  # maker, USD per chip-hour, capacity beside the first
    ("nvidia", 3.0, 1.0),
    ("nvidia", 1.8, 0.45),
    ("google", 1.6, 0.5),
    ("aws", 1.2, 0.4),
    ("amd", 2.5, 0.9),
    ("microsoft", 2.0, 0.8),
)
DEGREES = ((4, 8), (1, 2), (8,))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.planner.placement", description=__doc__)
    parser.add_argument("--pools", type=int, default=200)
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    cold = tick(asked.seed, asked.pools, asked.models)
    print(f"{len(cold.pools)} pools, {asked.models} models, {len(cold.options)} options")
    first = timed("nothing is up", cold, asked.times)
    timed("nothing is up, with a plan", replace(cold, plan=shares(cold, first)), asked.times)
    up = replace(cold, up=up_of(cold, first))
    timed("nothing has changed", up, asked.times)
    grown = [replace(need, capacity=need.capacity * factor(need.model)) for need in cold.needs]
    timed("needs +10 % and -5 %", replace(up, needs=tuple(grown)), asked.times)
    cloud = replace(up, pools=tuple(pool for pool in up.pools if pool.cloud != "azure"))
    gone = replace(
        cloud, up=tuple(one for one in up.up if one.pool in {p.name for p in cloud.pools})
    )
    timed("a cloud is gone", gone, asked.times)
    scarce = [replace(need, capacity=need.capacity * 8) for need in cold.needs]
    timed("eight times the need", replace(up, needs=tuple(scarce)), asked.times)


def timed(what: str, asked: Tick, times: int) -> Placement:
    seconds: list[float] = []
    for _ in range(times):
        before = time.process_time()
        found = place(asked)
        seconds.append(time.process_time() - before)
    print(
        f"{what:28s} {1000 * sorted(seconds)[times // 2]:6.0f} ms  "
        f"{sum(one.replicas for one in found.replicas):5d} replicas  "
        f"{found.usd_per_hour:8.0f} USD/h  {len(found.changes):4d} changes  "
        f"{len(found.short):3d} short  {found.dear}"
    )
    return found


def factor(model: str) -> float:
    return 1.1 if int(model[1:]) % 2 else 0.95


def tick(seed: int, pools: int, models: int) -> Tick:
    chance = random.Random(seed)
    views: list[PoolView] = []
    options: list[OptionView] = []
    for place_ in range(pools):
        region, (maker, usd, rate) = chance.choice(REGIONS), chance.choice(CHIPS)
        own = (Step(chips=8 * chance.randint(1, 6)),) if chance.random() < 0.4 else ()
        price = round(usd * chance.uniform(0.8, 1.3), 3)
        view = PoolView(
            name=f"p{place_:03}",
            region=region,
            cloud=region.split("/")[0],
            maker=maker,
            steps=(*own, Step(chips=8 * chance.randint(1, 12), usd_per_chip_hour=price)),
            is_spot=chance.random() < 0.1,
            start_s=chance.choice([120, 300, 600]),
        )
        views.append(view)
        options += options_of(view, rate, models, chance)
    chips = sum(view.chips for view in views)
    needs = [need for model in range(models) for need in needs_of(model, chips / models, chance)]
    survive = [
        SurviveView(model=f"m{model:02}", kind=kind)
        for model in range(models)
        for kind, every in (("cloud", 1), ("region", 2), ("maker", 3))
        if model % every == 0
    ]
    return Tick(
        pools=tuple(views), options=tuple(options), needs=tuple(needs), survive=tuple(survive)
    )


def options_of(pool: PoolView, rate: float, models: int, chance: random.Random) -> list[OptionView]:
    return [
        OptionView(
            model=f"m{model:02}",
            pool=pool.name,
            engine="vllm",
            layout=Layout(tp=tp),
            chips=tp,
            sustains=round((0.5 + model % 5) * rate * tp * chance.uniform(0.8, 1.2), 3),
        )
        for model in range(models)
        for tp in DEGREES[model % 3]
        if chance.random() < 0.85
    ]


def needs_of(model: int, chips: float, chance: random.Random) -> list[NeedView]:
    """A seventh of its share of the chips, before losses."""
    whole = 0.15 * chips * (0.5 + model % 5)
    europe = tuple(region for region in REGIONS if "/eu" in region)
    return [
        NeedView(
            model=f"m{model:02}",
            tier=tier,
            capacity=round(whole * share * part * chance.uniform(0.7, 1.3), 3),
            regions=regions,
        )
        for tier, share in (("enterprise", 0.4), ("consumer", 0.4), ("batch", 0.2))
        for regions, part in ((europe, 0.4), (REGIONS, 0.6))
    ]


def up_of(asked: Tick, found: Placement) -> tuple[UpView, ...]:
    chips = {(one.model, one.pool, one.layout): one.chips for one in asked.options}
    return tuple(
        UpView(
            model=one.model,
            pool=one.pool,
            engine=one.engine,
            layout=one.layout,
            chips=chips[one.model, one.pool, one.layout],
            replicas=one.replicas,
        )
        for one in found.replicas
    )


def shares(asked: Tick, found: Placement) -> tuple[ShareView, ...]:
    """As a plan would say it; here of what was found, in place of a plan."""
    able = {(one.model, one.pool, one.layout): one.sustains for one in asked.options}
    needed: dict[str, float] = {}
    for need in asked.needs:
        needed[need.model] = needed.get(need.model, 0.0) + need.capacity
    return tuple(
        ShareView(
            model=one.model,
            pool=one.pool,
            engine=one.engine,
            layout=one.layout,
            share=one.replicas * able[one.model, one.pool, one.layout] / needed[one.model],
        )
        for one in found.replicas
    )


if __name__ == "__main__":
    main()
