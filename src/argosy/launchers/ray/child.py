"""A replica's process, tied to the process that starts it: when that one dies, however, so does it.

Three ties: the kernel's parent-death signal, the end of its stdin, and a record that whoever comes
next on this machine reads (`orphans.py`). Its stderr goes to a log, stdout's first line is its URL;
or it is told its port, prints what it likes, and listens there once it is ready.
Plain threads: an actor is no place for an event loop of ours. Knows nothing of Ray.
"""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from time import sleep
from typing import IO
from urllib.parse import quote

import msgspec

from argosy.launchers.ray.orphans import put_on_record, reap
from argosy.launchers.ray.own_files import OwnFiles
from argosy.launchers.ray.protocol import Description
from argosy.launchers.streams import Log

# Run in the new process before its program: PR_SET_PDEATHSIG is 1 in linux/prctl.h. A parent that
# died before that leaves another parent behind. No preexec_fn: an actor has threads.
_TIE = """
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("its actor is gone")
try:
    os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.exit(f"{sys.argv[2]} cannot be run: {error}")
"""
_LINE_BYTES_MAX = 65536
# Below the ports that Linux gives to connections (32768 and up), for an engine may bind its own
# when its model is loaded; above those of Ray (10002 to 19999). Engines take more, some hundreds
# after the one that they are told.
_PORTS = range(20000, 31000)
_PORTS_TRIED = 100
_KNOCK_S = 0.2
_FILES_S = 60.0  # whoever started us has died, if they take longer
_NO_FILES = "was never started: its files did not come"
# Set by Ray for its own processes: not meant for an engine, which would compute on one thread.
_RAYS_OWN = ("OMP_NUM_THREADS", "PYTHONBREAKPOINT")


class Child:
    """One process and what is known of it. `folder` is the machine's, for logs and records.

    `host` is where others reach this machine: `{host}` in a word of `argv` becomes it, and so does
    the 0.0.0.0 of the URL that the program says, or its 127.0.0.1 where `host` is not on loopback.
    `{port}` becomes a free port: such a program is listening as soon as something does there.
    With `awaits_files` it is started when they have come; `{files}` becomes where they are, until
    it ends, and `{folder}` the machine's folder, for what is to last longer.
    """

    def __init__(
        self,
        name: str,
        argv: tuple[str, ...],
        env: dict[str, str],
        *,
        folder: Path,
        host: str,
        awaits_files: bool = False,
    ) -> None:
        self._name = name
        self._argv = argv
        self._env = env
        self._folder = folder
        self._host = host
        self._log = Log(folder / "logs" / f"{quote(name, safe=':@')}.log")
        self._news = threading.Condition()
        self._is = Description(version=1, state="starting")
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopping = False
        self._own = OwnFiles(folder / "files", name) if awaits_files else None
        self._files: dict[str, bytes] | None = None if awaits_files else {}
        # The thread that starts it must live as long: the parent-death signal is the thread's.
        threading.Thread(target=self._keep, name="keeper", daemon=True).start()

    def describe(self) -> Description:
        """As it is now."""
        with self._news:
            return self._is

    def next_description(self, version: int, wait_s: float) -> Description:
        """As soon as it is another than `version`; the same after `wait_s`."""
        with self._news:
            self._news.wait_for(lambda: self._is.version != version, wait_s)
            return self._is

    def take_files(self, files: dict[str, bytes]) -> None:
        """By relative path: now it is started, or others are put in their place."""
        with self._news:
            if self._files is None:
                self._files = files
                self._news.notify_all()
            elif self._own is not None:
                self._own.put(files)

    def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL; returns when all of its session is gone.

        The first grace to pass counts, of all that ask.
        """
        with self._news:
            self._is_stopping = True
            self._news.notify_all()
            self._signal(signal.SIGTERM)
            if not self._news.wait_for(self._has_ended, grace_s):
                self._signal(signal.SIGKILL)
                self._news.wait_for(self._has_ended)

    def _has_ended(self) -> bool:
        return self._is.state == "ended"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    def _keep(self) -> None:
        try:
            reap(self._folder / "records")
            how = self._run() if self._has_files() else _NO_FILES
        except OSError as error:
            how = f"could not be started: {error}"
        finally:
            if self._own is not None:
                with self._news:
                    self._own.remove()
        self._tell(state="ended", url=None, pid=None, detail=how)

    def _has_files(self) -> bool:
        """Once they are written, if there are to be any."""
        with self._news:
            self._news.wait_for(lambda: self._files is not None or self._is_stopping, _FILES_S)
            if self._own is not None and self._files is not None:
                self._own.make()
                self._own.put(self._files)
            return self._files is not None

    def _run(self) -> str:
        with self._log.open() as stderr, self._news:
            if self._is_stopping:
                return "stopped before it was started"
            told = any("{port}" in word for word in self._argv)
            port = _free_port(self._host) if told else None
            process = self._process = self._spawn(stderr, port)
            self._tell(pid=process.pid)
        assert process.stdin is not None
        record = put_on_record(self._folder / "records", self._name, process.pid)
        follow = partial(self._knock, port) if port is not None else partial(self._read, process)
        threading.Thread(target=follow, name="follower", daemon=True).start()
        # Not reaped yet: until its group is killed too, nobody else can have its pid.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        status = process.wait()
        process.stdin.close()
        if record is not None:
            record.unlink(missing_ok=True)
        was = self.describe()
        when = "" if was.state == "listening" else " before it listened"
        words = "" if self._is_stopping else f", {self._log.tail()}"
        return was.detail or f"{how_it_ended(status)}{when}{words}"

    def _spawn(self, stderr: IO[bytes], port: int | None) -> subprocess.Popen[bytes]:
        means = {"{host}": self._host, "{port}": str(port)}
        if self._own is not None:
            means |= {"{folder}": str(self._folder), "{files}": str(self._own.folder)}
        words = [_spelt_out(word, means) for word in self._argv]
        theirs = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith("RAY_") and key not in _RAYS_OWN
        }
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *words],
            env={**theirs, **self._env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if port is None else stderr,
            stderr=stderr,
            start_new_session=True,
        )

    def _knock(self, port: int) -> None:
        while not self._has_ended():
            with contextlib.suppress(OSError):
                socket.create_connection((self._host, port), _KNOCK_S).close()
                self._tell(state="listening", url=f"http://{_in_url(self._host)}:{port}")
                break
            sleep(_KNOCK_S)

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        with process.stdout as stdout:
            line = stdout.readline(_LINE_BYTES_MAX)
            url = _read_url(line)
            if url is not None:
                self._tell(state="listening", url=self._from_afar(url))
            elif line:
                text = line.decode(errors="replace")[:80]
                self._tell(detail=f"printed {text!r} where its URL was expected, and was killed")
                self._signal(signal.SIGKILL)
            while os.read(stdout.fileno(), _LINE_BYTES_MAX):
                pass

    def _from_afar(self, url: str) -> str:
        everywhere = ("//0.0.0.0:",)
        nowhere = ("//127.0.0.1:",) if not self._host.startswith("127.") else ()
        for here in (*everywhere, *nowhere):
            url = url.replace(here, f"//{_in_url(self._host)}:", 1)
        return url

    def _tell(self, **news: str | int | None) -> None:
        with self._news:
            if self._is.state != "ended":  # a line read late changes nothing
                changed = msgspec.structs.replace(self._is, version=self._is.version + 1, **news)
                self._is = changed
                self._news.notify_all()


class _Listening(msgspec.Struct, frozen=True, kw_only=True):
    url: str


def _read_url(line: bytes) -> str | None:
    try:
        return msgspec.json.decode(line, type=_Listening).url
    except ValueError:  # msgspec's errors are ValueErrors
        return None


def _spelt_out(word: str, means: dict[str, str]) -> str:
    for short, meant in means.items():
        word = word.replace(short, meant)
    return word


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _free_port(host: str) -> int:
    """Free now; whoever finds it taken later ends, and is started again with another."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in random.SystemRandom().sample(_PORTS, _PORTS_TRIED):
        with contextlib.suppress(OSError), socket.create_server((host, port), family=family):
            return port
    told = f"none of {_PORTS_TRIED} ports of {host} from {_PORTS.start} to {_PORTS.stop} is free"
    raise OSError(told)


def how_it_ended(status: int) -> str:
    """In words, of what `wait` gives."""
    if status >= 0:
        return f"exited with status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:  # a real-time signal has no name
        return f"killed by signal {-status}"
