"""The live gateway's objects and the simulator's take the same decisions, request by request.

An hour of a recorded trace with tenants of three tiers, unlike replicas, losses and overload; and
whatever else Hypothesis thinks of. An alteration of one side alone must show.
"""

import msgspec
import pytest
from agreement_hour import REPLICAS, Arrival, Hour, arrival, arrivals, fleet
from agreement_live import LiveBody
from agreement_simulated import NAMES, SimulatedBody
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.fleet.config import Fleet, QueueTimeouts
from argosy.policies import rates
from argosy.policies.routing import places

LEARNED = ("base_s", "prefill_s_per_byte", "service_s")
COUNTED = ("requests_in_flight", "prefill_bytes_queued")
BUSIEST = (6_500, 9_000)  # rows of the trace: two of five replicas are gone


def live(asked: list[Arrival], told: Fleet, **more) -> LiveBody:
    body = LiveBody(told, **more)
    Hour(body, asked).run()
    return body


def simulated(asked: list[Arrival], told: Fleet, **more) -> SimulatedBody:
    body = SimulatedBody(told, asked, **more)
    Hour(body, asked).run()
    return body


def views_of(body: LiveBody | SimulatedBody) -> list[tuple]:
    """What each replica's view holds, exactly."""
    fields = (*COUNTED, *LEARNED)
    if isinstance(body, LiveBody):
        views = [body.watches[name].view for name in NAMES]
        return [tuple(getattr(view, name) for name in fields) for view in views]
    rows = [body.gateway.views[each["row"]] for each in body.gateway.replicas]
    return [tuple(row[name].item() for name in fields) for row in rows]


def test_an_hour_of_arrivals_is_decided_alike():
    asked, told = arrivals(), fleet()
    one, other = live(asked, told), simulated(asked, told)
    assert len(asked) == 19_366
    assert one.log == other.log  # second, what, request, replica, when to come again
    assert views_of(one) == views_of(other)
    said = [entry[1] for entry in one.log]
    assert {what: said.count(what) >= 50 for what in set(said)} == dict.fromkeys(
        ("sent", "no room", "asks most", "expired", "no replica"), True
    )
    replicas = [entry[3] for entry in one.log]
    assert all(replicas.count(each.name) > 200 for each in REPLICAS)


@pytest.fixture(scope="module")
def busiest() -> list[Arrival]:
    return arrivals(*BUSIEST)


@pytest.fixture(scope="module")
def busiest_live(busiest) -> LiveBody:
    return live(busiest, fleet())


@pytest.fixture(scope="module")
def busiest_simulated(busiest) -> SimulatedBody:
    return simulated(busiest, fleet())


@pytest.mark.parametrize("routing", ["least_loaded", "power_of_two", "round_robin"])
def test_every_policy_decides_alike(busiest, routing):
    told = fleet(routing=routing)
    one, other = live(busiest, told, seed=7), simulated(busiest, told, seed=7)
    assert one.log == other.log
    assert views_of(one) == views_of(other)


# An alteration of one side shows.


def test_the_busiest_part_is_decided_alike(busiest_live, busiest_simulated):
    assert busiest_live.log == busiest_simulated.log


@pytest.mark.parametrize(
    "altered",
    [
        {"affinity_load_max": 0.3},
        {"slow_start_s": 60.0},
        {"waiting_max": 41},
        {"consumer_share_max": 0.6},
        {"batch_share_max": 0.3},
        {"tenant_share_max": 0.5},
        {"replica_wait_s": 2.5},
        {"queue_timeout_s": QueueTimeouts(enterprise=20.0, consumer=6.3, batch=60.0)},
        {"routing": "least_loaded"},
    ],
    ids=lambda altered: next(iter(altered)),
)
def test_another_setting_of_one_side_shows(busiest, busiest_live, altered):
    if "replica_wait_s" in altered:
        early = arrivals(0, 50)  # before replicas come for the first time
        assert simulated(early, fleet(**altered)).log != live(early, fleet()).log
    else:
        assert simulated(busiest, fleet(**altered)).log != busiest_live.log


@pytest.mark.parametrize(
    ("name", "changed"), [("cafe", {"weight": 2.1}), ("acme", {"reserved_tokens_per_s": 20_000.0})]
)
def test_another_tenant_of_one_side_shows(busiest, busiest_live, name, changed):
    told = fleet()
    tenants = [msgspec.structs.replace(each, **changed) if each.name == name else each
               for each in told.tenants]  # fmt: skip
    altered = msgspec.structs.replace(told, tenants=tuple(tenants))
    with_them = simulated(busiest, altered)
    assert with_them.log != busiest_live.log


def test_other_draws_of_one_side_show(busiest):
    told = fleet(routing="power_of_two")
    assert simulated(busiest[:300], told, seed=8).log != live(busiest[:300], told, seed=7).log


def test_a_side_that_is_not_told_of_first_tokens_shows(busiest, busiest_simulated):
    assert live(busiest, fleet(), learns=False).log != busiest_simulated.log


@pytest.mark.parametrize(
    ("where", "name", "value"),
    [
        (rates, "OUTLIER", 3.9),
        (rates, "PRIOR_WEIGHT", 3.1),
        (places, "TIE_SHARE", 1.06),
    ],
)
def test_a_formula_that_changed_live_alone_shows(
    busiest, busiest_simulated, monkeypatch, where, name, value
):
    """What is compiled was compiled before."""
    monkeypatch.setattr(where, name, value)
    changed = live(busiest, fleet())
    before = busiest_simulated.log, views_of(busiest_simulated)
    assert (changed.log, views_of(changed)) != before


# Whatever else happens.

steps = st.lists(
    st.tuples(st.just("arrive"), st.integers(0, 400), st.integers(0, 3_000))
    | st.tuples(st.just("first"), st.integers(0, 30), st.just(0))
    | st.tuples(st.just("finish"), st.integers(0, 30), st.integers(0, 300))
    | st.tuples(st.just("cancel"), st.integers(0, 30), st.just(0))
    | st.tuples(st.just("retry"), st.integers(0, 30), st.just(0))
    | st.tuples(st.just("sweep"), st.just(0), st.just(0))
    | st.tuples(st.just("pass"), st.integers(1, 3_000), st.just(0))
    | st.tuples(st.just("change"), st.integers(0, 4), st.integers(0, 3)),
    max_size=80,
)


class Both:
    """The two bodies, told the same step by step."""

    def __init__(self, told: Fleet) -> None:
        self.asked = [arrival(number, 0.0, 1 + number * 37 % 3_000, 9) for number in range(80)]
        self.bodies = LiveBody(told), SimulatedBody(told, self.asked)
        self.now_s, self.next = 100.0, 0
        self.under_way: list[int] = []
        self.is_sent: dict[int, bool] = {}  # by request: and has no first token yet
        self.standing: dict[str, str] = {}
        self.do("change", NAMES[:2], "joins")
        self.standing |= dict.fromkeys(NAMES[:2], "joins")

    def do(self, what: str, *arguments: object) -> None:
        for body in self.bodies:
            before = len(body.log)
            getattr(body, what)(*arguments, self.now_s)
            body.sent.clear()
        one, other = self.bodies
        assert one.log[before:] == other.log[before:]
        for _, said, request, *_ in one.log[before:]:
            if said == "sent":
                self.is_sent[request] = True
            elif request in self.under_way:
                self.under_way.remove(request)
        assert views_of(one) == views_of(other)

    def step(self, what: str, number: int, more: int) -> None:
        match what:
            case "arrive" if self.next < len(self.asked):
                self.under_way.append(self.next)
                self.next += 1
                self.do("arrive", self.asked[self.next - 1])
            case "pass":
                self.now_s += number / 100
            case "sweep":
                self.do("sweep")
            case "change":
                self.change(NAMES[number], ("joins", "leaves", "is suspect", "is ready")[more])
            case _ if self.under_way:
                self.go_on(what, self.under_way[number % len(self.under_way)], more)

    def change(self, name: str, what: str) -> None:
        is_there = self.standing.get(name, "leaves") != "leaves"
        if is_there == (what == "joins"):
            return
        self.standing[name] = what
        self.do("change", (name,), what)

    def go_on(self, what: str, request: int, more: int) -> None:
        match what:
            case "first" if self.is_sent.get(request):
                self.is_sent[request] = False
                self.do("first_token", request)
            case "finish" if request in self.is_sent:
                self.under_way.remove(request)
                self.do("finished", request, (self.asked[request].tokens_in, more % 5, more))
            case "cancel":
                self.under_way.remove(request)
                self.do("cancelled", request)
            case "retry" if request in self.is_sent:
                del self.is_sent[request]
                self.do("retried", request)


@settings(max_examples=100, deadline=None)
@given(
    steps,
    st.sampled_from(["predicted", "least_loaded", "power_of_two", "round_robin"]),
    st.integers(1, 8),
    st.sampled_from([0.0, 0.25]),
)
def test_whatever_happens_both_decide_alike(steps, routing, waiting_max, affinity):
    both = Both(fleet(routing=routing, waiting_max=waiting_max, affinity_load_max=affinity))
    for step in steps:
        both.step(*step)
