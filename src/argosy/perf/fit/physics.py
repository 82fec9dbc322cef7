"""Fits the efficiencies: what chips reach of their peaks, what engines add, how groups differ.

Robust least squares (Student's t) on the logarithms of TTFT and TPOT, by Levenberg-Marquardt. All
parameters are logarithms with a prior, so that what the data does not say stays where a datasheet
or a kernel table puts it. Derivatives of the physical ones are differences of the load test's
recurrence; those of the groups' offsets follow by the chain rule from one more difference.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from argosy.perf.case import Case
from argosy.perf.groups import general_of, groups_of, reached
from argosy.perf.load_test import LoadTests
from argosy.perf.roofline import Efficiency

Array = NDArray[np.float64]
ChipFactors = dict[str, dict[str, float]]
ENGINES = ("sglang", "trtllm", "vllm")
# Where the search starts, and the centre of the prior. Shares: what the kernel tables of H100 say
# (`kernel_tables`), lower where whole models are known to reach less.
_GENERAL = {
    "step_s": 1.5e-3,
    "layer_s": 4e-5,
    "expert_layer_s": 3e-5,
    "linear_compute": 0.75,
    "linear_memory": 0.85,
    "linear_half_tokens": 30.0,
    "expert_compute": 0.2,
    "expert_memory": 0.9,
    "expert_half_tokens": 100.0,
    "context_memory": 0.65,
    "context_compute": 0.5,
    "pair_compute": 0.55,
    "reduce_s": 5e-6,
    "link": 0.5,
    "exchange_s": 3e-5,
    "token_s": 1.5e-5,
    "token_s_until": 300.0,
}
_ENGINE = {"step_s": 1.0, "compute": 1.0, "token_s": 1.0, "ttft_s_fixed": 0.03}
_GENERAL_SD, _UNTIL_SD = 0.6, 1.0
_ENGINE_SD = {"step_s": 0.5, "compute": 0.4, "token_s": 0.5, "ttft_s_fixed": 1.0}
KINDS = ("engine", "chip", "model", "engine,chip", "dtype", "model,engine", "dp", "ep")
_OFFSET_SD, _TTFT_OFFSET_SD = 0.15, 0.2
_TTFT_SCALE, _TPOT_SCALE = 0.2, 0.08  # logarithmic errors of this size begin to count less
_FREEDOM = 3.0  # of Student's t
_DIFFERENCE, _STEP_MAX = 0.02, 0.5


class Physics(NamedTuple):
    """What was fitted."""

    general: dict[str, float]
    engines: dict[str, dict[str, float]]
    offsets: dict[str, dict[str, float]]  # on everything, logarithms
    offsets_ttft: dict[str, dict[str, float]]  # on TTFT besides
    chip_factors: ChipFactors  # given, from kernel tables

    def log_seconds(self, tests: LoadTests) -> Array:
        """Predicted log TTFT and log TPOT of the cases, seen before or not: (cases, 2)."""
        slow, later = _offsets(tests.cases, self.offsets), _offsets(tests.cases, self.offsets_ttft)
        efficiency, fixed = _reached(self, tests.cases, np.exp(slow))
        found = np.log(tests.seconds(efficiency, fixed))
        found[:, 0] += later
        return found


class _Layout(NamedTuple):
    """Where which parameter lies in the vector."""

    chip_factors: ChipFactors
    general: tuple[str, ...]
    engine: tuple[tuple[str, str], ...]
    groups: tuple[tuple[str, str], ...]  # kind, name; twice: on everything, on TTFT

    @property
    def physical(self) -> int:
        return len(self.general) + len(self.engine)


def fit_physics(
    cases: Sequence[Case],
    log_measured: Array,
    chip_factors: ChipFactors,
    *,
    steps: int = 7,
    say: Callable[[str], None] = lambda _: None,
) -> Physics:
    """The most likely parameters; `log_measured` is (cases, 2), TTFT and TPOT. 2 s per 100."""
    tests = LoadTests(list(cases))
    layout, member = _parameters(cases, chip_factors)
    centre, spread = _prior(layout)
    point, damping = centre.copy(), 1e-2
    predicted = _predict(tests, layout, member, point)
    cost = _cost(point, predicted, log_measured, centre, spread)
    for step in range(steps):
        slopes = _slopes(tests, layout, member, point)
        found = None
        while damping < 1e3:
            moved = point + _move(
                slopes, predicted - log_measured, (point - centre), spread, damping
            )
            there = _predict(tests, layout, member, moved)
            lower = _cost(moved, there, log_measured, centre, spread)
            if lower < cost:
                found = moved, there, lower
                break
            damping *= 5
        if found is None:
            break
        gain = cost - found[2]
        point, predicted, cost = found
        damping /= 3
        say(f"physics: step {step + 1} of {steps}, cost {cost:.0f}")
        if gain < 0.5:
            break
    return _named(layout, point)


def _parameters(cases: Sequence[Case], chip_factors: ChipFactors) -> tuple[_Layout, Array]:
    """The vector's layout and, of each case, which groups it is in: (cases, groups) of 0 and 1."""
    named = [groups_of(case.model, case.chip, case.decode.layout, case.engine) for case in cases]
    groups = tuple(sorted({(kind, one[kind]) for one in named for kind in KINDS}))
    member = np.array([[float(one[kind] == name) for kind, name in groups] for one in named])
    engine = tuple((name, part) for name in ENGINES for part in _ENGINE)
    return _Layout(chip_factors, tuple(_GENERAL), engine, groups), member


def _prior(layout: _Layout) -> tuple[Array, Array]:
    groups = len(layout.groups)
    centre = [*_GENERAL.values(), *(_ENGINE[part] for _, part in layout.engine)]
    spread = [_UNTIL_SD if name == "token_s_until" else _GENERAL_SD for name in layout.general]
    spread += [_ENGINE_SD[part] for _, part in layout.engine]
    spread += [_OFFSET_SD] * groups + [_TTFT_OFFSET_SD] * groups
    return np.concatenate([np.log(centre), np.zeros(2 * groups)]), np.array(spread)


def _named(layout: _Layout, point: Array) -> Physics:
    values = np.exp(point[: layout.physical])
    general = {name: float(value) for name, value in zip(layout.general, values, strict=False)}
    engines: dict[str, dict[str, float]] = {name: {} for name in ENGINES}
    for (name, part), value in zip(layout.engine, values[len(layout.general) :], strict=True):
        engines[name][part] = float(value)
    count = len(layout.groups)
    first = point[layout.physical : layout.physical + count]
    offsets, offsets_ttft = _by_kind(layout, first), _by_kind(layout, point[-count:])
    return Physics(general, engines, offsets, offsets_ttft, layout.chip_factors)


def _by_kind(layout: _Layout, values: Array) -> dict[str, dict[str, float]]:
    kinds: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for (kind, name), value in zip(layout.groups, values, strict=True):
        kinds[kind][name] = float(value)
    return kinds


def _predict(
    tests: LoadTests, layout: _Layout, member: Array, point: Array, slower: float = 0.0
) -> Array:
    count = len(layout.groups)
    slow = member @ point[layout.physical : layout.physical + count] + slower
    physics = _named(layout, point)
    efficiency, fixed = _reached(physics, tests.cases, np.exp(slow))
    found = np.log(tests.seconds(efficiency, fixed))
    found[:, 0] += member @ point[-count:]
    return found


def _slopes(tests: LoadTests, layout: _Layout, member: Array, point: Array) -> Array:
    """Of both logarithms by every parameter: (2, cases, parameters)."""
    here = _predict(tests, layout, member, point)
    count = len(layout.groups)
    slopes = np.zeros((2, len(tests.cases), len(point)))
    for place in range(layout.physical):
        moved = point.copy()
        moved[place] += _DIFFERENCE
        slopes[:, :, place] = (_predict(tests, layout, member, moved) - here).T / _DIFFERENCE
    slower = (_predict(tests, layout, member, point, _DIFFERENCE) - here).T / _DIFFERENCE
    slopes[:, :, layout.physical : layout.physical + count] = slower[:, :, None] * member[None]
    slopes[0, :, -count:] = member
    return slopes


def _cost(point: Array, predicted: Array, measured: Array, centre: Array, spread: Array) -> float:
    errors = (predicted - measured) / np.array([_TTFT_SCALE, _TPOT_SCALE])
    likely = (_FREEDOM + 1) * np.log1p(errors**2 / _FREEDOM) / 2
    return float(likely.sum() * 1.0 + 0.5 * (((point - centre) / spread) ** 2).sum())


def _move(slopes: Array, errors: Array, from_prior: Array, spread: Array, damping: float) -> Array:
    """One damped Gauss-Newton step; errors count by Student's weights."""
    scale = np.array([_TTFT_SCALE, _TPOT_SCALE])
    weights = (_FREEDOM + 1) / (_FREEDOM + (errors / scale) ** 2) / scale**2
    curvature = np.diag(1.0 / spread**2)
    gradient = from_prior / spread**2
    for side in range(2):
        weighted = weights[:, side, None] * slopes[side]
        curvature = curvature + slopes[side].T @ weighted
        gradient = gradient + weighted.T @ errors[:, side]
    damped = curvature + damping * np.diag(np.diag(curvature))
    step = np.linalg.solve(damped, gradient)
    return np.array(np.clip(-step, -_STEP_MAX, _STEP_MAX), dtype=np.float64)


def _reached(physics: Physics, cases: Sequence[Case], slowness: Array) -> tuple[Efficiency, Array]:
    """Each case's efficiency, and its engine's fixed share of TTFT."""
    factors = {
        part: np.array([physics.engines[case.engine][part] for case in cases]) for part in _ENGINE
    }
    chips = [case.chip.name for case in cases]
    general = general_of(physics.general, physics.chip_factors, chips)
    return reached(general, factors, slowness), factors["ttft_s_fixed"]


def _offsets(cases: Sequence[Case], offsets: dict[str, dict[str, float]]) -> Array:
    named = [groups_of(case.model, case.chip, case.decode.layout, case.engine) for case in cases]
    return np.array([sum(offsets[kind].get(one[kind], 0.0) for kind in KINDS) for one in named])
