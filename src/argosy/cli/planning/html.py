"""`argosy plan --html`: the plan on one page that opens anywhere, in pictures first.

What stands in the tables is written by `pages.py`; how things look, by `page.py`.
"""

from collections.abc import Sequence
from datetime import date
from html import escape
from itertools import accumulate

from argosy.cli.planning import page as html
from argosy.cli.planning import pages, words
from argosy.cli.planning.map import Place, Slice, Way, world_map
from argosy.cli.planning.report import Commitment, PlanReport, ReplayRow, ReplicaRow
from argosy.cli.planning.svg import Layer, Line, Mark, burn, stack

_KIND_COLOURS = {
    "own": "var(--k0)",
    "reserved": "var(--k1)",
    "committed_spend": "var(--k2)",
    "on_demand": "var(--k3)",
    "spot": "var(--k4)",
}
_HOURS_MARKED = (0, 6, 12, 18)


def plan_html(report: PlanReport) -> str:
    """The whole file."""
    _, proven, demand = pages.headline(report)
    colours = _colours(report)
    return html.page(
        f"{report.fleet}: plan",
        [
            html.head(
                f"{report.fleet}: what to hold, what to buy, what runs where",
                (f"{report.begin} to {report.until}. {demand}", proven),
            ),
            _tiles(report),
            _capacity(report, colours),
            _commitments(report),
            _costs(report),
            _map(report, colours),
            _replicas(report, colours),
            _routes(report),
            _models(report, colours),
            _binding(report),
            _replay(report),
            _promises(report),
            _notes(report),
        ],
    )


def _colours(report: PlanReport) -> dict[str, str]:
    """By pool; those that run the most get the colours."""
    chips: dict[str, float] = {}
    for row in report.supplies:
        chips[row.pool] = chips.get(row.pool, 0.0) + row.chips_mean
    for row in report.replicas:
        chips.setdefault(row.pool, 0.0)
    ordered = sorted(chips, key=lambda name: -chips[name])
    return {name: html.colour_of(place) for place, name in enumerate(ordered)}


def _tiles(report: PlanReport) -> str:
    found = [
        (f"{report.usd_per_hour:,.0f} USD", "an hour, on average"),
        (words.usd(report.cost_usd), f"from {report.begin} to {report.until}"),
    ]
    if report.usd_per_mtok_out is not None:
        found.append((f"{report.usd_per_mtok_out:,.2f} USD", "per million tokens out"))
    found.append((words.percent(report.gap), "proven gap to the best plan, at most"))
    if report.replay is not None:
        found.append(
            (words.percent_or_none(report.replay.slo_met_share), "met their SLO, simulated")
        )
    else:
        found.append((words.percent(report.headroom), "headroom over what is expected"))
    return html.tiles(found)


def _capacity(report: PlanReport, colours: dict[str, str]) -> str:
    parts = [_stack(report, colours, None, 300)]
    models = list(dict.fromkeys(row.model for row in report.replicas))
    if len(models) > 1:
        for model in models:
            parts.append(f"<h3>{escape(model)}</h3>")
            parts.append(_stack(report, colours, model, 200))
    areas = [
        (name, colour)
        for name, colour in colours.items()
        if any(row.pool == name for row in report.replicas)
    ]
    if report.training:
        areas.append(("training", html.REST))
    lines = [("what demand takes, at the believed rates", False)]
    if _held(report) is not None:
        lines.append(("held, used or not", True))
    return html.section(
        "Capacity against demand, by hour of the day (UTC)",
        html.legend(areas, lines),
        *parts,
        html.note(
            "Chips that run replicas, by pool, on the typical day of each period. What lies above "
            "the line is headroom, and what steps in when something is lost."
        ),
    )


def _stack(report: PlanReport, colours: dict[str, str], model: str | None, height: float) -> str:
    rows = [row for row in report.replicas if model in (None, row.model)]
    count = len(report.slots)
    layers = [
        Layer(
            name=pool,
            colour=colour,
            values=_sum(
                [[row.chips * n for n in row.replicas] for row in rows if row.pool == pool], count
            ),
        )
        for pool, colour in colours.items()
        if any(row.pool == pool for row in rows)
    ]
    if model is None and report.training:
        trained = _sum([row.chips for row in report.training], count)
        layers.append(Layer(name="training", colour=html.REST, values=trained))
    taken = _sum([[row.chips * n for n in row.load] for row in rows], count)
    lines = [Line(name="demand", values=taken)]
    held = _held(report) if model is None else None
    if held is not None:
        lines.append(Line(name="held", values=held, is_dashed=True))
    titles = [_title(report, layers, taken, place) for place in range(count)]
    return stack(layers, lines, marks=_marks(report), titles=titles, unit="chips", height=height)


def _sum(rows: Sequence[Sequence[float]], count: int) -> tuple[float, ...]:
    return tuple(sum(row[place] for row in rows) for place in range(count))


def _title(report: PlanReport, layers: Sequence[Layer], taken: Sequence[float], place: int) -> str:
    slot = report.slots[place]
    parts = [f"{layer.name}: {words.number(layer.values[place])} chips" for layer in layers]
    return "\n".join(
        (f"{slot.period}, {slot.hour:02}:00 UTC", *parts, f"demand takes {taken[place]:,.1f}")
    )


def _held(report: PlanReport) -> tuple[float, ...] | None:
    """Chips that are paid for whether they are used or not, by slot."""
    holding = [one for one in report.commitments if one.chips is not None]
    if not holding:
        return None
    begins = {period.name: period.begin for period in report.periods}
    return tuple(
        float(
            sum(one.chips or 0 for one in holding if one.begin <= begins[slot.period] < one.until)
        )
        for slot in report.slots
    )


def _marks(report: PlanReport) -> list[Mark]:
    several = len(report.periods) > 1
    wanted = _HOURS_MARKED if len(report.periods) <= 3 else ()
    marks, before = [], None
    for place, slot in enumerate(report.slots):
        if several and slot.period != before:
            marks.append(Mark(column=place, text=slot.period, begins=True))
        if slot.hour in wanted and not (several and slot.hour == 0):
            marks.append(Mark(column=place, text=f"{slot.hour:02}:00"))
        before = slot.period
    return marks


def _commitments(report: PlanReport) -> str:
    if not report.commitments:
        told = "Nothing is held: everything is paid by the hour."
        return html.section("To hold and to buy", html.text(told), _by_the_hour(report))
    rows = [
        (
            one.contract,
            html.two(pages.KIND_WORDS[one.kind], pages.standing(one)),
            html.two(words.some(one.pools, 2), words.some(one.chips_of, 2)),
            html.two(*pages.amount(one)),
            words.price(one.usd_per_chip_hour), html.two(one.begin, f"to {one.ends or one.until}"),
            words.money(one.usd),
            html.meter(one.used_share, words.percent(one.used_share)),
        )
        for one in report.commitments
    ]  # fmt: skip
    heads = (
        "Contract", "Kind", "Pools", "Hold", "USD/chip-h", "From", "USD", "Used",
    )  # fmt: skip
    credits_ = [one for one in report.commitments if one.kind == "committed_spend"]
    burns = [part for one in credits_ for part in _burn(report, one)]
    return html.section(
        "To hold and to buy, used or not", html.table(heads, rows), *burns, _by_the_hour(report)
    )


def _burn(report: PlanReport, one: Commitment) -> tuple[str, str, str]:
    """What is left of a credit, from its first day to its last."""
    places = [
        place
        for place, period in enumerate(report.periods)
        if one.begin <= period.begin < one.until
    ]
    days = [0.0, *accumulate(report.periods[place].days for place in places)]
    used = [0.0, *accumulate(one.used_usd_by_period[place] for place in places)]
    left = [(day, max(0.0, one.usd - spent)) for day, spent in zip(days, used, strict=True)]
    names = [(day, report.periods[place].name) for day, place in zip(days, places, strict=False)]
    unused = one.usd - one.used_usd
    told = (
        f"All of {words.usd(one.usd)} is used."
        if unused < 0.0005 * one.usd
        else f"{words.usd(one.used_usd)} of {words.usd(one.usd)} is used; "
        f"{words.usd(unused)} is paid for nothing."
    )
    return (
        f"<h3>Burn-down of {escape(one.contract)}</h3>",
        html.note(f"{told} Dashed: even use."),
        burn(left, names=names, usd=one.usd),
    )


def _by_the_hour(report: PlanReport) -> str:
    rows = [
        (
            one.pool, pages.KIND_WORDS[one.kind], one.contract, one.chip, one.region,
            words.price(one.usd_per_chip_hour), words.number(one.chips_mean),
            words.number(one.chips_peak), words.money(one.usd),
        )
        for one in report.supplies
        if one.kind not in ("own", "reserved")
    ]  # fmt: skip
    heads = (
        "Pool", "Kind", "Contract", "Chip", "Region", "USD/chip-h", "Chips, average", "Peak", "USD",
    )  # fmt: skip
    return f"<h3>Paid while used</h3>{html.table(heads, rows)}" if rows else ""


def _costs(report: PlanReport) -> str:
    rows = [
        html.Bar(
            name="this plan",
            under=f"headroom {words.percent(report.headroom)}",
            pieces=_pieces(report.cost_usd_by_kind),
            value=f"{report.usd_per_hour:,.0f} USD/h",
        )
    ]
    for one in report.baselines:
        times = "" if one.times is None else f", {one.times:.2f}x"
        hourly = "none" if one.usd_per_hour is None else f"{one.usd_per_hour:,.0f} USD/h"
        rows.append(
            html.Bar(
                name=one.name, under=pages.misses(one), pieces=_pieces(one.usd_by_kind),
                value=f"{hourly}{times}",
            )
        )  # fmt: skip
    used = {
        kind for row in rows for kind in _KIND_COLOURS if _KIND_COLOURS[kind] in dict(row.pieces)
    }
    areas = [
        (pages.KIND_WORDS[kind], colour) for kind, colour in _KIND_COLOURS.items() if kind in used
    ]
    title = "Cost against naive ways" if report.baselines else "Cost by kind of contract"
    return html.section(title, html.legend(areas), html.bars(rows), html.note(pages.kinds(report)))


def _pieces(by_kind: dict[str, float]) -> tuple[tuple[str, float], ...]:
    return tuple(
        (_KIND_COLOURS[kind], by_kind[kind]) for kind in _KIND_COLOURS if by_kind.get(kind)
    )


def _map(report: PlanReport, colours: dict[str, str]) -> str:
    hours = sum(slot.hours for slot in report.slots)
    chips: dict[str, dict[str, float]] = {}
    for row in report.replicas:
        mean = sum(
            row.chips * count * slot.hours
            for count, slot in zip(row.replicas, report.slots, strict=True)
        )
        pools = chips.setdefault(row.region, {})
        pools[row.pool] = pools.get(row.pool, 0.0) + mean / hours
    ways: dict[tuple[str, str], float] = {}
    for route in report.routes:
        mean = sum(
            rate * slot.hours for rate, slot in zip(route.requests_per_s, report.slots, strict=True)
        )
        key = route.origin, route.region
        ways[key] = ways.get(key, 0.0) + mean / hours
    regions = dict.fromkeys([*chips, *(origin for origin, _ in ways)])
    places = [
        Place(
            region=region,
            slices=tuple(
                Slice(name=pool, colour=colours[pool], chips=count)
                for pool, count in chips.get(region, {}).items()
            ),
        )
        for region in regions
    ]
    picture, missing = world_map(
        places,
        [
            Way(origin=origin, region=region, requests_per_s=rate)
            for (origin, region), rate in ways.items()
        ],
    )
    told = "Circles: chips that run on average, by pool. Lines: requests, from where they come."
    if missing:
        told += f" On no map: {', '.join(missing)}."
    running = [
        (pool, colour)
        for pool, colour in colours.items()
        if any(pool in one for one in chips.values())
    ]
    return html.section("Where it runs", html.legend(running), picture, html.note(told))


def _engine(row: ReplicaRow) -> str:
    """Such as: vllm, 1024 tokens a step."""
    return f"{row.engine}, {pages.step(row)} tokens a step" if pages.step(row) else row.engine


def _replicas(report: PlanReport, colours: dict[str, str]) -> str:
    shown = pages.shown_periods(report)
    rows = [
        (
            row.model,
            html.swatch(row.pool, colours[row.pool], "uncalibrated" if row.is_uncalibrated else ""),
            html.two(row.layout, _engine(row)), row.chips,
            pages.rates(row), *(pages.spell(row, place) for place in shown),
        )
        for row in report.replicas
    ]  # fmt: skip
    heads = (
        "Model", "Pool", "Layout", "Chips", "Requests/s of one (80 %)",
        *(report.periods[place].name for place in shown),
    )  # fmt: skip
    told = (
        "Replicas at night / on average / at the peak of their model's demand. Requests/s: what "
        "one replica serves within the SLO; of several length classes, one number each."
    )
    return html.section("Replicas", html.table(heads, rows), html.note(told))


def _routes(report: PlanReport) -> str:
    rows = [
        (model, tier, origin, ", ".join(f"{pool} {words.percent(share)}" for pool, share in pools))
        for (model, tier, origin), pools in pages.shares(report)
    ]
    return html.section(
        "Where requests go", html.table(("Model", "Tier", "From", "Served by"), rows)
    )


def _models(report: PlanReport, colours: dict[str, str]) -> str:
    rows = [
        (
            one.model, f"{one.requests_per_s_mean:,.1f}", f"{one.requests_per_s_peak:,.1f}",
            f"{one.tokens_in_per_day / 1e6:,.0f}", f"{one.tokens_out_per_day / 1e6:,.0f}",
            f"{one.chip_hours_per_day:,.0f}", words.money(one.usd),
            None if one.usd_per_mtok_out is None else f"{one.usd_per_mtok_out:,.2f}",
        )
        for one in report.models
    ]  # fmt: skip
    heads = (
        "Model", "Requests/s", "Peak", "Mtok in/day", "Mtok out/day", "Chip-hours/day", "USD",
        "USD/Mtok out",
    )  # fmt: skip
    told = "A model bears of each pool's cost its share of the chip-hours there."
    runs = [
        (one.run, html.swatch(one.pool, colours.get(one.pool, html.REST)), words.tokens(one.tokens),
         words.number(one.chips_mean), words.number(one.chips_peak))
        for one in report.training
    ]  # fmt: skip
    training = ""
    if runs:
        tops = ("Run", "Pool", "Tokens", "Chips, average", "At most")
        training = f"<h3>Training runs</h3>{html.table(tops, runs)}"
    return html.section("What each model takes", html.table(heads, rows), html.note(told), training)


def _binding(report: PlanReport) -> str:
    title = "What binds, and what it would save to ease it"
    if not report.binding:
        return html.section(title, html.text("Nothing: to ease no one constraint saves anything."))
    shown, more = pages.binding_shown(report)
    rows = [(pages.constraint(one), words.figure(one.usd_per_unit_hour), one.unit) for one in shown]
    told = f"And {more} that matter less: argosy plan --json." if more else ""
    heads = ("Constraint", "USD/h", "For each")
    return html.section(title, html.table(heads, rows), html.note(told))


def _replay(report: PlanReport) -> str:
    replay = report.replay
    if replay is None:
        return ""
    rows = [_replay_row("as planned", row) for row in replay.rows]
    rows += [
        _replay_row(f"{loss.what}, {loss.hour}", row)
        for loss in replay.losses
        for row in loss.rows
        if row.is_promised
    ]
    heads = ("", "Model", "Tier", "Requests", "SLO met", "With slow steps", "With fast")
    return html.section(
        "The plan, simulated",
        html.text(pages.replay_text(replay)),
        html.table(heads, rows),
        html.items([pages.loss_text(loss) for loss in replay.losses]),
        html.items(pages.cuts(replay)),
    )


def _replay_row(what: str, row: ReplayRow) -> tuple[object, ...]:
    share = row.slo_met_share
    return (
        what, row.model, row.tier, f"{row.requests:,}", html.meter(share, words.percent(share)),
        words.percent_or_none(row.slo_met_share_low),
        words.percent_or_none(row.slo_met_share_high),
    )  # fmt: skip


def _promises(report: PlanReport) -> str:
    lines = [pages.headroom(report)]
    if report.survives:
        lines += [f"Survived, one at a time: {one}." for one in report.survives]
        lines.append(pages.losses(report))
    if energy := pages.energy_text(report):
        lines.append(energy)
    return html.section("Promises and energy", html.items(lines))


def _notes(report: PlanReport) -> str:
    parts = []
    if report.uncalibrated:
        names = ", ".join(report.uncalibrated)
        parts.append(html.text(f"Uncalibrated, rates from data sheets alone: {names}."))
    for title, lines in (("Assumed", report.assumed), ("Left out", report.refused)):
        if lines:
            parts.append(f"<h3>{title}</h3>{html.items(lines)}")
    parts.append(html.note(f"Money is USD; {report.hours:,.0f} hours from {_long(report.begin)}."))
    return html.section("Read before you sign", *parts)


def _long(day: str) -> str:
    one = date.fromisoformat(day)
    return f"{one.day} {one:%B %Y}"
