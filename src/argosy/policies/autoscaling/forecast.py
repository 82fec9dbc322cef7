"""How much load a model will have when a replica that is asked for now is ready.

Four ways of looking ahead: the mean of the last minutes, of the last quarter of an hour, their
line, and how the load went on from this time on earlier days. Which one is believed is decided by
how each did of late, at that very horizon and for the quantile that is asked for; to its forecast
comes the quantile of the errors that it made.

Pure Python: some hundred additions a tick. What is done about it is `rule.py`'s.
"""

from collections.abc import Sequence

import msgspec

DAY_S = 86_400.0
WEEK_DAYS = 7
LEVEL_STEPS = 3  # that are the level
SLOW_STEPS = 15
LINE_STEPS = 10  # that a line is drawn through
AHEAD_STEPS_MAX = 8  # lines do not go on for longer
SEASON_STEPS = 7  # to each side: so long may it be early or late
RATIO_MAX = 4.0  # from one time of the day to another within a horizon
KNOWN_STEPS = SLOW_STEPS  # before these a forecast is not held against anybody
FLOOR = 0.5  # replicas; errors of smaller forecasts are counted as of this
PRIOR_ERRORS = (-0.3, -0.15, 0.0, 0.15, 0.3)  # each so often as if it had been seen
PRIOR_WEIGHT = 2
BETTER = 0.95  # of the loss of the way that is believed: another one is believed from there

Points = tuple[float, float, float, float]  # fast, slow, line, season
WAYS = ("the last minutes", "the last quarter of an hour", "their line", "earlier days")


class Loads(msgspec.Struct, frozen=True, kw_only=True):
    """Load in replicas by step, the oldest first."""

    step_s: float
    until_s: float
    values: tuple[float, ...]


def points(loads: Loads, *, at_step: int, ahead_steps: int) -> Points:
    """The load `ahead_steps` after the first `at_step` steps, from these alone, in each way."""
    values = loads.values
    fast = mean(values, at_step - LEVEL_STEPS, at_step)
    slow = mean(values, at_step - SLOW_STEPS, at_step)
    ratio = _season_ratio(loads, at_step, ahead_steps)
    line = _line(values, at_step, min(ahead_steps, AHEAD_STEPS_MAX))
    return fast, slow, line, fast if ratio is None else fast * ratio


def _line(values: Sequence[float], at_step: int, ahead_steps: int) -> float:
    """The least-squares line through the last steps, so far ahead; never below 0."""
    late = values[max(0, at_step - LINE_STEPS) : at_step]
    count = len(late)
    if count < 3:
        return mean(values, at_step - LEVEL_STEPS, at_step)
    middle = (count - 1) / 2
    slope = sum((place - middle) * value for place, value in enumerate(late))
    slope /= count * (count * count - 1) / 12
    return max(0.0, sum(late) / count + slope * (middle + ahead_steps))


def mean(values: Sequence[float], begin: int, end: int) -> float:
    """Of [begin, end), what is there of it; 0 of nothing."""
    begin, end = max(0, begin), min(len(values), end)
    return sum(values[begin:end]) / (end - begin) if end > begin else 0.0


def _season_ratio(loads: Loads, at_step: int, ahead_steps: int) -> float | None:
    """How the load went on from this time of the day: the median of earlier days, or of weeks."""
    day = round(DAY_S / loads.step_s)
    weekly = _ratios(loads, at_step, ahead_steps, WEEK_DAYS * day)
    found = weekly or _ratios(loads, at_step, ahead_steps, day)
    if not found:
        return None
    found.sort()
    middle = len(found) // 2
    ratio = found[middle] if len(found) % 2 else 0.5 * (found[middle - 1] + found[middle])
    return min(RATIO_MAX, max(1.0 / RATIO_MAX, ratio))


def _ratios(loads: Loads, at_step: int, ahead_steps: int, period: int) -> list[float]:
    values, found = loads.values, list[float]()
    back = period
    while (now := at_step - back) >= SEASON_STEPS and len(found) < WEEK_DAYS:
        until = min(now + ahead_steps + SEASON_STEPS, at_step)
        was = mean(values, now - SEASON_STEPS, now + SEASON_STEPS)
        then = mean(values, now + ahead_steps - SEASON_STEPS, until)
        # Of next to nothing, any ratio can come: it is drawn to 1.
        found.append((then + 0.1 * FLOOR) / (was + 0.1 * FLOOR))
        back += period
    return found


def read_of(loads: Loads, *, ahead_steps: int, late_steps: int) -> Loads:
    """The same, 0 where `points` at the end of it does not look: it says the same there."""
    values, steps = loads.values, len(loads.values)
    day = round(DAY_S / loads.step_s)
    kept = [0.0] * steps
    late_steps = max(late_steps, SLOW_STEPS, LINE_STEPS, LEVEL_STEPS)
    begins = [steps - days * day - SEASON_STEPS for days in range(1, WEEK_DAYS * WEEK_DAYS + 1)]
    width = 2 * SEASON_STEPS + ahead_steps
    spans = [(begin, begin + width) for begin in begins if begin >= 0]
    for begin, end in (*spans, (max(0, steps - late_steps), steps)):
        kept[begin:end] = values[begin:end]
    return Loads(step_s=loads.step_s, until_s=loads.until_s, values=tuple(kept))


def error(*, forecast: float, actual: float) -> float:
    """How much more came than was forecast, as a share of the forecast."""
    return (actual - forecast) / max(forecast, FLOOR)


def with_error(forecast: float, share: float) -> float:
    """What comes if the forecast errs by so much."""
    return max(0.0, forecast + share * max(forecast, FLOOR))


def quantile_of(errors: Sequence[float], quantile: float) -> float:
    """Of the errors seen, and of those that are assumed until there are many."""
    assumed = PRIOR_WEIGHT * PRIOR_ERRORS if len(errors) < 10 * PRIOR_WEIGHT else ()
    known = sorted([*errors, *assumed])
    place = quantile * (len(known) - 1)
    below = int(place)
    above = min(below + 1, len(known) - 1)
    return known[below] + (place - below) * (known[above] - known[below])


def errors_of(made: Sequence[Points], came: Sequence[float], way: int) -> list[float]:
    """Of one way's forecasts, each for the load at its place."""
    pairs = zip(made, came, strict=True)
    return [error(forecast=points_[way], actual=load) for points_, load in pairs]


def believed(made: Sequence[Points], came: Sequence[float], quantile: float, now: int) -> int:
    """The way that did best: the least pinball loss of its quantile; `now` unless one is better."""
    if len(made) < 10 * PRIOR_WEIGHT:
        return now
    losses = [_loss(made, came, quantile, way) for way in range(len(WAYS))]
    best = min(range(len(WAYS)), key=losses.__getitem__)
    return best if losses[best] < BETTER * losses[now] else now


def _loss(made: Sequence[Points], came: Sequence[float], quantile: float, way: int) -> float:
    share = quantile_of(errors_of(made, came, way), quantile)
    loss = 0.0
    for points_, load in zip(made, came, strict=True):
        short = load - with_error(points_[way], share)
        loss += quantile * short if short > 0 else (quantile - 1.0) * short
    return loss / len(made)
