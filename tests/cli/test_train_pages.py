"""What `argosy train` and `argosy runs` say without starting anything."""

import io
import subprocess
import sys

import msgspec
import pytest
from rich.console import Console
from typer.testing import CliRunner

from argosy.cli.main import app
from argosy.cli.training_page import duration, json_line, page, plain_line, size
from argosy.cli.training_picture import IslandPicture, Picture, Refusal
from argosy.cli.training_supervisor import ChildState

GOOD = """\
run: tiny
model: {kind: llama, layers: 1, hidden: 16, heads: 1, kv_heads: 1, mlp: 16}
data: {path: nowhere}
tokens: 100_000
islands:
  - {name: one}
"""
FLEET = """\
fleet: f
pools:
  - {name: far, chip: H100-SXM, region: aws/us-east-1, nodes: {max: 1},
     launcher: {kind: ray, address: "10.0.0.1:6379"}}
models:
  - {name: m}
deployments:
  - {model: m, pool: far, engine: {kind: vllm}}
tenants:
  - {name: a, tier: batch}
"""


def island(**changes) -> IslandPicture:
    fields = {
        "island": "amber", "state": "live", "lives": 2, "tokens_done": 5000,
        "tokens_per_s": 1234.5, "waited_share": 0.021, "loss": 3.25,
        "bytes_up": 1500, "bytes_down": 2_500_000, "silent_s": 0.3,
    }  # fmt: skip
    return IslandPicture(**{**fields, **changes})


PICTURE = Picture(
    run="tiny", state="training", version=3, tokens=10_000, tokens_done=5000, tokens_per_s=1500.0,
    loss=3.25, loss_validation=3.5, loss_validation_version=2, eta_s=200.0, began_at_s=0.0,
    lasted_s=90.0, bytes_moved=3_000_000, bytes_ratio=123.0, goodput=0.987,
    islands=(island(), island(island="basalt", state="silent", silent_s=12.0, tokens_per_s=None)),
    deltas=7, deltas_refused=1, round_reason="quorum",
    refusals=(
        Refusal(island="basalt", number=4, tokens=512, reason="too_stale: 4 behind", at_s=1.0),
    ),
)  # fmt: skip


def drawn(picture: Picture, *children: ChildState) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(page(picture, children))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_page_tells_of_islands_rounds_bytes_and_refusals():
    away = ChildState(
        name="basalt", state="waiting", pid=None, starts=3, reason="killed by SIGKILL"
    )
    text = drawn(PICTURE, away)
    for told in (
        "round 3", "50.0%", "5,000 of 10,000 tokens", "eta 3 min 20 s", "validation 3.5000 (round",
        "123x fewer", "goodput 98.7%", "silent 12 s", "2.1%", "2.5 MB", "too_stale: 4 behind",
        "basalt: waiting after 3 starts; killed by SIGKILL",
    ):  # fmt: skip
        assert told in text, told


def test_the_page_tells_of_dollars_and_joules_where_they_are_known():
    assert "USD/MTOK" not in drawn(PICTURE)
    priced = island(usd_per_million_tokens=0.5625, joules_per_million_tokens=2500.0)
    text = drawn(msgspec.structs.replace(PICTURE, islands=(priced, island(island="other"))))
    assert "USD/MTOK" in text
    assert "0.56" in text
    assert "KJ/MTOK" in text
    assert "2.5" in text


def test_the_page_says_of_each_island_what_share_of_its_chips_peak_it_uses():
    of_a_gpu = island(mfu=0.4321, island="amber")
    rows = drawn(msgspec.structs.replace(PICTURE, islands=(of_a_gpu, island(island="cpu"))))
    heading, amber, cpu = (
        row.split()
        for row in rows.splitlines()
        if "TOKENS/S" in row or row.startswith(("amber", "cpu"))
    )
    at = heading.index("MFU")
    assert (amber[at], cpu[at]) == ("43.2%", "-")


def test_a_plain_line_and_json_tell_the_same():
    line = plain_line(PICTURE)
    assert "round 3  50.0%  loss 3.2500" in line
    assert "basalt silent" in line
    assert msgspec.json.decode(json_line(PICTURE), type=Picture) == PICTURE


def test_a_run_that_has_just_begun_is_told_without_figures():
    fresh = msgspec.structs.replace(
        PICTURE, version=None, loss=None, loss_validation=None, eta_s=None, tokens_per_s=None,
        bytes_ratio=None, goodput=None, islands=(), refusals=(), loss_validation_version=None,
    )  # fmt: skip
    assert "no round yet" in drawn(fresh)
    assert "eta -" in plain_line(fresh)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(None, "-"), (0.4, "0 s"), (59.4, "59 s"), (200, "3 min 20 s"), (7260, "2 h 01 min")],
)
def test_durations_are_short(seconds, told):
    assert duration(seconds) == told


@pytest.mark.parametrize(
    ("value", "told"), [(999, "999 B"), (1000, "1.0 kB"), (3.2e15, "3200.0 TB")]
)
def test_sizes_are_in_units_of_1000(value, told):
    assert size(value) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "the file is empty. A run has the fields"),
        ("run: [", "is not YAML"),
        ("fleet: a\n", "describes a fleet, not a run"),
        (GOOD.replace("heads: 1,", "heads: 3,"), "is no multiple of heads"),
        (GOOD.replace("{name: one}", "{name: one, pool: far}"), "--fleet FLEET.yaml"),
        (GOOD, "nowhere/manifest.json cannot be read"),
    ],
)
def test_nonsense_is_refused_before_anything_starts(tmp_path, text, told):
    pytest.importorskip("torch")
    file = tmp_path / "run.yaml"
    file.write_text(text)
    result = CliRunner().invoke(app, ["train", str(file), "--state", str(tmp_path / "state")])
    assert result.exit_code == 1, result.exception
    assert told in result.stderr.replace("\n", " ")
    assert not (tmp_path / "state" / "runs").exists()


@pytest.mark.parametrize(
    ("pool", "options", "told"),
    [
        ("far", ("--syncer-host", "0.0.0.0"), "it is one address of this host"),
        ("far", ("--syncer-host", "here"), "it is an address of this host, e.g. 10.0.3.2"),
        ("far", ("--syncer-host", "203.0.113.9"), "the syncer cannot listen on 203.0.113.9"),
        ("fa", (), '"far"?'),
    ],
)
def test_pools_of_a_fleet_and_the_syncers_address_are_looked_up(tmp_path, pool, options, told):
    pytest.importorskip("ray")
    (tmp_path / "fleet.yaml").write_text(FLEET)
    file = tmp_path / "run.yaml"
    file.write_text(GOOD.replace("{name: one}", f"{{name: one, pool: {pool}}}"))
    words = ["train", str(file), "--fleet", str(tmp_path / "fleet.yaml"), *options]
    inner = ["--inner", "reference", "--state", str(tmp_path / "state")]
    result = CliRunner().invoke(app, [*words, *inner])
    assert result.exit_code == 1
    assert told in result.stderr
    assert not (tmp_path / "state" / "runs").exists()


def test_a_missing_package_is_told_with_what_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    file = tmp_path / "run.yaml"
    file.write_text(GOOD)
    result = CliRunner().invoke(app, ["train", str(file), "--state", str(tmp_path)])
    assert result.exit_code == 1
    assert "make train" in result.stderr


@pytest.mark.parametrize(
    "words",
    [
        ("show", "none"), ("stop", "none"), ("resume", "none"), ("export", "none", "--out", "x"),
        ("curve", "none"), ("forget", "none", "--yes"),
    ],
)  # fmt: skip
def test_runs_that_are_not_there_are_told_of(tmp_path, words):
    result = CliRunner().invoke(app, ["runs", *words, "--state", str(tmp_path)])
    assert result.exit_code == 1
    assert "there is no run" in result.stderr


def test_no_run_at_all_is_no_error(tmp_path):
    result = CliRunner().invoke(app, ["runs", "list", "--state", str(tmp_path)])
    assert result.exit_code == 0
    assert "no run yet" in result.stderr


def test_help_loads_neither_numpy_nor_torch():
    code = (
        "import sys; from argosy.cli import main, training_running, training_page;"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'torch', 'sqlalchemy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
