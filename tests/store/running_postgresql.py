"""A PostgreSQL of the tests' own: unprivileged, in a temporary folder, on a free port.

Where it is not installed, `shared_postgresql` is None, and what needs it is skipped. One serves all
tests of a process; each takes a schema of its own from `fresh_url`. Tests that stop it or fill its
disk start one for themselves with `RunningPostgreSQL()` and `close` it.
"""

import atexit
import contextlib
import functools
import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

PASSWORD = "hunter2"
_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda bin: float(bin.parent.name))
_QUICK = ("fsync=off", "full_page_writes=off", "max_connections=40", "shared_buffers=16MB")


@functools.cache
def shared_postgresql():
    """The one of this process, or None where PostgreSQL or its driver is not installed."""
    if bin_folder() is None or importlib.util.find_spec("psycopg") is None:
        return None
    postgresql = RunningPostgreSQL()
    atexit.register(postgresql.close)
    return postgresql


def bin_folder() -> Path | None:
    """Where initdb and postgres are."""
    if _FOLDERS:
        return _FOLDERS[-1]
    found = shutil.which("initdb")
    return Path(found).parent if found else None


class RunningPostgreSQL:
    """A database cluster that is up from the start until `close`."""

    def __init__(self, settings: tuple[str, ...] = ()) -> None:
        self._bin = bin_folder()
        self._settings = (*_QUICK, *settings)
        self._serials = itertools.count(1)
        self.folder = Path(tempfile.mkdtemp(prefix="argosy-pg-"))
        self.port = _free_port()
        # PostgreSQL refuses to run as root; then its own user, or nobody, runs it.
        self._user = _unprivileged() if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        password = self.folder / "password"
        password.write_text(PASSWORD)
        self._call(
            "initdb", "-D", self.data, "-U", "argosy", "-A", "scram-sha-256", "--auth-local=trust",
            "--pwfile", str(password), "-E", "UTF8", "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip
        self._process: subprocess.Popen | None = None
        self.start()

    @property
    def data(self) -> str:
        return str(self.folder / "data")

    def url(self, *, database="postgres", search_path=None) -> str:
        """By its unix socket, where nobody asks for a password."""
        options = f"&options=-csearch_path%3D{search_path}" if search_path else ""
        return f"postgresql://argosy@/{database}?host={self.folder}&port={self.port}{options}"

    def tcp_url(self, *, user="argosy", password=PASSWORD, database="postgres", port=None) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{port or self.port}/{database}"

    def fresh_url(self) -> str:
        """A schema that nobody used: to the store a database of its own."""
        name = f"t{next(self._serials)}"
        self.sql(f"CREATE SCHEMA {name}")
        return self.url(search_path=name)

    def sql(self, statement: str) -> list:
        """Run it as an administrator who is not Argosy."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        options = [f"-c{setting}" for setting in self._settings]
        # It ends with a test run that is killed, where the system can promise that.
        guard = ["setpriv", "--pdeathsig", "QUIT"] if shutil.which("setpriv") else []
        self._process = subprocess.Popen(
            [*guard, self._bin / "postgres", "-D", self.data, "-h", "127.0.0.1",
             "-p", str(self.port), "-k", self.folder, *options],
            user=self._user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._wait_until_it_answers()

    def stop(self, *, crash: bool = False) -> None:
        """All connections are cut; a crash says no goodbye and commits nothing more."""
        if self._process is None:
            return
        if crash:
            # The postmaster last, for one that is gone makes its children linger.
            for child in psutil.Process(self._process.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            self._process.kill()
        else:
            self._process.send_signal(2)  # SIGINT: fast shutdown
        self._process.wait(30)
        self._process = None

    def restart(self, *, crash: bool = False) -> None:
        self.stop(crash=crash)
        self.start()

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wait_until_it_answers(self) -> None:
        import psycopg

        deadline_s = time.monotonic() + 30
        while True:
            try:
                self.sql("SELECT 1")
            except psycopg.Error:
                assert time.monotonic() < deadline_s, "PostgreSQL did not come up"
                time.sleep(0.02)
            else:
                return

    def _call(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._bin / program, *arguments], user=self._user, cwd="/", check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip


def _unprivileged() -> str:
    import pwd

    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
