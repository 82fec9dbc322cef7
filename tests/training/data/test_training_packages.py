"""Debian packages as sources: a stand-in for apt-get gives real .deb files."""

from pathlib import Path

import pytest

from argosy.training.data.cache import Cache
from argosy.training.data.documents import load, made
from argosy.training.data.manifest import sha256
from argosy.training.data.packages import SourceError
from argosy.training.data.recipe import Cleaning, Package, PackageVersion
from argosy.training.data.sources import find
from tests.training.data.made import deb, text

_FILES = {
    "usr/share/doc/tables/html/rows.html": f"<p>{text(1)}</p>".encode(),
    "usr/share/doc/tables/html/print.html": f"<p>{text(2)}</p>".encode(),
    "usr/share/doc/tables/copyright": b"Do as you like.",
    "usr/bin/tables": b"\x7fELF\0",
    "../../etc/evil.html": b"<p>out of here</p>",
}


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files `apt-get download NAME=VERSION` gives; none for other versions."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    (folder / "tables=1.2").write_bytes(deb(_FILES))
    script = (
        f'#!/bin/sh\nif [ -e "{folder}/$2" ]; then cp "{folder}/$2" got.deb; '
        'else echo "E: Version for $2 was not found" >&2; exit 100; fi\n'
    )
    madison = "#!/bin/sh\necho ' tables |      1.2 | mirror Packages'\n"
    for name, body in (("apt-get", script), ("apt-cache", madison)):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(body)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return folder


def test_a_package_is_unpacked_to_its_documents_and_licence(mirror: Path, tmp_path: Path):
    cache = Cache(tmp_path / "cache")
    found = find(_source(mirror), 0, cache)
    assert found.origin == "tables 1.2"
    assert found.licence_text == b"Do as you like."
    assert [one.name for one in found.chunks[0].inputs] == ["usr/share/doc/tables/html/rows.html"]
    assert load(made(found.chunks[0], Cleaning(), cache.root)).documents[0].text
    assert not [*tmp_path.rglob("evil.html")]


def test_the_second_time_nothing_is_fetched(mirror: Path, tmp_path: Path):
    cache = Cache(tmp_path / "cache")
    source = _source(mirror)
    find(source, 0, cache)
    (mirror / "tables=1.2").unlink()
    assert find(source, 0, cache).origin == "tables 1.2"


def test_the_first_version_that_can_be_had_is_taken(mirror: Path, tmp_path: Path):
    gone = PackageVersion(version="1.1", sha256="0" * 64)
    source = _source(mirror, gone)
    assert find(source, 0, Cache(tmp_path / "cache")).origin == "tables 1.2"


def test_a_package_with_another_hash_is_not_used(mirror: Path, tmp_path: Path):
    source = _source(mirror)
    (mirror / "tables=1.2").write_bytes(deb({**_FILES, "more": b""}))
    with pytest.raises(SourceError, match=r"tables 1\.2 came with SHA-256.*It is not used"):
        find(source, 0, Cache(tmp_path / "cache"))


def test_a_version_that_is_gone_says_what_there_is(mirror: Path, tmp_path: Path):
    source = _source(mirror)
    (mirror / "tables=1.2").unlink()
    with pytest.raises(SourceError, match=r"Version for tables=1\.2 was not found.*apt has 1\.2"):
        find(source, 0, Cache(tmp_path / "cache"))


def test_a_machine_without_apt_says_so(mirror: Path, tmp_path: Path, monkeypatch):
    source = _source(mirror)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"no apt-get on this machine.*prepare builtin"):
        find(source, 0, Cache(tmp_path / "cache"))


def test_a_package_without_the_files_that_are_asked_for_is_refused(mirror: Path, tmp_path: Path):
    cache = Cache(tmp_path / "cache")
    (mirror / "tables=1.2").write_bytes(deb({"usr/share/doc/tables/copyright": b"x"}))
    with pytest.raises(SourceError, match="has no file of those globs"):
        find(_source(mirror), 0, cache)


def test_what_is_no_package_is_refused(mirror: Path, tmp_path: Path):
    (mirror / "tables=1.2").write_bytes(b"<html>sign in to this network</html>")
    with pytest.raises(SourceError, match="cannot be unpacked: it is no Debian package"):
        find(_source(mirror), 0, Cache(tmp_path / "cache"))


def _source(mirror: Path, *before: PackageVersion) -> Package:
    held = PackageVersion(version="1.2", sha256=sha256((mirror / "tables=1.2").read_bytes()))
    return Package(
        name="tables",
        package="tables",
        versions=(*before, held),
        globs=("*.html",),
        excluded=("*/print.html",),
        licence_path="usr/share/doc/tables/copyright",
        licence="as you like",
    )
