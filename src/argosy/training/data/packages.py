"""Text out of Debian packages.

Fetched by apt from wherever this machine's apt is pointed, checked against the recipe's hash,
unpacked in memory. Nothing is installed and no root is needed.
"""

import fnmatch
import io
import lzma
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from argosy.training.data.cache import Cache, key_of
from argosy.training.data.manifest import DatasetError, sha256
from argosy.training.data.recipe import Package, PackageVersion

LICENCE_FILE = "LICENCE"  # beside the folder `files` of an unpacked package
_FETCH_S_MAX = 900.0


class SourceError(DatasetError):
    """A source of a recipe cannot be had or read; the message says what would work."""


def unpacked(source: Package, cache: Cache) -> tuple[Path, PackageVersion]:
    """The folder of the wanted files, and which build they are of. Raises SourceError."""
    archive, version = _archive(source, cache)
    key = key_of("unpack 1", version.sha256, source.globs, source.excluded, source.licence_path)
    return cache.folder("unpacked", key, lambda out: _unpack(archive, source, out)), version


def _archive(source: Package, cache: Cache) -> tuple[Path, PackageVersion]:
    """The .deb: what the cache has before what apt can fetch."""
    for version in source.versions:
        if cache.has("packages", version.sha256):
            return cache.path("packages", version.sha256), version
    refusals: list[str] = []
    for version in source.versions:
        data = _fetched(source.package, version.version, refusals)
        if data is None:
            continue
        found = sha256(data)
        if found != version.sha256:
            raise SourceError(
                f"source {source.name}: {source.package} {version.version} came with SHA-256 "
                f"{found}, the recipe says {version.sha256}. It is not used: correct the recipe "
                "if you trust the mirror"
            )
        return cache.get_or_make("packages", version.sha256, lambda data=data: data), version
    raise SourceError(
        f"source {source.name}: {source.package} cannot be had. {' '.join(refusals)} "
        f"{_what_there_is(source.package)}Without Debian's packages: argosy data prepare builtin"
    )


def _fetched(package: str, version: str, refusals: list[str]) -> bytes | None:
    """None, and why in `refusals`, where apt has not that build."""
    with tempfile.TemporaryDirectory(prefix="argosy-package-") as folder:
        said = _ran(["apt-get", "download", f"{package}={version}"], folder)
        found = sorted(Path(folder).glob("*.deb"))
        if found:
            return found[0].read_bytes()
    lines = [line for line in said.splitlines() if line.startswith("E:")]
    refusals.append(f"{version}: {(lines or [said.strip() or 'nothing came'])[-1]}.")
    return None


def _what_there_is(package: str) -> str:
    versions = re.findall(
        r"^\s*\S+\s*\|\s*(\S+)\s*\|", _ran(["apt-cache", "madison", package], "/"), re.M
    )
    if not versions:
        return "This machine's apt knows no such package (apt-get update may help). "
    known = ", ".join(dict.fromkeys(versions))
    return f"apt has {known}: put one and its hash (apt-cache show {package}) into the recipe. "


def _ran(command: list[str], folder: str) -> str:
    """What it wrote, on both channels together."""
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_FETCH_S_MAX, check=False
        )
    except FileNotFoundError:
        return f"E: there is no {command[0]} on this machine"
    except subprocess.TimeoutExpired:
        return f"E: {command[0]} took more than {_FETCH_S_MAX:.0f} s"
    return done.stdout + done.stderr


def _unpack(archive: Path, source: Package, out: Path) -> None:
    wanted = [re.compile(fnmatch.translate(glob)) for glob in source.globs]
    excluded = [re.compile(fnmatch.translate(glob)) for glob in source.excluded]
    count = 0
    for name, data in _members(archive.read_bytes(), source):
        if name == source.licence_path:
            (out / LICENCE_FILE).write_bytes(data)
        if any(one.match(name) for one in wanted) and not any(one.match(name) for one in excluded):
            path = out / "files" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            count += 1
    if not count or not (out / LICENCE_FILE).exists():
        lacking = "file of those globs" if not count else f"{source.licence_path}"
        raise SourceError(f"source {source.name}: {source.package} has no {lacking}")


def _members(deb: bytes, source: Package) -> Iterator[tuple[str, bytes]]:
    """Regular files of the package, by plain relative path."""
    try:
        with tarfile.open(fileobj=_data_archive(deb), mode="r|*") as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if not member.isfile() or path.is_absolute() or ".." in path.parts:
                    continue
                opened = tar.extractfile(member)
                if opened is not None:
                    yield str(path), opened.read()
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError) as error:
        raise SourceError(
            f"source {source.name}: {source.package} cannot be unpacked: {error}"
        ) from error


def _data_archive(deb: bytes) -> io.BytesIO:
    """The member data.tar.* of the `ar` archive that a .deb is."""
    at = 8  # after "!<arch>\n"
    while deb[:8] == b"!<arch>\n" and at + 60 <= len(deb):
        name, size = (
            deb[at : at + 16].decode("ascii").strip().rstrip("/"),
            int(deb[at + 48 : at + 58]),
        )
        start = at + 60
        if name.startswith("data.tar"):
            data = deb[start : start + size]
            return io.BytesIO(_unzstd(data) if name.endswith(".zst") else data)
        at = start + size + size % 2
    raise tarfile.ReadError("it is no Debian package")


def _unzstd(data: bytes) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise SourceError(
            "this package is packed with zstd: pip install zstandard, or name a Debian build of it"
        ) from error
    return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)).read()
