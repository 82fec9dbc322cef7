"""The scorecard as text: for a terminal, and for `docs/FAILOVER.md` beside the published ones."""

from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec

from tests.system.failover.grade import GRADES, Grade
from tests.system.failover.published import PUBLISHED
from tests.system.failover.scenarios import TRUE, scenarios

_NOT_RUN = "not run"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario's result."""

    id: str
    name: str
    grade: Grade
    seconds: float  # from the first request to the end of the last
    attempts_primary: int
    attempts_backup: int
    reason: str

    @property
    def attempts(self) -> str:
        """`3p 1b`: on the primary and on the backup."""
        return f"{self.attempts_primary}p {self.attempts_backup}b"


def as_table(rows: list[Row]) -> str:
    """All rows and the sum, for a terminal."""
    lines = (
        f"{row.id}  {row.name:<24}{row.grade:<8}{row.seconds:>6.1f} s  {row.attempts:<8} "
        f"{row.reason}"
        for row in rows
    )
    return "\n".join([*lines, "", _sum(row.grade for row in rows)]) + "\n"


def as_markdown(rows: list[Row]) -> str:
    """Ours beside the published grades, then each of ours with its reason."""
    return "\n".join([*_comparison(rows), "", *_details(rows)]) + "\n"


def _comparison(rows: list[Row]) -> Iterator[str]:
    ours = {row.id: row.grade for row in rows}
    columns = [ours, *PUBLISHED.values()]
    yield _cells("fault", "**Argosy**", *PUBLISHED)
    yield "|---|" + "---|" * len(columns)
    for scenario in scenarios(TRUE):
        grades = [column.get(scenario.id, _NOT_RUN) for column in columns]
        yield _cells(f"{scenario.id} {scenario.name}", f"**{grades[0]}**", *grades[1:])
    yield _cells(" / ".join(GRADES), *(_counts(column.values()) for column in columns))


def _details(rows: list[Row]) -> Iterator[str]:
    yield _cells("ours", "seconds", "attempts", "why")
    yield "|---|---:|---|---|"
    for row in rows:
        reason = row.reason.replace("|", "/")
        yield _cells(f"{row.id} {row.grade}", f"{row.seconds:.1f}", row.attempts, reason)


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _counts(grades: Iterable[Grade]) -> str:
    count = Counter(grades)
    return " / ".join(str(count[grade]) for grade in GRADES)


def _sum(grades: Iterable[Grade]) -> str:
    count = Counter(grades)
    return ", ".join(f"{count[grade]} {grade}" for grade in GRADES)
