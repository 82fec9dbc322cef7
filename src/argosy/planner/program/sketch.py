"""What one slot decides, and the rows that hold within it: the pattern that every slot repeats.

A model asked for in one length class needs no column for its flow onto each option: a region's
replicas together carry what the region is sent. `Outline.detailed` models have those columns.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

from argosy.planner.problem import Problem, Supply
from argosy.planner.program.columns import Outline, is_regional, power_parts
from argosy.planner.program.program import HELD_KINDS, Key


@dataclass
class Sketch:
    """One slot's block while it is written; entries of the first stage carry its columns."""

    outline: Outline
    first: dict[Key, int] = field(default_factory=dict)
    block: dict[Key, int] = field(default_factory=dict)
    keys: list[Key] = field(default_factory=list)  # of rows
    lower: list[float] = field(default_factory=list)
    upper: list[float] = field(default_factory=list)
    entries: list[tuple[int, int, float]] = field(default_factory=list)
    entries_first: list[tuple[int, int, float]] = field(default_factory=list)

    def column(self, *key: str | int) -> int:
        """The place of that decision, new or known."""
        return self.block.setdefault(key, len(self.block))

    def row(self, key: Key, terms: list[tuple[int, float]], lower: float, upper: float) -> int:
        """A new row."""
        place = len(self.keys)
        self.keys.append(key)
        self.lower.append(lower)
        self.upper.append(upper)
        self.entries.extend((place, column, value) for column, value in terms)
        return place


def sketched(outline: Outline) -> Sketch:
    """One slot's columns and rows; rows of demand have no bounds yet."""
    sketch = Sketch(outline)
    _decide_first(sketch)
    _route(sketch)
    _fill_pools(sketch)
    _spread(sketch)
    _cap_power(sketch)
    return sketch


def _decide_first(sketch: Sketch) -> None:
    problem = sketch.outline.problem
    for u, supply in enumerate(problem.supplies):
        if supply.kind in HELD_KINDS:
            sketch.first["nodes", u] = len(sketch.first)
    for q in range(len(problem.credits)):
        sketch.first["units", q] = len(sketch.first)


def _route(sketch: Sketch) -> None:
    """Every group is served; a region's replicas have room for what is sent there."""
    outline = sketch.outline
    sent: dict[tuple[str, int, str], list[tuple[int, float]]] = defaultdict(list)
    for g, group in enumerate(outline.groups):
        flows: list[tuple[int, float]] = []
        for region in group.regions:
            flows.append((sketch.column("flow", g, region), 1.0))
            sent[group.model, group.length_class, region].append(flows[-1])
        if not group.may_wait:
            sketch.row(("serve", g), flows, np.nan, np.nan)  # bounds: by slot, when copied
    at: dict[tuple[str, str], list[int]] = defaultdict(list)
    for k in outline.options:
        option = outline.problem.options[k]
        sketch.column("replicas", k)
        at[option.model, outline.problem.pools[option.pool].region].append(k)
    for (model, c, region), flows in sent.items():
        if model in outline.detailed:
            _room_by_option(sketch, (model, c, region), flows, at[model, region])
        else:
            _room_by_region(sketch, (model, c, region), flows, at[model, region])
    _fill_replicas(sketch)


def _room_by_region(
    sketch: Sketch, place: tuple[str, int, str], flows: list[tuple[int, float]], options: list[int]
) -> None:
    problem = sketch.outline.problem
    capacity = sketch.column("capacity", place[0], place[2])
    terms = [(capacity, -1.0)]
    for k in options:
        rate = problem.options[k].requests_per_s[place[1]]
        terms.append((sketch.column("replicas", k), rate))
    sketch.row(("capacity", *place), terms, 0.0, 0.0)
    sent = [(column, 1 + problem.headroom) for column, _ in flows]
    sketch.row(("room", *place), [*sent, (capacity, -1.0)], -np.inf, 0.0)


def _room_by_option(
    sketch: Sketch, place: tuple[str, int, str], flows: list[tuple[int, float]], options: list[int]
) -> None:
    serving = [
        (sketch.column("served", k, place[1]), -1.0)
        for k in options
        if sketch.outline.problem.options[k].requests_per_s[place[1]] > 0
    ]
    sketch.row(("sent", *place), flows + serving, 0.0, 0.0)


def _fill_replicas(sketch: Sketch) -> None:
    """A mix of classes fills a replica in proportion."""
    problem = sketch.outline.problem
    for k in sketch.outline.options:
        option = problem.options[k]
        terms = [
            (sketch.block["served", k, c], (1 + problem.headroom) / rate)
            for c, rate in enumerate(option.requests_per_s)
            if ("served", k, c) in sketch.block
        ]
        if terms:
            terms.append((sketch.column("replicas", k), -1.0))
            sketch.row(("fill", k), terms, -np.inf, 0.0)


def _fill_pools(sketch: Sketch) -> None:
    """Chips used are chips drawn; what is drawn is held, or there to be rented."""
    outline, problem = sketch.outline, sketch.outline.problem
    replicas: dict[int, list[tuple[int, float]]] = defaultdict(list)
    firm: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for k in outline.options:
        option = problem.options[k]
        replicas[option.pool].append((sketch.column("replicas", k), option.chips))
        if k in outline.firm:
            column = sketch.column("firm", k)
            firm[option.pool].append((column, option.chips))
            terms = [(column, 1.0), (sketch.column("replicas", k), -1.0)]
            sketch.row(("firm", k), terms, -np.inf, 0.0)
    for t, training in enumerate(problem.trainings):
        for pool in training.tokens_per_chip_s:
            replicas[pool].append((sketch.column("trained", t, pool), 1.0))
    drawn: dict[int, list[int]] = defaultdict(list)
    for u, supply in enumerate(problem.supplies):
        if supply.pool in replicas:
            drawn[supply.pool].append(u)
            _draw(sketch, u, supply)
    for p, terms in replicas.items():
        draws = [(sketch.column("drawn", u), -1.0) for u in drawn[p]]
        sketch.row(("chips", p), terms + draws, -np.inf, 0.0)
        if firm[p]:
            sure = [(sketch.column("drawn", u), -1.0) for u in drawn[p] if _survives(problem, u)]
            sketch.row(("sure", p), firm[p] + sure, -np.inf, 0.0)
        _stock(sketch, p, drawn[p])


def _survives(problem: Problem, supply: int) -> bool:
    return problem.supplies[supply].survives


def _draw(sketch: Sketch, u: int, supply: Supply) -> None:
    column = sketch.column("drawn", u)
    if supply.kind in HELD_KINDS:
        row = sketch.row(("held", u), [(column, 1.0)], -np.inf, 0.0)
        per_node = sketch.outline.problem.pools[supply.pool].chips_per_node
        sketch.entries_first.append((row, sketch.first["nodes", u], -float(per_node)))


def _stock(sketch: Sketch, p: int, supplies: list[int]) -> None:
    problem = sketch.outline.problem
    pool = problem.pools[p]
    if sum(chips_max(problem, problem.supplies[u]) for u in supplies) <= (
        pool.nodes_max * pool.chips_per_node
    ):
        return
    terms = [(sketch.column("drawn", u), 1.0) for u in supplies]
    sketch.row(("stock", p), terms, -np.inf, float(pool.nodes_max * pool.chips_per_node))


def chips_max(problem: Problem, supply: Supply) -> float:
    """Of a supply, all that there can be."""
    share = 1.0 if supply.kind in HELD_KINDS else supply.availability
    return supply.nodes_max * problem.pools[supply.pool].chips_per_node * share


def _spread(sketch: Sketch) -> None:
    """No domain carries more than its share; what waits counts in the slot that serves it."""
    outline, problem = sketch.outline, sketch.outline.problem
    for i, spread in enumerate(problem.spreads):
        groups = [g for g, group in enumerate(outline.groups) if group.model == spread.model]
        all_flows = [
            (sketch.block["flow", g, region], -spread.share_max)
            for g in groups
            for region in outline.groups[g].regions
        ]
        inside: dict[str, list[tuple[int, float]]] = defaultdict(list)
        if is_regional(problem, spread.kind):
            domain_of = {pool.region: pool.domain(spread.kind) for pool in problem.pools}
            for g in groups:
                for region in outline.groups[g].regions:
                    column = sketch.block["flow", g, region]
                    inside[domain_of[region]].append((column, 1.0))
        else:
            for k in outline.options_of(spread.model):
                pool = problem.pools[problem.options[k].pool]
                for c in outline.classes[spread.model]:
                    if ("served", k, c) in sketch.block:
                        column = sketch.block["served", k, c]
                        inside[pool.domain(spread.kind)].append((column, 1.0))
        for domain, terms in sorted(inside.items()):
            sketch.row(("spread", i, domain), _summed(terms + all_flows), -np.inf, 0.0)


def _summed(terms: list[tuple[int, float]]) -> list[tuple[int, float]]:
    sums: dict[int, float] = defaultdict(float)
    for column, value in terms:
        sums[column] += value
    return list(sums.items())


def power_terms(
    sketch_block: dict[Key, int], outline: Outline
) -> dict[int, list[tuple[int, float]]]:
    """By pool, the site's kW of each column: idle by replicas, the rest by their load."""
    problem = outline.problem
    terms: dict[int, list[tuple[int, float]]] = defaultdict(list)
    for k in outline.options:
        option = problem.options[k]
        idle_w, busy_w = power_parts(option)
        pue = problem.pools[option.pool].pue
        terms[option.pool].append((sketch_block["replicas", k], pue * idle_w / 1e3))
        for c, rate in enumerate(option.requests_per_s):
            if ("served", k, c) in sketch_block:
                column = sketch_block["served", k, c]
                terms[option.pool].append((column, pue * busy_w / 1e3 / rate))
    return terms


def _cap_power(sketch: Sketch) -> None:
    problem = sketch.outline.problem
    if not problem.caps.power_w_of_region:
        return
    by_pool = power_terms(sketch.block, sketch.outline)
    for region, power_w in sorted(problem.caps.power_w_of_region.items()):
        terms = [
            term
            for p, found in by_pool.items()
            if problem.pools[p].region == region
            for term in found
        ]
        if terms:
            sketch.row(("power", region), terms, -np.inf, power_w / 1e3)
