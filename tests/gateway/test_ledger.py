"""Budgets are exact: whatever comes at once, what is settled ends at most one reservation above."""

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from argosy.fleet import load
from argosy.fleet.config import Budget
from argosy.gateway import ledger_file
from argosy.gateway.ledger import Exceeded, Ledger, Reservation, budgets_of
from argosy.gateway.ledger_file import LedgerError, LedgerFile
from argosy.policies.admission.windows import window_at

NOON_S = 1_900_000_000 // 86_400 * 86_400 + 43_200.0  # of a day that begins no month

ONE_PROCESS = """
import sys
from pathlib import Path
from argosy.fleet.config import Budget
from argosy.gateway.ledger import Exceeded, Ledger
path, process, count, tokens, now_s = Path(sys.argv[1]), *map(int, sys.argv[2:])
budgets = {
    "acme": (Budget(tokens=10_000, per="day"),),
    "web": (Budget(tokens=10**12, per="day"), Budget(requests=10**9, per="ever")),
}
ledger = Ledger(
    path, budgets, process=process, processes=5, spent=lambda *_: (0, 0), now_unix_s=now_s
)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(3000):
    ledger.settle(ledger.reserve("web", 9, now_s), 2)
held = [ledger.reserve("acme", tokens, now_s) for _ in range(count)]
print(sum(not isinstance(one, Exceeded) for one in held), flush=True)
sys.stdin.readline()
for one in held:
    if not isinstance(one, Exceeded):
        ledger.settle(one, tokens)
"""


def opened(path: Path, *budgets: Budget, spent=(0, 0), now_s=NOON_S, **more) -> Ledger:
    return Ledger(
        path / "ledger", {"acme": budgets}, spent=lambda *_: spent, now_unix_s=now_s, **more
    )


def counts(
    ledger: Ledger, now_s=NOON_S, budget: int = 0, tenant="acme"
) -> tuple[int, int, int, int]:
    """Settled tokens and requests, reserved tokens and requests."""
    state = ledger.states(tenant, now_s)[budget]
    return (
        state.settled_tokens,
        state.settled_requests,
        state.reserved_tokens,
        state.reserved_requests,
    )


# The rule.


def test_a_tenant_without_budgets_is_never_asked(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=1, per="day"))
    for _ in range(3):
        held = ledger.reserve("web", 10**9, NOON_S)
        ledger.settle(held, 10**9)
    ledger.refund(ledger.reserve("web", 1, NOON_S))


def test_what_is_reserved_is_settled_with_what_was_used(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=1000, per="day"))
    held = ledger.reserve("acme", 300, NOON_S)
    assert counts(ledger) == (0, 0, 300, 1)
    ledger.settle(held, 120)
    assert counts(ledger) == (120, 1, 0, 0)


def test_a_refund_leaves_no_trace(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=1000, requests=1, per="day"))
    ledger.refund(ledger.reserve("acme", 300, NOON_S))
    assert counts(ledger) == (0, 0, 0, 0)
    assert isinstance(ledger.reserve("acme", 300, NOON_S), Reservation)


def test_a_reservation_ends_once(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=1000, per="day"))
    held = ledger.reserve("acme", 300, NOON_S)
    ledger.settle(held, 1)
    with pytest.raises(ValueError, match="before"):
        ledger.refund(held)


def test_a_budget_of_requests_is_met_exactly(tmp_path):
    ledger = opened(tmp_path, Budget(requests=3, per="day"))
    held = [ledger.reserve("acme", 10, NOON_S) for _ in range(5)]
    assert [isinstance(one, Reservation) for one in held] == [True] * 3 + [False] * 2


def test_one_more_is_admitted_while_less_than_the_limit_is_settled_and_reserved(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=100, per="day"))
    ledger.settle(ledger.reserve("acme", 99, NOON_S), 99)
    assert isinstance(ledger.reserve("acme", 5000, NOON_S), Reservation)
    assert isinstance(ledger.reserve("acme", 1, NOON_S), Exceeded)


def test_a_request_reserves_in_all_windows_or_in_none(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=1000, per="day"), Budget(tokens=100, per="ever"))
    ledger.reserve("acme", 100, NOON_S)
    assert isinstance(ledger.reserve("acme", 100, NOON_S), Exceeded)
    assert counts(ledger, budget=0) == counts(ledger, budget=1) == (0, 0, 100, 1)


def test_what_is_exceeded_is_told_with_its_numbers_and_until_when(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=1000, per="day"), spent=(1200, 3))
    exceeded = ledger.reserve("acme", 1, NOON_S + 0.5)
    assert exceeded == Exceeded(
        tenant="acme",
        per="day",
        unit="tokens",
        limit=1000,
        settled=1200,
        reserved=0,
        retry_after_s=43_199.5,
    )
    assert exceeded.reason == (
        "the budget of acme, 1,000 tokens per day, is used up: 1,200 were used"
    )


def test_of_several_budgets_the_one_that_takes_longest_is_told(tmp_path):
    per = ("minute", "ever", "day")
    ledger = opened(tmp_path, *(Budget(requests=1, per=one) for one in per), spent=(0, 1))
    exceeded = ledger.reserve("acme", 1, NOON_S)
    assert (exceeded.per, exceeded.unit, exceeded.retry_after_s) == ("ever", "requests", None)


def test_where_only_reservations_fill_a_budget_a_retry_is_worth_it_soon(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=100, per="ever"))
    ledger.reserve("acme", 100, NOON_S)
    exceeded = ledger.reserve("acme", 100, NOON_S)
    assert exceeded.retry_after_s == 5.0
    assert "100 are reserved by what runs" in exceeded.reason


# Windows.


def test_a_new_window_begins_with_nothing_used(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=100, per="minute"))
    ledger.settle(ledger.reserve("acme", 100, NOON_S), 100)
    assert isinstance(ledger.reserve("acme", 1, NOON_S + 59.9), Exceeded)
    assert isinstance(ledger.reserve("acme", 1, NOON_S + 60), Reservation)
    assert counts(ledger, NOON_S + 60) == (0, 0, 1, 1)


def test_a_reservation_that_outlives_its_window_counts_in_no_other(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=100, per="minute"), Budget(tokens=1000, per="ever"))
    old = ledger.reserve("acme", 100, NOON_S + 59)
    new = ledger.reserve("acme", 10, NOON_S + 60)
    ledger.settle(old, 80)
    assert counts(ledger, NOON_S + 60, budget=0) == (0, 0, 10, 1)
    assert counts(ledger, NOON_S + 60, budget=1) == (80, 1, 10, 1)
    ledger.settle(new, 5)
    assert counts(ledger, NOON_S + 60, budget=0) == (5, 1, 0, 0)


def test_a_process_whose_clock_is_read_a_moment_early_does_not_bring_a_window_back(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=100, per="minute"))
    ledger.settle(ledger.reserve("acme", 70, NOON_S + 60.001), 70)
    ledger.settle(ledger.reserve("acme", 30, NOON_S + 59.999), 30)
    assert counts(ledger, NOON_S + 61) == (100, 2, 0, 0)


def test_a_clock_that_is_set_back_does_not_close_a_budget_for_years(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=100, per="minute"), now_s=NOON_S + 1e8)
    ledger.settle(ledger.reserve("acme", 100, NOON_S + 1e8), 100)
    assert isinstance(ledger.reserve("acme", 1, NOON_S), Reservation)


# Opening, reloading.


def test_counters_begin_with_what_the_store_has_since_the_window_began(tmp_path):
    asked = []

    def spent(tenant, since_s):
        asked.append((tenant, since_s))
        return 40, 2

    budgets = {"acme": (Budget(tokens=100, per="day"), Budget(tokens=100, per="ever"))}
    ledger = Ledger(tmp_path / "ledger", budgets, spent=spent, now_unix_s=NOON_S)
    assert counts(ledger) == (40, 2, 0, 0)
    assert asked == [("acme", window_at("day", NOON_S)[0]), ("acme", 0)]


def test_a_process_that_opens_a_ledger_in_use_takes_the_counters_as_they_are(tmp_path):
    first = opened(tmp_path, Budget(tokens=100, per="day"), processes=2)
    first.settle(first.reserve("acme", 10, NOON_S), 10)
    first.reserve("acme", 7, NOON_S)
    second = opened(tmp_path, Budget(tokens=100, per="day"), spent=(99, 9), process=1, processes=2)
    assert counts(second) == (10, 1, 7, 1)


def test_after_a_removal_the_counters_begin_with_the_store_again(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=100, per="day"))
    ledger.settle(ledger.reserve("acme", 10, NOON_S), 10)
    ledger.close()
    ledger_file.remove(tmp_path / "ledger")
    assert counts(opened(tmp_path, Budget(tokens=100, per="day"), spent=(5, 1))) == (5, 1, 0, 0)


def test_new_limits_keep_the_counters_of_windows_that_stay(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=100, per="day"), spent=(60, 1))
    held = ledger.reserve("acme", 40, NOON_S)
    assert isinstance(ledger.reserve("acme", 1, NOON_S), Exceeded)
    budgets = {"acme": (Budget(tokens=500, per="hour"), Budget(tokens=500, per="day"))}
    ledger.configure(budgets, now_unix_s=NOON_S)
    assert counts(ledger, budget=1) == (60, 1, 40, 1)
    assert isinstance(ledger.reserve("acme", 1, NOON_S), Reservation)
    ledger.settle(held, 40)
    assert counts(ledger, budget=0) == (60, 1, 1, 1)  # the old one was not reserved in it
    ledger.configure({}, now_unix_s=NOON_S)
    assert isinstance(ledger.reserve("acme", 10**9, NOON_S), Reservation)


def test_a_window_that_one_process_added_is_found_by_another(tmp_path):
    first = opened(tmp_path, Budget(tokens=100, per="day"), processes=2)
    second = opened(tmp_path, Budget(tokens=100, per="day"), process=1, processes=2)
    budgets = {"acme": (Budget(tokens=100, per="hour"),)}
    first.configure(budgets, now_unix_s=NOON_S)
    second.configure(budgets, now_unix_s=NOON_S)
    first.reserve("acme", 33, NOON_S)
    assert counts(second) == (0, 0, 33, 1)


def test_a_file_that_is_no_ledger_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "ledger").write_text("notes")
    with pytest.raises(LedgerError, match="Stop the fleet and remove the file"):
        opened(tmp_path, Budget(tokens=1, per="day"))
    assert (tmp_path / "ledger").read_text() == "notes"


def test_a_ledger_for_another_number_of_processes_is_refused(tmp_path):
    opened(tmp_path, Budget(tokens=1, per="day"), processes=2)
    with pytest.raises(LedgerError, match="3 processes"):
        opened(tmp_path, Budget(tokens=1, per="day"), processes=3)
    with pytest.raises(LedgerError, match="process 2 of 2"):
        opened(tmp_path, Budget(tokens=1, per="day"), process=2, processes=2)


def test_a_file_without_a_row_left_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_file, "ROWS_MAX", 1)
    with pytest.raises(LedgerError, match="a new run starts a new ledger"):
        opened(tmp_path, Budget(tokens=1, per="day"), Budget(tokens=1, per="hour"))


def test_the_budgets_of_a_fleet_are_those_of_its_tenants_that_have_some():
    text = load.embedded().replace("tier: consumer", "budgets: [{tokens: 5, per: day}]")
    fleet = load.parse(text + "  - {name: free}\n", source="fleet.yaml")
    assert budgets_of(fleet) == {"default": (Budget(tokens=5, per="day"),)}


# Many at once.


def at_once(ask, count: int) -> list:
    """What `ask` gives, called `count` times by twenty threads that interrupt each other."""
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(20) as pool:
            return list(pool.map(ask, range(count)))
    finally:
        sys.setswitchinterval(interval_s)


def test_two_hundred_threads_settle_at_most_one_reservation_above(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=10_000, per="day"))
    held = at_once(lambda _: ledger.reserve("acme", 170, NOON_S), 200)
    admitted = [one for one in held if isinstance(one, Reservation)]
    at_once(lambda index: ledger.settle(admitted[index], 170), len(admitted))
    assert counts(ledger) == (170 * len(admitted), len(admitted), 0, 0)
    assert 10_000 <= 170 * len(admitted) < 10_000 + 170


def test_no_settlement_of_many_threads_is_lost(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=10**9, per="day"))
    at_once(lambda _: ledger.settle(ledger.reserve("acme", 9, NOON_S), 2), 4000)
    assert counts(ledger) == (8000, 4000, 0, 0)


@pytest.fixture
def processes(tmp_path):
    """Four processes on one ledger, each with fifty requests to make when told to."""
    made = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_PROCESS, *map(str, (tmp_path / "ledger", n, 50, 170)),
             str(int(NOON_S))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]  # fmt: skip
    for one in made:
        assert one.stdout.readline() == "ready\n"
    yield made
    for one in made:
        one.kill()
        one.communicate()


def tell(process) -> None:
    process.stdin.write("\n")
    process.stdin.flush()


def test_four_processes_settle_at_most_one_reservation_above_and_the_dead_are_dropped(
    tmp_path, processes
):
    watcher = opened(tmp_path, Budget(tokens=10_000, per="day"), process=4, processes=5)
    for one in processes:
        tell(one)
    admitted = [int(one.stdout.readline()) for one in processes]
    assert 10_000 <= 170 * sum(admitted) < 10_000 + 170
    assert counts(watcher) == (0, 0, 170 * sum(admitted), sum(admitted))

    dead = max(range(4), key=lambda n: admitted[n])
    processes[dead].send_signal(signal.SIGKILL)
    processes[dead].wait()
    watcher.drop(dead)
    alive = sum(admitted) - admitted[dead]
    assert counts(watcher) == (0, 0, 170 * alive, alive)
    assert isinstance(watcher.reserve("acme", 1, NOON_S), Reservation)

    for number, one in enumerate(processes):
        if number != dead:
            tell(one)
            one.wait()
    assert counts(watcher) == (170 * alive, alive, 1, 1)
    web = {"web": (Budget(tokens=1, per="day"), Budget(tokens=1, per="ever"))}
    watcher.configure(web, now_unix_s=NOON_S)
    for budget in range(2):
        assert counts(watcher, budget=budget, tenant="web") == (4 * 6000, 4 * 3000, 0, 0)


def _die_inside(path: Path) -> None:
    LedgerFile(path, process=0, processes=2).lock()
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_inside_the_lock_stops_nobody(tmp_path):
    ledger = opened(tmp_path, Budget(tokens=100, per="day"), process=1, processes=2)
    dying = multiprocessing.get_context("spawn").Process(
        target=_die_inside, args=(tmp_path / "ledger",)
    )
    dying.start()
    dying.join()
    assert dying.exitcode == -signal.SIGKILL
    assert isinstance(ledger.reserve("acme", 1, NOON_S), Reservation)


def test_a_process_that_comes_back_has_nothing_reserved(tmp_path):
    opened(tmp_path, Budget(tokens=100, per="day")).reserve("acme", 100, NOON_S)
    assert counts(opened(tmp_path, Budget(tokens=100, per="day"))) == (0, 0, 0, 0)


# The law.


class Budgets(RuleBasedStateMachine):
    """Two processes' ledgers beside plain sums, over windows that end."""

    @initialize(tokens=st.integers(1, 300), requests=st.none() | st.integers(1, 6))
    def _begin(self, tokens, requests):
        self.folder = tempfile.TemporaryDirectory()
        self.limits = {"minute": (tokens, requests), "ever": (4 * tokens, None)}
        budgets = [Budget(tokens=t, requests=r, per=per) for per, (t, r) in self.limits.items()]
        self.ledgers = [
            opened(Path(self.folder.name), *budgets, process=number, processes=2)
            for number in range(2)
        ]
        self.now_s = NOON_S
        self.held = []  # (process, reservation, tokens, minute)
        self.settled = {}  # window to tokens, requests
        self.largest = 0

    def keys(self, minute):
        return (("minute", minute), ("ever", 0))

    def used(self, per):
        key = (per, window_at(per, self.now_s)[0])
        tokens, requests = self.settled.get(key, (0, 0))
        running = [one for one in self.held if key in self.keys(one[3])]
        return tokens, requests, sum(one[2] for one in running), len(running)

    @rule(process=st.integers(0, 1), tokens=st.integers(1, 200))
    def reserve(self, process, tokens):
        has_room = True
        for per, (most_tokens, most_requests) in self.limits.items():
            used_tokens, used, reserved_tokens, reserved = self.used(per)
            has_room &= used_tokens + reserved_tokens < most_tokens
            has_room &= used + reserved < (most_requests or math.inf)
        got = self.ledgers[process].reserve("acme", tokens, self.now_s)
        assert isinstance(got, Reservation) == has_room
        if has_room:
            self.largest = max(self.largest, tokens)
            self.held.append((process, got, tokens, window_at("minute", self.now_s)[0]))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), is_refunded=st.booleans())
    def end(self, data, is_refunded):
        index = data.draw(st.integers(0, len(self.held) - 1))
        process, held, tokens, minute = self.held.pop(index)
        if is_refunded:
            self.ledgers[process].refund(held)
            return
        true_tokens = data.draw(st.integers(0, tokens))
        self.ledgers[process].settle(held, true_tokens)
        for key in self.keys(minute):
            before = self.settled.get(key, (0, 0))
            self.settled[key] = (before[0] + true_tokens, before[1] + 1)

    @rule(process=st.integers(0, 1))
    def die(self, process):
        self.ledgers[1 - process].drop(process)
        self.held = [one for one in self.held if one[0] != process]

    @rule(seconds=st.sampled_from([0.5, 20.0, 61.0]))
    def wait(self, seconds):
        self.now_s += seconds

    @invariant()
    def the_counters_are_the_sums(self):
        if not hasattr(self, "ledgers"):
            return
        for index, (per, (most, _)) in enumerate(self.limits.items()):
            assert counts(self.ledgers[0], self.now_s, index) == self.used(per)
            assert self.used(per)[0] < most + max(1, self.largest)

    def teardown(self):
        if not hasattr(self, "ledgers"):
            return
        for process, held, *_ in self.held:
            self.ledgers[process].refund(held)
        for index in range(len(self.limits)):
            assert counts(self.ledgers[1], self.now_s, index)[2:] == (0, 0)
        for ledger in self.ledgers:
            ledger.close()
        self.folder.cleanup()


TestBudgets = Budgets.TestCase
TestBudgets.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
