"""`argosy train` with islands on the nodes of a real Ray cluster: a raylet dies, or the command."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from training_process import (
    TrainingProcess,
    check_books,
    done_share,
    run_argosy,
    write_run,
)

from tests.launchers.ray_cluster import RayCluster, as_json, running_cluster
from tests.system.fleet_process import FleetProcess

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(300),
    pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed"),
]
ADDRESSES = {"east": "127.0.0.3", "west": "127.0.0.4", "north": "127.0.0.5"}
PROGRAM = "argosy.training.island.launched"
LAUNCHER = '{{kind: ray, address: "{address}", labels: {{lab: here}}, resource: chip}}'
FLEET = """\
fleet: trained
pools:
  - {{name: chips, region: lab/here, chip: TPU-v6e, launcher: {launcher}}}
models:
  - {{name: served}}
deployments:
  - {{model: served, pool: chips, engine: {{kind: simulated}}}}
"""  # a replica takes one chip


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with running_cluster() as cluster:
        start_node(cluster, "east")
        start_node(cluster, "west")
        yield cluster


def start_node(cluster: RayCluster, name: str) -> None:
    cluster.start_node(name, ADDRESSES[name], resources=as_json(chip=1), labels={"lab": "here"})


def islands() -> dict[str, psutil.Process]:
    """Those that live, by their node's name."""
    names = {address: name for name, address in ADDRESSES.items()}
    found: dict[str, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if PROGRAM in words and "--host" in words:
            found[names[words[words.index("--host") + 1]]] = process
    return found


def fleet_file(cluster: RayCluster, folder: Path) -> Path:
    path = folder / "fleet.yaml"
    path.write_text(FLEET.format(launcher=LAUNCHER.format(address=cluster.address)))
    return path


def run_file(folder: Path, *, steps: int, quorum: int = 2) -> Path:
    """Two islands, each on a chip of the pool; no round closes without so many. Ann gives way."""
    path = write_run(folder / "run.yaml", steps=steps, islands=("ann", "bob"))
    text = path.read_text().replace("threads: 1}", "threads: 1, pool: chips}")
    text = text.replace("{name: ann,", "{name: ann, gives_way_s: 3,")
    path.write_text(text.replace("outer: {", f"outer: {{quorum: {quorum}, "))
    return path


@pytest.fixture
def placed(command, cluster: RayCluster, state: Path, tmp_path: Path):
    """Starts a run of that many steps, and waits until both islands train."""

    def start(steps: int, *, quorum: int = 2) -> TrainingProcess:
        fleet = fleet_file(cluster, tmp_path)
        inner = ("--inner", "reference", "--step-s", "0.02")
        file = run_file(tmp_path, steps=steps, quorum=quorum)
        process = command("train", file, "--fleet", fleet, *inner)
        process.wait_until(lambda: done_share(state) > 0)
        process.wait_until(lambda: set(islands()) == {"east", "west"})
        return process

    return start


def test_an_island_whose_raylet_dies_goes_on_elsewhere_and_every_block_counts_once(
    placed, cluster, state
):
    process = placed(600)
    cluster.raylet("east").kill()
    start_node(cluster, "north")
    process.wait_until(lambda: set(islands()) == {"west", "north"})
    assert process.wait_exit(120) == 0, process.said
    check_books(state)
    assert "started again in 0.5 s" in process.said
    assert islands() == {}
    assert not (state / "runs/tried/placed.json").exists()
    check_alike_on_nodes(cluster, state)
    assert keys_on_nodes(cluster) == []
    cluster.kill("east")
    start_node(cluster, "east")
    cluster.kill("north")


def check_alike_on_nodes(cluster: RayCluster, state: Path) -> None:
    """What an island had at the end is what the syncer wrote, bit for bit."""
    final = json.loads((state / "runs/tried/syncer/final/parameters.json").read_text())
    logs = cluster.state.glob("argosy/ray/run-tried-*/logs/island-*.log")
    assert final["sha256"] in {one["published_sha256"] for log in logs for one in ends(log)}


def ends(log: Path) -> list[dict[str, Any]]:
    """What an island said each time that it ended in order."""
    lines = log.read_text().splitlines()
    return [json.loads(line) for line in lines if '"event":"ended"' in line]


def keys_on_nodes(cluster: RayCluster) -> list[Path]:
    return sorted(cluster.state.glob("argosy/ray/run-tried-*/files/**/*.key"))


def test_islands_outlive_a_killed_command_and_the_next_one_goes_on_with_them_or_ends_them(
    placed, cluster, command, state
):
    process = placed(200_000)
    (key, *_) = keys = keys_on_nodes(cluster)
    assert len(keys) == 2
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}
    assert in_store_of_cluster(cluster, PROGRAM)
    assert not in_store_of_cluster(cluster, key.read_text().splitlines()[1])
    before = {node: island.pid for node, island in islands().items()}
    psutil.wait_procs(process.kill(), 30)
    before_share = done_share(state)
    again = command("runs", "resume", "tried")
    again.wait_until(lambda: done_share(state) > before_share)
    assert {node: island.pid for node, island in islands().items()} == before
    again.wait_until(lambda: certificates_on_nodes(cluster) == certificates_here(state))
    again.interrupt()
    assert again.wait_exit(120) == 0, again.said
    assert islands() == {}
    before_share = done_share(state)
    once_more = command("runs", "resume", "tried")
    once_more.wait_until(lambda: done_share(state) > before_share)  # both train
    once_more.kill()
    assert len(islands()) == 2
    stopped = run_argosy(state, "runs", "stop", "tried")
    assert stopped.returncode == 0, stopped.stderr
    assert islands() == {}, stopped.stderr


def certificates_on_nodes(cluster: RayCluster) -> set[bytes]:
    found = cluster.state.glob("argosy/ray/run-tried-*/files/**/tls.crt")
    return {path.read_bytes() for path in found}


def certificates_here(state: Path) -> set[bytes]:
    found = state.glob("runs/tried/credentials/islands/*/tls.crt")
    return {path.read_bytes() for path in found}


def in_store_of_cluster(cluster: RayCluster, text: str) -> bool:
    """Whether the head has it in its tables on the disk."""
    files = [path for path in (cluster.state.parent / "gcs").rglob("*") if path.is_file()]
    assert files
    return any(text.encode() in path.read_bytes() for path in files)


def test_an_island_gives_way_to_a_replica_without_room_comes_back_and_leaves_a_drained_node(
    placed, cluster, state, tmp_path
):
    process = placed(100_000, quorum=1)
    fleet = FleetProcess(state / "fleet", fleet_file(cluster, tmp_path), "--port", "0")
    try:
        fleet.wait_ready()  # ann's chip is free, or it never is
        (stays,) = islands()
        assert "island-ann has left its place: a replica that takes 1 chips" in process.said
        assert "island-ann waits for a place: it gives way" in process.said
        assert "island-bob has left" not in process.said
        before = done_share(state)
        process.wait_until(lambda: done_share(state) > before)
        assert answer_of(fleet)
        node = ADDRESSES[stays]  # as Ray calls it
        drained = run_argosy(fleet.state, "drain", node)
        assert drained.returncode == 0, drained.stderr
        told = f"island-bob has left its place: node {node} is to be emptied"
        process.wait_until(lambda: told in process.said)
        process.wait_until(lambda: "island-bob waits for a place" in process.said)
        assert islands() == {}
        start_node(cluster, "north")
        process.wait_until(lambda: set(islands()) == {"north"})
        undone = run_argosy(fleet.state, "drain", node, "--undo")
        assert undone.returncode == 0, undone.stderr
        assert fleet.stop() == 0, fleet.said
    finally:
        fleet.kill()
    process.wait_until(lambda: len(islands()) == 2)
    logs = newest_logs(cluster).glob("island-*.log")
    ended = [one for log in logs for one in ends(log)]
    assert [one["lost_steps"] for one in ended] == [0, 0]  # both had finished their leases
    process.interrupt()
    assert process.wait_exit(120) == 0, process.said
    assert islands() == {}
    cluster.kill("north")


def test_one_whose_lease_is_long_leaves_at_its_next_step_half_a_minute_after_it_was_told(
    command, cluster, state, tmp_path
):
    fleet = fleet_file(cluster, tmp_path)
    file = run_file(tmp_path, steps=1_000_000, quorum=1)
    file.write_text(file.read_text().replace("inner_steps: 10", "inner_steps: 100000"))
    inner = ("--inner", "reference", "--step-s", "0.02")
    process = command("train", file, "--fleet", fleet, *inner)
    process.wait_until(lambda: process.said.count("trains on 127.0.0.") == 2)
    up = FleetProcess(state / "fleet", fleet, "--port", "0")
    try:
        told = "island-ann has left its place: a replica that takes 1 chips"
        process.wait_until(lambda: told in process.said)
        up.wait_ready()
    finally:
        up.kill()
    (ended,) = ends(newest_logs(cluster) / "island-ann.log")
    assert ended["state"] == "left"
    assert ended["lost_steps"] > 0
    assert "island-ann killed" not in process.said
    process.interrupt()
    assert process.wait_exit(120) == 0, process.said


def newest_logs(cluster: RayCluster) -> Path:
    """Of the islands of the newest run, on all nodes."""
    found = cluster.state.glob("argosy/ray/run-tried-*/logs")
    return max(found, key=lambda one: one.stat().st_mtime)


def answer_of(fleet: FleetProcess) -> str:
    """What the replica says."""
    response = httpx.post(
        f"{fleet.url}/v1/chat/completions",
        json={"model": "served", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4},
        headers={"Authorization": f"Bearer {fleet.key}"},
        timeout=30,
    )
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"]
