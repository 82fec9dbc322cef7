"""What `argosy simulate` prints: who got what, what it cost, and what bound first."""

from collections.abc import Callable, Sequence
from datetime import date

import typer

from argosy.cli.simulating import Answer, Question, SweepRow
from argosy.cli.tables import print_table
from argosy.fleet.catalogue import OLD_AFTER_DAYS, is_old
from argosy.simulator.binding import Bound
from argosy.simulator.report import GroupReport, ModelReport, Report, TierReport

_Number = Callable[[Report], float | None]


def print_answer(answer: Answer, *, today: date) -> None:
    """Tables on stdout; numbers in brackets are the ends of the 80 % interval."""
    report = answer.expected
    typer.echo(_headline(report))
    typer.echo("")
    _print_tiers(answer)
    typer.echo("")
    _print_models(answer)
    typer.echo("")
    _print_groups(report, today)
    _print_scaling(report)
    typer.echo("")
    for line in (*_sums(answer), "", *_bounds(report), *_notes(answer, today)):
        typer.echo(line)


def _headline(report: Report) -> str:
    rate = report.requests / max(report.seconds, 1e-9)
    lost = f", without {', '.join(report.losses)}" if report.losses else ""
    return (
        f"{report.fleet}{lost}: {report.requests:,} requests in {report.seconds:,.0f} s "
        f"({rate:,.1f}/s), routing {report.policy}\n{report.trace}; TTFT, TPOT and ITL in ms"
    )


def _print_tiers(answer: Answer) -> None:
    rows = []
    for index, tier in enumerate(answer.expected.tiers):

        def of(read: Callable[[TierReport], float | None], place: int = index) -> _Number:
            return lambda report: read(report.tiers[place]) if place < len(report.tiers) else None

        rows.append((
            tier.model, tier.tier, f"{tier.requests:,}",
            _ranged(answer, of(lambda one: one.slo_met_share), _percent),
            _milliseconds(tier.ttft_s_p50),
            _ranged(answer, of(lambda one: one.ttft_s_p95), _milliseconds),
            _milliseconds(tier.ttft_s_p99),
            _milliseconds(tier.tpot_s_p50),
            _ranged(answer, of(lambda one: one.tpot_s_p95), _milliseconds),
        ))  # fmt: skip
    heads = (
        "MODEL", "TIER", "REQUESTS", "SLO MET", "TTFT p50", "TTFT p95", "TTFT p99",
        "TPOT p50", "TPOT p95",
    )  # fmt: skip
    print_table(heads, rows)
    refused = [line for tier in answer.expected.tiers if (line := _not_answered(tier))]
    if refused:
        typer.echo("")
        typer.echo("Not answered:")
        for line in refused:
            typer.echo(f"  {line}")


def _not_answered(tier: TierReport) -> str:
    told = [f"{count:,} {word}" for word, count in tier.outcomes.items() if word != "done"]
    refused = tier.requests - tier.outcomes.get("done", 0)
    if not refused:
        return ""
    return f"{tier.model} {tier.tier}: {_percent(refused / tier.requests)}, {', '.join(told)}"


def _print_models(answer: Answer) -> None:
    rows = []
    for index, model in enumerate(answer.expected.models):

        def of(read: Callable[[ModelReport], float | None], place: int = index) -> _Number:
            return lambda report: read(report.models[place])

        rows.append((
            model.model, f"{model.requests_per_s:,.1f}",
            _ranged(answer, of(lambda one: one.goodput_per_s), lambda value: f"{value:,.1f}"),
            _ranged(answer, of(lambda one: one.ttft_s_p95), _milliseconds),
            _milliseconds(model.slo.ttft_s_p95),
            _ranged(answer, of(lambda one: one.itl_s_p99), _milliseconds),
            _milliseconds(model.slo.itl_s_p99),
            "-" if model.keeps_slo is None else ("yes" if model.keeps_slo else "NO"),
        ))  # fmt: skip
    heads = (
        "MODEL", "REQUESTS/s", "GOODPUT/s", "TTFT p95", "PROMISED", "ITL p99", "PROMISED", "KEPT",
    )  # fmt: skip
    print_table(heads, rows)


def _print_groups(report: Report, today: date) -> None:
    rows = [
        (
            group.deployment, group.replicas, f"{group.chips} {group.chip}",
            _percent(group.busy_share),
            f"{group.running_mean:.1f}" if group.running_mean else "-",
            _percent(group.kv_used_share_max), _percent(group.spared_share),
            _per_hour(group.cost_usd, group, "*" if _is_old(group, today) else ""),
            _per_hour(group.energy_kwh, group),
            _per_hour(group.co2_kg, group),
            "UNCALIBRATED" if group.is_uncalibrated else group.rung,
        )
        for group in report.groups
    ]  # fmt: skip
    heads = (
        "DEPLOYMENT", "REPLICAS", "CHIPS", "BUSY", "BATCH", "KV MAX", "CACHED", "USD/h", "kW",
        "kg CO2/h", "KNOWN FROM",
    )  # fmt: skip
    print_table(heads, rows)


def _is_old(group: GroupReport, today: date) -> bool:
    return group.price_offer is not None and is_old(group.price_offer, today)


def _per_hour(total: float | None, group: GroupReport, mark: str = "") -> str:
    """Of all its replicas; of kWh that is kW."""
    if total is None:
        return "-"
    value = total / _hours(group)
    return f"{value:,.0f}{mark}" if value >= 10 else f"{value:.1f}{mark}"


def _hours(group: GroupReport) -> float:
    """For which its replicas were paid."""
    replicas = group.replicas if group.scaling is None else group.scaling.replicas_mean
    return max(group.paid_s, 1e-9) / max(replicas, 1e-9) / 3600


def _print_scaling(report: Report) -> None:
    """Where a deployment follows its demand: how many replicas it had."""
    rows = [
        (
            group.deployment, f"{scaling.replicas_min}-{scaling.replicas_max}",
            f"{scaling.replicas_mean:.1f}", scaling.replicas_most,
            f"{scaling.replica_hours:,.1f}", scaling.started, scaling.stopped,
            f"{scaling.start_s:g} s",
        )
        for group in report.groups
        if (scaling := group.scaling) is not None
    ]  # fmt: skip
    if not rows:
        return
    typer.echo("")
    heads = (
        "SCALED", "BETWEEN", "MEAN", "MOST", "REPLICA-HOURS", "STARTED", "STOPPED", "COLD START",
    )  # fmt: skip
    print_table(heads, rows)


def _sums(answer: Answer) -> list[str]:
    report = answer.expected
    goodput = _ranged(answer, lambda one: one.goodput_per_s, lambda value: f"{value:,.1f}")
    parts = [f"goodput {goodput} requests/s"]
    known = [
        group.cost_usd / _hours(group) for group in report.groups if group.cost_usd is not None
    ]
    if known:
        parts.append(f"{sum(known):,.0f} USD an hour")
    if report.usd_per_mtok_out is not None:
        dollars = _ranged(answer, lambda one: one.usd_per_mtok_out, lambda value: f"{value:,.2f}")
        where = _where(report, "price", lambda group: group.cost_usd)
        parts.append(f"{dollars} USD per million tokens out{where}")
    if report.j_per_token_out is not None:
        joules = _ranged(answer, lambda one: one.j_per_token_out, lambda value: f"{value:,.2f}")
        where = _where(report, "power", lambda group: group.energy_kwh)
        parts.append(f"{joules} J per token out{where}")
    return ["; ".join(parts)]


def _where(report: Report, noun: str, read: Callable[[GroupReport], float | None]) -> str:
    is_known = all(read(group) is not None for group in report.groups)
    return "" if is_known else f" where the {noun} is known"


def _bounds(report: Report) -> list[str]:
    if not report.bounds:
        return ["Nothing bound: every promise was kept, all the time."]
    lines = ["What bound first:"]
    for bound in report.bounds:
        met = f"{_percent(bound.slo_met_share)} met the SLO"
        lines.append(f"  {bound.model}, {_when(bound)}: {bound.what} ({met}) - {bound.reason}")
    return lines


def _when(bound: Bound) -> str:
    return "all the time" if bound.at_s is None else f"from {bound.at_s:,.0f} s on"


def _notes(answer: Answer, today: date) -> list[str]:
    report, lines = answer.expected, [""]
    if answer.fast is not None:
        lines.append("In brackets: with each step at the ends of its 80 % interval.")
    lines.append(
        "BUSY: of the time, in steps. BATCH: requests together in a step. KV MAX: of the KV "
        "cache, at most. CACHED: of prompt tokens, found in prefix caches."
    )
    uncalibrated = [group.deployment for group in report.groups if group.is_uncalibrated]
    if uncalibrated:
        lines.append(f"UNCALIBRATED, from data sheets alone: {', '.join(uncalibrated)}.")
    unknown = [
        f"{noun} of {', '.join(names)}"
        for noun, names in (
            ("price", [one.deployment for one in report.groups if one.cost_usd is None]),
            ("power", [one.deployment for one in report.groups if one.energy_kwh is None]),
            ("carbon", [one.deployment for one in report.groups if one.co2_kg is None]),
        )
        if names
    ]
    if unknown:
        lines.append(f"Unknown, and in no sum: {'; '.join(unknown)}.")
    return [*lines, *answer.remarks, *_late_losses(report), *_old_prices(report, today)]


def _late_losses(report: Report) -> list[str]:
    return [
        f"--lose {text} changed nothing: the last request came at {report.seconds:,.0f} s."
        for text in report.losses_too_late
    ]


def _old_prices(report: Report, today: date) -> list[str]:
    names = [group.deployment for group in report.groups if _is_old(group, today)]
    if not names:
        return []
    return [
        f"* a list price more than {OLD_AFTER_DAYS} days old, or of no known date; the cloud "
        "may have changed it. Yours goes into the fleet file: price_usd_per_chip_hour."
    ]


def print_sweep(question: Question, rows: Sequence[SweepRow]) -> None:
    """One line a scale."""
    scenario = question.scenario
    typer.echo(f"{scenario.fleet.fleet}: the fleet as it is, under more demand")
    typer.echo("")
    cells = []
    for row in rows:
        report = row.report
        first = report.bounds[0] if report.bounds else None
        cells.append((
            f"{row.scale:g}", f"{report.requests / max(report.seconds, 1e-9):,.0f}",
            f"{report.seconds:,.0f}", f"{report.goodput_per_s:,.0f}",
            *(_percent(model.slo_met_share) for model in report.models),
            _percent(report.refused / max(1, report.requests)),
            "-" if report.usd_per_mtok_out is None else f"{report.usd_per_mtok_out:,.2f}",
            "-" if first is None else f"{first.model}: {first.what} {_when(first)}",
        ))  # fmt: skip
    heads = (
        "SCALE", "REQUESTS/s", "SECONDS", "GOODPUT/s",
        *(f"{model} MET" for model in scenario.models),
        "NOT ANSWERED", "USD/Mtok out", "BOUND FIRST",
    )  # fmt: skip
    print_table(heads, cells)
    for row in rows:
        if row.report.bounds:
            typer.echo("")
            typer.echo(f"At scale {row.scale:g} and beyond:")
            for line in _bounds(row.report)[1:]:
                typer.echo(line)
            break


def _ranged(answer: Answer, read: _Number, write: Callable[[float], str]) -> str:
    expected = read(answer.expected)
    if expected is None:
        return "-"
    ends = [read(one) for one in (answer.fast, answer.slow) if one is not None]
    known = sorted(value for value in (*ends, expected) if value is not None)
    if len(known) < 3 or write(known[0]) == write(known[-1]):
        return write(expected)
    return f"{write(expected)} ({write(known[0])}-{write(known[-1])})"


def _percent(share: float) -> str:
    """Never 100 % of what is not all, nor 0 % of what is not nothing."""
    if share in (0.0, 1.0):
        return f"{share:.0%}"
    return "<0.1%" if share < 0.001 else f"{min(share, 0.999):.1%}"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
