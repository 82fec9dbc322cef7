"""How the gateway is compiled: anew when a text changes, and with arrays behind names."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from argosy.simulator.compiled import TEXTS, Numbers, Rows, compiled, digest_of
from argosy.simulator.handle import Handle, field, part

ROW = np.dtype([("count", "i8"), ("share", "f8")])


class Inside(Handle):
    """A part."""

    numbers: Numbers = field(np.float64, 2)


class Whole(Handle):
    """What is passed."""

    rows: Rows = field(ROW)
    inside: Inside = part(Inside)


@compiled
def counted(whole: Whole) -> float:
    """Changes a row, and reads all."""
    total = 0.0
    for row in whole.rows:
        row.count += 1
        total += row.count * row.share
    for numbers in whole.inside.numbers:
        for number in numbers:
            total += number
    return total


def whole_of(rows: int) -> Whole:
    return Whole(rows=np.ones(rows, ROW), inside=Inside(numbers=np.ones((2, 3))))


def test_compiled_code_reads_and_writes_the_arrays_of_a_handle():
    whole = whole_of(4)
    assert counted(whole) == 4 * 2 + 6
    assert list(whole.rows["count"]) == [2, 2, 2, 2]
    whole.replace(rows=np.ones(1, ROW))
    assert counted(whole) == 2 + 6


@pytest.mark.parametrize(
    "numbers", [np.ones(3), np.ones((2, 3), np.float32), np.ones((3, 4))[:, ::2]]
)
def test_a_handle_takes_only_what_it_declares(numbers):
    with pytest.raises(ValueError, match=r"Inside\.numbers was given"):
        Inside(numbers=numbers)
    with pytest.raises(ValueError, match="made of numbers"):
        Inside(other=numbers)


def test_the_digest_is_of_all_that_is_in_the_texts(tmp_path: Path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "one.py").write_text("A = 1\n")
    (tmp_path / "rates.py").write_text("B = 1\n")
    digests = {digest_of(["policies", "rates.py"], tmp_path)}
    (tmp_path / "rates.py").write_text("B = 2\n")
    digests.add(digest_of(["policies", "rates.py"], tmp_path))
    (tmp_path / "policies" / "two.py").write_text("")
    digests.add(digest_of(["policies", "rates.py"], tmp_path))
    assert len(digests) == 3
    assert digest_of(TEXTS) == digest_of(reversed(TEXTS))


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("kept", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_machine_code_is_kept_until_a_text_in_it_changes(tmp_path: Path):
    path = tmp_path / "kept.py"
    path.write_text("def double(number):\n    return 2 * number\n")

    def loads_of(digest: str) -> int:
        double = compiled(_module(path).double, digest)
        assert double(4) == 8
        return sum(double.stats.cache_hits.values())

    assert [loads_of("one"), loads_of("one"), loads_of("other")] == [0, 1, 0]
