"""Laws of a typical day: every hour is planned once, for the work of all but a few of its steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.planner.framing.typical import ROWS_MAX, Course, Row, Sample, typical_day

SHARE = 0.9
STEPS_OF_HOUR = 4


@st.composite
def courses(draw: st.DrawFn) -> tuple[Course, Sample]:
    """A few days, without chance in what is asked for."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    days = draw(st.integers(1, 4))
    spread = draw(st.sampled_from([0.0, 0.05, 0.5, 2.0]))
    hour = np.repeat(np.arange(24 * days), STEPS_OF_HOUR)
    usual = rng.lognormal(5, spread, (2, 24))[:, hour % 24]
    requests = rng.lognormal(4, 1, hour.size)
    prompt, output = requests * usual * rng.lognormal(0, spread / 4, (2, hour.size))
    course = Course(
        hour=hour,
        seconds=np.full(hour.size, 900.0),
        requests=requests,
        prompt_tokens=prompt,
        output_tokens=output,
        squares=np.zeros(hour.size),
    )
    lengths = np.maximum(1, rng.lognormal(5, 1, (2, hour.size))).astype(np.int32)
    return course, Sample(hour, *lengths)


def work_planned(rows: tuple[Row, ...], hour: int) -> float:
    return sum(
        row.requests_per_s
        * (row.hourly[hour] if row.hourly else 1.0)
        * (row.prompt_tokens.mean + row.output_tokens.mean)
        for row in rows
    )


@settings(max_examples=20, deadline=None)
@given(courses())
def test_each_hour_is_planned_in_one_row(asked):
    rows = typical_day(*asked, share=SHARE)
    assert 1 <= len(rows) <= ROWS_MAX
    for hour in range(24):
        assert sum(not row.hourly or row.hourly[hour] > 0 for row in rows) == 1


@settings(max_examples=20, deadline=None)
@given(courses())
def test_an_hours_work_is_exceeded_in_no_more_of_its_steps_than_is_said(asked):
    course, sample = asked
    rows = typical_day(course, sample, share=SHARE)
    work = (course.prompt_tokens + course.output_tokens) / course.seconds
    for hour in range(24):
        steps = work[course.hour % 24 == hour]
        planned = work_planned(rows, hour)
        assert np.mean(steps > planned * (1 + 1e-9)) <= 1 - SHARE + 1e-9
        assert planned <= steps.max() * (1 + 1e-9)


@settings(max_examples=20, deadline=None)
@given(courses(), st.floats(0.1, 10.0))
def test_so_many_times_the_requests_are_so_many_times_the_rates(asked, times):
    course, sample = asked
    more = Course(
        hour=course.hour,
        seconds=course.seconds / times,
        requests=course.requests,
        prompt_tokens=course.prompt_tokens,
        output_tokens=course.output_tokens,
        squares=course.squares,
    )
    before = typical_day(course, sample, share=SHARE)
    after = typical_day(more, sample, share=SHARE)
    assert [row.requests_per_s for row in after] == pytest.approx(
        [times * row.requests_per_s for row in before]
    )
    assert [row.prompt_tokens for row in after] == [row.prompt_tokens for row in before]
