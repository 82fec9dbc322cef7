"""Whatever gateways tell and when: every request that was counted is in one step, none twice."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.control.scaling.demands import STEP_S, WHAT, Demands, spread
from argosy.control.scaling.signals import Signals
from argosy.fleet.messages import Usage
from argosy.gateway.arrivals import Arrivals
from argosy.observability.counts import Asked
from argosy.simulator.seen import Seen

heard = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]),  # which gateway
        st.floats(0.01, 45.0),  # seconds since it was last heard
        st.integers(0, 500),  # requests since
        st.booleans(),  # is it whole
        st.sampled_from([False, False, False, True]),  # was it begun anew
    ),
    min_size=1,
    max_size=30,
)


def asked(requests: int) -> Asked:
    return Asked(requests=requests, batch_requests=2 * requests, answered=3 * requests,
                 output_tokens=7 * requests, prompt_bytes=4 * requests)  # fmt: skip


def steps_of(demands: Demands) -> dict[str, int]:
    """The sums of all minutes that are kept, and of the steps after them."""
    kept, sums = demands.save(), dict.fromkeys(WHAT, 0)
    history = demands.history("m")
    for place, name in enumerate(WHAT):
        late = (row for step, row in kept.lines["m"].steps.items() if step >= 6 * kept.next_minute)
        sums[name] = sum(getattr(history, name)) + sum(row[place] for row in late)
    return sums


@settings(max_examples=200, deadline=None)
@given(told=heard)
def test_the_sum_of_the_steps_is_the_sum_of_the_counts(told):
    demands = Demands()
    clocks, totals = {"a": 0.0, "b": 0.0}, {"a": 0, "b": 0}
    for source in clocks:  # both are heard at once, when nothing was counted yet
        demands.hear(Signals(at_s=0.0, asked={"m": asked(0)}, source=source, began_s=0.0))
    began_s, counted, missed = {"a": 0.0, "b": 0.0}, 0, {"a": 0, "b": 0}
    for source, seconds, requests, is_whole, is_anew in told:
        clocks[source] += seconds
        if is_anew:  # what was not heard before is lost with it
            began_s[source], totals[source], missed[source] = clocks[source] - 0.005, 0, 0
        totals[source] += requests
        missed[source] += requests
        before = demands.save().heard[source].at_s
        demands.hear(
            Signals(at_s=clocks[source], asked={"m": asked(totals[source])}, source=source,
                    began_s=began_s[source], is_whole=is_whole)
        )  # fmt: skip
        if demands.save().heard[source].at_s > before:  # else with the next one
            counted += missed[source]
            missed[source] = 0
    sums = steps_of(demands)
    assert sums["requests"] == counted
    assert sums["batch_requests"] == 2 * counted
    assert sums["answered"] == 3 * counted
    assert sums["output_tokens"] == 7 * counted


@given(count=st.integers(0, 10**9), since_s=st.floats(0.0, 2e9), seconds=st.floats(0.0, 5_000.0))
def test_what_is_spread_is_whole_and_even_and_within_its_time(count, since_s, seconds):
    until_s = since_s + seconds
    parts = list(spread(count, since_s, until_s))
    assert sum(part for _, part in parts) == count
    for step, part in parts:
        assert part >= 0
        begin_s, end_s = max(since_s, step * STEP_S), min(until_s, (step + 1) * STEP_S)
        if until_s > since_s:
            assert begin_s <= end_s
            share = count * (end_s - begin_s) / (until_s - since_s)
            assert math.isclose(part, share, rel_tol=1e-6, abs_tol=2.0)


arrivals = st.lists(
    st.tuples(
        st.integers(0, 399_999).filter(lambda ms: ms % 10_000),  # when, in thousandths of a second
        st.booleans(),  # of the batch tier
        st.integers(1, 5_000),  # prompt tokens
        st.integers(0, 3_000),  # output tokens, a moment later
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(came=arrivals)
def test_steps_of_snapshots_are_the_steps_that_the_simulator_sees(came):
    came = sorted(came)
    seen, demands, counts = Seen(1), Demands(), Arrivals()
    demands.hear(Signals(at_s=0.0, asked={"m": counts.counts()}))
    for ms, is_batch, prompt, output in came:
        at_s, model = np.array([ms / 1e3]), np.array([0])
        for what, count in ((2, 1), (3, prompt)) if is_batch else ((0, 1), (1, prompt)):
            seen.add(model, what, at_s, count)
        seen.add(model, 4, at_s, 1)
        seen.add(model, 5, at_s, output)
    for step in range(1, 41):
        while came and came[0][0] < 10_000 * step:
            _, is_batch, prompt, output = came.pop(0)
            counts.came("batch" if is_batch else "consumer", 4 * prompt)
            usage = Usage(request="r", at_s=0.0, tenant=None, key=None, tier=None, surface="chat",
                          outcome="finished", status=200, reason="", tokens_in=prompt,
                          tokens_out=output, duration_s=0.0)  # fmt: skip
            counts.answered(usage, 4 * prompt)
        demands.hear(Signals(at_s=10.0 * step, asked={"m": counts.counts()}))
        assert demands.recent("m") == seen.recent(0, 10.0 * step)
        assert demands.history("m") == seen.history(0, 10.0 * step)
