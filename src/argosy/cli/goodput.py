"""`argosy goodput`: what faults leave of a training run, as a whole and of islands.

Each number of chips is simulated in virtual time with the live policies; the published formula
stands beside it (`simulator/training`).
"""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from argosy.cli.running import refuse
from argosy.cli.tables import print_table

if TYPE_CHECKING:
    from argosy.simulator.training import Course, Training

_DAY_S = 86_400.0
_CHIPS_MAX = 10_000_000


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One number of chips; means over the seeds. The schema of `--json`."""

    chips: int
    islands: int
    faults: float
    whole_goodput: float
    whole_formula: float
    islands_goodput: float
    islands_lost_share: float
    islands_down_share: float
    islands_stall_share: float


def goodput(
    *,
    chips: Annotated[
        str, typer.Option(metavar="N,N,…", help="Chips of the run; several, by commas.")
    ] = "16,1024,16384,100000",
    islands: Annotated[
        int, typer.Option(min=1, help="That the chips are divided into; each one node at least.")
    ] = 16,
    days: Annotated[float, typer.Option(min=0.1, max=365, help="How long it trains.")] = 14.0,
    faults: Annotated[
        float,
        typer.Option(
            min=0,
            help="Faults of 1,000 nodes in a day. 3.79: Llama 3 on 16,384 H100; 6.5 and 2.34: "
            "Meta's RSC-1 and RSC-2.",
        ),
    ] = 3.79,
    chips_per_node: Annotated[int, typer.Option(min=1, help="Chips that fail as one.")] = 8,
    restart_s: Annotated[
        float, typer.Option(min=0, help="Seconds from a fault to the first new step.")
    ] = 600.0,
    checkpoint_s: Annotated[
        float, typer.Option(min=0.001, help="Seconds that training stands still for one.")
    ] = 10.0,
    lease_s: Annotated[
        float, typer.Option(min=1, help="Seconds of training in one delta of an island.")
    ] = 300.0,
    seeds: Annotated[int, typer.Option(min=1, max=100, help="Runs of each; means are told.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Say what faults leave of a training run: all chips as one, or in islands.

    Try:

      argosy goodput

      argosy goodput --chips 16384 --days 54 --islands 32
    """
    rows: list[Row] = []
    counts = _counts(chips, chips_per_node)
    for position, count in enumerate(counts):
        typer.echo(f"{position + 1} of {len(counts)}: {count:,} chips", err=True)
        nodes = count // chips_per_node
        one = _training(
            nodes,
            min(islands, nodes),
            faults=faults / 1000,
            days=days,
            restart_s=restart_s,
            checkpoint_s=checkpoint_s,
            lease_s=lease_s,
        )
        rows.append(_row(one, count, seeds))
    if as_json:
        typer.echo(msgspec.json.format(msgspec.json.encode(rows)).decode())
    else:
        _print(rows)


def _counts(chips: str, chips_per_node: int) -> list[int]:
    counts: list[int] = []
    for word in chips.split(","):
        if not word.strip().isdecimal() or not chips_per_node <= int(word) <= _CHIPS_MAX:
            refuse(
                f'--chips: "{word.strip()[:40]}" is no number of chips from {chips_per_node} (one '
                f"node) to {_CHIPS_MAX:,}. Write, for example, --chips 1024,16384"
            )
        counts.append(int(word))
    return counts


def _training(
    nodes: int,
    islands: int,
    *,
    faults: float,
    days: float,
    restart_s: float,
    checkpoint_s: float,
    lease_s: float,
) -> "Training":
    from argosy.policies.elasticity import ElasticitySettings
    from argosy.simulator.training import Part, Training

    elasticity = ElasticitySettings(quorum=max(1, islands // 2))
    more, fewest = nodes % islands, nodes // islands
    return Training(
        parts=tuple(
            Part(
                name=f"island-{k}",
                nodes=fewest + (k < more),
                tokens_per_s=float(fewest + (k < more)),
                faults_per_node_day=faults,
            )
            for k in range(islands)
        ),
        until_s=days * _DAY_S,
        restart_s=restart_s,
        checkpoint_cost_s=checkpoint_s,
        mttf_s_believed=_DAY_S / (nodes * faults) if faults else 365 * _DAY_S,
        elasticity=elasticity,
        step_s=lease_s / elasticity.inner_steps,
    )


def _row(training: "Training", chips: int, seeds: int) -> Row:
    from msgspec.structs import replace

    from argosy.simulator.training import ettr, run_as_a_whole, run_of_islands

    runs = [replace(training, seed=seed) for seed in range(seeds)]
    whole, parts = [run_as_a_whole(one) for one in runs], [run_of_islands(one) for one in runs]
    nodes = sum(part.nodes for part in training.parts)
    rate = training.parts[0].faults_per_node_day
    formula = 1.0
    if rate:
        formula = ettr(
            nodes=nodes,
            faults_per_node_day=rate,
            restart_s=training.restart_s,
            checkpoint_cost_s=training.checkpoint_cost_s,
        )
    return Row(
        chips=chips,
        islands=len(training.parts),
        faults=_mean(parts, "faults"),
        whole_goodput=_mean(whole, "goodput"),
        whole_formula=formula,
        islands_goodput=_mean(parts, "goodput"),
        islands_lost_share=_mean(parts, "lost_share"),
        islands_down_share=_mean(parts, "down_share"),
        islands_stall_share=_mean(parts, "stall_share"),
    )


def _mean(courses: "Sequence[Course]", field: str) -> float:
    return fmean(getattr(one, field) for one in courses)


def _print(rows: Sequence[Row]) -> None:
    headings = ("chips", "faults", "as a whole", "formula", "islands", "goodput", "lost", "down")
    print_table(
        (*headings, "stalled"),
        [
            (
                f"{row.chips:,}",
                round(row.faults),
                _percent(row.whole_goodput),
                _percent(row.whole_formula),
                row.islands,
                _percent(row.islands_goodput),
                _percent(row.islands_lost_share),
                _percent(row.islands_down_share),
                _percent(row.islands_stall_share),
            )
            for row in rows
        ],
    )


def _percent(share: float) -> str:
    return f"{share * 100:.2f} %"
