"""What is left of the quotas of endpoint pools, for all gateway processes of a host together.

`wait_s` before a request is routed, `take` when it is sent, `give_back` when it used fewer tokens
than were taken for it, `close` when the endpoint said when to come again: that holds, whatever the
count says. The arithmetic is `policies/quota.py`'s, the file and its lock `ledger_file.py`'s.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from argosy.fleet.config import Fleet
from argosy.fleet.launchers import EndpointLauncher, Quota
from argosy.fleet.messages import QuotaStatus
from argosy.gateway.ledger_file import LedgerFile
from argosy.policies.quota import Bucket, bucket

_MICRO = 10**6  # the file holds integers: millionths of seconds, requests and tokens
_PER = "quota"  # in the place of a budget's window
_EMPTY = Bucket(size=0.0, per_s=1.0)  # of what has no limit


class _Left(msgspec.Struct):
    """Of one pool, now."""

    at_s: float
    tokens: float
    requests: float
    closed_until_s: float


class _Line(msgspec.Struct, frozen=True):
    at: int
    quota: Quota
    requests: Bucket
    tokens: Bucket


class Quotas:
    """Of all pools that have one. Raises LedgerError and OSError."""

    def __init__(
        self, path: Path, quotas: Mapping[str, Quota], *, unix_time_s: Callable[[], float]
    ) -> None:
        self._file = LedgerFile(path, process=0, processes=1)
        self._unix_time_s = unix_time_s
        with self._file.locked():
            self._lines = {pool: self._line(pool, quota) for pool, quota in quotas.items()}

    def _line(self, pool: str, quota: Quota) -> _Line:
        line = _Line(
            self._file.find(pool, _PER) or 0,
            quota,
            _EMPTY if quota.requests_per_min is None else bucket(quota.requests_per_min),
            _EMPTY if quota.tokens_per_min is None else bucket(quota.tokens_per_min),
        )
        if line.at == 0:
            line = msgspec.structs.replace(line, at=self._file.add(pool, _PER))
            full = _Left(self._unix_time_s(), line.tokens.size, line.requests.size, 0.0)
            self._write(line, full)
        return line

    def has(self, pool: str) -> bool:
        """Whether it has a quota."""
        return pool in self._lines

    def wait_s(self, pool: str, tokens: int) -> float:
        """Until a request of about so many tokens may be sent there; 0: now, or it has no quota."""
        line = self._lines.get(pool)
        if line is None:
            return 0.0
        with self._file.locked():
            return _wait_s(line, self._read(line), tokens)

    def take(self, pool: str, tokens: int) -> bool:
        """One request of so many tokens; False: another process was faster."""
        line = self._lines.get(pool)
        if line is None:
            return True
        with self._locked(line) as left:
            if _wait_s(line, left, tokens) > 0.0:
                return False
            left.requests -= 1.0
            left.tokens -= tokens
            return True

    def give_back(self, pool: str, tokens: int) -> None:
        """So many were taken too many; below 0: too few."""
        line = self._lines.get(pool)
        if line is not None:
            with self._locked(line) as left:
                left.tokens = min(line.tokens.size, left.tokens + tokens)

    def close(self, pool: str, seconds: float) -> None:
        """The endpoint takes nothing for so long."""
        line = self._lines.get(pool)
        if line is not None:
            with self._locked(line) as left:
                left.closed_until_s = max(left.closed_until_s, left.at_s + seconds)

    def status(self) -> tuple[QuotaStatus, ...]:
        """The room left, for people."""
        return tuple(self._status(pool, line) for pool, line in self._lines.items())

    def _status(self, pool: str, line: _Line) -> QuotaStatus:
        with self._file.locked():
            left = self._read(line)
            closed_s = left.closed_until_s - left.at_s
        quota = line.quota
        return QuotaStatus(
            pool=pool,
            requests_per_min=quota.requests_per_min,
            requests_left=None if quota.requests_per_min is None else int(left.requests),
            tokens_per_min=quota.tokens_per_min,
            tokens_left=None if quota.tokens_per_min is None else int(left.tokens),
            closed_s=closed_s if closed_s > 0 else None,
        )

    @contextmanager
    def _locked(self, line: _Line) -> Iterator[_Left]:
        """Filled up to now; written again at the end."""
        with self._file.locked():
            left = self._read(line)
            yield left
            self._write(line, left)

    def _read(self, line: _Line) -> _Left:
        row = self._file.read(line.at)
        then_s, tokens, requests, closed_s = (one / _MICRO for one in row[:4])
        now_s = self._unix_time_s()
        by_s = now_s - then_s
        return _Left(
            now_s,
            line.tokens.filled(tokens, by_s),
            line.requests.filled(requests, by_s),
            closed_s + min(0.0, by_s),  # the clock was set back
        )

    def _write(self, line: _Line, left: _Left) -> None:
        at, tokens = round(left.at_s * _MICRO), round(left.tokens * _MICRO)
        self._file.write_settled(line.at, at, tokens, round(left.requests * _MICRO))
        closed = round(left.closed_until_s * _MICRO)
        self._file.write_reserved(line.at + self._file.own_bytes, closed, 0)


def _wait_s(line: _Line, left: _Left, tokens: int) -> float:
    waits = [left.closed_until_s - left.at_s]
    if line.quota.requests_per_min is not None:
        waits.append(line.requests.wait_s(left.requests, 1.0))
    if line.quota.tokens_per_min is not None:
        waits.append(line.tokens.wait_s(left.tokens, float(tokens)))
    return max(0.0, *waits)


def quotas_of(fleet: Fleet) -> dict[str, Quota]:
    """By pool, of those that have one."""
    return {
        pool.name: pool.launcher.quota
        for pool in fleet.pools
        if isinstance(pool.launcher, EndpointLauncher) and pool.launcher.quota is not None
    }
