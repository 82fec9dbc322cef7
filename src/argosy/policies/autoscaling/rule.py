"""How many replicas a model gets: what may come by when one that is asked for now is ready.

Up at once, by the largest of: the forecast's quantile at the horizon of a cold start; the forecast
and a warm headroom (the largest jump within such a horizon, or the largest failure domain that is
to be survived; what batch work uses counts as headroom, for it waits when others come); and what
the last seconds ask for with what waits (the panic guard). Down only when all that was wanted for
some minutes is less, never in a panic, and never more than a share at a time.

Read `view.py` first. Memory is in the signature: `scale(state, view, settings)`; or in two halves,
`asked` and `answered`, where somebody else says which deployments grow (`policies/capacity`).
"""

import math
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from argosy.policies.autoscaling import forecast, loads, soon
from argosy.policies.autoscaling.forecast import Loads, Points
from argosy.policies.autoscaling.spread import Part, largest_domain, spread
from argosy.policies.autoscaling.view import (
    Decision,
    DeploymentView,
    DomainKind,
    ModelView,
    Settings,
    Target,
)

_HISTORY_S = 15 * forecast.DAY_S  # two weeks, and a day to look ahead in
_NEXT_TO_NOTHING = 0.02  # replicas: a forecast that keeps none alive
_COMPARED_EACH = 5  # minutes
USUAL_STEPS = 60  # minutes whose mean is usual
_ROUNDED = 1e-6  # of a replica: a load of exactly two wants no third


class ScaleState(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a model from tick to tick."""

    loads: Loads | None = None  # of whole minutes
    made: tuple[Points, ...] = ()  # forecasts for the latest of them, at the horizon
    ahead_steps: int = 0  # that horizon
    looked_steps: int = 0  # of `made`, since the ways were compared
    way: int = 0  # that is believed
    error_quantile: float = 0.0
    jump: float = 0.0  # the largest error of late
    largest: float = 0.0  # load of a minute, in the time of these forecasts
    wanted: tuple[tuple[float, float], ...] = ()  # when, and how much load was to be provided for
    wanted_lost: tuple[tuple[float, float], ...] = ()  # the same, of what must outlive a domain
    wanted_whole: tuple[tuple[float, float], ...] = ()  # and of what is needed while none is lost
    waited: soon.Waited = ()  # at the looks since a tick
    removed: tuple[tuple[float, str, int], ...] = ()  # when, of which deployment, how many
    blocked: tuple[tuple[str, float], ...] = ()  # deployments that gave none, until when
    panic_until_s: float | None = None  # None: there was none


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Loads in replicas."""

    now: float  # of the last seconds, with what waits
    likely: float  # the most on the way to the horizon
    quantile: float
    headroom: float
    total: float  # all that is to be provided for, at the utilisation that is wanted
    whole: float  # the same without the headroom for a domain that is lost
    lost: float  # what must be there while one is
    batch: float  # of these, what only batch work needs
    words: str


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What one model needs at a tick, and what may be done about it; who grows is left open.

    Of loads the most of the last minutes: all must agree before a replica goes.
    """

    model: str
    now_s: float
    parts: tuple[Part, ...]
    survive: tuple[DomainKind, ...]
    total: float  # for `spread`, which knows the headroom as a sum
    whole: float  # for the placement: while no domain is lost …
    lost: float  # … and while one is
    batch: float  # of `whole`
    need: Need  # of this tick
    horizon_s: float
    is_panic: bool


def scale(state: ScaleState, view: ModelView, settings: Settings) -> tuple[ScaleState, Decision]:
    """Targets for all deployments of a model, from what is known of it now."""
    state, ask = asked(state, view, settings)
    decision = spread_over(ask)
    return remembering(state, ask, decision), decision


def spread_over(ask: Ask) -> Decision:
    """What is asked for, spread over its deployments one replica at a time."""
    return answered(ask, spread(ask.parts, ask.total, ask.survive))


def asked(state: ScaleState, view: ModelView, settings: Settings) -> tuple[ScaleState, Ask]:
    """What is needed; `remembering` is to be told what came of it."""
    work = loads.work_of(view, settings.output_tokens_assumed)
    horizon_s = soon.horizon_s(view, settings)
    state = _learned(state, view, settings, work, horizon_s)
    state = _expired(state, view, settings)
    parts = tuple(_part(one, view, state, settings, work) for one in view.deployments)
    need = _need(state, view, settings, work, parts)
    state = _remembered(state, need, view, settings, horizon_s)
    state = _alarmed(state, need, parts, view, settings)
    is_panic = state.panic_until_s is not None and state.panic_until_s > view.now_s
    if is_panic or _is_new(view, settings):
        parts = tuple(replace(part, shrink_max=0) for part in parts)
    return state, Ask(
        model=view.model,
        now_s=view.now_s,
        parts=parts,
        survive=view.survive,
        total=_most(state.wanted),
        whole=_most(state.wanted_whole),
        lost=_most(state.wanted_lost),
        batch=need.batch,
        need=need,
        horizon_s=horizon_s,
        is_panic=is_panic,
    )


def answered(ask: Ask, counts: Sequence[int], whys: Sequence[str] = ()) -> Decision:
    """These replicas of its parts as targets; `whys`: what else is to be said of each."""
    need, said = ask.need, whys or ("",) * len(counts)
    return Decision(
        targets=tuple(
            _target(part, count, ask, why)
            for part, count, why in zip(ask.parts, counts, said, strict=True)
        ),
        load_now=need.now,
        load_forecast=need.likely,
        load_quantile=need.quantile,
        headroom=need.headroom,
        horizon_s=ask.horizon_s,
        is_panic=ask.is_panic,
    )


def remembering(state: ScaleState, ask: Ask, decision: Decision) -> ScaleState:
    """How many go, for the cap on removals."""
    removed = tuple(
        (ask.now_s, part.name, part.replicas - target.replicas)
        for part, target in zip(ask.parts, decision.targets, strict=True)
        if target.replicas < part.replicas
    )
    return replace(state, removed=state.removed + removed)


def _is_new(view: ModelView, settings: Settings) -> bool:
    """Too little is known yet to say that a replica is not needed."""
    return len(view.history.requests) * view.history.step_s < settings.down_s_max


# What is remembered.


def _learned(
    state: ScaleState, view: ModelView, settings: Settings, work: loads.Work, horizon_s: float
) -> ScaleState:
    """The minutes that have ended since, and how far the forecasts for them were off."""
    history, sustains = view.history, view.deployments[0].sustains
    known_s = history.until_s - len(history.requests) * history.step_s
    known = state.loads or Loads(step_s=history.step_s, until_s=known_s, values=())
    new = round((history.until_s - known.until_s) / history.step_s)
    ahead = math.ceil(horizon_s / history.step_s)
    if new <= 0 and ahead == state.ahead_steps:
        return replace(state, loads=known)
    steps = len(history.requests)
    values = [
        *known.values,
        *(
            loads.load_of(history, step, step + 1, work, sustains)
            for step in range(max(0, steps - new), steps)
        ),
    ]
    values = values[-round(_HISTORY_S / history.step_s) :]
    known = Loads(step_s=history.step_s, until_s=history.until_s, values=tuple(values))
    if ahead != state.ahead_steps:  # another horizon: all forecasts anew
        state, new = replace(state, made=(), looked_steps=_COMPARED_EACH), len(values)
    most = round(settings.error_memory_s / history.step_s)
    late = (*state.made, *_made(known, min(new, most), ahead))[-most:]
    return _compared(
        replace(
            state,
            loads=known,
            made=late,
            ahead_steps=ahead,
            looked_steps=state.looked_steps + max(1, new),
        ),
        settings,
    )


def _made(known: Loads, last: int, ahead: int) -> list[Points]:
    """Forecasts for the last steps, each from what was known a horizon before."""
    steps = len(known.values)
    return [
        forecast.points(known, at_step=step - ahead, ahead_steps=ahead)
        for step in range(max(steps - last, ahead + forecast.KNOWN_STEPS), steps)
    ]


def _compared(state: ScaleState, settings: Settings) -> ScaleState:
    """Every few minutes: which way is believed, and how far it was off."""
    known = state.loads
    assert known is not None, "learned before"
    if state.looked_steps < _COMPARED_EACH:
        return state
    came = known.values[len(known.values) - len(state.made) :]
    way = forecast.believed(state.made, came, settings.quantile, state.way)
    errors = forecast.errors_of(state.made, came, way)
    late = errors[-round(settings.jump_memory_s / known.step_s) :]
    return replace(
        state,
        looked_steps=0,
        way=way,
        error_quantile=forecast.quantile_of(errors, settings.quantile),
        jump=max(0.0, *late) if late else 0.0,
        largest=max(known.values[-round(settings.error_memory_s / known.step_s) :], default=0.0),
    )


def _expired(state: ScaleState, view: ModelView, settings: Settings) -> ScaleState:
    """Deployments whose pending replicas should long be ready are asked no more for a while."""
    blocked = [(name, until_s) for name, until_s in state.blocked if until_s > view.now_s]
    for one in view.deployments:
        if any(_has_expired(since_s, one, view, settings) for since_s in one.pending):
            blocked = [pair for pair in blocked if pair[0] != one.name]
            blocked.append((one.name, view.now_s + settings.retry_s))
    since_s = view.now_s - settings.removal_interval_s
    return replace(
        state,
        blocked=tuple(blocked),
        removed=tuple(one for one in state.removed if one[0] > since_s),
    )


def _has_expired(since_s: float, one: DeploymentView, view: ModelView, settings: Settings) -> bool:
    return view.now_s - since_s > settings.pending_starts_max * max(one.start_s_p95, 20.0)


def _remembered(
    state: ScaleState, need: Need, view: ModelView, settings: Settings, horizon_s: float
) -> ScaleState:
    """What was wanted in the time in which all must agree before a replica goes."""
    window_s = min(settings.down_s_max, max(settings.down_s_min, horizon_s))
    since_s = view.now_s - window_s
    return replace(
        state,
        wanted=_with(state.wanted, need.total, view.now_s, since_s),
        wanted_whole=_with(state.wanted_whole, need.whole, view.now_s, since_s),
        wanted_lost=_with(state.wanted_lost, need.lost, view.now_s, since_s),
        waited=soon.looked(state.waited, view, settings),
    )


def _with(
    wanted: tuple[tuple[float, float], ...], load: float, now_s: float, since_s: float
) -> tuple[tuple[float, float], ...]:
    """With this load; what is older, or less than it, never counts again."""
    late = [one for one in wanted if one[0] > since_s and one[1] > load]
    return (*late, (now_s, load))


def _most(wanted: tuple[tuple[float, float], ...]) -> float:
    return max(load for _, load in wanted)


def _alarmed(
    state: ScaleState, need: Need, parts: tuple[Part, ...], view: ModelView, settings: Settings
) -> ScaleState:
    """In a panic where what the last seconds ask for is more than the ready replicas do."""
    pairs = zip(view.deployments, parts, strict=True)
    ready = sum(one.ready * part.capacity for one, part in pairs)
    if need.now <= ready:
        return state
    return replace(state, panic_until_s=view.now_s + settings.panic_hold_s)


# What is needed.


def _need(
    state: ScaleState,
    view: ModelView,
    settings: Settings,
    work: loads.Work,
    parts: tuple[Part, ...],
) -> Need:
    known = state.loads
    assert known is not None, "learned before"
    steps, ahead = len(known.values), state.ahead_steps
    way, path = state.way, (0, ahead // 2, ahead)
    coming = [forecast.points(known, at_step=steps, ahead_steps=n)[way] for n in path]
    likely = max(coming) * _times(view, state)
    now = soon.load(state.waited, view, settings, work)
    if _is_idle(view, settings) and likely < _NEXT_TO_NOTHING:
        return Need(
            now=0.0, likely=likely, quantile=0.0, headroom=0.0, total=0.0, whole=0.0, lost=0.0,
            batch=0.0, words=f"nobody asked for {settings.idle_s:g} s",
        )  # fmt: skip
    # What a rise from little was, times the largest load, is more than was ever asked for.
    bound = max(likely, settings.beyond_max * max(state.largest, now))
    quantile = min(bound, forecast.with_error(likely, state.error_quantile))
    jump = min(bound, forecast.with_error(likely, state.jump)) - likely
    domain = min(largest_domain(parts, view.survive), likely)
    headroom = max(jump, domain)
    batch = _batch(view, work)
    # Batch work has what it asks for on the whole, and lends it while others ask for more.
    usual = min(likely, forecast.mean(known.values, steps - USUAL_STEPS, steps))
    most = max(quantile, likely + headroom, usual + batch, now)
    people = max(quantile, likely + jump, now)
    whole = max(people, usual + batch)
    horizon_s = soon.horizon_s(view, settings)
    words = f"{now:.2f} replicas' load now, {likely:.2f} likely within {horizon_s:.0f} s"
    words += f" ({settings.quantile:.0%} below {quantile:.2f}), headroom {headroom:.2f}"
    if batch > 0:
        words += f", of which batch work lends {max(0.0, min(batch, most - likely)):.2f}"
    return Need(
        now=now,
        likely=likely,
        quantile=quantile,
        headroom=headroom,
        total=_provided(most, settings),
        whole=_provided(whole, settings),
        lost=_provided(likely, settings),
        batch=(whole - people) / settings.utilisation_max,
        words=words,
    )


def _provided(load: float, settings: Settings) -> float:
    """What is to be there for it, at the utilisation that is wanted."""
    total = max(load / settings.utilisation_max, _ROUNDED)
    return total - _ROUNDED if total > 1.0 else total


def _batch(view: ModelView, work: loads.Work) -> float:
    """The batch tier's load of the last minutes."""
    last = len(view.history.requests)
    begin = max(0, last - loads.LATE_STEPS)
    return loads.batch_load_of(view.history, begin, last, work, view.deployments[0].sustains)


def _is_idle(view: ModelView, settings: Settings) -> bool:
    """Nobody has asked for long."""
    history, recent = view.history, view.recent
    steps = math.ceil(settings.idle_s / history.step_s)
    if len(history.requests) < steps or view.queued:
        return False
    if any(one.in_flight for one in view.deployments):
        return False
    asked = (history.requests[-steps:], history.batch_requests[-steps:])
    return not any(map(any, (*asked, recent.requests, recent.batch_requests)))


def _times(view: ModelView, state: ScaleState) -> float:
    """What the calendar says of the time up to the horizon: the most that any event brings."""
    assert state.loads is not None, "learned before"
    until_s = view.now_s + state.ahead_steps * state.loads.step_s
    known = [one for one in view.events if one.from_s <= until_s and one.until_s > view.now_s]
    # What has begun is in the level already, in a quarter of an hour.
    ahead = [one.times for one in known if view.now_s - one.from_s < 900.0]
    return max([1.0, *ahead])


# Whose replicas.


def _part(
    one: DeploymentView,
    view: ModelView,
    state: ScaleState,
    settings: Settings,
    work: loads.Work,
) -> Part:
    pending = [s for s in one.pending if not _has_expired(s, one, view, settings)]
    is_blocked = any(name == one.name for name, _ in state.blocked)
    gone = sum(count for _, name, count in state.removed if name == one.name)
    allowed = max(1, math.floor(settings.removal_share_max * (one.ready + gone)))
    return Part(
        name=one.name,
        replicas=one.ready + len(pending),
        ready=one.ready,
        start_s=one.start_s_p95,
        min=one.min,
        max=min(one.max, one.ready + len(pending)) if is_blocked else one.max,
        capacity=loads.capacity_of(one, view, work),
        price_usd_per_hour=one.price_usd_per_hour or 0.0,
        domains=one.domains,
        may_grow=not is_blocked,
        shrink_max=max(0, allowed - gone),
    )


def _target(part: Part, count: int, ask: Ask, why: str) -> Target:
    change = "stay" if count == part.replicas else f"{part.replicas} -> {count}"
    if part.replicas == count == part.max and ask.need.total > count * part.capacity:
        change = f"stay: {part.max} is the most"
    change += f" ({why})" if why else ""
    panic = "; too little is ready" if ask.is_panic else ""
    return Target(deployment=part.name, replicas=count, reason=f"{change}: {ask.need.words}{panic}")
