"""The picture of `argosy simulate --plot`: demand and goodput, TTFT, and how busy replicas were.

A PNG, or a page with the picture inside that needs nothing else.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

from argosy.cli.simulating import Answer, Question
from argosy.simulator.report import Report, TimeReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#1b6ca8", "#c8553d", "#588157", "#7d5ba6", "#b08900", "#3a3a3a")
_FORMATS = {".png": "png", ".html": "svg"}


def draw(question: Question, answer: Answer, path: Path) -> None:
    """Write the picture. ValueError where the name ends in neither .png nor .html."""
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ValueError(f"--plot {path} is neither .png nor .html. Name one of these.")
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "argosy"  # same seed, same bytes
    figure = _figure(question, answer.expected)
    drawn = io.BytesIO()
    figure.savefig(drawn, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    if kind == "png":
        path.write_bytes(drawn.getvalue())
        return
    picture = drawn.getvalue().decode()
    title = f"{answer.expected.fleet}, simulated"
    path.write_text(
        f'<!doctype html><meta charset="utf-8"><title>{title}</title>'
        f"<body style='margin:2em;font-family:sans-serif'><h1>{title}</h1>"
        f"{picture[picture.index('<svg') :]}</body>\n",
        "utf-8",
    )


def _figure(question: Question, report: Report) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9), layout="constrained")
    demand, ttft, load = figure.subplots(3, 1, sharex=True)
    slos = {model.model: model.slo.ttft_s_p95 for model in report.models}
    for place, model in enumerate(question.scenario.models):
        colour = _COLOURS[place % len(_COLOURS)]
        rows = [row for row in report.over_time if row.model == model]
        _draw_model(demand, ttft, rows, colour)
        promised = slos[model]
        if promised is not None:
            ttft.axhline(promised, color=colour, linestyle=":", linewidth=1)
    _draw_load(load, report)
    demand.set_ylabel("requests/s")
    demand.set_title("demand (line) and what met its SLO (filled)", loc="left", fontsize=10)
    demand.legend(loc="upper right", frameon=False)
    ttft.set_ylabel("TTFT p95, s")
    ttft.set_yscale("log")
    ttft.set_title("dotted: promised", loc="left", fontsize=10)
    load.set_ylabel("share of replicas' slots in use")
    load.set_xlabel("seconds")
    load.legend(loc="upper right", frameon=False, fontsize=8)
    for axes in (demand, ttft, load):
        axes.spines[["top", "right"]].set_visible(False)
        for bound in report.bounds:
            axes.axvline(bound.at_s, color="#999999", linewidth=0.8)
    lost = f" without {', '.join(report.losses)}" if report.losses else ""
    figure.suptitle(f"{report.fleet}{lost}: {report.slo_met_share:.1%} met their SLO")
    return figure


def _draw_model(demand: "Axes", ttft: "Axes", rows: list[TimeReport], colour: str) -> None:
    times = [row.at_s for row in rows]
    demand.plot(times, [row.requests_per_s for row in rows], color=colour, label=rows[0].model)
    met = [row.requests_per_s * (row.slo_met_share or 0.0) for row in rows]
    demand.fill_between(times, met, color=colour, alpha=0.2, linewidth=0)
    known = [(row.at_s, row.ttft_s_p95) for row in rows if row.ttft_s_p95 is not None]
    ttft.plot([at for at, _ in known], [value for _, value in known], color=colour)


def _draw_load(axes: "Axes", report: Report) -> None:
    for place, group in enumerate(report.groups):
        axes.plot(
            [row.at_s for row in group.load],
            [row.running_share for row in group.load],
            color=_COLOURS[place % len(_COLOURS)],
            linewidth=1,
            linestyle="--" if place >= len(_COLOURS) else "-",
            label=group.deployment,
        )
    axes.set_ylim(0, 1.05)
