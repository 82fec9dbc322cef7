"""Which of a chip's peaks a model in a layout computes at."""

from argosy.fleet.architectures import Architecture
from argosy.fleet.catalogue import Chip
from argosy.fleet.layout import Dtype, Layout
from argosy.perf.roofline import Peaks

_LINK_BYTES_PER_S_UNKNOWN = 64e9  # both directions: PCIe 4.0 x16, where the catalogue has no figure


def peaks_of(architecture: Architecture, chip: Chip, layout: Layout) -> Peaks | None:
    """None where the catalogue lacks what a roofline needs: compute or memory bandwidth."""
    sixteen = _sixteen_bit_flops(chip)
    if sixteen is None or chip.memory_bytes_per_s is None:
        return None
    experts = flops_of(chip, layout.dtype) or sixteen
    four_bits = layout.dtype in ("fp4", "int4")
    links = chip.scale_up_bytes_per_s or _LINK_BYTES_PER_S_UNKNOWN
    return Peaks(
        flops=sixteen if architecture.experts and four_bits else experts,
        expert_flops=experts,
        attention_flops=sixteen,
        memory_bytes_per_s=chip.memory_bytes_per_s,
        link_bytes_per_s=links / 2,
    )


def flops_of(chip: Chip, dtype: Dtype) -> float | None:
    """The dense peak that weights of this dtype are multiplied at: the next wider that exists."""
    by_dtype = {
        "fp4": (chip.fp4_flops, chip.fp8_flops),
        "fp8": (chip.fp8_flops,),
        "int8": (chip.int8_ops,),
        "int4": (),  # weights only: multiplied in 16 bits
        "bf16": (),
    }
    for peak in by_dtype[dtype]:
        if peak is not None and peak >= (chip.bf16_flops or 0.0):
            return peak
    return _sixteen_bit_flops(chip)


def _sixteen_bit_flops(chip: Chip) -> float | None:
    if chip.bf16_flops is not None:
        return chip.bf16_flops
    return None if chip.fp8_flops is None else chip.fp8_flops / 2
