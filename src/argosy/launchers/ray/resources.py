"""What Ray calls each maker's chips.

Ray's own names: ray/_private/accelerators of Ray 2.60 (GPU, TPU, neuron_cores) and
ray/util/accelerators (the values of the label ray.io/accelerator-type). GPU is NVIDIA's and AMD's
alike, so there the label is asked for too. Ray knows no Maia: whoever runs one names a resource.
"""

from argosy.fleet.launchers import RayLauncher
from argosy.launchers.ray.protocol import Resources

ACCELERATOR_LABEL = "ray.io/accelerator-type"
_RESOURCES = {"NVIDIA": "GPU", "AMD": "GPU", "Google": "TPU", "AWS": "neuron_cores"}
# Ray counts the cores that neuron-ls tells of. Inf2 and Trn1 have two NeuronCores a chip; Trn2 and
# Trn3 have eight, which their default, a logical core of two, shows as four.
_NEURON_CORES = {"Inferentia2": 2.0, "Trainium1": 2.0, "Trainium2": 4.0, "Trainium3": 4.0}
_GPU_LABELS = {
    "A10G": "A10G",
    "A100-40GB": "A100",
    "A100-80GB": "A100",
    "B200": "B200",
    "B300": "B300",
    "GB200": "GB200",
    "GB300": "GB300",
    "H100-NVL": "H100",
    "H100-PCIe": "H100",
    "H100-SXM": "H100",
    "H200": "H200",
    "L4": "L4",
    "L40S": "L40S",
    "MI300X": "AMD-Instinct-MI300X-OAM",
    "MI325X": "AMD-Instinct-MI325X-OAM",
    "MI355X": "AMD-Instinct-MI355X-OAM",
    "RTX-PRO-6000": "RTX-PRO-6000",
}


class UnknownResourceError(ValueError):
    """Ray has no name for this pool's chips; the message says what to write."""


def resources_of(launcher: RayLauncher, *, chip: str | None, maker: str | None) -> Resources:
    """What a replica on this pool asks for, and its nodes are known by.

    Raises `UnknownResourceError` where chips have neither a resource of Ray's nor one of the file.
    """
    name = launcher.resource or _RESOURCES.get(maker or "")
    if name is None and chip is not None and maker != "generic":
        raise UnknownResourceError(
            f"Ray has no resource of its own for {maker or 'an unknown maker'}'s {chip}. "
            "Start the nodes with one, e.g. ray start --resources '{\"" + chip + "\": 4}', "
            f"and name it: launcher.resource: {chip}"
        )
    labels = dict(launcher.labels)
    if name == "GPU" and chip in _GPU_LABELS:
        labels.setdefault(ACCELERATOR_LABEL, _GPU_LABELS[chip])
    per_chip = _NEURON_CORES.get(chip or "", 1.0) if name == "neuron_cores" else 1.0
    return Resources(name=name, per_chip=per_chip, labels=labels)
