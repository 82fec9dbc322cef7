"""What gateways on other hosts report, and what that says: load, and requests on one replica.

Every control plane hears every gateway that names it, whether it leads or not, so that the next
leader knows at once what the last one knew. Who is silent makes what it would have said unknown,
never zero.
"""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from argosy.control.scaling import Signals
from argosy.fleet.messages import Message

SILENT_S = 6.0  # a report is due every 5 s at the latest
_GONE_S = 600.0  # a gateway that said nothing for so long is forgotten


class Report(Message, frozen=True, kw_only=True):
    """What a gateway says: all of its processes together."""

    signals: Signals
    version: int  # of the table that it routed by when it began to count; 0: none
    sha256: str | None = None  # of the fleet file that it was told last
    url: str = ""  # where its clients find it
    keys: int | None = None  # the revision of the keys that it was told; None: it takes none
    is_leaving: bool = False  # its last


class HeardGateway(Message, frozen=True, kw_only=True):
    """One gateway, for people."""

    name: str
    url: str
    version: int
    silent_s: float
    requests_in_flight: int


class Hearing:
    """All gateways, as this control plane hears them."""

    def __init__(self, now_s: Callable[[], float], *, unix_s: Callable[[], float]) -> None:
        """`now_s` is for how long ago, `unix_s` for when."""
        self._now_s = now_s
        self._unix_s = unix_s
        self._since_s = now_s()
        self._reports: dict[str, tuple[float, Report]] = {}  # when, what
        self._left_at: dict[str, int] = {}  # replicas that leave: by which table they do

    def hear(self, name: str, report: Report) -> None:
        """By our clock: hosts' clocks differ."""
        now_s = self._now_s()
        for gone in [n for n, (at_s, _) in self._reports.items() if now_s - at_s > _GONE_S]:
            del self._reports[gone]
        if report.is_leaving:
            self._reports.pop(name, None)
            return
        told = report.signals
        by_s = self._unix_s() - told.at_s
        signals = replace(
            told,
            at_s=told.at_s + by_s,
            began_s=None if told.began_s is None else told.began_s + by_s,
            source=name,
        )
        self._reports[name] = (now_s, replace(report, signals=signals))

    def signals(self) -> Sequence[Signals]:
        """The last of each."""
        return [report.signals for _, report in self._reports.values()]

    def gateways(self) -> tuple[HeardGateway, ...]:
        """All that are known."""
        now_s = self._now_s()
        return tuple(
            HeardGateway(
                name=name,
                url=report.url,
                version=report.version,
                silent_s=now_s - at_s,
                requests_in_flight=sum(one.in_flight for one in report.signals.replicas.values()),
            )
            for name, (at_s, report) in sorted(self._reports.items())
        )

    def in_flight(self, replica: str, *, version: int) -> int | None:
        """Requests on a replica that leaves since table `version` or before; None: not known.

        Known only once every gateway has counted by a table that says so: until then one may
        still send. One that was heard by nobody else may yet speak up, so not at the beginning.
        """
        now_s = self._now_s()
        since = self._left_at.setdefault(replica, version)
        if not self._reports or now_s - self._since_s < SILENT_S:
            return None
        count = 0
        for at_s, report in self._reports.values():
            is_silent = now_s - at_s > SILENT_S
            if is_silent or report.version < since or not report.signals.is_whole:
                return None
            found = report.signals.replicas.get(replica)
            count += 0 if found is None else found.in_flight
        return count

    def stay(self, leaving: set[str]) -> None:
        """Of all others it is forgotten when they began to leave."""
        for name in self._left_at.keys() - leaving:
            del self._left_at[name]
