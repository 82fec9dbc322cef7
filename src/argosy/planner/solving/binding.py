"""What binds a plan, and what one unit more of it would save: shadow prices in words.

The prices are the duals of the relaxed program with its commitments fixed, summed over slots. They
hold for small changes only. A loss or a spread is priced by the percent, other things by the unit
that one buys.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from argosy.planner.plan import Binding
from argosy.planner.problem import Problem
from argosy.planner.program.columns import Floats
from argosy.planner.program.program import HELD_KINDS, Key, Model

LEAST_USD_PER_HOUR = 1e-4  # less is the solver's dust


@dataclass(frozen=True)
class Prices:
    """Duals of rows and columns, and the solution that they belong to; USD an hour."""

    model: Model  # with the rows it then had
    rows: Floats
    columns: Floats
    x: Floats


@dataclass(frozen=True)
class _Found:
    """One constraint in one slot (None: in all), and what a unit more of it saves there."""

    words: str
    unit: str
    usd_per_hour: float
    slot: int | None


def binding_of(prices: Prices) -> tuple[Binding, ...]:
    """Constraints without slack, the dearest first."""
    model = prices.model
    found = [*_of_rows(model, prices), *_of_stock(model, prices), *_of_commitments(model, prices)]
    sums: dict[tuple[str, str], float] = defaultdict(float)
    slots: dict[tuple[str, str], list[int]] = defaultdict(list)
    for one in found:
        if one.usd_per_hour > LEAST_USD_PER_HOUR / len(model.outline.problem.slots):
            sums[one.words, one.unit] += one.usd_per_hour
            slots[one.words, one.unit].extend([] if one.slot is None else [one.slot])
    problem = model.outline.problem
    every = [
        Binding(
            constraint=words + _when(problem, slots[words, unit]),
            unit=unit,
            usd_per_unit_hour=usd,
            slots=tuple(sorted(set(slots[words, unit]))),
        )
        for (words, unit), usd in sums.items()
        if usd > LEAST_USD_PER_HOUR
    ]
    return tuple(sorted(every, key=lambda one: (-one.usd_per_unit_hour, one.constraint)))


def _when(problem: Problem, slots: list[int]) -> str:
    """In which hours, where it is not in all of them."""
    some = sorted(set(slots))
    if not some or len(some) == len(problem.slots):
        return ""
    if len(some) == 1:
        return f" at {problem.slots[some[0]].hour:02d}:00"
    hours = sorted({problem.slots[s].hour for s in some})
    if hours == list(range(hours[0], hours[-1] + 1)):
        return f" from {hours[0]:02d}:00 to {hours[-1] + 1:02d}:00"
    return f" in {len(some)} of {len(problem.slots)} hours"


def _of_rows(model: Model, prices: Prices) -> list[_Found]:
    rows = model.rows
    found: list[_Found] = []
    for row in np.flatnonzero(np.abs(prices.rows) > 1e-9):
        told = _row(model, rows.key[row], int(row), prices)
        if told is not None:
            words, unit, per_unit = told
            slot = int(rows.slot[row]) if rows.slot[row] >= 0 else None
            found.append(_Found(words, unit, abs(float(prices.rows[row])) * per_unit, slot))
    return found


def _row(model: Model, key: Key, row: int, prices: Prices) -> tuple[str, str, float] | None:
    """Words, unit, and how much one unit moves the row; None: not a thing that one could buy."""
    problem = model.outline.problem
    match key[0]:
        case "stock":
            pool = problem.pools[int(key[1])]
            words = f"{pool.name}: all {pool.nodes_max} nodes are in use"
            return words, "node", float(pool.chips_per_node)
        case "loss":
            survival = problem.survivals[int(key[1])]
            words = f"{survival.model} survives the loss of {survival.kind} {key[2]}"
            return words, "% of its requests", float(model.rows.lower[row]) / 100
        case "spread":
            spread = problem.spreads[int(key[1])]
            words = f"{spread.model}: {spread.kind} {key[2]} carries {spread.share_max:.0%} at most"
            slot = int(model.rows.slot[row])
            return words, "% of its requests", _rate(model, spread.model, slot, prices.x) / 100
        case "power":
            power_w = problem.caps.power_w_of_region[str(key[1])]
            return f"{key[1]}: power stays under {power_w / 1e3:,.0f} kW", "kW", 1.0
        case "training":
            name = problem.trainings[int(key[1])].name
            return f"training {name} ends before its deadline", "% of its tokens", 0.01
        case _:
            return _average(problem, key)


def _average(problem: Problem, key: Key) -> tuple[str, str, float] | None:
    caps = problem.caps
    match key[0]:
        case "energy":
            return f"energy stays under {caps.energy_kwh_per_day:,.0f} kWh a day", "kWh a day", 1.0
        case "carbon":
            return f"carbon stays under {caps.carbon_kg_per_day:,.0f} kg a day", "kg a day", 1.0
        case "usd":
            return f"spending stays under {caps.usd_per_hour:,.2f} USD an hour", "USD", 1.0
        case _:
            return None


def _rate(model: Model, name: str, slot: int, x: Floats) -> float:
    """Requests/s of a model that the solution serves in that slot."""
    block_W = model.slots_of(x)[slot]
    groups = model.outline.groups
    return sum(
        float(block_W[place])
        for key, place in model.block.items()
        if key[0] == "flow" and groups[int(key[1])].model == name
    )


def _of_stock(model: Model, prices: Prices) -> list[_Found]:
    """What is rented by the hour, where all that can be had is taken."""
    problem = model.outline.problem
    dual_SW, upper_SW = model.slots_of(prices.columns), model.slots_of(model.upper)
    found: list[_Found] = []
    for key, place in model.block.items():
        if key[0] != "drawn" or problem.supplies[int(key[1])].kind in HELD_KINDS:
            continue
        supply = problem.supplies[int(key[1])]
        pool = problem.pools[supply.pool]
        kind = supply.kind.replace("_", " ")
        words = f"{pool.name}: all {supply.nodes_max} nodes {kind} are in use"
        for s in np.flatnonzero((dual_SW[:, place] < 0) & (upper_SW[:, place] > 0)):
            usd = -float(dual_SW[s, place]) * pool.chips_per_node * supply.availability
            found.append(_Found(words, "node", usd, int(s)))
    return found


def _of_commitments(model: Model, prices: Prices) -> list[_Found]:
    """What is held at the most or the least that its contract allows."""
    problem = model.outline.problem
    found: list[_Found] = []
    for key, column in model.first.items():
        value, dual = round(prices.x[column]), float(prices.columns[column])
        if key[0] == "nodes":
            supply = problem.supplies[int(key[1])]
            name = supply.contract or supply.name
            most, least, thing, unit = supply.nodes_max, supply.nodes_min, "nodes", "node"
        else:
            credit = problem.credits[int(key[1])]
            name, most, least = credit.contract, credit.units_max, credit.units_min
            thing, unit = "units of credit", "unit"
        if dual < 0 and value >= most:
            found.append(_Found(f"{name}: no more than {most} {thing}", unit, -dual, None))
        elif dual > 0 and 0 < value <= least:
            found.append(_Found(f"{name}: no fewer than {least} {thing}", unit, dual, None))
    return found
