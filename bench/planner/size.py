"""The planner at full size: columns, rows, seconds by phase, proven gap, memory.

    python -m bench.planner.size
    python -m bench.planner.size --regions 10 --models 5 --classes 3

A made-up world of four clouds: regions on a ring of time zones, eight chips in each, ten models
from 8 B to 400 B parameters, demand with a daily wave of each origin, reserved and on-demand
prices, reach limited to the nearest regions, for every third model to its part of the world too.
Every model survives the loss of any one cloud.
"""

import argparse
import resource
import time
from dataclasses import dataclass, fields

import numpy as np

from argosy.fleet.layout import Layout
from argosy.planner.plan import Plan
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
from argosy.planner.program.columns import outlined
from argosy.planner.program.model import modelled
from argosy.planner.solving.solve import solve

# Chip, maker, relative speed, USD per chip-hour on demand, watts: a made-up but plausible ladder.
CHIPS = (
    ("H100-SXM", "nvidia", 1.0, 3.9, 700.0),
    ("H200-SXM", "nvidia", 1.35, 4.9, 700.0),
    ("B200", "nvidia", 2.4, 7.5, 1000.0),
    ("L40S", "nvidia", 0.25, 1.2, 350.0),
    ("MI300X", "amd", 1.2, 4.2, 750.0),
    ("TPU-v6e", "google", 0.8, 2.7, 300.0),
    ("Trainium2", "aws", 0.6, 2.2, 500.0),
    ("Maia-200", "microsoft", 1.5, 4.5, 750.0),
)
CLOUDS = ("aws", "azure", "gcp", "own")
DEGREES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Size:
    """Of the world."""

    regions: int = 20
    chips: int = 8
    models: int = 10
    hours: int = 24
    classes: int = 1
    lost: str = "cloud"  # any one is survived; "nothing": none is
    scale: float = 1.0  # of demand and stock
    seed: int = 1


def world(size: Size) -> Problem:
    """The problem of that size."""
    chance = np.random.default_rng(size.seed)
    pools, supplies = _pools(size, chance)
    names = [f"model-{m}" for m in range(size.models)]
    billions = np.geomspace(8.0, 400.0, size.models)
    options = _options(pools, names, billions, size.classes, chance)
    lost = [kind for kind in ("cloud", "maker", "region", "pool") if kind == size.lost]
    hours = [h * 24 // size.hours for h in range(size.hours)]
    return Problem(
        periods=(Period(name="2027", begin="2027-01-01", days=365.0),),
        slots=tuple(Slot(period=0, hour=hour, hours=8760.0 / size.hours) for hour in hours),
        pools=pools,
        supplies=supplies,
        options=options,
        needs=_needs(pools, names, billions, size, chance),
        survivals=tuple(Survival(model=name, kind=kind) for name in names for kind in lost),
        headroom=0.3,
    )


def _pools(
    size: Size, chance: np.random.Generator
) -> tuple[tuple[SupplyPool, ...], tuple[Supply, ...]]:
    pools: list[SupplyPool] = []
    supplies: list[Supply] = []
    for r in range(size.regions):
        cloud = CLOUDS[r % 3] if r % 7 else "own"
        for chip, maker, _, price, _ in CHIPS[: size.chips]:
            stock = int(size.scale * chance.integers(20, 200))
            pools.append(
                SupplyPool(
                    name=f"{cloud}-{r}-{chip}".lower(),
                    region=f"{cloud}/r{r}",
                    cloud=cloud,
                    maker=maker,
                    chip=chip,
                    chips_per_node=8,
                    nodes_max=stock,
                    pue=1.2,
                    carbon_g_per_kwh=float(chance.integers(20, 600)),
                )
            )
            p, base = len(pools) - 1, price * chance.uniform(0.85, 1.2)
            rent = {"pool": p, "nodes_max": stock, "periods": (0,)}
            if cloud == "own":
                held = Supply(name=f"o{p}", kind="own", price_usd_per_chip_hour=0.35 * base, **rent)
                supplies.append(held)
                continue
            supplies.append(
                Supply(name=f"d{p}", kind="on_demand", price_usd_per_chip_hour=base, **rent)
            )
            term = 0.55 * base * chance.uniform(0.9, 1.1)
            if chance.random() < 0.4:
                supplies.append(
                    Supply(name=f"r{p}", kind="reserved", price_usd_per_chip_hour=term, **rent)
                )
    return tuple(pools), tuple(supplies)


def _options(pools, names, billions, classes, chance) -> tuple[Option, ...]:
    found: list[Option] = []
    for name, params in zip(names, billions, strict=True):
        tilt = chance.uniform(0.75, 1.3, (len(CHIPS), classes))
        for p, pool in enumerate(pools):
            place = [chip[0] for chip in CHIPS].index(pool.chip)
            speed, watts = CHIPS[place][2], CHIPS[place][4]
            for degree in DEGREES:
                if params > 60.0 * degree:  # GB in fp8 on an 80 GB chip
                    continue
                power = (
                    degree * (1.0 - 0.04 * np.log2(degree)) * (1 - 0.5 * params / (80.0 * degree))
                )
                rates = tuple(
                    float(40.0 / params**0.8 * speed * power * tilt[place, c] / 3.0**c)
                    for c in range(classes)
                )
                found.append(
                    Option(
                        model=name,
                        pool=p,
                        engine="vllm",
                        layout=Layout(tp=degree, dtype="fp8"),
                        chips=degree,
                        requests_per_s=rates,
                        requests_per_s_low=rates,
                        requests_per_s_high=rates,
                        power_w=watts * degree,
                        power_w_idle=0.2 * watts * degree,
                    )
                )
    return tuple(found)


def _needs(pools, names, billions, size, chance) -> tuple[Need, ...]:
    regions, hours, classes = size.regions, size.hours, size.classes
    places = sorted({pool.region for pool in pools}, key=lambda name: int(name.split("/r")[1]))
    weight = chance.dirichlet(np.full(regions, 2.0))
    found: list[Need] = []
    for m, (name, params) in enumerate(zip(names, billions, strict=True)):
        total = size.scale * chance.uniform(0.4, 1.6) * 2000.0 * 40.0 / params**0.8
        for origin in range(regions):
            reach = _reach(places, origin, is_kept_home=m % 3 == 0)
            phase = 2 * np.pi * (np.arange(hours) * 24 / hours + 24.0 * origin / regions) / 24.0
            for tier, share in (("enterprise", 0.4), ("consumer", 0.6)):
                wave = 1.0 + (0.7 if tier == "consumer" else 0.4) * np.cos(phase)
                for c in range(classes):
                    rates = total * weight[origin] * share * wave / classes
                    found.append(
                        Need(
                            name=f"{name}/{tier}/{places[origin]}/{c}",
                            model=name,
                            tier=tier,
                            origin=places[origin],
                            length_class=c,
                            tokens_in=1000.0,
                            tokens_out=300.0,
                            requests_per_s=tuple(float(rate) for rate in rates),
                            regions=reach,
                        )
                    )
    return tuple(found)


def _reach(places: list[str], origin: int, *, is_kept_home: bool) -> tuple[str, ...]:
    """The nearest on the ring; a model that is kept home has Europe (the first third) apart."""
    count = len(places)
    near = [(origin + step) % count for step in range(-3, 5)]
    if is_kept_home:
        third = count // 3
        home = range(third) if origin < third else range(third, count)
        near = [place for place in near if place in home]
    return tuple(places[place] for place in sorted(set(near)))


def main() -> None:
    """Make it, solve it, print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    for part in fields(Size):
        parser.add_argument(f"--{part.name}", type=type(part.default), default=part.default)
    parser.add_argument("--gap", type=float, default=0.005)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = vars(parser.parse_args())
    gap, seconds = asked.pop("gap"), asked.pop("seconds")
    watch = Watch()
    problem = world(Size(**asked))
    model = modelled(outlined(problem))
    outline, rows = model.outline, model.rows
    print(f"{len(problem.options)} options and {len(problem.needs)} needs")
    print(f"{len(outline.options)} options and {len(outline.groups)} groups of needs kept")
    print(f"{len(model.cost)} columns x {len(rows.lower)} rows, {len(rows.value)} entries")
    watch.tell("commitments", 0.0)
    plan = solve(problem, progress=watch.tell, gap=gap, seconds_max=seconds)
    watch.tell("", 1.0)
    if not isinstance(plan, Plan):
        print(plan)
        return
    replicas = np.sum([run.replicas for run in plan.runs], axis=0)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    watch.report()
    print(f"{plan.seconds:.1f} s in the solver, {peak:.2f} GiB at most")
    print(f"{plan.money.total / 1e6:.2f} M USD a year, at most {plan.gap:.3%} above the best")
    print(f"{len(plan.held)} commitments, {replicas.min()} to {replicas.max()} replicas")
    print(f"{plan.losses_added} of {plan.losses_checked} losses and slots became constraints")


class Watch:
    """Seconds by phase, on the wall and of this process."""

    def __init__(self) -> None:
        self.phase, self.wall, self.cpu = "world", time.perf_counter(), time.process_time()
        self.spent: dict[str, tuple[float, float]] = {}

    def tell(self, what: str, share: float) -> None:
        """As `solve` tells its progress: what begins now."""
        del share
        wall, cpu = time.perf_counter(), time.process_time()
        name = self.phase.split(":")[0]
        before = self.spent.get(name, (0.0, 0.0))
        self.spent[name] = before[0] + wall - self.wall, before[1] + cpu - self.cpu
        self.phase, self.wall, self.cpu = what, wall, cpu

    def report(self) -> None:
        """A line a phase."""
        total = [sum(part) for part in zip(*self.spent.values(), strict=True)]
        for name, (wall, cpu) in [*self.spent.items(), ("in all", total)]:
            print(f"  {name or 'reading':28} {wall:7.1f} s  {cpu:7.1f} s of one core")


if __name__ == "__main__":
    main()
