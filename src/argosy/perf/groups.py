"""Which learned factors apply to a case, and on which rung of the calibration its answer stands."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from argosy.fleet.architectures import Architecture
from argosy.fleet.catalogue import Chip
from argosy.fleet.layout import Layout
from argosy.perf.calibration import Calibration
from argosy.perf.case import shape_name
from argosy.perf.roofline import Efficiency, held_to_peaks
from argosy.perf.work import Numbers

Rung = Literal["spec sheet", "kernel tables", "end to end", "telemetry"]


def groups_of(model: Architecture, chip: Chip, layout: Layout, engine: str) -> dict[str, str]:
    """The name of the case's group, by kind of group."""
    shape = shape_name(model)
    return {
        "engine": engine,
        "chip": chip.name,
        "model": shape,
        "engine,chip": f"{engine},{chip.name}",
        "dtype": layout.dtype,
        "model,engine": f"{shape},{engine}",
        "dp": str(layout.dp > 1),
        "ep": str(layout.ep > 1),
    }


def offset_of(groups: Mapping[str, str], offsets: Mapping[str, Mapping[str, float]]) -> float:
    """The sum of the learned logarithms; a group that was never measured adds nothing."""
    return sum(offsets.get(kind, {}).get(name, 0.0) for kind, name in groups.items())


def reached(
    general: Mapping[str, Numbers], engine: Mapping[str, Numbers], slowness: Numbers
) -> Efficiency:
    """What a case reaches: the general efficiencies, its engine's factors, its groups' slowness."""
    parts = dict(general)
    parts["step_s"] = general["step_s"] * engine["step_s"]
    parts["token_s"] = general["token_s"] * engine["token_s"]
    for name in ("linear_compute", "expert_compute"):
        parts[name] = general[name] * engine["compute"]
    return held_to_peaks(Efficiency(**parts, slowness=slowness))


def general_of(
    efficiency: Mapping[str, float],
    chip_factors: Mapping[str, Mapping[str, float]],
    chips: list[str],
) -> dict[str, NDArray[np.float64]]:
    """The general efficiencies of each case, with what kernel tables say of its chip."""
    factors = [chip_factors.get(name, {}) for name in chips]
    return {
        name: value * np.array([one.get(name, 1.0) for one in factors])
        for name, value in efficiency.items()
    }


def efficiency_of(
    model: Architecture, chip: Chip, layout: Layout, engine: str, learned: Calibration
) -> Efficiency:
    """What this case reaches, as far as is known."""
    offset = offset_of(groups_of(model, chip, layout, engine), learned.offsets)
    factors = learned.chip_factors.get(chip.name, {})
    general = {name: value * factors.get(name, 1.0) for name, value in learned.efficiency.items()}
    return reached(general, learned.engine_factors(engine), math.exp(offset))


def rung_of(chip: Chip, learned: Calibration) -> Rung:
    """The best kind of measurement that there is of the chip."""
    if chip.name in learned.chips_end_to_end:
        return "end to end"
    return "kernel tables" if chip.name in learned.chips_kernel_tables else "spec sheet"
