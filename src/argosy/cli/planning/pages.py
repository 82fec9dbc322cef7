"""What `argosy plan` prints: what to hold and buy, what runs where and when, what it costs, why."""

import re
from collections.abc import Iterable, Sequence

import typer

from argosy.cli.planning.report import (
    BaselineRow,
    BindingRow,
    Commitment,
    ConflictReport,
    PlanReport,
    Replay,
    ReplayedLoss,
    ReplayRow,
    ReplicaRow,
    RouteRow,
)
from argosy.cli.planning.words import (
    figure,
    money,
    money_or_none,
    number,
    percent,
    percent_or_none,
    plural,
    price,
    some,
    tokens,
    usd,
)
from argosy.cli.tables import print_table

KIND_WORDS = {
    "own": "own",
    "reserved": "reserved",
    "committed_spend": "committed spend",
    "on_demand": "on demand",
    "spot": "spot",
}
_PERIODS_SHOWN = 3  # first, middle and last of more
_BINDING_SHOWN = 8
_GAP_NONE = 1e-6
_AS_GOOD_AS_ALL = 0.99  # met their SLO
_BINDING_LEAST = 1e-5  # of the plan's cost, for one unit: less is not worth a line
_LINES_SHOWN = 12  # of what was assumed, or refused


def print_plan(report: PlanReport) -> None:
    """Tables on stdout."""
    for line in headline(report):
        typer.echo(line)
    for part in (_print_commitments, _print_by_the_hour, _print_replicas, _print_routes):
        part(report)
    _print_models(report)
    if report.training:
        _print_training(report)
    _print_costs(report)
    for line in (*_binding(report), *_promises(report), *_replay(report), *_notes(report)):
        typer.echo(line)


def headline(report: PlanReport) -> tuple[str, ...]:
    """What it costs, how near the best that is, what was planned for."""
    per_mtok = (
        ""
        if report.usd_per_mtok_out is None
        else f", {report.usd_per_mtok_out:,.2f} USD per million tokens out"
    )
    return (
        f"{report.fleet}, {report.begin} to {report.until}: {usd(report.cost_usd)}, "
        f"{report.usd_per_hour:,.0f} USD an hour{per_mtok}",
        proven(report),
        f"Demand: {report.demand}; {report.requests_per_s_mean:,.1f} requests/s on average, "
        f"{report.requests_per_s_peak:,.1f} at the peak.",
    )


def proven(report: PlanReport) -> str:
    """How near the best it is."""
    if report.gap < _GAP_NONE:
        return "Proven: no plan costs less."
    return (
        f"Proven: no plan costs less than {usd(report.bound_usd)}, so this one is at most "
        f"{percent(report.gap)} from the best."
    )


def _print_commitments(report: PlanReport) -> None:
    typer.echo("")
    if not report.commitments:
        typer.echo("To hold: nothing. Everything is paid by the hour.")
        return
    typer.echo("To hold and to buy, used or not:")
    rows = [
        (
            one.contract, KIND_WORDS[one.kind], standing(one),
            some(one.pools), some(one.chips_of), ", ".join(amount(one)),
            price(one.usd_per_chip_hour),
            term(one), money(one.usd), percent(one.used_share),
        )
        for one in report.commitments
    ]  # fmt: skip
    heads = (
        "CONTRACT", "KIND", "", "POOLS", "CHIP", "HOLD", "USD/chip-h", "FROM, UNTIL", "USD", "USED",
    )  # fmt: skip
    print_table(heads, rows)


def standing(one: Commitment) -> str:
    """Whether it binds already; of one's own nodes that is no question."""
    if one.kind == "own":
        return ""
    return "signed" if one.is_signed else "new"


def term(one: Commitment) -> str:
    """Within the horizon; and when the contract ends, where that is later."""
    later = "" if one.ends is None else f", ends {one.ends}"
    return f"{one.begin} to {one.until}{later}"


def amount(one: Commitment) -> tuple[str, str]:
    """12 nodes and their chips; or the credit and its units."""
    if one.nodes is not None:
        return f"{one.nodes:,} {plural(one.nodes, 'node')}", f"{one.chips:,} chips"
    units = one.units or 0
    return usd(one.usd), f"credit, {units:,} {plural(units, 'unit')}"


def _print_by_the_hour(report: PlanReport) -> None:
    hourly = [one for one in report.supplies if one.kind not in ("own", "reserved")]
    if not hourly:
        return
    typer.echo("")
    typer.echo("Paid while used; chips:")
    rows = [
        (
            one.pool, KIND_WORDS[one.kind], one.contract, one.chip, one.region,
            price(one.usd_per_chip_hour), number(one.chips_mean), number(one.chips_peak),
            money(one.usd),
        )
        for one in hourly
    ]  # fmt: skip
    heads = (
        "POOL", "KIND", "CONTRACT", "CHIP", "REGION", "USD/chip-h", "AVERAGE", "PEAK", "USD",
    )  # fmt: skip
    print_table(heads, rows)


def shown_periods(report: PlanReport) -> list[int]:
    """Places of the periods that a table has room for."""
    count = len(report.periods)
    if count <= _PERIODS_SHOWN:
        return list(range(count))
    return [0, count // 2, count - 1]


def _print_replicas(report: PlanReport) -> None:
    typer.echo("")
    typer.echo(
        "Replicas at night / on average / at the peak of their model's demand; REQUESTS/s of one, "
        "within the SLO, by length class; STEP: tokens that its engine computes at once:"
    )
    shown = shown_periods(report)
    rows = [
        (
            row.model, row.pool, row.layout, row.chips, row.engine, step(row), rates(row),
            *(spell(row, place) for place in shown),
            "UNCALIBRATED" if row.is_uncalibrated else "",
        )
        for row in report.replicas
    ]  # fmt: skip
    heads = (
        "MODEL", "POOL", "LAYOUT", "CHIPS", "ENGINE", "STEP", "REQUESTS/s",
        *(report.periods[place].name for place in shown), "",
    )  # fmt: skip
    print_table(heads, rows)


def spell(row: ReplicaRow, period: int) -> str:
    """12 / 20.5 / 31."""
    one = row.by_period[period]
    return f"{one.night:,} / {number(one.mean)} / {one.peak:,}"


def step(row: ReplicaRow) -> str:
    """Its prefill_tokens_max: 1024, as an engine takes it."""
    return "" if row.prefill_tokens_max is None else str(row.prefill_tokens_max)


def rates(row: ReplicaRow) -> str:
    """What a replica is believed to serve, by length class, within the promise."""
    if len(row.requests_per_s) == 1:
        low, high = row.requests_per_s_low[0], row.requests_per_s_high[0]
        return f"{figure(row.requests_per_s[0])} ({figure(low)}-{figure(high)})"
    return " ".join(figure(rate) for rate in row.requests_per_s)


def _print_routes(report: PlanReport) -> None:
    typer.echo("")
    typer.echo("Where requests go, of all over the horizon:")
    rows = [
        (model, tier, origin, ", ".join(f"{pool} {percent(share)}" for pool, share in pools))
        for (model, tier, origin), pools in shares(report)
    ]
    print_table(("MODEL", "TIER", "FROM", "SERVED BY"), rows)


Kind = tuple[str, str, str]  # model, tier, origin


def shares(report: PlanReport) -> list[tuple[Kind, list[tuple[str, float]]]]:
    """By kind of demand, the pools that serve it and their shares, the largest first."""
    hours = [slot.hours for slot in report.slots]
    served: dict[Kind, dict[str, float]] = {}
    for route in report.routes:
        kind = (route.model, route.tier, route.origin)
        requests = _requests(route, hours)
        pools = served.setdefault(kind, {})
        pools[route.pool] = pools.get(route.pool, 0.0) + requests
    found = []
    for kind, pools in served.items():
        total = sum(pools.values())
        ordered = sorted(pools.items(), key=lambda pair: (-pair[1], pair[0]))
        found.append((kind, [(pool, requests / total) for pool, requests in ordered]))
    return found


def _requests(route: RouteRow, hours: Sequence[float]) -> float:
    return sum(rate * length for rate, length in zip(route.requests_per_s, hours, strict=True))


def _print_models(report: PlanReport) -> None:
    typer.echo("")
    rows = [
        (
            one.model, f"{one.requests_per_s_mean:,.1f}", f"{one.requests_per_s_peak:,.1f}",
            f"{one.tokens_in_per_day / 1e6:,.0f}", f"{one.tokens_out_per_day / 1e6:,.0f}",
            f"{one.chip_hours_per_day:,.0f}", money(one.usd),
            None if one.usd_per_mtok_out is None else f"{one.usd_per_mtok_out:,.2f}",
        )
        for one in report.models
    ]  # fmt: skip
    heads = (
        "MODEL", "REQUESTS/s", "PEAK", "Mtok in/day", "Mtok out/day", "CHIP-HOURS/day", "USD",
        "USD/Mtok out",
    )  # fmt: skip
    print_table(heads, rows)


def _print_training(report: PlanReport) -> None:
    typer.echo("")
    typer.echo("Training runs:")
    rows = [
        (one.run, one.pool, tokens(one.tokens), number(one.chips_mean), number(one.chips_peak))
        for one in report.training
    ]
    print_table(("RUN", "POOL", "TOKENS", "CHIPS ON AVERAGE", "AT MOST"), rows)


def _print_costs(report: PlanReport) -> None:
    typer.echo("")
    rows = [
        ("this plan", money(report.cost_usd), f"{report.usd_per_hour:,.0f}", "1.00x"),
        *(
            (
                one.name, money_or_none(one.usd),
                None if one.usd_per_hour is None else f"{one.usd_per_hour:,.0f}",
                None if one.times is None else f"{one.times:.2f}x",
            )
            for one in report.baselines
        ),
    ]  # fmt: skip
    print_table(("COST OF", "USD", "USD/h", "TIMES"), rows)
    typer.echo(f"This plan: {kinds(report)}.")
    for one in report.baselines:
        if less := misses(one):
            typer.echo(f"{one.name[0].upper()}{one.name[1:]}: {less}.")


def kinds(report: PlanReport) -> str:
    """USD by kind of contract."""
    return ", ".join(
        f"{KIND_WORDS[kind]} {usd(value)}"
        for kind, value in report.cost_usd_by_kind.items()
        if value
    )


def misses(one: BaselineRow) -> str:
    """What a baseline does not keep, or why there is none."""
    if one.conflict:
        return f"cannot serve it: {'; '.join(one.conflict)}"
    return f"without {'; '.join(one.gives_up)}" if one.gives_up else ""


def _binding(report: PlanReport) -> list[str]:
    if not report.binding:
        return ["", "Nothing binds: to ease no one constraint would make it cheaper."]
    shown, more = binding_shown(report)
    lines = ["", "What binds, and what it would save to ease it:"]
    lines.extend(
        f"  {constraint(one)}: {figure(one.usd_per_unit_hour)} USD an hour for each {one.unit}"
        for one in shown
    )
    return [*lines, f"  and {more} that matter less (--json)"] if more else lines


def binding_shown(report: PlanReport) -> tuple[list[BindingRow], int]:
    """The dearest, and how many are left out."""
    least = _BINDING_LEAST * report.usd_per_hour
    shown = [one for one in report.binding[:_BINDING_SHOWN] if one.usd_per_unit_hour >= least]
    shown = shown or list(report.binding[:1])
    return shown, len(report.binding) - len(shown)


def constraint(one: BindingRow) -> str:
    """In words, with its hours where the words do not say them."""
    is_said = re.search(r"\d\d:\d\d| hours", one.constraint)
    when = "" if is_said else hours_text(one.hours)
    return f"{one.constraint} ({when})" if when else one.constraint


def hours_text(hours: Sequence[str], most: int = 3) -> str:
    """14:00, 15:00, 16:00 and 3 more hours."""
    shown = ", ".join(hours[:most])
    more = len(hours) - most
    return f"{shown} and {more} more {plural(more, 'hour')}" if more > 0 else shown


def _promises(report: PlanReport) -> list[str]:
    lines = ["", headroom(report)]
    if report.survives:
        lines.append(f"Survived, one at a time: {'; '.join(report.survives)}.")
        lines.append(losses(report))
    if energy := energy_text(report):
        lines.append(energy)
    return lines


def headroom(report: PlanReport) -> str:
    """How much more than expected there is room for."""
    lost = f", {percent(report.headroom_lost)} while something is lost" if report.survives else ""
    return (
        f"Headroom: replicas have room for {percent(report.headroom)} more than is expected{lost}."
    )


def losses(report: PlanReport) -> str:
    """How the promise to survive was checked."""
    return (
        f"Checked: {report.losses_checked:,} losses by hour; {report.losses_added:,} of them "
        "shaped the plan."
    )


def energy_text(report: PlanReport) -> str:
    """KWh and kg a day, and per token, where known."""
    parts = []
    if report.energy_kwh_per_day is not None:
        parts.append(f"{report.energy_kwh_per_day:,.0f} kWh a day at the site")
        if report.tokens_out_per_day and not report.power_unknown:
            joules = report.energy_kwh_per_day * 3.6e6 / report.tokens_out_per_day
            parts.append(f"{joules:,.2f} J per token out")
    if report.carbon_kg_per_day is not None:
        parts.append(f"{report.carbon_kg_per_day:,.0f} kg CO2e a day")
    unknown = [
        f"{noun} of {', '.join(names)}"
        for noun, names in (("power", report.power_unknown), ("carbon", report.carbon_unknown))
        if names
    ]
    if not parts:
        return f"Energy: not known ({'; '.join(unknown)})." if unknown else ""
    left_out = f" Not known, and in no sum: {'; '.join(unknown)}." if unknown else ""
    return f"Energy: {', '.join(parts)}.{left_out}"


def _replay(report: PlanReport) -> list[str]:
    replay = report.replay
    if replay is None:
        return []
    lines = ["", replay_text(replay)]
    lines.extend(f"  {row.model} {row.tier}: {met(row)}" for row in replay.rows)
    lines.extend(f"  {loss_text(loss)}" for loss in replay.losses)
    return [*lines, *(f"  {line}" for line in cuts(replay))]


def replay_text(replay: Replay) -> str:
    """What the simulator measured."""
    kept = "every promise was kept" if replay.is_kept else "NOT every promise was kept"
    return (
        f"Simulated ({hours_text(replay.hours, 6)}): {percent_or_none(replay.slo_met_share)} of "
        f"{replay.requests:,} requests met their SLO; {kept}."
    )


def loss_text(loss: ReplayedLoss) -> str:
    """Of what is promised the least, and what of the rest is not served."""
    promised = [row for row in loss.rows if row.is_promised]
    least = min(promised, key=lambda row: row.slo_met_share, default=None)
    parts = [] if least is None else [f"{least.model} {least.tier} {met(least)} at least"]
    rest = [
        f"{row.model} {row.tier} {percent(row.slo_met_share)}"
        for row in loss.rows
        if not row.is_promised and row.slo_met_share < _AS_GOOD_AS_ALL
    ]
    if rest:
        parts.append(f"not promised: {', '.join(rest)}")
    return f"{loss.what}, {loss.hour}: {'; '.join(parts)}"


def met(row: ReplayRow) -> str:
    """99.9% (98.1%-100%) of 12,000."""
    low, high = row.slo_met_share_low, row.slo_met_share_high
    ends = "" if low is None or high is None else f" ({percent(low)}-{percent(high)})"
    return f"{percent(row.slo_met_share)}{ends} of {row.requests:,}"


def cuts(replay: Replay) -> list[str]:
    """What the simulator showed to be believed too high, and what was done about it."""
    lines = [f"Cut, and planned again: {cut}" for cut in replay.cuts]
    return [*lines, *(f"No lower rate would keep it: {one}" for one in replay.hopeless)]


def _notes(report: PlanReport) -> list[str]:
    lines = [""]
    if report.uncalibrated:
        lines.append(
            f"UNCALIBRATED, rates from data sheets alone: {', '.join(report.uncalibrated)}."
        )
    lines.extend(_few(report.assumed, "Assumed: "))
    lines.extend(_few(report.refused, "Left out: "))
    return lines if len(lines) > 1 else []


def _few(texts: Sequence[str], before: str) -> Iterable[str]:
    for text in texts[:_LINES_SHOWN]:
        yield f"{before}{text}"
    if len(texts) > _LINES_SHOWN:
        yield f"{before}{len(texts) - _LINES_SHOWN} more (--json names them)"


def print_conflict(report: ConflictReport) -> None:
    """On stderr, as a refusal is: what cannot hold together, and what would work."""

    def say(line: str) -> None:
        typer.echo(line, err=True)

    say(f"argosy: {report.fleet}: no plan keeps all of these together, and any one less would do:")
    for line in report.conflict:
        say(f"  - {line}")
    if report.reliefs:
        say("What would work, the cheapest first:")
        for line in report.reliefs:
            say(f"  - {line}")
