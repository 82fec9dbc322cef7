"""Arithmetic and the table: measured, simulated, and their ratio."""

import statistics
from collections.abc import Mapping, Sequence

from bench.reality.live import WARM_UP, Lived
from bench.routing_live.figures import percentile, spread, table

AIM = 0.15  # relative error of the median over rounds

Figures = Mapping[str, float]


def figures_of(lived: Sequence[Lived]) -> Figures:
    """Of one load, warm. Tokens/s: all that was answered, over the time until the last answer."""
    lived = sorted(lived, key=lambda one: one.at_s)[WARM_UP:]
    took_s = max(one.at_s + one.whole_s for one in lived) - lived[0].at_s
    tpots_s = [
        (one.whole_s - one.ttft_s) / (one.tokens_out - 1) for one in lived if one.tokens_out > 1
    ]
    return {
        "TTFT p50 ms": percentile([one.ttft_s for one in lived], 0.5) * 1000,
        "TTFT p95 ms": percentile([one.ttft_s for one in lived], 0.95) * 1000,
        "TPOT p50 ms": percentile(tpots_s, 0.5) * 1000,
        "tokens/s": sum(one.tokens_out for one in lived) / took_s,
    }


def report(rounds: Sequence[Mapping[str, Mapping[str, Figures]]]) -> str:
    """By load and figure, the median over rounds and the range.

    `rounds[n][load]["live"]` was measured, "sim" simulated with what others used of the machine,
    "idle" as if they had used nothing, "paced" with the CPU time that steps cost then as well.
    """
    rows = []
    for load in dict.fromkeys(name for one in rounds for name in one):
        pairs = [one[load] for one in rounds if load in one]
        for figure in pairs[0]["live"]:
            ratios = [pair["sim"][figure] / pair["live"][figure] for pair in pairs]
            idle = [pair["idle"][figure] / pair["live"][figure] for pair in pairs]
            paced = [pair["paced"][figure] / pair["live"][figure] for pair in pairs]
            error = statistics.median(ratios) - 1.0
            rows.append(
                [
                    load,
                    figure,
                    spread([pair["live"][figure] for pair in pairs], ".0f"),
                    spread([pair["sim"][figure] for pair in pairs], ".0f"),
                    spread(ratios),
                    spread(paced),
                    spread(idle),
                    "within 15 %" if abs(error) <= AIM else f"{error:+.0%}",
                ]
            )
    head = [
        "load",
        "figure",
        "measured",
        "simulated",
        "sim. / measured",
        "at the pace had",
        "as if idle",
        "median",
    ]
    return table(head, rows)
