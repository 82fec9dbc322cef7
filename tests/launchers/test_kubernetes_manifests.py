"""What is sent to clusters, checked offline against Kubernetes' own schemas, strictly."""

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from referencing import Registry, Resource

from argosy.fleet import load
from argosy.fleet.catalogue import chip, chips
from argosy.fleet.config import (
    EngineConfig,
    SglangEngine,
    SimulatedEngine,
    TrtllmEngine,
    VllmEngine,
)
from argosy.fleet.launchers import KubernetesLauncher
from argosy.fleet.layout import Layout
from argosy.fleet.messages import Command, ReplicaSpec
from argosy.fleet.rules_launched import MAKERS_ON_KUBERNETES
from argosy.launchers.kubernetes import names
from argosy.launchers.kubernetes.cell import Cell, cell_of
from argosy.launchers.kubernetes.makers import MAKERS
from argosy.launchers.kubernetes.manifests import Manifest, manifests, pool_selector
from argosy.launchers.port import LaunchError

NEWEST = "1.37"
EXAMPLE = Path(__file__).parents[2] / "examples" / "kubernetes.yaml"
GROUP_SCHEMA = json.loads(
    (Path(__file__).parent / "data" / "leaderworkerset-v1.schema.json").read_text("utf-8")
)
_DEFINITIONS = json.loads(
    files("kubernetes_validate")
    .joinpath("kubernetes-json-schema/v1.37.0-local-strict/_definitions.json")
    .read_text("utf-8")
)
GROUP = jsonschema.Draft202012Validator(
    GROUP_SCHEMA, registry=Resource.from_contents(_DEFINITIONS) @ Registry()
)


def check(manifest: Manifest) -> None:
    """Raises jsonschema's ValidationError, which kubernetes-validate's is too."""
    if manifest["kind"] == "LeaderWorkerSet":
        GROUP.validate(manifest)
    else:
        kubernetes_validate.validate(manifest, NEWEST, strict=True)


def cell(name: str = "H100-SXM", *, node: int = 8, region: str = "own/here", **kw: Any) -> Cell:
    if chip(name).maker == "AWS":
        kw.setdefault("image", "mirror/neuronx:1")
    return Cell(
        fleet="f", pool="p", launcher=KubernetesLauncher(**kw), region=region, chip=name,
        maker=chip(name).maker, chips_per_node=node, weights={"large": "file:/models/large"},
    )  # fmt: skip


def spec(
    layout: Layout | None = None, engine: EngineConfig | None = None, **kw: Any
) -> ReplicaSpec:
    layout = layout or Layout(tp=4)
    return msgspec.structs.replace(
        ReplicaSpec(
            fleet="f", name="large-1", deployment="large@p", model="large", pool="p",
            engine=engine or VllmEngine(), layout=layout, chips=layout.chips, command=None,
            health_path="/health", generation="g1",
        ),
        **kw,
    )  # fmt: skip


def pod(manifest: Manifest) -> Manifest:
    return manifest["spec"]["template"]["spec"]


def words(manifest: Manifest) -> str:
    return " ".join(pod(manifest)["containers"][0]["command"])


def only(replica: ReplicaSpec, place: Cell) -> Manifest:
    (found,) = manifests(replica, place)
    return found


@pytest.mark.parametrize(
    ("name", "node", "resource", "device_class", "image"),
    [
        ("H100-SXM", 8, "nvidia.com/gpu", "gpu.nvidia.com", "vllm/vllm-openai:v"),
        ("MI300X", 8, "amd.com/gpu", "gpu.amd.com", "vllm/vllm-openai-rocm:v"),
        ("TPU-v6e", 4, "google.com/tpu", "tpu.google.com", "vllm/vllm-tpu:"),
        ("Trainium2", 16, "aws.amazon.com/neuron", "neuron.aws.com", "mirror/neuronx"),
    ],
)
def test_chips_of_four_makers_are_asked_for_in_both_ways(name, node, resource, device_class, image):
    found = only(spec(), cell(name, node=node))
    check(found)
    container = pod(found)["containers"][0]
    assert container["resources"] == {"limits": {resource: "4"}}
    assert container["image"].startswith(image)
    tolerated = [one["key"] for one in pod(found)["tolerations"]]
    assert tolerated == [resource]
    claim, found = manifests(spec(), cell(name, node=node, devices="dra"))
    for one in (claim, found):
        check(one)
    (request,) = claim["spec"]["spec"]["devices"]["requests"]
    assert request["exactly"]["deviceClassName"] == device_class
    (reference,) = pod(found)["resourceClaims"]
    assert reference["resourceClaimTemplateName"] == claim["metadata"]["name"]
    assert pod(found)["containers"][0]["resources"]["claims"] == [{"name": reference["name"]}]


@pytest.mark.parametrize(
    ("name", "node", "engine"),
    [
        ("H100-SXM", 8, VllmEngine()),
        ("H100-SXM", 8, SglangEngine()),
        ("MI300X", 8, VllmEngine()),
        ("MI355X", 8, SglangEngine()),
        ("TPU-v6e", 4, VllmEngine()),
        ("TPU-v7", 4, VllmEngine()),
    ],
)
@pytest.mark.parametrize("devices", ["plugin", "dra"])
def test_a_replica_of_several_nodes_is_a_group(name, node, engine, devices):
    *claims, group = manifests(
        spec(Layout(tp=node, pp=2), engine), cell(name, node=node, devices=devices)
    )
    assert len(claims) == (devices == "dra")
    for one in (*claims, group):
        check(one)
    template = group["spec"]["leaderWorkerTemplate"]
    assert template["size"] == 2
    leader, helper = template["leaderTemplate"]["spec"], template["workerTemplate"]["spec"]
    assert "readinessProbe" in leader["containers"][0]
    assert "readinessProbe" not in helper["containers"][0]
    said = [" ".join(one["containers"][0]["command"]) for one in (leader, helper)]
    assert "--port 8000" in said[0]
    assert "--port" not in said[1]
    assert "$(LWS_LEADER_ADDRESS)" in said[1]


def test_a_misspelt_field_would_be_found():
    found = only(spec(), cell())
    pod(found)["containers"][0]["imagePullPolice"] = "Always"
    with pytest.raises(jsonschema.ValidationError, match="imagePullPolice"):
        check(found)
    group = only(spec(Layout(tp=16)), cell())
    group["spec"]["leaderWorkerTemplate"]["restartPolicy"] = "RecreateGroup"
    with pytest.raises(jsonschema.ValidationError, match="RecreateGroup"):
        check(group)
    group = only(spec(Layout(tp=16)), cell())
    group["spec"]["leaderWorkerTemplate"]["workerTemplate"]["spec"]["nodeSelect"] = {}
    with pytest.raises(jsonschema.ValidationError, match="nodeSelect"):
        check(group)


def test_everything_of_the_example_is_valid_and_has_a_name_of_its_own():
    fleet = load.parse(EXAMPLE.read_text("utf-8"), source="kubernetes.yaml")
    seen: set[tuple[str, str]] = set()
    for deployment in fleet.deployments:
        pool = fleet.pool(deployment.pool)
        if not isinstance(pool.launcher, KubernetesLauncher):
            continue
        for number in range(deployment.replicas):
            replica = spec(
                deployment.layout, deployment.engine, fleet=fleet.fleet, pool=pool.name,
                name=f"{deployment.name}-{number}", model=deployment.model,
            )  # fmt: skip
            for manifest in manifests(replica, cell_of(fleet, pool)):
                check(manifest)
                key = manifest["kind"], manifest["metadata"]["name"]
                assert key not in seen
                seen.add(key)
    assert {kind for kind, _ in seen} == {"Deployment", "LeaderWorkerSet", "ResourceClaimTemplate"}


def test_vllm_is_told_the_layout():
    layout = Layout(tp=4, pp=2, dtype="fp8", kv_dtype="fp8")
    engine = VllmEngine(context_tokens=65536, requests_max=64, memory_share=0.85)
    said = words(only(spec(layout, engine), cell(port=8080)))
    assert said.startswith("vllm serve /models/large --served-model-name large ")
    for flag in (
        "--tensor-parallel-size 4", "--pipeline-parallel-size 2", "--quantization fp8",
        "--kv-cache-dtype fp8", "--max-model-len 65536", "--max-num-seqs 64", "--port 8080",
        "--max-num-batched-tokens 8192", "--gpu-memory-utilization 0.85",
        "--enable-prefix-caching",
    ):  # fmt: skip
        assert flag in said
    assert "--data-parallel-size" not in said
    said = words(only(spec(Layout(tp=2, dp=4, ep=8), VllmEngine(prefix_cache=False)), cell()))
    for flag in ("--data-parallel-size 4", "--enable-expert-parallel", "--no-enable-prefix-cach"):
        assert flag in said


def test_sglang_is_told_the_layout():
    engine = SglangEngine(prefill_tokens_max=4096, prefix_cache=False)
    said = words(only(spec(Layout(tp=2, dp=4, ep=8, kv_dtype="fp8"), engine), cell()))
    for flag in (
        "--model-path /models/large", "--tp-size 8", "--dp-size 4", "--enable-dp-attention",
        "--ep-size 8", "--kv-cache-dtype fp8_e4m3", "--context-length 32768",
        "--max-running-requests 256", "--chunked-prefill-size 4096", "--mem-fraction-static 0.9",
        "--disable-radix-cache",
    ):  # fmt: skip
        assert flag in said


def test_a_chip_that_is_several_ranks_counts_as_many():
    assert "--tensor-parallel-size 64" in words(
        only(spec(Layout(tp=16)), cell("Trainium2", node=16))
    )
    assert "--tensor-parallel-size 8" in words(only(spec(), cell("TPU-v7", node=4)))


def test_tpu_nodes_are_chosen_by_the_shape_of_their_slice():
    prefix = "cloud.google.com/gke-tpu-"
    found = pod(only(spec(), cell("TPU-v6e", node=4)))["nodeSelector"]
    assert found == {f"{prefix}accelerator": "tpu-v6e-slice", f"{prefix}topology": "2x2"}
    group = only(spec(Layout(tp=16)), cell("TPU-v6e", node=4))
    template = group["spec"]["leaderWorkerTemplate"]["workerTemplate"]
    assert template["spec"]["nodeSelector"][f"{prefix}topology"] == "4x4"
    assert pool_selector(cell("TPU-v6e", node=4)) == {f"{prefix}accelerator": "tpu-v6e-slice"}


def test_what_the_fleet_file_says_goes_before_what_we_know():
    own = {"cloud.google.com/gke-tpu-topology": "2x4", "pool": "mine"}
    found = pod(only(spec(), cell("TPU-v6e", node=4, node_selector=own, image="mine:1")))
    assert found["containers"][0]["image"] == "mine:1"
    assert found["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x4"
    assert found["nodeSelector"]["pool"] == "mine"


def test_gpus_on_azure_tolerate_the_taint_of_its_documentation():
    tolerated = pod(only(spec(), cell(region="azure/westus3")))["tolerations"]
    assert {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"} in tolerated


def test_weights_on_the_nodes_are_mounted_and_others_are_the_images():
    found = pod(only(spec(), cell()))
    assert found["volumes"][1] == {
        "name": "weights",
        "hostPath": {"path": "/models/large", "type": "Directory"},
    }
    assert found["containers"][0]["volumeMounts"][1]["readOnly"] is True
    found = only(spec(model="other"), cell())
    assert len(pod(found)["volumes"]) == 1
    assert words(found).startswith("vllm serve other ")


def test_a_program_of_ones_own_runs_in_ones_own_image():
    command = Command(argv=("serve", "me"), env={"B": "2", "A": "1"})
    replica = spec(engine=SimulatedEngine(), command=command, chips=0)
    found = only(replica, cell(image="mine:1"))
    check(found)
    container = pod(found)["containers"][0]
    assert container["command"] == ["serve", "me"]
    assert container["env"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    assert "resources" not in container
    assert "tolerations" not in pod(found)
    with pytest.raises(LaunchError, match=r"Write launcher\.image"):
        manifests(replica, cell())


@pytest.mark.parametrize(
    ("replica", "place", "told"),
    [
        (spec(), cell("Maia-200", node=4), "as an endpoint pool"),
        (spec(), cell("Gaudi3"), "no device plugin"),
        (spec(engine=SglangEngine()), cell("TPU-v6e", node=4), "no image is known"),
        (spec(engine=TrtllmEngine()), cell(image="mine:1"), "Deploy vllm or sglang"),
        (spec(Layout(tp=12)), cell(), "not whole nodes of 8"),
        (spec(Layout(tp=2)), cell("TPU-v6e", node=4, devices="dra"), "4 chips together, not 2"),
        (spec(Layout(tp=2)), cell("Trainium2", node=16, devices="dra"), "16) chips, not 2"),
        (spec(Layout(tp=32)), cell("Trainium2", node=16), "does not span nodes"),
        (spec(Layout(tp=4, dp=4)), cell(), "does not span nodes"),
        (spec(Layout(tp=4, dp=2, ep=4)), cell(), "Write ep: 8"),
        (spec(Layout(tp=1)), cell("Trainium2", node=1), "node.kubernetes.io/instance-type"),
        (
            spec(Layout(tp=1)),
            cell("Trainium2", node=16, image=None),
            "no image is known",
        ),
        (
            spec(Layout(tp=1)),
            cell(
                "Trainium1", node=16, image="i",
                node_selector={"node.kubernetes.io/instance-type": "x"},
            ),
            "how many ranks",
        ),
        (spec(), cell(namespace="Argosy"), "lower-case"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_to_a_cluster_is_refused(replica, place, told):
    with pytest.raises(LaunchError, match=re.escape(told)) as refused:
        manifests(replica, place)
    assert "large-1" in str(refused.value)


def test_the_rules_of_the_fleet_file_know_the_same_makers():
    assert set(MAKERS_ON_KUBERNETES) == set(MAKERS)
    assert set(MAKERS) <= {one.maker for one in chips()}


@given(fleet=st.text("abAB/._:@-9", min_size=1, max_size=99), name=st.text(min_size=1))
def test_any_name_becomes_one_that_kubernetes_takes(fleet, name):
    for made in (names.object_name(fleet, name), names.object_name(name, fleet)):
        assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", made)
        assert len(made) <= 45
    value = names.label_value(name)
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", value)
    assert len(value) <= 63
    assert names.object_name(fleet, name) != names.object_name(f"{fleet}x", name)
    assert value != names.label_value(f"{name}-")


def test_the_rights_that_the_guide_gives_are_valid():
    guide = (Path(__file__).parents[2] / "docs" / "KUBERNETES.md").read_text("utf-8")
    blocks = re.findall(r"```yaml\n(apiVersion.*?)```", guide, re.DOTALL)
    found = [one for block in blocks for one in yaml.safe_load_all(block)]
    assert [one["kind"] for one in found] == ["Role", "ClusterRole"]
    for one in found:
        check(one)
