"""The file of counters that the gateway processes of one host share, and its lock.

Owns the layout and who may write when. What the counters mean is left to `ledger.py`.

    header   magic, processes, rows in use
    row      128 bytes of key | start_s, settled tokens, settled requests
             | reserved tokens and requests of process 0, those of process 1, ...

All numbers are int64 of this machine. A row is never removed or moved while the file is in use, so
a row that was found stays found. Nothing is synced: the usage table is the durable truth, and a
new run starts from it (`remove`).

The lock is flock(2): the kernel drops it when its holder dies, it excludes two openings within one
process too, and a pair of calls costs 0.9 us where POSIX record locks cost 1.5 (2026-11-21). A
holder is a few microseconds inside; one that is stopped (SIGSTOP) there stops the others with it.
"""

import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

PROCESSES_MAX = 64  # gateway processes of one host
ROWS_MAX = 32_768  # (tenant, window)s; a fleet file holds some 5,000 tenants of five each

Row: TypeAlias = tuple[int, ...]  # start_s, settled tokens, requests, then each process's reserved

_MAGIC = 0x_4172676F_73790001  # "Argosy", layout 1
_HEADER = struct.Struct("=3q")
_SETTLED = struct.Struct("=3q")
_RESERVED = struct.Struct("=2q")
_KEY_BYTES = 128
_HEADER_BYTES = 4096


class LedgerError(Exception):
    """The ledger cannot be used; the message says why and what would work."""


def remove(path: Path) -> None:
    """Forget all counters: once per run, before any process opens the file."""
    path.unlink(missing_ok=True)


class LedgerFile:
    """The opened file. `at` is where a row's numbers are, in bytes; use it under the lock.

    `process` is one of `processes` columns, which are fixed while the file is in use.
    """

    def __init__(self, path: Path, *, process: int, processes: int) -> None:
        if not 0 <= process < processes <= PROCESSES_MAX:
            told = f"process {process} of {processes}: a ledger has 1 to {PROCESSES_MAX} processes,"
            raise LedgerError(f"{told} counted from 0.")
        self.own_tokens = _SETTLED.size // 8 + 2 * process  # the index in a Row
        self._path = path
        self._processes = processes
        self._numbers = struct.Struct(f"={3 + 2 * processes}q")
        self._row_bytes = _KEY_BYTES + self._numbers.size
        self._file_bytes = _HEADER_BYTES + ROWS_MAX * self._row_bytes
        self._rows: dict[bytes, int] = {}  # those seen so far; others may have added some since
        self._mutex = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self._prepare()
            self._map = mapped = mmap.mmap(self._fd, self._file_bytes)
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        except BaseException:
            os.close(self._fd)
            raise
        # Bound once: a method of Python around each costs as much again as the copy that it makes.
        # The numbers of the row at `at`:
        self.read: Callable[[int], Row] = partial(self._numbers.unpack_from, mapped)
        # The row's window, and the tokens and requests that are settled in it:
        self.write_settled: Callable[[int, int, int, int], None] = partial(
            _SETTLED.pack_into, mapped
        )
        # The tokens and requests that this process has reserved, at `at + own_bytes`:
        self.write_reserved: Callable[[int, int, int], None] = partial(_RESERVED.pack_into, mapped)
        self.own_bytes = 8 * self.own_tokens

    def close(self) -> None:
        """Unmap and close it."""
        del self.read, self.write_settled, self.write_reserved
        self._map.close()
        os.close(self._fd)

    def lock(self) -> None:
        """Exclude other threads and processes until `unlock`. 0.5 us when nobody is inside."""
        self._mutex.acquire()
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except BaseException:
            self._mutex.release()
            raise

    def unlock(self) -> None:
        """Let others in."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._mutex.release()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The same for a block, where a microsecond more does not matter."""
        self.lock()
        try:
            yield
        finally:
            self.unlock()

    # Under the lock.

    def find(self, tenant: str, per: str) -> int | None:
        """Where that window's numbers are; None when it has no row."""
        key = _key(tenant, per)
        if key not in self._rows:
            for row in range(len(self._rows), self._count()):
                at = _HEADER_BYTES + row * self._row_bytes
                self._rows[self._map[at : at + _KEY_BYTES]] = at + _KEY_BYTES
        return self._rows.get(key)

    def add(self, tenant: str, per: str) -> int:
        """A new row, all zero. LedgerError when the file or the disk is full."""
        count = self._count()
        if count >= ROWS_MAX:
            told = f"{self._path}: holds {ROWS_MAX:,} windows, also of tenants that are gone."
            raise LedgerError(f"{told} Restart the fleet: a new run starts a new ledger.")
        at = _HEADER_BYTES + count * self._row_bytes
        key = _key(tenant, per)
        try:  # writing takes the disk's space now: a page that has none would kill the process
            os.pwrite(self._fd, key + bytes(self._numbers.size), at)
        except OSError as error:
            raise LedgerError(f"{self._path}: cannot grow: {error.strerror}.") from error
        _HEADER.pack_into(self._map, 0, _MAGIC, self._processes, count + 1)
        self._rows[key] = at + _KEY_BYTES
        return at + _KEY_BYTES

    def restart(self, at: int, start_s: int) -> Row:
        """Another window begins: nothing is settled, nothing reserved.

        The start is written last: a process that dies before leaves a row that is restarted again.
        """
        zeros = (0,) * (2 + 2 * self._processes)
        self._numbers.pack_into(self._map, at, self.read(at)[0], *zeros)
        self._numbers.pack_into(self._map, at, start_s, *zeros)
        return (start_s, *zeros)

    def drop(self, process: int) -> None:
        """Clear a process's column in all rows. 0.3 us a row."""
        column = _KEY_BYTES + _SETTLED.size + process * _RESERVED.size
        for row in range(self._count()):
            at = _HEADER_BYTES + row * self._row_bytes + column
            _RESERVED.pack_into(self._map, at, 0, 0)

    def _count(self) -> int:
        return _HEADER.unpack_from(self._map)[2]

    def _prepare(self) -> None:
        size = os.fstat(self._fd).st_size
        if size == 0:
            os.ftruncate(self._fd, self._file_bytes)  # what is not used takes no disk
            os.pwrite(self._fd, _HEADER.pack(_MAGIC, self._processes, 0), 0)
            return
        head = os.pread(self._fd, _HEADER.size, 0)
        known = _HEADER.unpack(head)[:2] if len(head) == _HEADER.size else None
        if known != (_MAGIC, self._processes) or size != self._file_bytes:
            told = f"{self._path}: is not a ledger of this Argosy and {self._processes} processes."
            raise LedgerError(f"{told} Stop the fleet and remove the file.")


def _key(tenant: str, per: str) -> bytes:
    key = f"{per} {tenant}".encode()
    if len(key) > _KEY_BYTES:
        raise LedgerError(f"tenant {tenant[:40]}…: more than 100 bytes. Shorten its name.")
    return key.ljust(_KEY_BYTES, b"\0")
