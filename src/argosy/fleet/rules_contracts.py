"""Rules of what is bought and planned: contracts, caps, training runs, and where a model may be.

As `rules.py`: each rule may trust the types, and gives its findings as a path and the rest of the
sentence.
"""

import difflib
from collections.abc import Callable, Iterator
from typing import TypeAlias

from argosy.fleet.architectures import architectures
from argosy.fleet.areas import AREAS, country_of, may_stay
from argosy.fleet.catalogue import NotInCatalogue, chip
from argosy.fleet.config import Fleet, Pool
from argosy.fleet.contracts import (
    ON_PREMISES,
    OWN,
    CommittedSpend,
    Reserved,
    Spot,
    TrainingRun,
)
from argosy.fleet.document import Path, did_you_mean
from argosy.fleet.launchers import is_on_chips
from argosy.fleet.software import why_no_training

_Finding: TypeAlias = tuple[Path, str]


def _planned(fleet: Fleet) -> dict[str, Pool]:
    """Pools that a plan may use, by name."""
    return {
        pool.name: pool
        for pool in fleet.pools
        if is_on_chips(pool.launcher) and pool.region is not None
    }


def cloud_of(pool: Pool) -> str:
    """The cloud of a pool with a region."""
    assert pool.region is not None
    return pool.region.split("/")[0]


def _second_names(fleet: Fleet) -> Iterator[_Finding]:
    for section, items in ((("contracts",), fleet.contracts), (("plan", "runs"), fleet.plan.runs)):
        seen: set[str] = set()
        for index, item in enumerate(items):
            if item.name in seen:
                yield (*section, index), f'is a second "{item.name}". Rename or remove one of them.'
            seen.add(item.name)


def _unknown_pools(fleet: Fleet) -> Iterator[_Finding]:
    planned = _planned(fleet)
    named: list[tuple[Path, tuple[str, ...]]] = [
        (("contracts", index, "pools"), one.pools)
        for index, one in enumerate(fleet.contracts)
        if isinstance(one, Reserved | Spot)
    ]
    named += [(("plan", "runs", index, "pools"), run.pools) for index, run in _runs(fleet)]
    for path, names in named:
        for position, name in enumerate(names):
            if name not in planned:
                told = f'= "{name}" is not a planned pool of this fleet.'
                yield (*path, position), told + did_you_mean(name, "pool", list(planned))


def _runs(fleet: Fleet) -> Iterator[tuple[int, TrainingRun]]:
    yield from enumerate(fleet.plan.runs)


def _contracts_of_own_machines(fleet: Fleet) -> Iterator[_Finding]:
    planned = _planned(fleet)
    for index, one in enumerate(fleet.contracts):
        names = () if isinstance(one, CommittedSpend) else one.pools
        for position, name in enumerate(names):
            if name in planned and cloud_of(planned[name]) == OWN:
                told = f'= "{name}" is in {planned[name].region}: machines of one\'s own need no'
                works = "contract. Write nodes.min and nodes.max of the pool instead."
                yield ("contracts", index, "pools", position), f"{told} {works}"


def _unknown_clouds(fleet: Fleet) -> Iterator[_Finding]:
    clouds = sorted({cloud_of(pool) for pool in _planned(fleet).values()} - {OWN})
    for index, one in enumerate(fleet.contracts):
        if isinstance(one, CommittedSpend) and one.cloud not in clouds:
            told = f'= "{one.cloud}" has no planned pool of this fleet.'
            yield ("contracts", index, "cloud"), told + did_you_mean(one.cloud, "cloud", clouds)


def _odd_terms(fleet: Fleet) -> Iterator[_Finding]:
    for index, one in enumerate(fleet.contracts):
        if isinstance(one, Spot):
            continue
        if one.until <= one.begin:
            told = f"= {one.until} is not after from = {one.begin}. Write a later day."
            yield ("contracts", index, "until"), told
        noun, amount = ("nodes", one.nodes) if isinstance(one, Reserved) else ("units", one.units)
        if amount.min > amount.max:
            told = f"= {amount.min} is more than max = {amount.max}. Lower one of them."
            yield ("contracts", index, noun, "min"), told
        elif one.is_signed and amount.min != amount.max:
            told = f"is {amount.min} to {amount.max}, but the contract is signed. Write how many"
            yield ("contracts", index, noun), f"{told} are held as both, or is_signed: false."


def _nodes_that_are_not_there(fleet: Fleet) -> Iterator[_Finding]:
    planned = _planned(fleet)
    for index, one in enumerate(fleet.contracts):
        if not isinstance(one, Reserved):
            continue
        for name in one.pools:
            if name not in planned:
                continue
            most = planned[name].nodes.max
            if one.nodes.max > most:
                told = f"= {one.nodes.max}, but pool {name} has {most} nodes at most. Lower it, or"
                yield ("contracts", index, "nodes", "max"), f"{told} raise the pool's nodes.max."


def _signed_beyond_the_pool(fleet: Fleet) -> Iterator[_Finding]:
    """On each day on which a signed contract begins: all that is held then must fit its pool."""
    signed = [
        (index, one)
        for index, one in enumerate(fleet.contracts)
        if isinstance(one, Reserved) and one.is_signed
    ]
    for name, pool in _planned(fleet).items():
        for index, one in signed:
            if name not in one.pools:
                continue
            together = [
                other
                for _, other in signed
                if name in other.pools and other.begin <= one.begin < other.until
            ]
            held = pool.nodes.min + sum(other.nodes.min for other in together)
            if held > pool.nodes.max:
                told = f"with what pool {name} keeps and has signed, {held} nodes are held on"
                works = f"{one.begin}; it has {pool.nodes.max}. Raise its nodes.max."
                yield ("contracts", index, "nodes"), f"{told} {works}"


def _odd_caps(fleet: Fleet) -> Iterator[_Finding]:
    regions = sorted({str(pool.region) for pool in _planned(fleet).values()})
    for name in fleet.plan.power_kw_max:
        if name not in regions:
            told = "is no region of a planned pool of this fleet."
            yield ("plan", "power_kw_max", name), told + did_you_mean(name, "region", regions)


def _odd_runs(fleet: Fleet) -> Iterator[_Finding]:
    known = [one.name for one in architectures()]
    planned = _planned(fleet)
    for index, run in _runs(fleet):
        at: Path = ("plan", "runs", index)
        if run.architecture not in known:
            near = difflib.get_close_matches(run.architecture, known, n=1, cutoff=0.4)
            hint = f' Did you mean "{near[0]}"?' if near else ""
            told = f'= "{run.architecture}" is not in the catalogue ({len(known)} models).{hint}'
            yield (*at, "architecture"), f"{told} List them: argosy catalogue --models"
        if fleet.plan.begin is not None and run.by <= fleet.plan.begin:
            told = f"= {run.by} is not after plan.from = {fleet.plan.begin}. Write a later day."
            yield (*at, "by"), told
        for position, name in enumerate(run.pools):
            why = _why_no_training(planned.get(name))
            if why is not None:
                works = "Name pools of other chips, or remove it."
                yield (*at, "pools", position), f'= "{name}" cannot train: {why}. {works}'


def _why_no_training(pool: Pool | None) -> str | None:
    if pool is None or pool.chip is None:
        return None
    try:
        why = why_no_training(chip(pool.chip))
    except NotInCatalogue:  # another rule tells it
        return None
    return None if why is None else f"{pool.chip}: {why}"


def _odd_residency(fleet: Fleet) -> Iterator[_Finding]:
    pools = _planned(fleet).values()
    regions = {str(pool.region) for pool in pools}
    known = [*AREAS, ON_PREMISES, *sorted({cloud_of(pool) for pool in pools}), *sorted(regions)]
    for index, model in enumerate(fleet.models):
        for position, place in enumerate(model.residency):
            at: Path = ("models", index, "residency", position)
            if place not in known:
                told = f'= "{place}" is no area, no cloud and no region of a planned pool.'
                yield at, told + did_you_mean(place, "place", known)
            elif place in AREAS:
                yield from _placeless(fleet, at, place, model.residency)


def _deployed_elsewhere(fleet: Fleet) -> Iterator[_Finding]:
    """Residency holds whatever fails: nothing is ever started outside of it."""
    models = {model.name: model for model in fleet.models}
    pools = {pool.name: pool for pool in fleet.pools}
    for index, one in enumerate(fleet.deployments):
        model, pool = models.get(one.model), pools.get(one.pool)
        if model is None or pool is None or not model.residency:
            continue
        if pool.region is None:
            told = f'= "{pool.name}" has no region, but {model.name} must stay in'
        elif may_stay(model.residency, pool.region, pool.country):
            continue
        elif country_of(pool.region, pool.country) is None and set(model.residency) & AREAS.keys():
            continue  # another rule asks where it is
        else:
            told = f'= "{pool.name}" is in {pool.region}, but {model.name} must stay in'
        works = f"{', '.join(model.residency)}. Deploy it there, or widen its residency."
        yield ("deployments", index, "pool"), f"{told} {works}"


def _fallback_elsewhere(fleet: Fleet) -> Iterator[_Finding]:
    """What is asked of a model is not answered by another one outside of its residency."""
    pools = {pool.name: pool for pool in fleet.pools}
    for index, model in enumerate(fleet.models):
        for position, fallback in enumerate(model.fallback if model.residency else ()):
            for one in fleet.deployments:
                pool = pools.get(one.pool)
                if one.model != fallback or pool is None:
                    continue
                if pool.region is not None and may_stay(model.residency, pool.region, pool.country):
                    continue
                where = "which has no region" if pool.region is None else f"in {pool.region}"
                at: Path = ("models", index, "fallback", position)
                told = f'= "{fallback}" runs on {pool.name}, {where}, but {model.name} must stay in'
                yield at, f"{told} {', '.join(model.residency)}. Take it out, or widen residency."


def _placeless(fleet: Fleet, at: Path, area: str, residency: tuple[str, ...]) -> Iterator[_Finding]:
    """Pools of which nobody knows whether they lie in the area."""
    named = {OWN if place == ON_PREMISES else place for place in residency}
    for index, pool in enumerate(fleet.pools):
        if pool.name not in _planned(fleet) or country_of(str(pool.region), pool.country):
            continue
        if pool.region not in named and cloud_of(pool) not in named:
            told = f'= "{area}", but the country of {pool.region} (pool {pool.name}) is not known.'
            works = f"Write pools[{index}].country, DEU say, or name {pool.region} here as well."
            yield at, f"{told} {works}"


def _unknown_countries(fleet: Fleet) -> Iterator[_Finding]:
    stated: dict[str, str] = {}
    for index, pool in enumerate(fleet.pools):
        if pool.country is None or pool.region is None:
            continue
        first = stated.setdefault(pool.region, pool.country)
        catalogue = country_of(pool.region)
        if first != pool.country:
            told = f"= {pool.country}, but another pool of {pool.region} says {first}."
            yield ("pools", index, "country"), f"{told} Make them the same."
        elif catalogue is not None and catalogue != pool.country:
            told = f"= {pool.country}, but {pool.region} is in {catalogue} by the catalogue."
            yield ("pools", index, "country"), f"{told} Remove it."


def _repeated_promises(fleet: Fleet) -> Iterator[_Finding]:
    for index, model in enumerate(fleet.models):
        for field in ("survive", "residency"):
            values: tuple[str, ...] = getattr(model, field)
            for position, value in enumerate(values):
                if value in values[:position]:
                    yield ("models", index, field, position), f'= "{value}" is there twice.'


CONTRACT_RULES: tuple[Callable[[Fleet], Iterator[_Finding]], ...] = (
    _second_names,
    _unknown_pools,
    _contracts_of_own_machines,
    _unknown_clouds,
    _odd_terms,
    _nodes_that_are_not_there,
    _signed_beyond_the_pool,
    _odd_caps,
    _odd_runs,
    _odd_residency,
    _unknown_countries,
    _repeated_promises,
    _deployed_elsewhere,
    _fallback_elsewhere,
)
