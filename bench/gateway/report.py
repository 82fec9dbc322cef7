"""The tables: text for a terminal or Markdown, the same rows; and what was aimed at and missed."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.gateway.measure import REFERENCE, Sample, Samples, median, ratios
from bench.gateway.scenarios import Scenario

_LOW = ("low", "low-stream")


@dataclass(frozen=True, kw_only=True)
class Aim:
    """Argosy's work per CPU-second over a peer's, at least."""

    scenario: str
    peer: str
    ratio: float


AIMS = (
    Aim(scenario="whole", peer="vllm-router-rr", ratio=2.0),
    Aim(scenario="whole", peer="vllm-router-cache", ratio=4.0),
    Aim(scenario="whole", peer="smg", ratio=4.0),
    Aim(scenario="whole", peer="litellm", ratio=100.0),
    Aim(scenario="whole", peer="haproxy", ratio=0.5),
    Aim(scenario="stream", peer="vllm-router-rr", ratio=1.5),
)


class Report:
    """Lines of a result."""

    def __init__(self, samples: Samples, names: Sequence[str], *, is_markdown: bool) -> None:
        self._samples = samples
        self._names = names  # of the targets, `direct` among them
        self._is_markdown = is_markdown
        self.lines: list[str] = []

    def scenario(self, scenario: Scenario) -> None:
        """One table."""
        self.title(f"{scenario.name}: {scenario.what}")
        if scenario.name in _LOW:
            self.table(_LOW_HEAD, [self._low_row(scenario, name) for name in self._names])
            return
        head = ["gateway", f"{scenario.unit}/s", "per CPU-s", f"x {REFERENCE} (range)",
                "its core", "others", "RSS MB", "errors"]  # fmt: skip
        if scenario.pace_s:
            head += ["stalls", "gap p99 ms"]
        self.table(head, [self._row(scenario, name) for name in self._names])

    def _row(self, scenario: Scenario, name: str) -> list[str]:
        rounds = self._samples[scenario.name, name]
        known = REFERENCE in self._names and name != "direct"
        ratio = ratios(self._samples, scenario.name, name, REFERENCE) if known else []
        row = [
            name,
            _count(median(s.work_per_s for s in rounds)),
            _count(median(s.work_per_cpu_s for s in rounds)),
            _range(ratio),
            _percent(median(s.cpu_s / s.window_s if s.cpu_s else None for s in rounds)),
            _percent(median(s.others_share for s in rounds)),
            _count(median(s.rss_bytes / 1e6 if s.rss_bytes else None for s in rounds)),
            _errors(rounds),
        ]
        if scenario.pace_s:
            gap_s = median(s.gap_s_p99 for s in rounds)
            row += [str(sum(s.stalls for s in rounds)), _ms(gap_s)]
        return row

    def _low_row(self, scenario: Scenario, name: str) -> list[str]:
        rounds = self._samples[scenario.name, name]
        direct = self._samples.get((scenario.name, "direct"), [])
        row = [name, _count(median(s.requests / s.window_s for s in rounds))]
        for place in (0, 1):
            row.append(_ms(median(s.latency_s[place] for s in rounds)))
            added = [s.latency_s[place] - d.latency_s[place]
                     for s, d in zip(rounds, direct, strict=False)]  # fmt: skip
            row.append("" if name == "direct" else _ms(median(added)))
        return [*row, _errors(rounds)]

    def sizes(self) -> None:
        """What a body of 100 KB costs beside one of 1 KB."""
        if ("whole-100k", "direct") not in self._samples or (
            "whole-1k", "direct") not in self._samples:  # fmt: skip
            return
        self.title("CPU of a request with a body of 100 KB over one of 1 KB")
        rows = []
        for name in self._names:
            pairs = zip(self._samples["whole-1k", name], self._samples["whole-100k", name],
                        strict=True)  # fmt: skip
            cost = [a.work_per_cpu_s / b.work_per_cpu_s for a, b in pairs
                    if a.work_per_cpu_s and b.work_per_cpu_s]  # fmt: skip
            if cost:
                rows.append([name, _range(cost)])
        self.table(["gateway", "x (range)"], rows)

    def aims(self) -> None:
        """What was aimed at, what came out."""
        rows = []
        for aim in AIMS:
            if (aim.scenario, aim.peer) not in self._samples or "argosy" not in self._names:
                continue
            got = ratios(self._samples, aim.scenario, "argosy", aim.peer)
            middle = median(got)
            if middle is not None:
                said = "met" if middle >= aim.ratio else "falls short"
                rows.append([f"{aim.scenario}: argosy / {aim.peer}", f"{aim.ratio:g}",
                             _range(got), said])  # fmt: skip
        if rows:
            self.title("Aims (work per CPU-second, within a round)")
            self.table(["aim", "at least", "measured (range)", ""], rows)

    def title(self, text: str) -> None:
        """A heading."""
        self.lines += ["", f"### {text}" if self._is_markdown else text, ""]

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Aligned columns; the first to the left."""
        widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
        between, edge = (" | ", "| {} |") if self._is_markdown else ("  ", "{}")

        def line(row: Sequence[str]) -> str:
            cells = [row[0].ljust(widths[0])]
            cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
            return edge.format(between.join(cells)).rstrip()

        self.lines.append(line(head))
        if self._is_markdown:
            marks = ["-" * widths[0]] + ["-" * (width - 1) + ":" for width in widths[1:]]
            self.lines.append(edge.format(between.join(marks)))
        self.lines += [line(row) for row in rows]


_LOW_HEAD = ["gateway", "answers/s", "p50 ms", "added", "p99 ms", "added", "errors"]


def _count(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None or seconds != seconds else f"{seconds * 1000:.2f}"


def _range(values: Sequence[float]) -> str:
    middle = median(values)
    if middle is None:
        return "-"
    digits = 2 if middle >= 0.1 else 4
    return f"{middle:.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def _errors(rounds: Sequence[Sample]) -> str:
    total: dict[str, int] = {}
    for sample in rounds:
        for kind, count in sample.errors.items():
            total[kind] = total.get(kind, 0) + count
    return ", ".join(f"{count} {kind}" for kind, count in total.items()) or "0"
