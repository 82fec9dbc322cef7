"""What tenants have used of their budgets and what is reserved for requests that run. Exact.

`reserve` before a request starts, with an upper bound of its tokens; `settle` when it ended, with
what it used; `refund` when it was refused after all and counts for nothing. A request is admitted
while settled + reserved is below the limit in each of its tenant's windows, looked at and reserved
in one critical section. So what is settled ends below the limit plus one reservation, however many
requests come at once, in however many processes of this host.

A reservation settles into the window in which it was made. When that window is over there is
nothing left to correct: its row has gone over to the window that came after it, and the usage
table keeps the past. Clocks that differ by seconds do not bring a window back.

Owns the rule and the windows; the file and its lock are `ledger_file.py`'s, the bound of a
request is `policies/admission/bounds.py`'s. A tenant without budgets costs no lock.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from argosy.fleet.config import Budget, Fleet, Per
from argosy.gateway.ledger_file import LedgerFile, Row
from argosy.policies.admission.windows import window_at

_SKEW_S = 5.0  # a row that is this far ahead of the clock was written before the clock was set back
_SOON_S = 5.0  # reservations that fill a budget are corrected when their requests end

SpentSince: TypeAlias = Callable[
    [str, float], tuple[int, int]
]  # tenant, Unix s -> tokens, requests


class Exceeded(msgspec.Struct, frozen=True, kw_only=True):
    """The budget that a request would have to wait for; of several the one that takes longest."""

    tenant: str
    per: Per
    unit: Literal["tokens", "requests"]
    limit: int
    settled: int
    reserved: int
    # To the window's end, None when it has none. Where only reservations fill it: soon.
    retry_after_s: float | None

    @property
    def reason(self) -> str:
        """For whoever sent the request."""
        budget = f"{self.limit:,} {self.unit}" + ("" if self.per == "ever" else f" per {self.per}")
        told = f"the budget of {self.tenant}, {budget}, is used up: {self.settled:,} were used"
        return told + (f", {self.reserved:,} are reserved by what runs" if self.reserved else "")


class Reservation:
    """What one request may use; `settle` or `refund` it once."""

    __slots__ = ("is_open", "tokens", "windows")

    def __init__(self, tokens: int, windows: list[tuple[int, int]]) -> None:
        self.tokens = tokens
        self.windows = windows  # where a row's numbers are, and when its window began
        self.is_open = True


_UNLIMITED = Reservation(0, [])


class BudgetState(msgspec.Struct, frozen=True, kw_only=True):
    """One budget now, for a status page."""

    budget: Budget
    settled_tokens: int
    settled_requests: int
    reserved_tokens: int
    reserved_requests: int


def budgets_of(fleet: Fleet) -> dict[str, tuple[Budget, ...]]:
    """The budgets by tenant, of those that have some."""
    return {tenant.name: tenant.budgets for tenant in fleet.tenants if tenant.budgets}


class Ledger:
    """The budgets of all tenants, as one process of the gateway sees them.

    It is `process` of `processes`, no two alive with the same number: what a former holder had
    reserved is dropped. Counters that the file lacks start from what `spent` knows; so that all
    do, `ledger_file.remove` the file once per run, before any process opens it.
    Raises LedgerError and OSError.
    """

    def __init__(
        self,
        path: Path,
        budgets: Mapping[str, tuple[Budget, ...]],
        *,
        process: int = 0,
        processes: int = 1,
        spent: SpentSince,
        now_unix_s: float,
    ) -> None:
        self._file = LedgerFile(path, process=process, processes=processes)
        self._spent = spent
        self._lines: dict[str, tuple[_Line, ...]] = {}
        try:
            self.drop(process)
            self.configure(budgets, now_unix_s=now_unix_s)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file; what this process has reserved stays until its column is dropped."""
        self._file.close()

    def configure(self, budgets: Mapping[str, tuple[Budget, ...]], *, now_unix_s: float) -> None:
        """Hold these from now on. Counters of a tenant's window stay, whatever its limits become.

        A window that is new starts from `spent`; what runs just then was not reserved in it, and
        what the store has not yet written is missing.
        """
        self._lines = {
            tenant: tuple(self._line(tenant, budget, now_unix_s) for budget in of_tenant)
            for tenant, of_tenant in budgets.items()
            if of_tenant
        }

    def reserve(self, tenant: str, tokens: int, now_unix_s: float) -> Reservation | Exceeded:
        """Reserve `tokens` and one request in all windows of the tenant, or in none."""
        lines = self._lines.get(tenant)
        if lines is None:
            return _UNLIMITED
        file = self._file
        own, own_bytes = file.own_tokens, file.own_bytes
        rows: list[tuple[int, Row]] = []
        windows: list[tuple[int, int]] = []
        file.lock()
        try:
            for line in lines:
                row = line.row(file, now_unix_s)
                if not line.has_room(row):
                    return _exceeded(tenant, lines, file, now_unix_s)
                rows.append((line.at, row))
            for at, row in rows:
                file.write_reserved(at + own_bytes, row[own] + tokens, row[own + 1] + 1)
                windows.append((at, row[0]))
        finally:
            file.unlock()
        return Reservation(tokens, windows)

    def settle(self, reservation: Reservation, tokens_true: int) -> None:
        """Its request ended and used so much. ValueError when it was settled or refunded before."""
        self._end(reservation, tokens_true, requests=1)

    def refund(self, reservation: Reservation) -> None:
        """Its request used nothing and does not count. ValueError as for `settle`."""
        self._end(reservation, 0, requests=0)

    def drop(self, process: int) -> None:
        """Give back what a process has reserved that is dead."""
        with self._file.locked():
            self._file.drop(process)

    def states(self, tenant: str, now_unix_s: float) -> tuple[BudgetState, ...]:
        """What is used and reserved of each of the tenant's budgets."""
        lines = self._lines.get(tenant, ())
        with self._file.locked():
            rows = [(line.budget, line.row(self._file, now_unix_s)) for line in lines]
        return tuple(
            BudgetState(
                budget=budget,
                settled_tokens=row[1],
                settled_requests=row[2],
                reserved_tokens=sum(row[3::2]),
                reserved_requests=sum(row[4::2]),
            )
            for budget, row in rows
        )

    def _end(self, reservation: Reservation, tokens_true: int, *, requests: int) -> None:
        if not reservation.windows:
            return
        if not reservation.is_open:
            raise ValueError("a reservation was settled or refunded before")
        file, tokens = self._file, reservation.tokens
        own, own_bytes = file.own_tokens, file.own_bytes
        file.lock()
        try:
            reservation.is_open = False
            for at, start_s in reservation.windows:
                row = file.read(at)
                if row[0] != start_s:
                    continue  # its window is over
                # Settled first: a process that dies between the two has counted a request twice
                # until its reservations are dropped, rather than not at all.
                file.write_settled(at, start_s, row[1] + tokens_true, row[2] + requests)
                file.write_reserved(at + own_bytes, row[own] - tokens, row[own + 1] - 1)
        finally:
            file.unlock()

    def _line(self, tenant: str, budget: Budget, now_unix_s: float) -> "_Line":
        with self._file.locked():
            at = self._file.find(tenant, budget.per)
        if at is None:
            start_s, _ = window_at(budget.per, now_unix_s)
            tokens, requests = self._spent(tenant, start_s)  # a query: never under the lock
            with self._file.locked():
                at = self._file.find(tenant, budget.per)
                if at is None:
                    at = self._file.add(tenant, budget.per)
                    self._file.write_settled(at, start_s, tokens, requests)
        return _Line(at, budget)


class _Line:
    """One budget of one tenant, and where its numbers are."""

    __slots__ = ("_requests_max", "_tokens_max", "at", "budget", "end_s", "start_s")

    def __init__(self, at: int, budget: Budget) -> None:
        self.at = at
        self.budget = budget
        self.start_s, self.end_s = 0, -math.inf  # the window last asked about; none yet
        self._tokens_max, self._requests_max = budget.tokens, budget.requests

    def row(self, file: LedgerFile, now_unix_s: float) -> Row:
        """The numbers of the window that is now; the first to ask in a new window starts it."""
        if not self.start_s <= now_unix_s < self.end_s:
            self.start_s, self.end_s = window_at(self.budget.per, now_unix_s)
        row = file.read(self.at)
        start_s = row[0]
        if start_s == self.start_s or start_s - _SKEW_S <= now_unix_s < start_s:
            return row
        return file.restart(self.at, self.start_s)

    def has_room(self, row: Row) -> bool:
        """True while what is settled and reserved is below both limits."""
        limit = self._tokens_max
        if limit is not None and row[1] + sum(row[3::2]) >= limit:
            return False
        limit = self._requests_max
        return limit is None or row[2] + sum(row[4::2]) < limit

    def exceeded(self, tenant: str, row: Row, now_unix_s: float) -> Exceeded:
        """What to say of a budget without room."""
        is_tokens = self._tokens_max is not None and row[1] + sum(row[3::2]) >= self._tokens_max
        limit = (self._tokens_max if is_tokens else self._requests_max) or 0
        settled = row[1 if is_tokens else 2]
        wait_s = self.end_s - now_unix_s
        if settled < limit:
            wait_s = min(wait_s, _SOON_S)
        return Exceeded(
            tenant=tenant,
            per=self.budget.per,
            unit="tokens" if is_tokens else "requests",
            limit=limit,
            settled=settled,
            reserved=sum(row[3::2] if is_tokens else row[4::2]),
            retry_after_s=None if math.isinf(wait_s) else wait_s,
        )


def _exceeded(
    tenant: str, lines: tuple[_Line, ...], file: LedgerFile, now_unix_s: float
) -> Exceeded:
    """Of the budgets without room the one that takes longest."""
    rows = [(line, line.row(file, now_unix_s)) for line in lines]
    found = [line.exceeded(tenant, row, now_unix_s) for line, row in rows if not line.has_room(row)]
    return max(found, key=lambda one: math.inf if one.retry_after_s is None else one.retry_after_s)
