"""The typical day of one kind of requests: rates by the hour, and lengths where these differ.

An hour is planned as its busy moments are. A recording is cut into steps (minutes, or what the
recording has), work is counted in tokens, and an hour's rate is what asks for the work that all but
a few of its steps stay below, over all days: neither the mean of an hour nor its number of requests
would do, for lengths change by the day as well. A plan has lengths by the row: hours whose requests
are unlike others' become a row of their own, without requests in the hours of the others.

What chance alone does to a step is taken off: the rates of replicas have it already. Whose work
may wait needs room for an hour's mean only.
"""

from dataclasses import dataclass
from itertools import combinations
from math import log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from argosy.fleet.demand import HOURS, Lengths
from argosy.simulator.traces.lengths import P95_OVER_MEAN_MAX

ROWS_MAX = 3  # of a kind: rates are measured for the lengths of each
APART = 0.15  # of work: by less than this, hours share a row
HOUR_S = 3600.0
_DEVIATIONS = 3.0  # by which what is seen differs by chance
_P95_CUT = 0.99  # of what a lognormal can have
_FEW = 200  # requests, too few for a 95th percentile of their own
_NEXT_TO_NOTHING = 1e-9  # requests/s of a kind that is there and asks for none


@dataclass(frozen=True, kw_only=True)
class Course:
    """How it went, step by step; an array has one value for each step."""

    hour: NDArray[np.int64]  # since second 0, which was midnight
    seconds: NDArray[np.float64]  # recorded of the step
    requests: NDArray[np.float64]  # that came, or are expected
    prompt_tokens: NDArray[np.float64]  # of all of them
    output_tokens: NDArray[np.float64]
    squares: NDArray[np.float64]  # of each request's tokens, summed: variance by chance; 0: none


class Sample(NamedTuple):
    """Some requests of it."""

    hour: NDArray[np.int64]
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]


class Row(NamedTuple):
    """Hours of the day with alike lengths."""

    requests_per_s: float  # on average over the day
    hourly: tuple[float, ...]  # 24 factors, () where all are alike
    prompt_tokens: Lengths
    output_tokens: Lengths


@dataclass(frozen=True)
class _Hours:
    """Of the day, and their requests: sums by which two such can be joined."""

    of_day: tuple[int, ...]
    requests: float
    prompt: float
    output: float
    squares: float

    @property
    def tokens(self) -> float:
        return self.prompt + self.output

    def __add__(self, other: "_Hours") -> "_Hours":
        return _Hours(
            self.of_day + other.of_day,
            self.requests + other.requests,
            self.prompt + other.prompt,
            self.output + other.output,
            self.squares + other.squares,
        )


def typical_day(
    course: Course, sample: Sample, *, share: float, may_wait: bool = False
) -> tuple[Row, ...]:
    """Its rows, by their first hour; an hour that was never recorded is like the others' mean.

    `share` is that of an hour's steps, over all days, in which no more is asked than is planned.
    """
    work = np.full(HOURS, np.nan)
    of_day = course.hour % HOURS
    for hour in np.unique(of_day):
        work[hour] = _work(_part(course, of_day == hour), share=share, may_wait=may_wait)
    groups = _alike([_hours(course, of_day, int(hour)) for hour in np.unique(of_day)])
    work[np.isnan(work)] = np.nanmean(work)
    known = {hour for group in groups for hour in group.of_day}
    largest = max(range(len(groups)), key=lambda place: len(groups[place].of_day))
    rows: list[tuple[int, Row]] = []
    for place, group in enumerate(groups):
        unknown = set(range(HOURS)) - known if place == largest else set[int]()
        hours = sorted({*group.of_day} | unknown)
        rows.append((hours[0], _row(group, hours, work, sample)))
    return tuple(row for _, row in sorted(rows, key=lambda pair: pair[0]))


def _part(course: Course, rows: NDArray[np.bool_]) -> Course:
    return Course(
        hour=course.hour[rows],
        seconds=course.seconds[rows],
        requests=course.requests[rows],
        prompt_tokens=course.prompt_tokens[rows],
        output_tokens=course.output_tokens[rows],
        squares=course.squares[rows],
    )


def _work(course: Course, *, share: float, may_wait: bool) -> float:
    """Tokens per second of an hour of the day, as on all but a few of its steps."""
    tokens = course.prompt_tokens + course.output_tokens
    _, at = np.unique(course.hour, return_inverse=True)  # which day's
    usual = (np.bincount(at, tokens) / np.bincount(at, course.seconds))[at]
    beyond = tokens / course.seconds - usual
    seen = float(np.mean(beyond**2))
    chance = float(np.mean(course.squares / course.seconds**2))
    sure = 1.0 + _DEVIATIONS * sqrt(2.0 / beyond.size)  # of a variance by chance
    if may_wait or seen <= chance * sure:
        return float(np.quantile(usual, share, method="higher"))
    busy = usual + sqrt(1.0 - chance / seen) * beyond
    return max(0.0, float(np.quantile(busy, share, method="higher")))


def _hours(course: Course, of_day: NDArray[np.int64], hour: int) -> _Hours:
    rows = of_day == hour
    return _Hours(
        (hour,),
        float(course.requests[rows].sum()),
        float(course.prompt_tokens[rows].sum()),
        float(course.output_tokens[rows].sum()),
        float(course.squares[rows].sum()),
    )


def _alike(groups: list[_Hours]) -> list[_Hours]:
    """Joined until no two are alike and there are few, those first that it matters least for."""
    while len(groups) > 1:
        pairs = list(combinations(range(len(groups)), 2))
        apart = {(a, b): _apart(groups[a], groups[b]) for a, b in pairs}
        alike = [pair for pair in pairs if apart[pair] <= APART]
        if not alike and len(groups) <= ROWS_MAX:
            break

        lost = {(a, b): _lost(groups[a].tokens, groups[b].tokens, apart[a, b]) for a, b in pairs}
        a, b = min(alike or pairs, key=lambda pair, lost=lost: lost[pair])
        joined = groups[a] + groups[b]
        groups = [group for at, group in enumerate(groups) if at not in (a, b)]
        groups.append(joined)
    return groups


def _lost(tokens: float, others: float, apart: float) -> float:
    """Of what is known of the two's lengths, when they share one (Ward 1963)."""
    return tokens * others / max(tokens + others, 1e-9) * apart**2


def _apart(one: _Hours, other: _Hours) -> float:
    """By how much of its work a request differs, each kind of token by its share in the work."""
    if not (one.requests and other.requests):
        return 0.0
    total = one.tokens + other.tokens
    apart = 0.0
    for mine, its in ((one.prompt, other.prompt), (one.output, other.output)):
        ratio = (mine / one.requests) / (its / other.requests) if mine and its else 1.0
        apart += (mine + its) / total * abs(log(ratio))
    chance = sqrt(one.squares / one.tokens**2 + other.squares / other.tokens**2)
    return max(0.0, apart - _DEVIATIONS * chance)


def _row(group: _Hours, hours: list[int], work: NDArray[np.float64], sample: Sample) -> Row:
    each = group.tokens / group.requests if group.requests else 1.0
    day = [float(work[hour]) / each if hour in hours else 0.0 for hour in range(HOURS)]
    mean = sum(day) / HOURS
    is_even = mean == 0.0 or min(day) == max(day)
    prompt, output = (
        _lengths(drawn, tokens / max(group.requests, 1.0))
        for drawn, tokens in zip(_drawn(sample, group), (group.prompt, group.output), strict=True)
    )
    return Row(
        requests_per_s=max(mean, _NEXT_TO_NOTHING),
        hourly=() if is_even else tuple(rate / mean for rate in day),
        prompt_tokens=prompt,
        output_tokens=output,
    )


def _drawn(sample: Sample, group: _Hours) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Of these hours, or of all where they have too few."""
    own = np.isin(sample.hour % HOURS, group.of_day)
    if own.sum() < min(_FEW, own.size):
        own[:] = True
    return sample.prompt_tokens[own], sample.output_tokens[own]


def _lengths(tokens: NDArray[np.int32], mean: float) -> Lengths:
    """As long a tail as drawn, for that mean; of one that no lognormal has the mean is kept."""
    over = float(np.quantile(tokens, 0.95)) / float(np.mean(tokens))
    return Lengths(mean=mean, p95=min(max(over, 1.0), _P95_CUT * P95_OVER_MEAN_MAX) * mean)
