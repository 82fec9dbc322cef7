"""Which contributions are in which version, as islands are told; and who measures a version's loss.

Both are small memories of the desk. The first follows from the ledger, the second may be forgotten.
"""

from collections.abc import Sequence

import msgspec

from argosy.store.runs import ContributionRecord, Weighed
from argosy.training.syncer.versions import UPDATES_KEPT
from argosy.training.wire import Settled

_Either = ContributionRecord | Weighed


class SettledByVersion:
    """By version: each island's last number in it, or refused by it."""

    def __init__(self, known: Sequence[ContributionRecord]) -> None:
        """`known`: those in the ledger that have a version."""
        self._settled: dict[int, tuple[Settled, ...]] = {0: ()}
        by_version: dict[int, list[tuple[_Either, str]]] = {}
        for one in known:
            by_version.setdefault(one.version or 0, []).append((one, one.reason))
        for version in sorted(by_version):
            self.add(version, by_version[version])

    def add(self, version: int, settled: Sequence[tuple[_Either, str]]) -> None:
        """That version has these in it, or refused them for the reason given ("": it has)."""
        known = {
            one.island: msgspec.structs.replace(one, distrusted=None, begins_anew=False)
            for one in self._settled[max(self._settled)]
        }
        for one, why in sorted(
            settled, key=lambda pair: (pair[0].island, pair[0].epoch, pair[0].number)
        ):
            before = known.get(one.island)
            if before is None or (before.epoch, before.number) < (one.epoch, one.number):
                told = why or (before.distrusted if before else None)
                known[one.island] = Settled(
                    island=one.island,
                    epoch=one.epoch,
                    number=one.number,
                    distrusted=told or None,
                    begins_anew=(before is not None and before.begins_anew)
                    or (bool(why) and not why.startswith("against: ")),  # as rounds.py writes it
                )
        self._settled[version] = tuple(known.values())
        for old in sorted(self._settled)[: -2 * UPDATES_KEPT]:
            del self._settled[old]

    def at(self, version: int) -> tuple[Settled, ...]:
        """Of that version or the last before it."""
        return self._settled[max(known for known in self._settled if known <= version)]


class Measuring:
    """One island at a time measures the newest version that it has."""

    def __init__(self) -> None:
        self._measured = 0  # the newest version whose loss is known
        self._by: str | None = None

    def asked(self, island: str, version: int) -> int | None:
        """The version that this island, which has it, is to measure."""
        if version > self._measured and self._by in (None, island):
            self._by = island
            return version
        return None

    def done(self, island: str, version: int) -> None:
        """Its loss is known."""
        self._measured = max(self._measured, version)
        self.gone(island)

    def gone(self, island: str) -> None:
        """It will measure nothing."""
        if self._by == island:
            self._by = None
