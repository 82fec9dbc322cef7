"""What the last seconds ask for: the panic guard's part of the rule.

How long "soon" is depends on how soon a replica can be there. Steps of ten seconds tell what came;
between two ticks, what waits tells it before the step has ended.
"""

from argosy.policies.autoscaling import loads
from argosy.policies.autoscaling.view import ModelView, Settings

_GROWTH_S_MIN = 3.0  # in which what waits must have grown: in less it is chance
_TICK_SPARE_S = 0.5  # looks so near to a tick apart are ticks

Waited = tuple[tuple[float, int], ...]  # when somebody looked, and how many requests waited


def horizon_s(view: ModelView, settings: Settings) -> float:
    """Until a replica that is asked for at this tick is ready, of the slowest that may grow."""
    starts_s = [one.start_s_p95 for one in view.deployments if one.max > one.min]
    return max(starts_s, default=0.0) + settings.decision_s + view.age_s


def load(waited: Waited, view: ModelView, settings: Settings, work: loads.Work) -> float:
    """The load of the last seconds, and of what waits if it is to be worked off soon.

    Where replicas start fast, soon is as soon as one can be there: what comes too many then costs
    little, and nobody waits for longer than need be.
    """
    recent, sustains = view.recent, view.deployments[0].sustains
    soon_s = _soon_s(view, settings)
    steps = len(recent.requests)
    begin = max(0, steps - max(1, round(min(settings.burst_s, soon_s) / recent.step_s)))
    backlog = waiting(view) * work.replica_s(sustains) / min(settings.backlog_s, soon_s)
    came = loads.load_of(recent, begin, steps, work, sustains)
    return max(came, _overflowing(waited, view, settings, work)) + backlog


def _soon_s(view: ModelView, settings: Settings) -> float:
    return max(horizon_s(view, settings), settings.soon_s_min)


def looked(waited: Waited, view: ModelView, settings: Settings) -> Waited:
    """With this look; those that are a tick ago are forgotten."""
    tick_s = view.now_s - settings.decision_s + _TICK_SPARE_S
    return (*(one for one in waited if one[0] > tick_s), (view.now_s, waiting(view)))


def waiting(view: ModelView) -> int:
    """Requests without a slot, at the gateway and in engines."""
    return view.queued + sum(one.waiting for one in view.deployments)


def _overflowing(waited: Waited, view: ModelView, settings: Settings, work: loads.Work) -> float:
    """The load, by how fast more wait than a moment ago: what is served, and what is not.

    Known before the ten seconds have ended in which it came; only between two ticks, for from one
    to the next those have. 0 where nothing grows, and where replicas start too slowly for some
    seconds to matter: they may be chance.
    """
    now, grown = waiting(view), 0.0
    if _soon_s(view, settings) >= settings.burst_s:
        return 0.0
    for at_s, before in waited:
        seconds = view.now_s - at_s
        if _GROWTH_S_MIN <= seconds <= settings.decision_s - _TICK_SPARE_S:
            grown = max(grown, (now - before) / seconds)
    if grown <= 0:
        return 0.0
    served = sum(
        min(one.ready, (one.in_flight - one.waiting) / one.slots)
        * loads.capacity_of(one, view, work)
        for one in view.deployments
        if one.slots
    )
    return served + grown * work.replica_s(view.deployments[0].sustains)
