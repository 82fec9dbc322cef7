"""The horizon of a plan: its periods, how demand grows over them, and what holds in which.

A year is one period; a contract or a deadline that begins or ends inside cuts it, so that all holds
over whole periods. Demand of a period is that of its middle.
"""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from itertools import pairwise

from argosy.fleet.demand import HOURS
from argosy.planner.problem import Period, Slot

DAYS_OF_YEAR = 365.25


def years_after(begin: date, years: int) -> date:
    """The same day so many years later; of a 29 February, the 28th where there is none."""
    try:
        return begin.replace(year=begin.year + years)
    except ValueError:
        return begin.replace(year=begin.year + years, day=28)


def periods_of(begin: date, years: int, cuts: Iterable[date]) -> tuple[Period, ...]:
    """From `begin` on, year by year, cut at these days as well."""
    end = years_after(begin, years)
    edges = {years_after(begin, year) for year in range(years + 1)}
    edges |= {cut for cut in cuts if begin < cut < end}
    days = sorted(edges)
    return tuple(
        Period(name=_name(first, last), begin=first.isoformat(), days=float((last - first).days))
        for first, last in pairwise(days)
    )


def _name(first: date, last: date) -> str:
    """2027; 2027-04 to 2027-09; with days where it begins or ends inside a month."""
    final = last - timedelta(days=1)
    if (first.month, first.day, final.month, final.day) == (1, 1, 12, 31):
        return str(first.year) if first.year == final.year else f"{first.year} to {final.year}"
    if first.day == last.day == 1:
        months = f"{first:%Y-%m}", f"{final:%Y-%m}"
        return months[0] if months[0] == months[1] else f"{months[0]} to {months[1]}"
    return f"{first} to {final}"


def slots_of(periods: Sequence[Period]) -> tuple[Slot, ...]:
    """The hours of each period's typical day."""
    return tuple(
        Slot(period=place, hour=hour, hours=period.days)
        for place, period in enumerate(periods)
        for hour in range(HOURS)
    )


def growth_of(periods: Sequence[Period], growth_per_year: float) -> tuple[float, ...]:
    """By how much demand has grown in the middle of each period, from the plan's first day."""
    begin = date.fromisoformat(periods[0].begin)
    return tuple(
        growth_per_year
        ** (((date.fromisoformat(period.begin) - begin).days + period.days / 2) / DAYS_OF_YEAR)
        for period in periods
    )


def periods_between(
    periods: Sequence[Period], begin: date | None, until: date | None
) -> tuple[int, ...]:
    """Places of the periods that lie wholly in [begin, until)."""
    return tuple(
        place
        for place, period in enumerate(periods)
        if (begin is None or date.fromisoformat(period.begin) >= begin)
        and (until is None or _end(period) <= until)
    )


def _end(period: Period) -> date:
    return date.fromisoformat(period.begin) + timedelta(days=period.days)
