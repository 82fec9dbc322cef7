"""What SkyPilot calls clouds and chips, and how an engine comes onto a machine that it rents.

Names are those of SkyPilot 0.14.1: `sky/clouds` and, of accelerators, its catalogue's fetchers
(`sky/catalog`). What is not here, a pool's `launcher.accelerators` may say.
"""

from collections.abc import Sequence

from argosy.fleet.contracts import Contract, Reserved, Spot

CLOUDS: tuple[str, ...] = (
    "aws",
    "azure",
    "gcp",
    "oci",
    "ibm",
    "lambda",
    "nebius",
    "runpod",
    "kubernetes",
    "ssh",
)
_ACCELERATORS = {
    "A100-40GB": "A100",
    "A100-80GB": "A100-80GB",
    "A10G": "A10G",
    "B200": "B200",
    "B300": "B300",
    "H100-SXM": "H100",
    "H200": "H200",
    "L4": "L4",
    "L40S": "L40S",
    "MI300X": "MI300X",
    "RTX-PRO-6000": "RTXPRO6000",
}
# A slice is one accelerator of SkyPilot's, called by its chips; of v5p by its cores, two a chip
# (Google Cloud, "TPU v5p").
_SLICES = {"TPU-v5e": ("tpu-v5litepod", 1), "TPU-v5p": ("tpu-v5p", 2), "TPU-v6e": ("tpu-v6e", 1)}
# What pip installs, by engine and maker; versions are those that the images of Kubernetes have.
_PACKAGES = {
    ("vllm", "NVIDIA"): "vllm==0.28.0",
    ("vllm", "Google"): "vllm-tpu",
    ("sglang", "NVIDIA"): "sglang==0.5.18",
}


def accelerators(chip: str | None, chips: int, *, name: str | None = None) -> dict[str, int] | None:
    """So many chips as SkyPilot asks for them; `name` goes before its own. None: none are taken.

    Raises KeyError where SkyPilot's name of the chip is not known here.
    """
    if chip is None or chips == 0:
        return None
    if name is not None:
        return {name: chips}
    if chip in _SLICES:
        kind, each = _SLICES[chip]
        return {f"{kind}-{chips * each}": 1}
    return {_ACCELERATORS[chip]: chips}


def is_known(chip: str) -> bool:
    """Whether SkyPilot's name of the chip is known here."""
    return chip in _ACCELERATORS or chip in _SLICES


def package(engine: str, maker: str | None) -> str | None:
    """What is installed for that engine; None: it needs an image."""
    return _PACKAGES.get((engine, maker or ""))


def is_spot(pool: str, contracts: Sequence[Contract]) -> bool:
    """Whether its machines may be taken away: a spot contract names it, and no reserved one."""
    spot = any(isinstance(one, Spot) and pool in one.pools for one in contracts)
    return spot and not any(isinstance(one, Reserved) and pool in one.pools for one in contracts)
