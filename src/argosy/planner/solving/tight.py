"""What a relaxed plan is up against: limits without slack, and what one unit more would save.

Read off the duals of the program in fractions; a limit whose dual is 0 holds nothing up.
"""

from collections import defaultdict

import msgspec

from argosy.planner.problem import Problem
from argosy.planner.program.columns import Floats
from argosy.planner.program.program import HELD_KINDS, Key, Model

_LEAST_USD = 1e-6  # an hour
_LIMITS = ("stock", "power", "energy", "carbon", "usd", "spread")


class Tight(msgspec.Struct, frozen=True, kw_only=True):
    """One limit."""

    kind: str  # "stock", "nodes", "power", "energy", "carbon", "usd", "spread"
    name: str  # of pool, supply ("nodes"), region, or place in `Problem.spreads`; else ""
    text: str
    unit: str
    usd_per_unit_hour: float  # saved by one unit more
    usd_per_hour: float  # that, times all there is of it: what ranks


def tight_of(model: Model, row_dual: Floats, col_dual: Floats) -> tuple[Tight, ...]:
    """The dearest first."""
    problem = model.outline.problem
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for row, key in enumerate(model.rows.key):
        if key[0] in _LIMITS and row_dual[row] < 0:
            sums[str(key[0]), _name(problem, key)] -= float(row_dual[row])
    _add_columns(model, col_dual, sums)
    found = (_tight(problem, kind, name, usd) for (kind, name), usd in sums.items())
    kept = [one for one in found if one.usd_per_hour > _LEAST_USD]
    return tuple(sorted(kept, key=lambda one: (-one.usd_per_hour, one.text)))


def _name(problem: Problem, key: Key) -> str:
    match key[0]:
        case "stock":
            return problem.pools[int(str(key[1]))].name
        case "power" | "spread":
            return str(key[1])
        case _:
            return ""


def _add_columns(model: Model, col_dual: Floats, sums: dict[tuple[str, str], float]) -> None:
    """Where a supply's own limit binds: of what may be held, and of what is had by the hour."""
    problem = model.outline.problem
    for key, column in model.first.items():
        if key[0] == "nodes" and col_dual[column] < 0 and model.lower[column] < model.upper[column]:
            sums["nodes", problem.supplies[int(str(key[1]))].name] -= float(col_dual[column])
    dual_SW = model.slots_of(col_dual)
    for key, place in model.block.items():
        if key[0] != "drawn":
            continue
        supply, duals = problem.supplies[int(str(key[1]))], dual_SW[:, place]
        usd, pool = -float(duals[duals < 0].sum()), problem.pools[supply.pool]
        if supply.kind in HELD_KINDS and supply.nodes_min < supply.nodes_max:
            sums["nodes", supply.name] += usd * pool.chips_per_node
        elif supply.kind == "on_demand":  # spot and credit are few and cheap
            sums["stock", pool.name] += usd


def _tight(problem: Problem, kind: str, name: str, usd_per_unit: float) -> Tight:
    text, unit, amount = "", "", 0.0
    match kind:
        case "stock":
            pool = next(one for one in problem.pools if one.name == name)
            text = f"{name}: all {pool.nodes_max:,} nodes there are"
            unit, amount = "node", float(pool.nodes_max)
            usd_per_unit *= pool.chips_per_node
        case "nodes":
            supply = next(one for one in problem.supplies if one.name == name)
            of = problem.pools[supply.pool].name if supply.kind == "own" else name
            text = f"{of}: all {supply.nodes_max:,} nodes there are"
            unit, amount = "node", float(supply.nodes_max)
        case "power":
            amount = problem.caps.power_w_of_region[name] / 1e3
            text, unit = f"{name}: {amount:,.0f} kW of power", "kW"
        case "energy":
            amount = problem.caps.energy_kwh_per_day or 0.0
            text, unit = f"{amount:,.0f} kWh a day", "kWh a day"
        case "carbon":
            amount = problem.caps.carbon_kg_per_day or 0.0
            text, unit = f"{amount:,.0f} kg of CO2 a day", "kg a day"
        case "usd":
            amount = problem.caps.usd_per_hour or 0.0
            text, unit = f"{amount:,.2f} USD an hour", "USD"
        case _:
            spread = problem.spreads[int(name)]
            share = f"{spread.share_max:.0%}"
            text = f"{spread.model}: at most {share} of it in any one {spread.kind}"
            unit, amount = "share", spread.share_max
    return Tight(
        kind=kind,
        name=name,
        text=text,
        unit=unit,
        usd_per_unit_hour=usd_per_unit,
        usd_per_hour=usd_per_unit * amount,
    )
