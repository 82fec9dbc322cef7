"""Fits what physics leaves: the weights of measured cases, and their errors when left out.

Gaussian process regression with fixed kernels; a measurement that disagrees with all its
neighbours counts less (its noise grows as Student's t would have it). What a case's answer would
have been without its whole group follows from the inverse in closed form: no refit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from argosy.perf.case import Case
from argosy.perf.nearness import (
    OF_CASE,
    Columns,
    Kernel,
    Neighbours,
    features_of,
    kernel_matrix,
)

Array = NDArray[np.float64]
Groups = Sequence[NDArray[np.int64]]
_ROUNDS = 2
_FREEDOM = 3.0


class Side(NamedTuple):
    """TTFT or TPOT of one way of serving."""

    kernels: tuple[Kernel, ...]
    noise: float  # logarithmic, of one measurement


class Solved(NamedTuple):
    """One side's regression."""

    closeness: Array  # (cases, cases)
    inverse: Array
    weights: Array  # (cases,)


def solve(columns: Columns, residuals: Array, side: Side) -> Solved:
    """The regression on all cases. 1 s for 2,000."""
    closeness = kernel_matrix(columns, columns, side.kernels)
    noise = np.full(len(residuals), side.noise**2)
    inverse = _inverse(closeness, noise)
    for _ in range(_ROUNDS - 1):
        left = (residuals - closeness @ (inverse @ residuals)) / side.noise
        noise = side.noise**2 * (1.0 + left**2 / _FREEDOM)
        inverse = _inverse(closeness, noise)
    return Solved(closeness, inverse, inverse @ residuals)


def _inverse(closeness: Array, noise: Array) -> Array:
    return np.array(np.linalg.inv(closeness + np.diag(noise)), dtype=np.float64)


def errors_left_out(solved: Solved, residuals: Array, groups: Groups) -> Array:
    """Log answer - log measurement of each case, had its group never been measured."""
    weights = solved.inverse @ residuals
    errors = np.full(len(residuals), np.nan)
    for group in groups:
        own = solved.inverse[np.ix_(group, group)]
        errors[group] = -np.linalg.solve(own, weights[group])
    return errors


def neighbours_of(
    cases: Sequence[Case],
    sides: tuple[Side, Side],
    weights: tuple[Array, Array],
    errors: tuple[Array, Array],
) -> Neighbours:
    """As shipped: TTFT's side first. Figures rounded to what matters (1e-4)."""
    columns = features_of(cases)
    shared = [name for name in columns if name not in OF_CASE]
    keys = list(zip(*(columns[name] for name in shared), strict=True))
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    dates = sorted({case.measured for case in cases})
    return Neighbours(
        configurations={name: [key[at] for key in places] for at, name in enumerate(shared)},
        configuration=[places[key] for key in keys],
        clients=[case.clients for case in cases],
        dates=dates,
        date=[dates.index(case.measured) for case in cases],
        kernels_ttft=sides[0].kernels,
        kernels_tpot=sides[1].kernels,
        weights_ttft=_rounded(weights[0], 3),
        weights_tpot=_rounded(weights[1], 3),
        errors_ttft=_rounded(errors[0], 3),
        errors_tpot=_rounded(errors[1], 3),
    )


def _rounded(values: Array, digits: int) -> list[float]:
    return [round(float(value), digits) for value in values]
