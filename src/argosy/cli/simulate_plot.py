"""The picture of `argosy simulate --plot`: demand and goodput, TTFT, and how busy replicas were.

A PNG, or a page with the picture inside that needs nothing else.
"""

import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from argosy.cli.simulating import Answer, Question
from argosy.simulator.report import Report, TimeReport

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = ("#1b6ca8", "#c8553d", "#588157", "#7d5ba6", "#b08900", "#3a3a3a")
_FORMATS = {".png": "png", ".html": "svg"}


def check(path: Path) -> None:
    """ValueError where no picture can be drawn there."""
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"--plot {path} is neither .png nor .html. Name one of these.")
    if path.is_dir() or not path.parent.is_dir():
        told = "is a folder" if path.is_dir() else f"cannot be written: no folder {path.parent}"
        raise ValueError(f"--plot {path} {told}. Name a file in a folder that is there.")
    if find_spec("matplotlib") is None:
        raise ValueError("--plot needs matplotlib: pip install 'argosy[simulate]'")


def draw(question: Question, answer: Answer, path: Path) -> None:
    """Write the picture. OSError where that fails."""
    check(path)
    kind = _FORMATS[path.suffix.lower()]
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

    figure = Figure(figsize=(12, 9), layout="constrained")
    demand, ttft, load = figure.subplots(3, 1, sharex=True)
    models = [model.model for model in report.models]
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(models)}
    for model in report.models:
        rows = [row for row in report.over_time if row.model == model.model]
        _draw_model(demand, ttft, rows, colours[model.model])
        if model.slo.ttft_s_p95 is not None:
            ttft.axhline(
                model.slo.ttft_s_p95, color=colours[model.model], linestyle=":", linewidth=1
            )
    _draw_load(load, report)
    _label(demand, "requests/s", "demand (line), and what met its SLO (dashed)")
    _label(ttft, "TTFT p95, s", "TTFT, and what is promised (dotted)")
    _label(load, "share of slots in use", "load of the replicas, those that are gone included")
    demand.set_ylim(bottom=0)
    ttft.set_yscale("log")
    ttft.yaxis.set_major_formatter("{x:g}")
    load.set_xlabel("seconds")
    for axes in (demand, ttft, load):
        _mark_losses(axes, question, report)
        for bound in report.bounds:
            if bound.at_s is not None:
                axes.axvline(bound.at_s, color=colours[bound.model], linewidth=0.8)
    for place, bound in enumerate(one for one in report.bounds if one.at_s is not None):
        at_s = bound.at_s or 0.0
        told = f" {bound.model}: {bound.what}"
        height = 0.05 + 0.09 * place  # bounds of one time stay readable
        _write(demand, told, at_s, height, colours[bound.model])
    lost = f" without {', '.join(report.losses)}" if report.losses else ""
    figure.suptitle(f"{report.fleet}{lost}: {report.slo_met_share:.1%} met their SLO")
    return figure


def _label(axes: "Axes", unit: str, title: str) -> None:
    """Names outside the lines; colours and lines are told beside them."""
    axes.set_ylabel(unit)
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=9)


def _mark_losses(axes: "Axes", question: Question, report: Report) -> None:
    """Shaded from the loss until its end; the replicas still have to start then."""
    for loss in question.scenario.losses:
        end_s = report.seconds if loss.until_s is None else min(loss.until_s, report.seconds)
        if loss.at_s < end_s:
            axes.axvspan(loss.at_s, end_s, color="#888888", alpha=0.15, linewidth=0)


def _write(axes: "Axes", text: str, at_s: float, height: float, colour: str) -> None:
    axes.text(
        at_s, height, text, color=colour, fontsize=9, transform=axes.get_xaxis_transform(),
        bbox={"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1},
    )  # fmt: skip


def _draw_model(demand: "Axes", ttft: "Axes", rows: list[TimeReport], colour: str) -> None:
    times, name = [row.at_s for row in rows], rows[0].model
    met = [row.requests_per_s * (row.slo_met_share or 0.0) for row in rows]
    mark = "o" if len(rows) == 1 else ""  # a line of one point is nothing
    demand.plot(times, [row.requests_per_s for row in rows], color=colour, label=name, marker=mark)
    demand.plot(times, met, color=colour, linestyle="--", linewidth=1, marker=mark)
    known = [(row.at_s, row.ttft_s_p95) for row in rows if row.ttft_s_p95 is not None]
    ttft.plot(
        [at for at, _ in known], [value for _, value in known], color=colour, label=name,
        marker="o" if len(known) == 1 else "",
    )  # fmt: skip


def _draw_load(axes: "Axes", report: Report) -> None:
    for place, group in enumerate(report.groups):
        axes.plot(
            [row.at_s for row in group.load],
            [row.running_share for row in group.load],
            color=_COLOURS[place % len(_COLOURS)],
            linewidth=1,
            linestyle="--" if place >= len(_COLOURS) else "-",
            label=group.deployment,
            marker="o" if len(group.load) == 1 else "",
        )
    axes.set_ylim(0, 1.05)
