"""The rows as a table, and as a picture of attainment against replica-hours."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.autoscaling.runs import RULES, Row

ORDER = list(dict.fromkeys(rule[0] for rule in RULES))
NO_PEERS = ("argosy", "oracle", "fixed at the peak")  # an oracle is nobody's rule


def scenes(rows: Sequence[Row]) -> Iterator[tuple[str, float, list[Row]]]:
    """By case and cold start."""
    for case, start_s in dict.fromkeys((row.case, row.start_s) for row in rows):
        yield case, start_s, [r for r in rows if (r.case, r.start_s) == (case, start_s)]


def beaten_by(row: Row, rows: Sequence[Row]) -> list[Row]:
    """Rows with both higher attainment and fewer replica-hours."""
    return [
        one for one in rows if one.attained > row.attained and one.replica_hours < row.replica_hours
    ]


def print_table(rows: Sequence[Row]) -> None:
    print(f"\n{'CASE':<22}{'START':>6}  {'RULE':<20}{'SETTING':<15}{'SLO MET':>8}{'REFUSED':>9}"
          f"{'REPLICA-H':>11}{'MOST':>6}{'STARTS':>8}")  # fmt: skip
    for case, start_s, own in scenes(rows):
        for row in sorted(own, key=lambda one: one.replica_hours):
            mark = "*" if row.is_default else " "
            print(f"{case:<22}{start_s:>5.0f}s  {row.rule:<20}{row.knob + mark:<15}"
                  f"{row.attained:>8.2%}{row.refused:>9.2%}{row.replica_hours:>11.2f}"
                  f"{row.replicas_max:>6}{row.started:>8}")  # fmt: skip
        for row in own:
            if row.rule == "argosy" and row.is_default:
                print(f"  -> {_standing(row, own)}")
        print()


def _standing(row: Row, own: Sequence[Row]) -> str:
    named = [one for one in own if one.rule not in NO_PEERS]
    better = beaten_by(row, named)
    if not better:
        return "argosy: on the front"
    told = ", ".join(
        f"{one.rule} {one.knob}{'*' if one.is_default else ''} (+{one.attained - row.attained:.4%})"
        for one in better
    )
    return f"argosy: beaten by {told}"


def print_markdown(rows: Sequence[Row]) -> None:
    """Default settings alone: what met the SLO, and the replica-hours that it took."""
    rules = sorted({row.rule for row in rows if row.is_default}, key=ORDER.index)
    print(f"| demand | cold start | {' | '.join(rules)} |")
    print("| --- | --- |" + " --- |" * len(rules))
    for case, start_s, own in scenes(rows):
        cells = {
            row.rule: f"{row.attained:.2%} / {row.replica_hours:,.1f}"
            for row in own
            if row.is_default
        }
        print(f"| {case} | {start_s:.0f} s | {' | '.join(cells.get(r, '-') for r in rules)} |")


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each case and cold start."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    cases = list(dict.fromkeys(row.case for row in rows))
    starts = sorted({row.start_s for row in rows})
    rules = sorted({row.rule for row in rows}, key=ORDER.index)
    colours = {rule: f"C{place % 10}" for place, rule in enumerate(rules) if rule != "oracle"}
    figure, axes = pyplot.subplots(
        len(cases), len(starts), figsize=(4.2 * len(starts), 3.0 * len(cases)), squeeze=False
    )
    for case, start_s, own in scenes(rows):
        axis = axes[cases.index(case)][starts.index(start_s)]
        for rule in rules:
            of = sorted((r for r in own if r.rule == rule), key=lambda one: one.replica_hours)
            if not of:
                continue
            style = {"color": "black", "lw": 2, "zorder": 5} if rule == "argosy" else {}
            style = style or {"color": colours.get(rule), "lw": 1}
            if rule == "oracle":
                style = {"color": "grey", "lw": 1, "ls": ":", "mfc": "white"}
            axis.plot(
                [r.replica_hours for r in of], [100 * (1 - r.attained) for r in of],
                marker="o", ms=4, label=rule, **style,
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_yscale("symlog", linthresh=0.1)
        axis.set_ylim(100.0, -0.03)
        axis.set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
        axis.set_title(f"{case}, cold start {start_s:.0f} s", fontsize=9)
        axis.grid(alpha=0.3)
        axis.tick_params(labelsize=7, which="both")
    for row in axes:
        row[0].set_ylabel("% that missed the SLO", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("replica-hours", fontsize=8)
    lines, names = axes[0][0].get_legend_handles_labels()
    figure.legend(lines, names, loc="lower center", ncol=5, fontsize=8)
    figure.tight_layout(rect=(0, 0.045, 1, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
