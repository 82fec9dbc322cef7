"""Why each option's replicas change, and what is missing, in words."""

from collections.abc import Iterator

from argosy.policies.placement.frame import Frame
from argosy.policies.placement.market import Counts, Market, Model, Row
from argosy.policies.placement.rows import LAST, LEVELS, Caps, caps_of, covered
from argosy.policies.placement.search import All
from argosy.policies.placement.views import (
    Change,
    ChangeCode,
    DomainKind,
    Short,
    ShortCode,
    Tick,
    UpView,
)

_EPS = 1e-6


def changes_of(frame: Frame, counts: All) -> list[Change]:
    """Every option whose replicas change, starts of a model before its stops."""
    up_chips = [0] * len(frame.market.chips)
    for model in frame.models:
        for option, count in model.counts_up().items():
            up_chips[model.pools[option]] += count * model.chips[option]
    shrunk = {pool for pool, chips in enumerate(up_chips) if chips > frame.market.chips[pool]}
    changes: list[Change] = []
    for model, own in zip(frame.models, counts, strict=True):
        changes += _of_model(model, own, frame.market, shrunk)
    for view in frame.barred:
        changes.append(_stopped(view, "residency", f"no need of it may be served in {view.pool}"))
    for view in frame.unable:
        changes.append(_stopped(view, "unable", "no replica meets the SLO there"))
    return changes


def _of_model(model: Model, own: Counts, market: Market, shrunk: set[int]) -> Iterator[Change]:
    up, base = model.counts_up(), model.base
    if all(
        model.was[option] == own.get(option, 0) + base.get(option, 0)
        for option in range(len(model.was))
    ):
        return
    fit = {
        option: min(count, own.get(option, 0)) if model.pools[option] in shrunk else count
        for option, count in up.items()
    }
    start, stop = _why(model, own, fit, market)

    def starts_first(option: int) -> tuple[bool, int]:
        return own.get(option, 0) < up.get(option, 0), option

    for option in sorted(range(len(model.was)), key=starts_first):
        before, after = model.was[option], own.get(option, 0) + base.get(option, 0)
        if before == after:
            continue
        view, place = model.views[option], model.pools[option]
        pool, moved = market.views[place], abs(after - before)
        code, why = start if after > before else stop
        if before < after == base.get(option):
            code, why = "least", f"{after} are kept in any case"
        if after > before:
            used = market.used[place]
            less = max(0, used - view.chips * moved)
            usd = market.cost_usd(place, used) - market.cost_usd(place, less)
            text = f"start {moved}: {why}; USD {usd:.2f} an hour, ready in {pool.start_s:g} s"
        elif place in shrunk:
            code, text = "chips", f"stop {moved}: {pool.name} has {market.chips[place]} chips left"
        else:
            text = f"stop {moved}: {why}"
        yield Change(
            model=view.model,
            pool=view.pool,
            engine=view.engine,
            layout=view.layout,
            before=before,
            after=after,
            code=code,
            reason=text,
        )


_Why = tuple[ChangeCode, str]


def _why(model: Model, own: Counts, up: Counts, market: Market) -> tuple[_Why, _Why]:
    """Why it starts some, and why it stops some, of those that are up and fit."""
    before = caps_of(model, up, market)
    starts = any(count > model.up[option] for option, count in own.items())
    lack = _first_lack(model.rows, before)
    if lack is not None:
        row, missing = lack
        start = _lacks(row, missing)
        stop: _Why = ("saves", "others serve it for less") if starts else ("surplus", "not needed")
        return start, stop
    if not starts:
        return ("demand", ""), ("surplus", "what stays covers all needs")
    saved = _usd(model, up, market) - _usd(model, own, market)
    if saved > 0:
        why = f"the same for USD {saved:.2f} an hour less"
        return ("saves", why), ("saves", why)
    why = "its chips are worth more to another model"
    return ("room", why), ("room", why)


def _lacks(row: Row, missing: float) -> _Why:
    need = row.needs[LAST]
    if row.kind is None:
        return "demand", f"capacity {missing:g} of {need:g} is not there"
    if row.is_lost:
        return "survive", f"{missing:g} of {need:g} would be missing if one {row.kind} were lost"
    return "spread", f"{missing:g} of {need:g} would be above one {row.kind}'s share"


def _first_lack(rows: list[Row], caps: Caps) -> tuple[Row, float] | None:
    """Of what is not covered, plain rows before others; the largest part of a need."""
    worst: tuple[tuple[bool, float], Row, float] | None = None
    for row, own in zip(rows, caps, strict=True):
        need = row.needs[LAST]
        missing = need - covered(row, own, LAST)
        if missing > _EPS * need:
            rank = row.kind is None, missing / need
            if worst is None or rank > worst[0]:
                worst = rank, row, missing
    return None if worst is None else (worst[1], round(worst[2], 4))


def _usd(model: Model, counts: Counts, market: Market) -> float:
    """An hour, at the last price of what is used now."""
    total = 0.0
    for option, count in counts.items():
        pool = model.pools[option]
        price = market.cost_usd(pool, market.used[pool] + 1) - market.cost_usd(
            pool, market.used[pool]
        )
        total += count * model.chips[option] * price
    return total


def _stopped(view: UpView, code: ChangeCode, why: str) -> Change:
    return Change(
        model=view.model,
        pool=view.pool,
        engine=view.engine,
        layout=view.layout,
        before=view.replicas,
        after=0,
        code=code,
        reason=f"stop {view.replicas}: {why}",
    )


def shorts_of(tick: Tick, frame: Frame, counts: All, *, is_put_off: bool) -> list[Short]:
    """What is missing, by model: now, of its spread, and should a domain be lost."""
    shorts: list[Short] = []
    for need in tick.needs:
        if need.capacity > 0 and not any(
            mask for mask, own in frame.needs[need.model] if own is need
        ):
            places = ", ".join(need.regions) or "no region"
            shorts.append(
                Short(
                    model=need.model,
                    tier=need.tier,
                    when="now",
                    kind=None,
                    capacity=need.capacity,
                    of=need.capacity,
                    code="nowhere",
                    reason=f"no pool is in {places}; add one, or allow another region",
                )
            )
    for model, own in zip(frame.models, counts, strict=True):
        shorts += _of_rows(model, own, frame, is_put_off=is_put_off)
    return sorted(shorts, key=lambda short: (short.model, short.when != "now", short.kind or ""))


def _of_rows(model: Model, own: Counts, frame: Frame, *, is_put_off: bool) -> Iterator[Short]:
    """The worst row of each kind."""
    caps = caps_of(model, own, frame.market)
    worst: dict[tuple[bool, DomainKind | None], Short] = {}
    for asked, row, cap in zip(frame.asked[model.name], model.rows, caps, strict=True):
        found = covered(asked, cap, LAST)
        missing = asked.needs[LAST] - found
        if missing <= _EPS * asked.needs[LAST]:
            continue
        level = next(
            level
            for level in range(LAST + 1)
            if asked.needs[level] - covered(asked, cap, level) > _EPS * asked.needs[level]
        )
        out_of_reach = row.needs[LAST] < asked.needs[LAST] * (1 - _EPS)
        code = _code(asked, row, out_of_reach, is_put_off=is_put_off)
        short = Short(
            model=model.name,
            tier=LEVELS[level][0],
            when="lost" if asked.is_lost else "now" if asked.kind is None else "spread",
            kind=asked.kind,
            capacity=missing,
            of=asked.needs[LAST],
            code=code,
            reason=_said(asked, missing, code, row, frame.market),
        )
        key = asked.is_lost, asked.kind
        if key not in worst or short.capacity > worst[key].capacity:
            worst[key] = short
    yield from worst.values()


def _code(asked: Row, row: Row, out_of_reach: bool, *, is_put_off: bool) -> ShortCode:
    if out_of_reach:
        if asked.kind is not None:
            return "domains"
        return "chips" if row.needs[LAST] > 0 else "nowhere"
    return "stops" if is_put_off else "contended"


def _said(asked: Row, missing: float, code: ShortCode, row: Row, market: Market) -> str:
    need, reach = asked.needs[LAST], row.needs[LAST]
    head = f"{missing:.4g} of {need:.4g} is missing"
    if asked.is_lost:
        head = f"{head} if one {asked.kind} is lost"
    elif asked.kind is not None:
        head = f"{missing:.4g} of {need:.4g} is above the share of one {asked.kind}"
    where = ", ".join(
        sorted(name for name, bit in market.region_bits.items() if bit & asked.regions)
    )
    if code == "nowhere":
        return f"{head}: no pool in {where} has chips that sustain it; add one, or allow a region"
    if code == "chips":
        return f"{head}: all chips in {where} sustain {reach:.4g}; add chips, or allow a region"
    if code == "domains":
        return (
            f"{head}: what could serve it in {where} is in {row.domains} "
            f"{asked.kind}{'s' * (row.domains != 1)} and covers {reach:.4g}; add another"
        )
    if code == "stops":
        return f"{head}: its chips come free at the next ticks, so many stops are allowed at once"
    return f"{head}: needs that go first have the chips in {where}; add chips there"
