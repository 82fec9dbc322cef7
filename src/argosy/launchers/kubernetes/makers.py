"""What chips are called on Kubernetes: resources, device classes, tolerations, labels of nodes.

One table a maker, every name with its source (read November 2026). Maia has no entry: no device
plugin and no driver of it is published, so it is reached as an endpoint pool alone.
"""

from typing import Literal

import msgspec


class MakerNames(msgspec.Struct, frozen=True, kw_only=True):
    """How one maker's chips are asked for."""

    resource: str  # of its device plugin, and the key of the taint that keeps other pods away
    device_class: str  # of its DRA driver
    # All: a driver that gives out a node's chips together or not at all
    allocation: Literal["ExactCount", "All"] = "ExactCount"
    group_attribute: str | None = None  # {chips} of one group are joined to each other
    group_sizes: tuple[int, ...] = ()


MAKERS: dict[str, MakerNames] = {
    # NVIDIA/k8s-device-plugin, README; kubernetes-sigs/dra-driver-nvidia-gpu, demo/specs
    "NVIDIA": MakerNames(resource="nvidia.com/gpu", device_class="gpu.nvidia.com"),
    # ROCm/k8s-device-plugin, README; ROCm/k8s-gpu-dra-driver, release v1.0.0 of 2026-05-20
    "AMD": MakerNames(resource="amd.com/gpu", device_class="gpu.amd.com"),
    # Google Cloud, "Deploy TPU workloads in GKE"; kubernetes-sigs/dra-driver-google-tpu, README:
    # a pod claims all chips of its node
    "Google": MakerNames(
        resource="google.com/tpu", device_class="tpu.google.com", allocation="All"
    ),
    # Neuron documentation: "Kubernetes environment setup for Neuron" (aws.amazon.com/neuron counts
    # whole chips), the device plugin's manifest (its toleration), "Neuron Dynamic Resource
    # Allocation" (sets of 1, 4, 8 and 16 connected chips)
    "AWS": MakerNames(
        resource="aws.amazon.com/neuron",
        device_class="neuron.aws.com",
        group_attribute="resource.aws.com/devicegroup{chips}_id",
        group_sizes=(1, 4, 8, 16),
    ),
}

# cloud.google.com/gke-tpu-accelerator: Google Cloud, "Plan TPUs in GKE"
TPU_ACCELERATOR: dict[str, str] = {
    "TPU-v5e": "tpu-v5-lite-podslice",
    "TPU-v5p": "tpu-v5p-slice",
    "TPU-v6e": "tpu-v6e-slice",
    "TPU-v7": "tpu7x",
}
ACCELERATOR_LABEL = "cloud.google.com/gke-tpu-accelerator"
TOPOLOGY_LABEL = "cloud.google.com/gke-tpu-topology"
# The same page: how the chips of one slice stand, by their number
_FLAT = {
    1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16",
}  # fmt: skip
_CUBES = {4: "2x2x1", 8: "2x2x2", 16: "2x2x4", 32: "2x4x4", 64: "4x4x4"}
_TOPOLOGIES: dict[str, dict[int, str]] = {
    "TPU-v5e": _FLAT, "TPU-v6e": _FLAT, "TPU-v5p": _CUBES, "TPU-v7": _CUBES,
}  # fmt: skip

INSTANCE_LABEL = "node.kubernetes.io/instance-type"  # Kubernetes, "Well-known labels"
# Neuron documentation, "Best practices for training": 16 chips
_INSTANCES: dict[tuple[str, int], str] = {("Trainium2", 16): "trn2.48xlarge"}


def node_labels(chip: str, *, chips_per_node: int, chips_of_slice: int) -> dict[str, str]:
    """Labels that a maker or its cloud gives to nodes with the chip; {} where we know of none.

    A TPU's nodes are labelled by the slice that they belong to: `chips_of_slice`, over all its
    nodes.
    """
    if chip in TPU_ACCELERATOR:
        labels = {ACCELERATOR_LABEL: TPU_ACCELERATOR[chip]}
        topology = _TOPOLOGIES[chip].get(chips_of_slice)
        return labels if topology is None else {**labels, TOPOLOGY_LABEL: topology}
    instance = _INSTANCES.get((chip, chips_per_node))
    return {} if instance is None else {INSTANCE_LABEL: instance}
