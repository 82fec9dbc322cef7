"""The counts of several processes are the counts of one that did all of it."""

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from argosy.fleet.messages import Outcome, Usage
from argosy.observability.counts import MetricsSnapshot, merged
from argosy.observability.metrics import GatewayMetrics, page_of


class Done(msgspec.Struct, frozen=True):
    """One request, and which process served it."""

    process: int
    replica: str | None
    outcome: Outcome
    tokens: int


DONE = st.builds(
    Done,
    process=st.integers(0, 2),
    replica=st.sampled_from(["m-1", "m-2", None]),
    outcome=st.sampled_from(["finished", "failed", "refused", "cancelled"]),
    tokens=st.integers(0, 100),
)


def counted(done: Sequence[Done]) -> MetricsSnapshot:
    metrics = GatewayMetrics(waiting=lambda: 1.0, connections=lambda: 2.0, unwritten=lambda: 0.0)
    for one in done:
        usage = Usage(
            request="req_1", at_s=0.0, tenant=None, key=None, tier="batch", surface="chat",
            outcome=one.outcome, status=200, reason="", tokens_out=one.tokens, duration_s=0.25,
        )  # fmt: skip
        series = metrics.series("m", "batch", one.replica)
        series.count(usage)
        series.ttft.observe(one.tokens / 100)
        metrics.rejected("too_large")
        metrics.attempt_failed("m-1", "busy")
    snapshot = metrics.snapshot()
    sent = msgspec.msgpack.encode(snapshot)  # as one process tells another
    return msgspec.msgpack.decode(sent, type=MetricsSnapshot)


@given(st.lists(DONE, max_size=30))
def test_the_sum_of_the_parts_is_the_whole(done: list[Done]):
    parts = merged(counted([one for one in done if one.process == p]) for p in range(3))
    whole = counted(done)
    assert parts.counts.http_rejected == whole.counts.http_rejected
    assert parts.counts.attempts_failed == whole.counts.attempts_failed
    for replica in ("m-1", "m-2"):
        finished = [one for one in done if (one.replica, one.outcome) == (replica, "finished")]
        assert parts.counts.finished(replica) == len(finished)
    assert parts.readings.connections == 6.0


@given(st.lists(DONE, max_size=10))
def test_a_merged_page_says_what_one_process_would(done: list[Done]):
    def counters(snapshot: MetricsSnapshot) -> list[str]:
        lines = page_of(snapshot).decode().splitlines()
        return sorted(line for line in lines if "_total{" in line or "_bucket{" in line)

    parts = merged(counted([one for one in done if one.process == p]) for p in range(3))
    assert counters(parts) == counters(counted(done))


def test_adding_leaves_what_was_added_as_it_was():
    one = counted([Done(0, "m-1", "finished", 5)])
    before = msgspec.msgpack.encode(one)
    twice = merged((one, one))
    assert msgspec.msgpack.encode(one) == before
    assert twice.counts.finished("m-1") == 2
