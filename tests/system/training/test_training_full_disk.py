"""A state folder's disk that is full for a while: said, nothing lost, and the run goes on."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from training_process import (
    ARGOSY,
    CONTEXT,
    check_alike,
    check_books,
    done_share,
    run_argosy,
    write_run,
)

DISK_BYTES = 24 * 2**20


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """On a small disk of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield disk / "state"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(file: Path) -> None:
    """Until nothing fits any more."""
    with file.open("wb", buffering=0) as ballast:
        for size in (2**20, 4096, 1):
            with contextlib.suppress(OSError):
                while ballast.write(b"x" * size):
                    pass


def test_a_full_disk_stops_what_is_counted_and_loses_nothing(train, state):
    process = train(steps=900)
    process.wait_done(0.1)
    ballast = state.parent / "ballast"
    fill(ballast)
    time.sleep(3)
    full = done_share(state)
    time.sleep(2)
    assert done_share(state) == full
    ballast.unlink()
    process.wait_done(min(1.0, full + 0.05))
    assert process.wait_exit() == 0, process.said
    check_books(state)
    check_alike(state)


def test_a_run_that_does_not_fit_is_refused_before_anything_starts(tmp_path, state):
    pytest.importorskip("torch")
    made = tiny_data(tmp_path)
    file = write_run(tmp_path / "run.yaml", steps=100, islands=("ann",))
    text = file.read_text().replace("path: none", f"path: {made}")
    file.write_text(text.replace("hidden: 16", "hidden: 512"))
    refused = run_argosy(state, "train", file)
    assert refused.returncode == 1
    assert "GB are free there" in refused.stderr
    assert not (state / "runs").exists()


def tiny_data(tmp_path: Path) -> Path:
    """A tiny dataset for the run file's context."""
    text = tmp_path / "text.txt"
    docs = Path(__file__).parents[3] / "docs"
    text.write_text("\n\n".join(path.read_text() for path in sorted(docs.glob("[A-C]*.md"))))
    out = tmp_path / "data"
    sizes = ["--vocab", "300", "--context-tokens", str(CONTEXT), "--cache", str(tmp_path / "cache")]
    command = [*ARGOSY, "data", "prepare", str(text), "--out", str(out), *sizes]
    subprocess.run(command, check=True, capture_output=True, timeout=110)
    return out
