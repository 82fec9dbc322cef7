"""What is decided: needs that are alike as one group, options that another dominates left out.

Both are exact. Needs of one model and length class that may be served in the same regions and
survive the same losses share their replicas in any proportion, so only their sum matters. An option
that gives no more requests per chip than another of its model and pool, in any class, can be
swapped for it chip by chip while replicas are fractions; whole replicas may want it (`dominated`).
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from argosy.planner.problem import Option, Problem

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """Needs that are served alike; `rate_S` is their sum in requests per second by slot."""

    model: str
    length_class: int
    regions: tuple[str, ...]  # of those allowed, where an option can serve it
    may_wait: bool
    survivals: tuple[int, ...]  # places in `Problem.survivals`
    needs: tuple[int, ...]
    rate_S: Floats


@dataclass(frozen=True)
class Outline:
    """What a model of the problem has columns for."""

    problem: Problem
    groups: tuple[Group, ...]
    options: tuple[int, ...]  # kept
    unserved: tuple[int, ...]  # needs that no option can serve
    classes: dict[str, tuple[int, ...]]  # by model: the length classes asked for
    detailed: frozenset[str]  # models of which each option's load matters, not a region's alone
    firm: frozenset[int]  # options whose replicas may stand on chips that do not count in a loss

    def options_of(self, model: str) -> list[int]:
        """Those kept."""
        return [k for k in self.options if self.problem.options[k].model == model]


def outlined(problem: Problem, *, dominated: bool = False) -> Outline:
    """Group the needs and choose the options; `dominated` keeps those that another dominates."""
    usable = _usable_options(problem)
    if not dominated:
        usable = _undominated(problem, usable)
    groups, unserved = _groups(problem, usable)
    classes = {
        model: tuple(sorted({group.length_class for group in groups if group.model == model}))
        for model in sorted({group.model for group in groups})
    }
    shaky = {supply.pool for supply in problem.supplies if not supply.survives}
    surviving = {survival.model for survival in problem.survivals}
    kept = tuple(k for k in usable if problem.options[k].model in classes)
    return Outline(
        problem=problem,
        groups=groups,
        options=kept,
        unserved=unserved,
        classes=classes,
        detailed=frozenset(m for m, asked in classes.items() if _is_detailed(problem, m, asked)),
        firm=frozenset(
            k
            for k in kept
            if problem.options[k].pool in shaky and problem.options[k].model in surviving
        ),
    )


def has_power_caps(problem: Problem) -> bool:
    """Whether watts constrain anything."""
    caps = problem.caps
    return bool(caps.power_w_of_region) or not (
        caps.energy_kwh_per_day is None and caps.carbon_kg_per_day is None
    )


def is_regional(problem: Problem, kind: str) -> bool:
    """Whether every region lies in one domain of that kind."""
    domains: dict[str, set[str]] = defaultdict(set)
    for pool in problem.pools:
        domains[pool.region].add(pool.name if kind == "pool" else str(getattr(pool, kind)))
    return all(len(found) == 1 for found in domains.values())


def _usable_options(problem: Problem) -> list[int]:
    """Those that serve a class asked for, in a region allowed, on a pool that can be had."""
    asked: dict[tuple[str, str], set[int]] = defaultdict(set)
    for need in problem.needs:
        if any(need.requests_per_s):
            for region in need.regions:
                asked[need.model, region].add(need.length_class)
    supplied = {supply.pool for supply in problem.supplies if supply.nodes_max > 0}

    def serves(option: Option) -> bool:
        region = problem.pools[option.pool].region
        return any(option.requests_per_s[c] > 0 for c in asked[option.model, region])

    return [
        k for k, option in enumerate(problem.options) if option.pool in supplied and serves(option)
    ]


def _undominated(problem: Problem, usable: list[int]) -> list[int]:
    """Of each model and pool, the options that no other equals or betters in every class."""
    asked: dict[str, set[int]] = defaultdict(set)
    for need in problem.needs:
        if any(need.requests_per_s):
            asked[need.model].add(need.length_class)
    with_power = has_power_caps(problem)
    places: dict[tuple[str, int], list[tuple[tuple[float, ...], int, int]]] = defaultdict(list)
    for k in usable:
        option = problem.options[k]
        marks = _marks(option, sorted(asked[option.model]), with_power=with_power)
        places[option.model, option.pool].append((marks, option.chips, k))
    kept: list[int] = []
    for rivals in places.values():
        best: list[tuple[float, ...]] = []
        for marks, _, k in sorted(rivals, key=lambda rival: (_negated(rival[0]), *rival[1:])):
            if not any(all(a >= b for a, b in zip(other, marks, strict=True)) for other in best):
                best.append(marks)
                kept.append(k)
    return sorted(kept)


def _negated(marks: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(-mark for mark in marks)


def _marks(option: Option, classes: list[int], *, with_power: bool) -> tuple[float, ...]:
    """More is better: requests/s per chip by class; with caps on power, requests per joule too."""
    rates = [option.requests_per_s[c] for c in classes]
    marks = [rate / option.chips for rate in rates]
    if with_power:
        idle_w, busy_w = power_parts(option)
        marks.append(-idle_w / option.chips)
        marks.extend(-busy_w / rate if rate > 0 else 0.0 for rate in rates)
    return tuple(marks)


def power_parts(option: Option) -> tuple[float, float]:
    """Watts of a replica while idle, and what being fully used adds; what is not known is 0."""
    idle_w = option.power_w_idle or 0.0
    return idle_w, max(0.0, (option.power_w or 0.0) - idle_w)


def _groups(problem: Problem, usable: list[int]) -> tuple[tuple[Group, ...], tuple[int, ...]]:
    served: dict[tuple[str, int], set[str]] = defaultdict(set)
    for k in usable:
        option = problem.options[k]
        for c, rate in enumerate(option.requests_per_s):
            if rate > 0:
                served[option.model, c].add(problem.pools[option.pool].region)
    alike: dict[tuple[str, int, tuple[str, ...], bool, tuple[int, ...]], list[int]]
    alike = defaultdict(list)
    unserved: list[int] = []
    for d, need in enumerate(problem.needs):
        if not any(need.requests_per_s):
            continue
        regions = tuple(sorted(served[need.model, need.length_class].intersection(need.regions)))
        if not regions:
            unserved.append(d)
            continue
        survivals = tuple(
            i
            for i, survival in enumerate(problem.survivals)
            if survival.model == need.model and need.tier in survival.tiers and not need.may_wait
        )
        alike[need.model, need.length_class, regions, need.may_wait, survivals].append(d)
    groups = tuple(
        Group(
            model=key[0],
            length_class=key[1],
            regions=key[2],
            may_wait=key[3],
            survivals=key[4],
            needs=tuple(needs),
            rate_S=np.sum([problem.needs[d].requests_per_s for d in needs], axis=0, dtype=float),
        )
        for key, needs in sorted(alike.items())
    )
    return groups, tuple(unserved)


def _is_detailed(problem: Problem, model: str, classes: tuple[int, ...]) -> bool:
    spread_inside_regions = any(
        spread.model == model and not is_regional(problem, spread.kind)
        for spread in problem.spreads
    )
    return len(classes) > 1 or spread_inside_regions or has_power_caps(problem)
