"""Whatever a replica's steps take: its rate keeps the SLO, and slower steps never raise it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from argosy.perf.calibration import Interval
from argosy.perf.engine_settings import EngineSettings
from argosy.perf.replica import ReplicaModel
from argosy.perf.step_time import StepTime
from argosy.planner.capacity.lengths import LengthClass
from argosy.planner.capacity.rates import measured
from argosy.planner.capacity.sustain import Drawn, Limits, OneReplica, best_per_s
from argosy.simulator.traces.demand import Chats
from argosy.simulator.traces.lengths import Lognormal, Lognormals

ENGINE = EngineSettings(requests_max=32, prefill_tokens_max=2048)


def law(mean: float) -> Lognormal:
    return Lognormal(tokens_mean=mean, tokens_p95=2.5 * mean, tokens_max=8192)


@st.composite
def replicas(draw) -> ReplicaModel:
    flat_s = draw(st.floats(0.002, 0.05))
    token_s = draw(st.floats(1e-6, 1e-4))
    return ReplicaModel(
        step_time=StepTime(
            knots_tokens=(1.0, 64.0, 8192.0),
            knots_s=(flat_s, flat_s * draw(st.floats(1.0, 2.0)), flat_s * 2 + 8192 * token_s),
            context_s_per_token=draw(st.floats(0, 1e-7)),
            pair_s=draw(st.floats(0, 1e-9)),
        ),
        kv_tokens=draw(st.integers(16_384, 400_000)),
        chips=1,
        weights_bytes=1e9,
        overhead_s=0.0,
        rung="spec sheet",
        uncalibrated=True,
        interval=Interval(tpot_low=0.6, tpot_high=1.7, ttft_low=0.6, ttft_high=1.7),
        power_w_idle=None,
        power_w_busy=None,
    )


@st.composite
def kinds(draw) -> Drawn:
    chats = draw(
        st.sampled_from([None, Chats(system_tokens=512, turns_mean=2, prompt_tokens_max=8192)])
    )
    asked = LengthClass(
        model="chat",
        lengths=Lognormals(
            prompt=law(draw(st.integers(20, 2000))), output=law(draw(st.integers(5, 400)))
        ),
        chats=chats,
        tokens_in=1000.0,
        tokens_out=200.0,
        members=(0,),
    )
    return Drawn(asked, requests=400)


limits = st.builds(
    Limits,
    ttft_s_p95=st.one_of(st.none(), st.floats(0.05, 3.0)),
    itl_s_p99=st.one_of(st.none(), st.floats(0.005, 0.3)),
)


@settings(max_examples=20, deadline=None)
@given(replicas(), kinds(), limits)
def test_the_rate_keeps_the_slo_a_little_more_does_not_and_slower_steps_have_no_more(
    perf, drawn, wanted
):
    one = OneReplica(perf, ENGINE)
    rate = one.rate(drawn, wanted)
    assert not rate.at.broken or rate.requests_per_s == 0.0
    assert rate.requests_per_s <= 1.1 * best_per_s(perf.step_time, ENGINE, drawn.asked) + 1e-9
    found = measured(one, drawn, wanted, perf)
    assert found.requests_per_s == rate.requests_per_s
    assert 0.0 <= found.low <= found.requests_per_s <= found.high


@settings(max_examples=20, deadline=None)
@given(replicas(), kinds(), st.floats(0.05, 3.0))
def test_steps_and_promises_twice_as_long_are_half_the_rate(perf, drawn, ttft_s):
    if drawn.asked.chats is not None:
        return  # their pauses do not stretch
    step = perf.step_time
    twice = replace(
        step,
        knots_s=tuple(2 * seconds for seconds in step.knots_s),
        context_s_per_token=2 * step.context_s_per_token,
        pair_s=2 * step.pair_s,
    )
    slow = OneReplica(replace(perf, step_time=twice), ENGINE).rate(
        drawn, Limits(ttft_s_p95=2 * ttft_s, itl_s_p99=None)
    )
    fast = OneReplica(perf, ENGINE).rate(drawn, Limits(ttft_s_p95=ttft_s, itl_s_p99=None))
    assert 2 * slow.requests_per_s == pytest.approx(fast.requests_per_s, rel=1e-9)
