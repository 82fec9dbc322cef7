"""What `argosy simulate` prints: who got what, what it cost, and what bound first."""

from collections.abc import Callable, Sequence

import typer

from argosy.cli.simulating import Answer, Question, SweepRow
from argosy.cli.tables import print_table
from argosy.simulator.report import ModelReport, Report, TierReport

_Number = Callable[[Report], float | None]


def print_answer(answer: Answer) -> None:
    """Tables on stdout; numbers in brackets are the ends of the 80 % interval."""
    report = answer.expected
    typer.echo(_headline(report))
    typer.echo("")
    _print_tiers(answer)
    typer.echo("")
    _print_models(answer)
    typer.echo("")
    _print_groups(report)
    typer.echo("")
    for line in (*_sums(answer), "", *_bounds(report), *_notes(answer)):
        typer.echo(line)


def _headline(report: Report) -> str:
    rate = report.requests / max(report.seconds, 1e-9)
    lost = f", without {', '.join(report.losses)}" if report.losses else ""
    return (
        f"{report.fleet}{lost}: {report.requests:,} requests in {report.seconds:,.0f} s "
        f"({rate:,.1f}/s), routing {report.policy}\n{report.trace}"
    )


def _print_tiers(answer: Answer) -> None:
    rows = []
    for index, tier in enumerate(answer.expected.tiers):

        def of(read: Callable[[TierReport], float | None], place: int = index) -> _Number:
            return lambda report: read(report.tiers[place]) if place < len(report.tiers) else None

        refused = {word: count for word, count in tier.outcomes.items() if word != "done"}
        told = ", ".join(f"{count:,} {word}" for word, count in refused.items())
        rows.append((
            tier.model, tier.tier, f"{tier.requests:,}", told or "-",
            _ranged(answer, of(lambda one: one.slo_met_share), _percent),
            _milliseconds(tier.ttft_s_p50),
            _ranged(answer, of(lambda one: one.ttft_s_p95), _milliseconds),
            _milliseconds(tier.ttft_s_p99),
            _milliseconds(tier.tpot_s_p50),
            _ranged(answer, of(lambda one: one.tpot_s_p95), _milliseconds),
        ))  # fmt: skip
    heads = (
        "MODEL", "TIER", "REQUESTS", "NOT ANSWERED", "SLO MET", "TTFT ms p50", "p95", "p99",
        "TPOT ms p50", "p95",
    )  # fmt: skip
    print_table(heads, rows)


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
        "MODEL", "REQUESTS/s", "GOODPUT/s", "TTFT ms p95", "PROMISED", "ITL ms p99", "PROMISED",
        "KEPT",
    )  # fmt: skip
    print_table(heads, rows)


def _print_groups(report: Report) -> None:
    rows = [
        (
            group.deployment, group.replicas, f"{group.chips} {group.chip}",
            _percent(group.busy_share), f"{group.running_mean:.1f}",
            _percent(group.kv_used_share_max), _percent(group.spared_share),
            "-" if group.cost_usd is None else f"{group.cost_usd:,.0f}",
            "-" if group.energy_kwh is None else f"{group.energy_kwh:,.0f}",
            "-" if group.co2_kg is None else f"{group.co2_kg:,.0f}",
            f"{group.rung}{', UNCALIBRATED' if group.is_uncalibrated else ''}",
        )
        for group in report.groups
    ]  # fmt: skip
    heads = (
        "DEPLOYMENT", "REPLICAS", "CHIPS", "BUSY", "RUNNING", "KV MAX", "SPARED", "USD", "kWh",
        "kg CO2", "KNOWN FROM",
    )  # fmt: skip
    print_table(heads, rows)


def _sums(answer: Answer) -> list[str]:
    report = answer.expected
    hours = report.seconds / 3600
    parts = []
    if report.cost_usd is not None and hours:
        parts.append(f"{report.cost_usd / hours:,.0f} USD an hour")
    if report.usd_per_mtok_out is not None:
        dollars = _ranged(answer, lambda one: one.usd_per_mtok_out, lambda value: f"{value:,.2f}")
        parts.append(f"{dollars} USD per million tokens out")
    if report.j_per_token_out is not None:
        joules = _ranged(answer, lambda one: one.j_per_token_out, lambda value: f"{value:,.2f}")
        parts.append(f"{joules} J per token out")
    if report.co2_kg is not None and hours:
        parts.append(f"{report.co2_kg / hours:,.0f} kg CO2 an hour")
    goodput = _ranged(answer, lambda one: one.goodput_per_s, lambda value: f"{value:,.1f}")
    return [f"goodput {goodput}/s; {', '.join(parts)}" if parts else f"goodput {goodput}/s"]


def _bounds(report: Report) -> list[str]:
    if not report.bounds:
        return ["Nothing bound: every promise was kept all the time."]
    lines = ["What bound first:"]
    for bound in report.bounds:
        when = f"{bound.at_s:,.0f} s"
        met = _percent(bound.slo_met_share)
        lines.append(f"  {bound.model}, at {when}: {bound.what} ({met} met) - {bound.reason}")
    return lines


def _notes(answer: Answer) -> list[str]:
    report, lines = answer.expected, [""]
    if answer.fast is not None:
        lines.append("In brackets: with each step at the ends of its 80 % interval.")
    uncalibrated = [group.deployment for group in report.groups if group.is_uncalibrated]
    if uncalibrated:
        lines.append(f"Uncalibrated, from data sheets alone: {', '.join(uncalibrated)}.")
    if report.unknown:
        lines.append(f"Not in the sums, for nobody knows them: {'; '.join(report.unknown)}.")
    return lines


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
            "-" if first is None else f"{first.model}: {first.what} at {first.at_s:,.0f} s",
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
    """Never 100 % of what is not all."""
    return "100%" if share == 1 else f"{min(share, 0.9999):.1%}"


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    value = seconds * 1000
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
