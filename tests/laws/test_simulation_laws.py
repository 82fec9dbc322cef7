"""A whole simulation, whatever comes: nothing is lost, nothing left over, nothing too good."""

from collections.abc import Sequence
from functools import cache

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from numpy.typing import NDArray

from argosy.policies.routing import POLICIES
from argosy.simulator.engine.state import DEAD, FREE
from argosy.simulator.outcomes import DONE, TOO_LONG, UNSERVED
from argosy.simulator.report import report_of
from argosy.simulator.scenario import Group, Loss, Scenario
from argosy.simulator.serving import Ran, Run, simulate
from argosy.simulator.tally import Tally
from argosy.simulator.traces.window import Trace, window_of
from tests.simulator.small_fleet import STEP, TEXT, small_scenario

BLOCK_TOKENS = 64  # of a prompt that others share; an engine's block has 16
ORIGIN = "aws/us-east-1"


class Recorder(Tally):
    """Keeps the records as well."""

    def __init__(self, slos_s: NDArray[np.float64]) -> None:
        super().__init__(slos_s)
        self.kept: list[NDArray[np.void]] = []

    def absorb(self, results: NDArray[np.void]) -> None:
        self.kept.append(results.copy())
        super().absorb(results)

    @property
    def records(self) -> NDArray[np.void]:
        return np.concatenate(self.kept)


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A small fleet."""

    replicas: int
    requests_max: int
    kv_tokens: int
    prefill_tokens_max: int
    waiting_max: int
    queue_timeout_s: float
    policy: str
    prefix_cache: bool = True
    losses: tuple[Loss, ...] = ()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A request; `family` and `shared`: its first blocks are those of its family."""

    gap_s: float
    prompt: int
    output: int
    tier: int
    session: int
    family: int
    shared: int


@cache
def parsed(text: str) -> Scenario:
    return small_scenario(text)


def scenario_of_shape(shape: Shape) -> Scenario:
    text = TEXT.replace("nodes: {max: 9}", "nodes: {max: 99}, start_s: 0.5")
    text = text.replace("replicas: 2", f"replicas: {shape.replicas}")
    engine = f"requests_max: {shape.requests_max}, prefill_tokens_max: {shape.prefill_tokens_max}"
    engine += f", prefix_cache: {str(shape.prefix_cache).lower()}"
    scenario = parsed(text.replace("requests_max: 8", engine))
    wait = shape.queue_timeout_s
    gateway = replace(
        scenario.fleet.gateway,
        routing=shape.policy,
        waiting_max=shape.waiting_max,
        queue_timeout_s=replace(
            scenario.fleet.gateway.queue_timeout_s, enterprise=wait, consumer=wait, batch=2 * wait
        ),
    )
    groups = tuple(
        replace(group, perf=replace(group.perf, kv_tokens=shape.kv_tokens))
        for group in scenario.groups
    )
    fleet = replace(scenario.fleet, gateway=gateway)
    return replace(scenario, fleet=fleet, groups=groups, losses=shape.losses)


def trace_of(asked: Sequence[Asked], *, has_blocks: bool) -> Trace:
    rows = len(asked)
    prompts = np.array([one.prompt for one in asked], np.int32)
    columns: dict[str, object] = {
        "arrival_s": np.cumsum([one.gap_s for one in asked]),
        "prompt_tokens": prompts,
        "output_tokens": np.array([one.output for one in asked], np.int32),
        "tier": np.array([one.tier for one in asked], np.int8),
        "tenant": np.array([one.tier % 2 for one in asked], np.int16),
        "session": np.array([one.session for one in asked], np.int64),
    }
    if has_blocks:
        counts = prompts // BLOCK_TOKENS
        columns["block_offsets"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        hashes = [
            place + 1_000 * (one.family if place < one.shared else 10 + row)
            for row, one in enumerate(asked)
            for place in range(counts[row])
        ]
        columns["block_hashes"] = np.array(hashes, np.uint64)
    return Trace(
        pieces=lambda: iter([window_of(columns, rows=rows)]),
        found="rows of a law",
        models=("chat",),
        tenants=("acme", "web"),
        origins=(ORIGIN,),
        block_tokens=BLOCK_TOKENS if has_blocks else None,
    )


def run_of(scenario: Scenario, trace: Trace, *, rows: int = 65_536, seed: int = 0):
    run = Run(scenario, trace, seed=seed)
    slo = scenario.slos[0]
    run.tally = recorder = Recorder(np.array([[slo.ttft_s_p95, slo.itl_s_p99]]))
    for window in trace.windows(rows):
        run.feed(window)
    return run, run.finish(), recorder.records


losses = st.lists(
    st.builds(
        lambda domain, at_s, for_s: Loss(
            kind=domain[0],
            name=domain[1],
            at_s=at_s,
            until_s=None if for_s is None else at_s + for_s,
        ),
        st.sampled_from([("cloud", "aws"), ("region", "gcp/us-east5"), ("deployment", "chat@far")]),
        st.sampled_from([0.0, 0.5, 1.0, 2.3]),
        st.none() | st.sampled_from([0.1, 1.0, 4.0]),
    ),
    max_size=3,
)
shapes = st.builds(
    Shape,
    replicas=st.integers(1, 2),
    requests_max=st.sampled_from([1, 2, 5, 16]),
    kv_tokens=st.sampled_from([320, 1_024, 4_096, 100_000]),
    prefill_tokens_max=st.sampled_from([64, 512, 8_192]),
    waiting_max=st.sampled_from([1, 4, 1_024]),
    queue_timeout_s=st.sampled_from([0.1, 1.0, 30.0]),
    policy=st.sampled_from(sorted(POLICIES)),
    prefix_cache=st.booleans(),
)
demands = st.lists(
    st.builds(
        Asked,
        gap_s=st.sampled_from([0.0, 0.0, 0.003, 0.02, 0.3, 2.0]),
        prompt=st.sampled_from([1, 15, 64, 200, 700, 3_000, 40_000]),
        output=st.sampled_from([1, 2, 16, 60, 250]),
        tier=st.integers(0, 2),
        session=st.integers(-1, 3),
        family=st.integers(0, 2),
        shared=st.integers(0, 12),
    ),
    min_size=1,
    max_size=60,
)


@settings(max_examples=30, deadline=None)
@given(shape=shapes, asked=demands, has_blocks=st.booleans(), lost=losses)
def test_each_request_has_one_outcome_and_nothing_is_left_over(shape, asked, has_blocks, lost):
    trace = trace_of(asked, has_blocks=has_blocks)
    run, ran, records = run_of(scenario_of_shape(replace(shape, losses=tuple(lost))), trace)
    assert records.size == len(asked) == ran.requests
    assert int(ran.tally.outcomes.sum()) == len(asked)
    assert UNSERVED not in records["outcome"]
    wanted = sorted((one.prompt, one.output, one.tier) for one in asked)
    ended = records[["prompt_tokens", "output_tokens", "tier"]].tolist()
    assert sorted(ended) == wanted

    engine, gateway, book = run.sim
    assert int(book.marks[0]["alive"]) == 0
    assert not book.alive["is_alive"].any()
    assert np.unique(book.slots).size == book.slots.size == int(book.marks[0]["free"])
    assert not gateway.queues.lines["waiting"].any()
    assert not gateway.queues.lines["in_flight"].any()
    assert not gateway.queues.lines["held"].any()
    assert not gateway.queues.lanes["in_flight"].any()
    assert not gateway.views["requests_in_flight"].any()
    assert not gateway.views["prefill_bytes_queued"].any()
    assert gateway.rules[0]["stranded"] == 0
    replicas = engine.replicas
    assert (replicas["blocks_free"] == replicas["blocks"]).all()
    for what in ("decoding", "reading", "waiting", "unread_tokens", "leaving"):
        assert not replicas[what].any()
    assert (engine.requests["phase"] == FREE).all()


@settings(max_examples=30, deadline=None)
@given(shape=shapes, asked=demands, has_blocks=st.booleans(), lost=losses)
def test_tokens_are_conserved_and_time_goes_on(shape, asked, has_blocks, lost):
    trace = trace_of(asked, has_blocks=has_blocks)
    scenario = scenario_of_shape(replace(shape, losses=tuple(lost)))
    _, ran, records = run_of(scenario, trace)
    done = records[records["outcome"] == DONE]
    written = sum(account.tokens_out for account in ran.accounts)
    assert int(ran.tally.tokens_out.sum()) == done["output_tokens"].sum()
    assert sum(account.finished for account in ran.accounts) == done.size
    if lost:
        # The last token of an answer that was whole when its replica died is written again.
        killed = sum(account.killed for account in ran.accounts)
        assert done["output_tokens"].sum() <= written <= records["output_tokens"].sum() + killed
    else:
        assert written == done["output_tokens"].sum()
    assert (records["end_s"] >= records["arrival_s"]).all()
    assert (records["waited_s"] >= 0).all()
    assert not np.isnan(done["ttft_s"]).any()
    begun = records[~np.isnan(records["ttft_s"])]
    assert (begun["arrival_s"] + begun["ttft_s"] <= begun["end_s"] + 1e-9).all()
    ended_s = records["end_s"] - np.where(records["group"] < 0, 0.0, _trip_s(ran.scenario, records))
    assert (np.diff(ended_s) >= -1e-9).all()  # told in the order in which they end
    assert (ended_s <= ran.end_s + 1e-9).all()


@settings(max_examples=30, deadline=None)
@given(shape=shapes, asked=demands, has_blocks=st.booleans(), lost=losses)
def test_nothing_is_faster_than_an_idle_replica(shape, asked, has_blocks, lost):
    trace = trace_of(asked, has_blocks=has_blocks)
    scenario = scenario_of_shape(replace(shape, losses=tuple(lost)))
    _, ran, records = run_of(scenario, trace)
    for record in records[records["outcome"] == DONE]:
        group = scenario.groups[record["group"]]
        prompt, gaps = int(record["prompt_tokens"]), int(record["output_tokens"]) - 1
        is_cached = has_blocks and shape.prefix_cache
        least_s = STEP.step_s(tokens=1) if is_cached else idle_prefill_s(group, prompt)
        trip_s = group.perf.overhead_s + scenario.round_trip_s(ORIGIN, group.region)
        assert record["ttft_s"] >= least_s + trip_s - 1e-9
        answer_s = record["end_s"] - record["arrival_s"] - record["ttft_s"]
        assert answer_s >= gaps * STEP.step_s(tokens=1, contexts=prompt + 1) - 1e-9
    seconds = sum(account.busy_s for account in ran.accounts)
    most = shape.requests_max  # a step gives each of its requests one token at most
    steps = sum(account.steps for account in ran.accounts)
    assert seconds >= steps * STEP.step_s(tokens=1) - 1e-9
    assert sum(account.tokens_out for account in ran.accounts) <= most * steps
    replicas = sum(group.replicas for group in scenario.groups)
    written = sum(account.tokens_out for account in ran.accounts)
    best_per_s = max(batch / STEP.step_s(tokens=batch) for batch in range(1, most + 1))
    assert written <= best_per_s * replicas * ran.end_s + 1e-6
    assert seconds <= replicas * ran.end_s + 1e-6


@settings(max_examples=12, deadline=None)
@given(
    shape=shapes, asked=demands, has_blocks=st.booleans(), lost=losses, seed=st.integers(0, 2**31)
)
def test_the_report_is_the_same_again_and_in_windows_of_seven(shape, asked, has_blocks, lost, seed):
    trace = trace_of(asked, has_blocks=has_blocks)
    scenario = scenario_of_shape(replace(shape, losses=tuple(lost)))
    told = [
        msgspec.json.encode(report_of(run_of(scenario, trace, rows=rows, seed=seed)[1], trace="t"))
        for rows in (65_536, 65_536, 7, 1)
    ]
    assert told[0] == told[1] == told[2] == told[3]


@settings(max_examples=20, deadline=None)
@given(
    shape=shapes,
    asked=demands,
    # both clouds, so that at times nobody is there; overlapping or one after the other
    at_s=st.lists(st.floats(0, 6), min_size=1, max_size=4),
    for_s=st.lists(st.floats(0.01, 4), min_size=4, max_size=4),
)
@example(  # the second loss begins before the first is over, and ends after it
    shape=Shape(
        replicas=1, requests_max=2, kv_tokens=4096, prefill_tokens_max=512, waiting_max=4,
        queue_timeout_s=1.0, policy="predicted",
    ),
    asked=[Asked(gap_s=0.3, prompt=64, output=60, tier=1, session=-1, family=0, shared=0)] * 30,
    at_s=[1.0, 1.0, 1.5, 1.5],
    for_s=[1.0, 1.0, 6.0, 6.0],
)  # fmt: skip
def test_all_replicas_listen_again_once_every_loss_is_over(shape, asked, at_s, for_s):
    lost = tuple(
        Loss(kind="cloud", name=("aws", "gcp")[place % 2], at_s=begin, until_s=begin + for_s[place])
        for place, begin in enumerate(at_s)
    )
    # The last request comes when all is long over.
    last = Asked(gap_s=30.0, prompt=64, output=16, tier=1, session=-1, family=0, shared=0)
    scenario = scenario_of_shape(replace(shape, losses=lost))
    run, ran, records = run_of(scenario, trace_of([*asked, last], has_blocks=False))
    assert records[-1]["outcome"] == DONE
    engine, gateway, _ = run.sim
    assert (engine.replicas["phase"] != DEAD).all()
    assert gateway.models[0]["listening"] == gateway.models[0]["ready"] == engine.replicas.size
    slots = sum(group.replicas * group.engine.requests_max for group in scenario.groups)
    assert gateway.models[0]["slots"] == slots
    for one in lost:
        place = [group.cloud for group in scenario.groups].index(one.name)
        sample = ran.samples[:, place]
        within = (sample["at_s"] > one.at_s) & (sample["at_s"] <= one.until_s)
        assert not sample["listening"][within].any()


@settings(max_examples=10, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    prompt=st.sampled_from([100, 800, 2_000]),
    output=st.sampled_from([10, 80, 200]),
    requests_max=st.sampled_from([2, 8, 32]),
    policy=st.sampled_from(sorted(POLICIES)),
)
def test_of_an_overload_twice_the_fleet_answers_no_less_in_time(
    seed, prompt, output, requests_max, policy
):
    """At least 90 % of the smaller fleet's, less three requests: routing's chance is not ours."""
    chance = np.random.default_rng(seed)
    asked = [
        Asked(gap_s=float(gap_s), prompt=int(tokens[0]), output=int(tokens[1]), tier=1, session=-1,
              family=0, shared=0)
        for gap_s, tokens in zip(
            chance.exponential(0.004, 400),
            chance.geometric([1 / prompt, 1 / output], (400, 2)),
            strict=True,
        )
    ]  # fmt: skip
    trace = trace_of(asked, has_blocks=False)
    shape = Shape(
        replicas=1, requests_max=requests_max, kv_tokens=50_000, prefill_tokens_max=2_048,
        waiting_max=1_024, queue_timeout_s=2.0, policy=policy,
    )  # fmt: skip
    one, two = (
        int(simulate(scenario_of_shape(replace(shape, replicas=count)), trace).tally.met.sum())
        for count in (1, 2)
    )
    assert two >= 0.9 * one - 3


def test_what_fits_no_replica_is_too_long_and_the_rest_goes_on():
    asked = [
        Asked(gap_s=0.1, prompt=prompt, output=16, tier=1, session=-1, family=0, shared=0)
        for prompt in (200, 2_000, 200)
    ]
    shape = Shape(
        replicas=1, requests_max=2, kv_tokens=320, prefill_tokens_max=64, waiting_max=4,
        queue_timeout_s=1.0, policy="predicted",
    )  # fmt: skip
    _, _, records = run_of(scenario_of_shape(shape), trace_of(asked, has_blocks=False))
    assert sorted(records["outcome"]) == [DONE, DONE, TOO_LONG]


def idle_prefill_s(group: Group, prompt: int) -> float:
    """Seconds in which an idle replica reads it and writes the first token."""
    seconds, read = 0.0, 0
    while read < prompt:
        tokens = min(group.engine.prefill_tokens_max, prompt - read)
        pairs = tokens * read + tokens * (tokens + 1) / 2
        seconds += STEP.step_s(tokens=tokens, pairs=pairs)
        read += tokens
    return seconds


def _trip_s(scenario: Scenario, records: NDArray[np.void]) -> NDArray[np.float64]:
    trips = [
        group.perf.overhead_s + scenario.round_trip_s(ORIGIN, group.region)
        for group in scenario.groups
    ]
    return np.array(trips)[records["group"]]


@pytest.mark.parametrize("rows", [1, 3])
def test_hashes_of_those_under_way_outlive_their_window(rows):
    asked = [
        Asked(gap_s=0.0, prompt=700, output=30, tier=1, session=-1, family=1, shared=10)
        for _ in range(12)
    ]
    shape = Shape(
        replicas=1, requests_max=1, kv_tokens=4_096, prefill_tokens_max=512, waiting_max=64,
        queue_timeout_s=30.0, policy="round_robin",
    )  # fmt: skip
    ran: Ran
    _, ran, _ = run_of(scenario_of_shape(shape), trace_of(asked, has_blocks=True), rows=rows)
    # All but the first on each of the two replicas find 10 blocks of 64 tokens.
    assert sum(account.tokens_spared for account in ran.accounts) == 10 * 640
