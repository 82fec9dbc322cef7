"""From timed steps of a replica to a `StepTime`: non-negative, of least relative errors.

    seconds = linear(tokens) + context_s_per_token x contexts + pair_s x pairs

is fitted while the other replicas of the machine are idle; while they work, all is `slowdown`
times that. The shape is that of the fastest steps, for what disturbs one only ever adds; how long
they take is the mean over all that were timed. A rented core is often one of two hyperthreads of a
real one: on two of them the same step took once 1.0 and once 2.0 times a CPU time, seconds apart.

`linear` has a knot at each batch of decodes alone and a few beyond, where prompts are read:
between a step that decodes and one that reads, engines change their kernels. NumPy alone.
"""

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from argosy.perf.calibration import Interval
from argosy.perf.local import Residuals
from argosy.perf.step_time import StepTime

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
_PROMPT_KNOTS = (48.0, 128.0, 1024.0)  # tokens of a step that reads
_ROUNDS = 10  # of reweighting
_ERROR_MIN = 0.01  # relative: what is nearer counts no more than this
_PIVOTS_MAX = 200


class StepSample(msgspec.Struct, frozen=True, kw_only=True):
    """One measured step, or the mean of like steps one after the other."""

    tokens: float  # computed in it: one for each request that decodes, and the prompt's
    contexts: float  # of the requests that decode, summed
    pairs: float  # over the prompt tokens, of the tokens that each attends to
    seconds: float
    is_busy: bool  # whether the other replicas worked meanwhile


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """What the samples say."""

    step_time: StepTime
    pace: float  # that is in it: mean seconds over those of the fastest
    slowdown: float
    interval: Interval
    residuals: Residuals


class TooFewSamplesError(ValueError):
    """Samples that no StepTime follows from."""


def fit(fastest: Sequence[StepSample], every: Sequence[StepSample] = ()) -> Fitted:
    """`fastest`: of each step one sample, or some; `every`: all, where their mean says the pace.

    Raises TooFewSamplesError without both decoding and reading steps while others idle.
    """
    alone = [one for one in fastest if not one.is_busy]
    knots = _knots(alone)
    found = _least_absolute(_design(_table(alone), knots), _table(alone)[:, 3])
    table = _table(every or fastest)
    is_busy = np.array([one.is_busy for one in every or fastest])
    predicted_s = _design(table, knots) @ found
    pace = _mean_ratio(table[~is_busy, 3], predicted_s[~is_busy]) if every else 1.0
    predicted_s *= pace
    slowdown = 1.0
    if is_busy.any():
        slowdown = max(1.0, _mean_ratio(table[is_busy, 3], predicted_s[is_busy]))
        predicted_s[is_busy] *= slowdown
    return Fitted(
        step_time=_step_time(knots, found * pace),
        pace=pace,
        slowdown=slowdown,
        interval=_interval(table, predicted_s),
        residuals=_residuals(_table(alone)[:, 3], _design(_table(alone), knots) @ found),
    )


def _mean_ratio(seconds: Array, predicted_s: Array) -> float:
    """Over the time that they took: long steps count for more."""
    return float(seconds.sum() / predicted_s.sum())


def _table(samples: Sequence[StepSample]) -> Array:
    return np.array([[one.tokens, one.contexts, one.pairs, one.seconds] for one in samples])


def _least_absolute(design: Array, seconds: Array) -> Array:
    """The fit of least absolute relative errors: a pause of the machine moves a mean, not this.

    Relative, so that a tenth too much means the same for a short step as for a long one.
    """
    matrix, ones = design / seconds[:, None], np.ones(seconds.size)
    weights = ones
    found = np.zeros(design.shape[1])
    for _ in range(_ROUNDS):
        found = non_negative_least_squares(matrix * weights[:, None], weights)
        weights = 1.0 / np.sqrt(np.maximum(np.abs(matrix @ found - 1.0), _ERROR_MIN))
    return found


def _knots(samples: Sequence[StepSample]) -> Array:
    decoding = sorted({one.tokens for one in samples if one.contexts > 0 and one.pairs == 0})
    reading = sorted({one.tokens for one in samples if one.pairs > 0})
    if not decoding or len(reading) < 2:
        raise TooFewSamplesError(
            f"{len(decoding)} sizes of decoding steps and {len(reading)} of reading ones were "
            "measured; a fit takes one of the first and two of the second"
        )
    first = max(reading[0], decoding[-1] + 1)
    beyond = [knot for knot in _PROMPT_KNOTS if first * 1.25 < knot]
    return np.array([1.0, *(one for one in decoding if one > 1), first, *beyond])


def _design(table: Array, knots: Array) -> Array:
    """Columns: the step of one token, the slope of each stretch, contexts, pairs."""
    tokens = table[:, :1]
    widths = np.diff(knots)
    widths[-1] = np.inf  # beyond the last knot its slope goes on
    along = np.clip(tokens - knots[:-1], 0.0, widths)
    return np.hstack([np.ones_like(tokens), along, table[:, 1:3]])


def _step_time(knots: Array, found: Array) -> StepTime:
    rises = np.diff(knots) * found[1 : len(knots)]
    seconds = found[0] + np.concatenate([[0.0], np.cumsum(rises)])
    return StepTime(
        knots_tokens=tuple(float(one) for one in knots),
        knots_s=tuple(float(one) for one in seconds),
        context_s_per_token=float(found[-2]),
        pair_s=float(found[-1]),
    )


def _residuals(seconds: Array, predicted_s: Array) -> Residuals:
    errors = np.abs(predicted_s / seconds - 1.0)
    return Residuals(
        points=seconds.size,
        median=float(np.median(errors)),
        p90=float(np.quantile(errors, 0.9)),
    )


def _interval(table: Array, predicted_s: Array) -> Interval:
    """Four of five measured steps lie within; those that decode are TPOT's, the others TTFT's."""
    ratios = table[:, 3] / predicted_s
    is_reading = table[:, 2] > 0
    decode, read = (np.quantile(ratios[part], (0.1, 0.9)) for part in (~is_reading, is_reading))
    return Interval(
        tpot_low=min(1.0, float(decode[0])),
        tpot_high=max(1.0, float(decode[1])),
        ttft_low=min(1.0, float(read[0])),
        ttft_high=max(1.0, float(read[1])),
    )


def non_negative_least_squares(matrix: Array, wanted: Array) -> Array:
    """X >= 0 of the least |matrix x - wanted| (Lawson and Hanson 1974, chapter 23)."""
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0.0] = 1.0
    matrix = matrix / scale
    found = np.zeros(matrix.shape[1])
    is_free = np.zeros(matrix.shape[1], bool)
    tolerance = 1e-10 * max(1.0, float(np.abs(matrix.T @ wanted).max()))
    for _ in range(_PIVOTS_MAX):
        gain = matrix.T @ (wanted - matrix @ found)
        gain[is_free] = -np.inf
        if gain.max() <= tolerance:
            break
        is_free[int(gain.argmax())] = True
        found = _free_of_negatives(matrix, wanted, found, is_free)
    return found / scale


def _free_of_negatives(matrix: Array, wanted: Array, found: Array, is_free: Mask) -> Array:
    """The least squares over the free columns; those that it makes negative are held at 0."""
    while True:
        trial = np.zeros_like(found)
        trial[is_free] = np.linalg.lstsq(matrix[:, is_free], wanted, rcond=None)[0]
        negative = is_free & (trial <= 0.0)
        if not negative.any():
            return trial
        step = float((found[negative] / (found[negative] - trial[negative])).min())
        found = found + step * (trial - found)
        is_free &= found > 1e-14
