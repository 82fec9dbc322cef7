"""When requests come: rates that change over time, and how bursty arrivals are around them.

A rate is straight lines between knots, so both it and its integral have exact inverses: arrivals
are drawn at a rate of 1 and carried to the time at which the rate's integral reaches them.
"""

import math
from collections.abc import Iterator
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from argosy.simulator.traces.window import TraceError

DAY_S = 86_400.0
HOUR_S = 3_600.0
_Rate = Annotated[float, Meta(ge=0.0)]
_Seconds = Annotated[float, Meta(ge=0.0)]


class Diurnal(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="shape",
    tag="diurnal",
    forbid_unknown_fields=True,
):
    """A day that repeats. Each rate holds in the middle of its hour, straight lines lie between.

    The requests of a day are those of 24 hours at these rates.
    """

    requests_per_s: Annotated[tuple[_Rate, ...], Meta(min_length=24, max_length=24)]  # 0h..23h
    utc_offset_hours: Annotated[float, Meta(ge=-12.0, le=14.0)] = 0.0  # of the clock it is told in


class Spike(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    tag_field="shape",
    tag="spike",
    forbid_unknown_fields=True,
):
    """A base rate that climbs to a peak, stays there, and falls back as it climbed."""

    base_requests_per_s: _Rate
    peak_requests_per_s: _Rate
    at_s: _Seconds  # the climb begins
    ramp_s: _Seconds = 0.0  # it takes so long, and so does the fall
    hold_s: _Seconds  # at the peak


Rate = float | Diurnal | Spike


class Curve:
    """A rate over time, and the number of requests expected until any moment."""

    def __init__(self, rate: Rate, *, shifted_s: float = 0.0, times: float = 1.0) -> None:
        """The rate `times` over, from `shifted_s` on (below 0: as it was before it began)."""
        times_s, rates, self.period_s = _knots(rate)
        rates = [value * times for value in rates]
        if self.period_s is None and shifted_s < 0:  # what came before is as it was at first
            times_s = [0.0, *(time_s - shifted_s for time_s in times_s)]
            rates, shifted_s = [rates[0], *rates], 0.0
        self._shift_s = shifted_s
        self._times_s = np.array(times_s)
        self._rates = np.array(rates)
        if not (np.isfinite(self._rates).all() and (self._rates >= 0).all()):
            raise TraceError(f"requests per second are {rates}; finite numbers >= 0 would do")
        widths = np.diff(self._times_s)
        areas = widths * (self._rates[1:] + self._rates[:-1]) / 2
        self._expected = np.concatenate([[0.0], np.cumsum(areas)])
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = np.diff(self._rates) / widths
        self._slopes = np.concatenate([np.where(widths > 0, slopes, 0.0), [0.0]])
        self._origin = self._expected_at(shifted_s)

    @property
    def requests_per_s_mean(self) -> float:
        """Of a day, or of the last knot on where nothing repeats."""
        if self.period_s is None:
            return float(self._rates[-1])
        return float(self._expected[-1]) / self.period_s

    @property
    def is_silent(self) -> bool:
        """Nobody ever comes."""
        return not self._rates.any()

    def times_s(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """When so many requests are expected to have come; inf where it never is."""
        counts = counts + self._origin
        whole_s = np.zeros(1)
        if self.period_s is not None:
            days = np.floor(counts / self._expected[-1])
            counts = counts - days * self._expected[-1]
            whole_s = days * self.period_s
        knot = np.searchsorted(self._expected, counts, "right") - 1
        if self.period_s is not None:
            knot = np.minimum(knot, self._times_s.size - 2)
        over = np.maximum(counts - self._expected[knot], 0.0)
        rate, slope = self._rates[knot], self._slopes[knot]
        # Where the line crosses: 2a / (r + sqrt(r^2 + 2sa)), which holds for s = 0 and r = 0 too.
        root = rate + np.sqrt(np.maximum(rate * rate + 2 * slope * over, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            after_s = np.where(over > 0, 2 * over / root, 0.0)
        return whole_s + self._times_s[knot] + after_s - self._shift_s

    def _expected_at(self, time_s: float) -> float:
        days, time_s = divmod(time_s, self.period_s) if self.period_s else (0.0, time_s)
        knot = int(np.searchsorted(self._times_s, time_s, "right")) - 1
        after_s = time_s - float(self._times_s[knot])
        rate = float(self._rates[knot]) + float(self._slopes[knot]) * after_s / 2
        return days * float(self._expected[-1]) + float(self._expected[knot]) + rate * after_s


def _knots(rate: Rate) -> tuple[list[float], list[float], float | None]:
    """Seconds, requests per second, and after how many seconds it all repeats."""
    match rate:
        case Diurnal(requests_per_s=hourly, utc_offset_hours=offset):
            if len(hourly) != 24:
                raise TraceError(f"{len(hourly)} hourly rates; a day has 24")
            # Knots in UTC, from 0h to 24h, the value there between its neighbours'.
            middles = sorted(((hour + 0.5 - offset) % 24.0, hourly[hour]) for hour in range(24))
            (first, at_first), (last, at_last) = middles[0], middles[-1]
            share = first / (first + 24.0 - last)
            edge = at_first + (at_last - at_first) * share
            times = [0.0, *(hour * HOUR_S for hour, _ in middles), DAY_S]
            return times, [edge, *(value for _, value in middles), edge], DAY_S
        case Spike(base_requests_per_s=base, peak_requests_per_s=peak):
            rise = max(rate.ramp_s, 1e-9)  # a step is a ramp too short to see
            times = [0.0, rise, rise + rate.hold_s, 2 * rise + rate.hold_s]
            climb = [rate.at_s + time for time in times]
            return [0.0, *climb], [base, base, peak, peak, base], None
        case _:
            return [0.0], [float(rate)], None


def arrivals_s(
    curve: Curve, *, cv: float, chance: np.random.Generator, chunk: int
) -> Iterator[NDArray[np.float64]]:
    """Arrival times from 0 on, `chunk` at a time, without an end unless the rate stays 0.

    Gaps are exponential (cv = 1: a Poisson process) or Gamma with that coefficient of variation,
    and the process is stationary: it was running before time 0.
    """
    if curve.is_silent:
        return
    count, last_s = first_gap(chance, cv), 0.0
    while True:
        counts = np.cumsum(_gaps(chance, cv, chunk))
        counts += count
        count, counts = float(counts[-1]), np.concatenate([[count], counts[:-1]])
        with np.errstate(over="ignore"):
            times_s = curve.times_s(counts)
        ends = int(np.searchsorted(times_s, math.inf))
        np.maximum(times_s, last_s, out=times_s)  # rounding may put a knot's sides out of order
        times_s = np.maximum.accumulate(times_s)[:ends]
        if ends:
            last_s = float(times_s[-1])
            yield times_s
        if ends < chunk:
            return


def first_gap(chance: np.random.Generator, cv: float) -> float:
    """From a moment that knows nothing to the next arrival, at a rate of 1.

    A gap that one falls into is longer than most: for a Gamma of shape k, a Gamma of shape k + 1.
    """
    if cv == 0.0:
        return float(chance.random())
    shape = 1.0 / (cv * cv)
    return float(chance.random() * chance.standard_gamma(shape + 1.0) / shape)


def _gaps(chance: np.random.Generator, cv: float, count: int) -> NDArray[np.float64]:
    if cv == 0.0:
        return np.ones(count)
    if cv == 1.0:
        return chance.standard_exponential(count)
    return chance.standard_gamma(1.0 / (cv * cv), count) * (cv * cv)
