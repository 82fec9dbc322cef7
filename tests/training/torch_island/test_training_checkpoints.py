"""An island's own checkpoints: whole or not at all, and what is loaded goes on bit for bit."""

import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest
from safetensors.numpy import load_file
from torch_tries import VOCABULARY, a_run, island, some_blocks

from argosy.fleet.runs import NewModel
from argosy.training.inner import CheckpointError
from argosy.training.torch_island.checkpoint import MANIFEST, Manifest, prepare, whole_ones
from argosy.training.torch_island.inner import TorchInner


def inner(run=None) -> TorchInner:
    return TorchInner(run or a_run(), island(), vocabulary=VOCABULARY)


def stepped(one: TorchInner, first: int, last: int) -> list[float]:
    return [one.step(some_blocks(seed=n), share_done=n / 20).loss for n in range(first, last)]


def saved(one: TorchInner, folder: Path) -> Path:
    one.save(str(folder))
    one._trainer.close()  # waits for it
    return folder


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_a_loaded_island_goes_on_bit_for_bit(tmp_path: Path) -> None:
    one = inner()
    stepped(one, 0, 3)
    folder = saved(one, tmp_path / "c1")
    rest = stepped(one, 3, 6)

    other = inner(a_run(seed=99))
    other.load(str(folder))
    assert stepped(other, 3, 6) == rest
    assert other.parameters().tobytes() == one.parameters().tobytes()


def test_one_saved_before_its_first_step_loads_into_one_that_took_some(tmp_path: Path) -> None:
    fresh = inner()
    folder = saved(fresh, tmp_path / "c0")
    other = inner(a_run(seed=99))
    stepped(other, 0, 2)
    other.load(str(folder))
    assert stepped(other, 0, 3) == stepped(fresh, 0, 3)


def test_what_is_saved_is_the_moment_of_saving(tmp_path: Path) -> None:
    one = inner()
    stepped(one, 0, 2)
    before = one.parameters()
    one.save(str(tmp_path / "c"))
    stepped(one, 2, 5)  # while it is being written
    one.close()
    other = inner()
    other.load(str(tmp_path / "c"))
    assert other.parameters().tobytes() == before.tobytes()


def test_any_program_reads_its_tensors(tmp_path: Path) -> None:
    one = inner()
    stepped(one, 0, 1)
    folder = saved(one, tmp_path / "c")
    found = load_file(folder / "rank-0.safetensors")
    assert found["parameter/model.norm.weight"].shape == (32,)
    assert {name.partition("/")[0] for name in found} == {"parameter", "exp_avg", "exp_avg_sq"}


def test_two_are_kept(tmp_path: Path) -> None:
    one = inner()
    for number in range(4):
        stepped(one, number, number + 1)
        saved(one, tmp_path / f"c{number}")
    assert [folder.name for folder in whole_ones(tmp_path)] == ["c3", "c2"]
    assert names(tmp_path) == ["c2", "c3"]


def test_a_folder_is_never_written_twice(tmp_path: Path) -> None:
    one = inner()
    folder = saved(one, tmp_path / "c")
    with pytest.raises(CheckpointError, match="a folder of its own"):
        one.save(str(folder))


@pytest.mark.parametrize("damage", ["bit", "short", "gone", "manifest", "lie"])
def test_a_torn_one_is_refused_and_says_what_is_kept(tmp_path: Path, damage: str) -> None:
    one = inner()
    stepped(one, 0, 1)
    saved(one, tmp_path / "good")
    torn = saved(one, tmp_path / "torn")
    file, manifest = torn / "rank-0.safetensors", torn / MANIFEST
    content = bytearray(file.read_bytes())
    match damage:
        case "bit":
            content[-5] ^= 1
            file.write_bytes(content)
        case "short":
            file.write_bytes(content[:-100])
        case "gone":
            file.unlink()
        case "manifest":
            manifest.write_bytes(manifest.read_bytes()[:-3])
        case _:
            file.write_bytes(b"\xff" * 8 + bytes(content[8:]))
            said = msgspec.json.decode(manifest.read_bytes(), type=Manifest)
            digest = subprocess.check_output(["sha256sum", file], text=True).split()[0]
            stored = msgspec.structs.replace(said.files[0], sha256=digest)
            manifest.write_bytes(
                msgspec.json.encode(msgspec.structs.replace(said, files=(stored,)))
            )
    before = one.parameters()
    with pytest.raises(CheckpointError, match=r"torn cannot be loaded: .* Kept in .*good"):
        one.load(str(torn))
    assert one.parameters().tobytes() == before.tobytes()
    one.load(str(tmp_path / "good"))


def test_a_pickle_from_a_peer_is_refused_unread(tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / ".metadata").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    (folder / "rank-0.safetensors").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(CheckpointError, match="Nothing is kept"):
        inner().load(str(folder))


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = saved(inner(), tmp_path / "c")
    wider = a_run(model=NewModel(layers=2, hidden=32, heads=4, kv_heads=2, mlp=64))
    with pytest.raises(CheckpointError, match="has shapes"):
        inner(wider).load(str(folder))
    deeper = a_run(model=NewModel(layers=3, hidden=32, heads=4, kv_heads=2, mlp=48))
    with pytest.raises(CheckpointError, match="of another model"):
        inner(deeper).load(str(folder))


def test_what_a_killed_process_left_does_not_stand_in_the_way(tmp_path: Path) -> None:
    one = inner()
    prepare(str(tmp_path / "c"))
    (tmp_path / ".c.part" / "rank-0.safetensors").write_bytes(b"half")
    other = inner()
    other.load(str(saved(one, tmp_path / "c")))
    assert names(tmp_path) == ["c"]


def test_a_full_disk_is_told_at_the_next_save_and_the_one_before_stays(tmp_path: Path) -> None:
    one = inner()
    stepped(one, 0, 1)
    saved(one, tmp_path / "good")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:  # a file that may not grow fails as one on a full disk does: write() raises OSError
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        one.save(str(tmp_path / "full"))
        with pytest.raises(CheckpointError, match=r"full was not written.* Kept in .*: good"):
            one.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert names(tmp_path) == ["good"]
    saved(one, tmp_path / "again")
    one.load(str(tmp_path / "good"))


_KILLED = """
    import os, sys
    sys.path.insert(0, sys.argv[1])
    from torch_tries import VOCABULARY, a_run, island, some_blocks
    from argosy.training.torch_island.inner import TorchInner

    one = TorchInner(a_run(), island(), vocabulary=VOCABULARY)
    for number in range(10_000):
        one.step(some_blocks(seed=number), share_done=0.1)
        one.save(f"{sys.argv[2]}/c{number}")
        if number == 3:
            print("going", flush=True)
"""


def test_an_island_killed_while_saving_leaves_a_whole_one(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_KILLED), here, str(tmp_path)],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"going\n"
    process.kill()
    process.communicate()
    found = whole_ones(tmp_path)
    assert found
    inner().load(str(found[0]))
