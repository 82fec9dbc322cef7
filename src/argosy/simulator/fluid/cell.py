"""A model's replicas as a cell: few enough to be simulated exactly, in the groups' proportions.

Models share no replicas and no queue, so a cell has one model. Groups that are gone are left out.
Routing evens out better among more replicas, so a cell is as large as time permits while it has
slots to choose from; once all are taken its size hardly matters, and a smaller one does.
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from argosy.simulator.scenario import Scenario

REPLICAS_MAX = 64
CROWDED_MAX = 14  # replicas, where every slot is taken


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """One model, small."""

    scenario: Scenario  # of this model alone
    places: tuple[int, ...]  # of its groups in the fleet's scenario
    times: float  # so many cells are the model's replicas
    group_times: tuple[float, ...]  # by group, as the proportions could not be kept exactly


def cell_of(
    scenario: Scenario,
    *,
    model: int,
    gone: frozenset[int],
    replicas_max: int = REPLICAS_MAX,
) -> Cell | None:
    """Of the model's groups but for those (places) that are gone; None where none is left."""
    places = tuple(
        place
        for place, group in enumerate(scenario.groups)
        if group.model == model and place not in gone
    )
    if not places:
        return None
    counts = [scenario.groups[place].replicas for place in places]
    kept = _shrunk(counts, replicas_max)
    times = sum(counts) / sum(kept)
    gateway = scenario.fleet.gateway
    waiting_max = max(1, round(gateway.waiting_max / times))
    return Cell(
        scenario=replace(
            scenario,
            fleet=replace(scenario.fleet, gateway=replace(gateway, waiting_max=waiting_max)),
            models=(scenario.models[model],),
            slos=(scenario.slos[model],),
            groups=tuple(
                replace(scenario.groups[place], model=0, replicas=count)
                for place, count in zip(places, kept, strict=True)
            ),
            losses=(),
        ),
        places=places,
        times=times,
        group_times=tuple(all_ / some for all_, some in zip(counts, kept, strict=True)),
    )


def _shrunk(counts: Sequence[int], replicas_max: int) -> list[int]:
    """At most about so many together, each at least one: the size that keeps proportions best."""
    total = sum(counts)
    if total <= replicas_max:
        return list(counts)

    def sized(size: int) -> list[int]:
        return [max(1, round(count * size / total)) for count in counts]

    def error(size: int) -> float:
        kept = sized(size)
        times = total / sum(kept)
        return max(abs(some * times / count - 1) for count, some in zip(counts, kept, strict=True))

    sizes = range(replicas_max, replicas_max * 2 // 3 - 1, -1)
    return sized(min(sizes, key=lambda size: (round(error(size), 3), -size)))
