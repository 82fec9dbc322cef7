"""The decision: a tick comes in, the wanted replicas and their reasons go out."""

from argosy.policies.placement.bound import DEAR_SHARE, bound_usd, why_dear
from argosy.policies.placement.frame import Frame, frame_of
from argosy.policies.placement.limits import limited
from argosy.policies.placement.search import All
from argosy.policies.placement.steps import settled
from argosy.policies.placement.views import DEFAULT_TUNING, Placed, Placement, Tick, Tuning
from argosy.policies.placement.words import changes_of, shorts_of


def place(tick: Tick, *, tuning: Tuning = DEFAULT_TUNING) -> Placement:
    """What should run where, for the least cost of chips and moves that the search finds.

    Where chips do not suffice, needs are met in the order of `rows.LEVELS` and `short` says what
    is missing and why. Replicas of which nothing is known (no need, no option, no pool) stay.
    """
    frame = frame_of(tick, tuning)
    counts, is_cut = settled(frame, tuning)
    counts, is_put_off = limited(frame, counts, tuning)
    market = frame.market
    usd = frame.base_usd + sum(
        market.cost_usd(pool, used) for pool, used in enumerate(market.used) if used
    )
    bound = bound_usd(frame, counts)
    is_dear = usd > bound * (1 + DEAR_SHARE) + 1e-9
    return Placement(
        replicas=_placed(frame, counts),
        changes=tuple(changes_of(frame, counts)),
        short=tuple(shorts_of(tick, frame, counts, is_put_off=is_put_off)),
        usd_per_hour=usd,
        bound_usd_per_hour=bound,
        dear=why_dear(frame, counts, is_put_off=is_put_off, is_cut=is_cut) if is_dear else None,
    )


def _placed(frame: Frame, counts: All) -> tuple[Placed, ...]:
    wanted = [
        Placed(
            model=view.model,
            pool=view.pool,
            engine=view.engine,
            layout=view.layout,
            replicas=own.get(option, 0) + model.base.get(option, 0),
        )
        for model, own in zip(frame.models, counts, strict=True)
        for option in sorted({**own, **model.base})
        for view in (model.views[option],)
    ]
    wanted += [
        Placed(
            model=view.model,
            pool=view.pool,
            engine=view.engine,
            layout=view.layout,
            replicas=view.replicas,
        )
        for view, _ in frame.held
    ]
    return tuple(sorted(wanted, key=lambda one: (one.model, one.pool)))
