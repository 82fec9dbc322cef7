"""What physics left over at measured cases, carried to cases that are near them.

The residual of a case is a weighted sum over the measured ones (kernel regression, the mean of a
Gaussian process): near ones count most, and far from all of them it is 0, so that physics speaks
alone. Near means alike in model, chip, engine and its version, dtype, layout, lengths, clients and
day. The same weights tell how wrong such answers were when the case's configuration was left out,
and that is the width of its interval.
"""

from collections.abc import Mapping, Sequence
from datetime import date

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.perf.case import Case, Part, shape_name

Array = NDArray[np.float64]
_DAYS_A_MONTH = 30.4
_MONTHS_MAX = 6.0  # software older than that is as unlike as it gets
_MONTH_UNKNOWN = -1e3  # far from every known one
_NUMBERS = (
    "clients",
    "input",
    "output",
    "chips",
    "memory",
    "compute",
    "active",
    "total",
    "prefill_chips",
    "prefill_replicas",
    "decode_replicas",
)
_NAMES = (
    "model",
    "chip",
    "engine",
    "version",
    "dtype",
    "dp",
    "ep",
    "date",
    "ramped",
    "kind",
    "clients_exact",
    "prefill_dp",
    "replicas_known",
)
FEATURES = (*_NUMBERS, "month", *_NAMES)


class Kernel(msgspec.Struct, frozen=True, kw_only=True):
    """exp(-sum of weight x unlikeness) x amplitude squared."""

    amplitude: float
    weights: dict[str, float]  # by feature; one that is absent does not matter


Columns = Mapping[str, Sequence[float] | Sequence[str]]
OF_CASE = ("clients", "month", "date", "clients_exact")  # the others are one configuration's


class Neighbours(msgspec.Struct, frozen=True, kw_only=True):
    """The measured cases of one way of serving, and what to make of them.

    Lists of `configurations` run over those, all others over cases.
    """

    configurations: dict[str, list[float | str]]  # features that clients and day do not change
    configuration: list[int]  # of each case
    clients: list[int]
    dates: list[str]
    date: list[int]  # of each case, its place in `dates`
    kernels_ttft: tuple[Kernel, ...]
    kernels_tpot: tuple[Kernel, ...]
    weights_ttft: list[float]  # of the residual's sum
    weights_tpot: list[float]
    errors_ttft: list[float]  # logarithmic, with the case's configuration left out
    errors_tpot: list[float]

    def columns(self) -> dict[str, list[float] | list[str]]:
        """Every feature of every case, as `features_of` gives them."""
        days = [self.dates[place] for place in self.date]
        found: dict[str, list[float] | list[str]] = {
            "clients": [float(np.log2(count)) for count in self.clients],
            "clients_exact": [str(count) for count in self.clients],
            "date": days,
            "month": [_month(day) for day in days],
        }
        for name, values in self.configurations.items():
            found[name] = [values[place] for place in self.configuration]  # pyright: ignore[reportArgumentType]
        return found


def features_of(cases: Sequence[Case]) -> dict[str, list[float] | list[str]]:
    """The cases as columns; numbers are logarithms to base 2, but months."""
    columns: dict[str, list[float] | list[str]] = {}
    numbers = [_numbers(case) for case in cases]
    names = [_names(case) for case in cases]
    for place, name in enumerate((*_NUMBERS, "month")):
        columns[name] = [round(one[place], 4) for one in numbers]
    for place, name in enumerate(_NAMES):
        columns[name] = [one[place] for one in names]
    return columns


def kernel_matrix(
    one: Columns,
    other: Columns,
    kernels: Sequence[Kernel],
) -> Array:
    """How near each case of the one is to each of the other, amplitudes included."""
    needed = {name for kernel in kernels for name in kernel.weights}
    unlike = {name: _unlikeness(name, one[name], other[name]) for name in sorted(needed)}
    total = np.zeros((len(one["chip"]), len(other["chip"])))
    for kernel in kernels:
        far = np.zeros_like(total, dtype=np.float32)
        for name, weight in kernel.weights.items():
            far += np.float32(weight) * unlike[name]
        total += kernel.amplitude**2 * np.exp(-far)
    return total


def likeness_to_self(kernels: Sequence[Kernel]) -> float:
    """The matrix's diagonal."""
    return float(sum(kernel.amplitude**2 for kernel in kernels))


def _unlikeness(
    name: str, one: Sequence[float] | Sequence[str], other: Sequence[float] | Sequence[str]
) -> Array:
    if name in _NAMES:
        codes = {value: code for code, value in enumerate(dict.fromkeys([*one, *other]))}
        first = np.array([codes[value] for value in one], dtype=np.int32)
        second = np.array([codes[value] for value in other], dtype=np.int32)
        return (first[:, None] != second[None, :]).astype(np.float32)
    first, second = np.array(one, dtype=np.float32), np.array(other, dtype=np.float32)
    apart = np.abs(first[:, None] - second[None, :])
    return np.minimum(apart, _MONTHS_MAX) if name == "month" else apart * apart / 2


def _numbers(case: Case) -> tuple[float, ...]:
    layout, prefill = case.decode.layout, case.prefill
    chip, model = case.chip, case.model
    return (
        float(np.log2(case.clients)),
        float(np.log2(case.input_tokens)),
        float(np.log2(case.output_tokens)),
        float(np.log2(layout.chips)),
        float(np.log2(chip.memory_bytes_per_s or 1.0)),
        float(np.log2(chip.fp8_flops or chip.bf16_flops or 1.0)),
        float(np.log2(model.parameters_active)),
        float(np.log2(model.parameters_total)),
        float(np.log2(prefill.layout.chips)) if prefill else 0.0,
        _log_replicas(prefill),
        _log_replicas(case.decode),
        _month(case.measured),
    )


def _names(case: Case) -> tuple[str, ...]:
    layout, prefill = case.decode.layout, case.prefill
    is_known = case.decode.replicas is not None
    return (
        shape_name(case.model),
        case.chip.name,
        case.engine,
        case.engine_version,
        layout.dtype,
        str(layout.dp > 1),
        str(layout.ep > 1),
        case.measured,
        str(case.is_ramped),
        f"{case.model.attention},{case.model.experts > 0}",
        str(case.clients),
        str(prefill is not None and prefill.layout.dp > 1),
        str(is_known),
    )


def _log_replicas(part: Part | None) -> float:
    """Half of one stands for a number that is not known."""
    if part is None:
        return 0.0
    return float(np.log2(part.replicas or 0.5))


def _month(day: str) -> float:
    if not day:
        return _MONTH_UNKNOWN
    return date.fromisoformat(day).toordinal() / _DAYS_A_MONTH
