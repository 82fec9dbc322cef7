"""How many inner steps each island makes for one delta: in proportion to its measured speed. Pure.

All islands then take the same time for a delta, and none waits. An island of mean speed makes
`inner_steps`. None makes more than `ration_over_median_max` times the median, lest one drifts far
from the others between two rounds: it then sends several deltas in the time of others' one.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median

from argosy.policies.elasticity.views import ElasticitySettings, IslandSeen


def rations(
    islands: Sequence[IslandSeen],
    settings: ElasticitySettings,
    before: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Inner steps by island, 1 at least. `before`, what they last were: small changes are not made.

    An island without a measured speed gets what the median island gets.
    """
    measured = {seen.island: _measured(seen) for seen in islands}
    known = [speed for speed in measured.values() if speed is not None]
    if not known:
        return {seen.island: settings.inner_steps for seen in islands}
    usual = float(median(known))
    speeds = {name: usual if speed is None else speed for name, speed in measured.items()}
    mean = fmean(speeds.values())
    steps = {name: settings.inner_steps * speed / mean for name, speed in speeds.items()}
    most = settings.ration_over_median_max * median(steps.values())
    wanted = {name: max(1, round(min(value, most))) for name, value in steps.items()}
    return {name: _kept(one, (before or {}).get(name), settings) for name, one in wanted.items()}


def blocks_of_lease(
    inner_steps: int, *, batch_blocks: int, blocks_free: int, steps_of_all: int
) -> int:
    """Blocks to lease now: whole inner steps; 0 when not one step is free.

    Where less is free than all islands' rations together (`steps_of_all`), each gets its share, so
    that they end together; but half its ration at least, lest the end crumbles into tiny deltas.
    """
    steps_free = blocks_free // batch_blocks
    if steps_free == 0:
        return 0
    fair = math.ceil(steps_free * inner_steps / max(steps_of_all, inner_steps))
    return min(inner_steps, max(fair, math.ceil(inner_steps / 2)), steps_free) * batch_blocks


def _kept(wanted: int, before: int | None, settings: ElasticitySettings) -> int:
    if before is not None and abs(wanted - before) < settings.ration_change_min * before:
        return before
    return wanted


def _measured(seen: IslandSeen) -> float | None:
    speed = seen.steps_per_s
    return speed if speed is not None and 0 < speed < math.inf else None
