"""Leases: never two holders that believe in theirs, and no write with any token but the newest."""

import itertools
import threading
import time

import pytest
import sqlalchemy
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from argosy.store.control import Fenced
from argosy.store.errors import FencedError
from argosy.store.leases import Held, Lease, acquire, look, release, renew
from argosy.store.schema import open_store
from tests.store.running_postgresql import shared_postgresql

HOLDERS = ("ann", "bob", "cid")
SERIALS = itertools.count()

holders = st.sampled_from(HOLDERS)
lengths_s = st.sampled_from([1.0, 5.0, 10.0])
short_s = st.floats(0.0, 0.5)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request, tmp_path_factory):
    place = tmp_path_factory.mktemp("leases") / "argosy.db"
    if request.param == "postgresql":
        running = shared_postgresql()
        if running is None:
            pytest.skip("PostgreSQL is not installed")
        place = running.fresh_url()
    engine = open_store(place)
    if request.param == "sqlite":
        engine.dispose()
        sqlalchemy.event.listen(
            engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF")
        )
    yield engine
    engine.dispose()


class Leases(RuleBasedStateMachine):
    """Time passes for all alike; the database's clock may be set back, or leap, beside it."""

    def __init__(self, engine):
        super().__init__()
        self.engine = engine
        self.name = f"lease-{next(SERIALS)}"
        self.now_s = 1000.0
        self.offset_s = 0.0
        self.believed_until_s = {}  # by holder, in true time
        self.leases = {}  # the last of each holder
        self.ever = []  # all leases that were granted
        self.newest_token = 0
        self.living_token = None  # None: nobody's, for it was released

    @property
    def clock_s(self):
        return self.now_s + self.offset_s

    def take(self, holder, asked_at_s, lease):
        self.leases[holder] = lease
        self.ever.append(lease)
        self.believed_until_s[holder] = asked_at_s + lease.lasts_s

    @rule(passed_s=st.sampled_from([0.1, 0.9, 1.0, 4.0, 5.1, 11.0]))
    def time_passes(self, passed_s):
        self.now_s += passed_s

    @rule(back_s=st.sampled_from([0.3, 3.0, 500.0]))
    def the_databases_clock_goes_back(self, back_s):
        self.offset_s -= back_s

    @rule(leap_s=st.sampled_from([3.0, 500.0]))
    def the_databases_clock_leaps(self, leap_s):
        self.offset_s += leap_s
        self.believed_until_s.clear()  # they are wrong, and the token is what is left

    @rule(holder=holders, ttl_s=lengths_s, delay_s=short_s)
    def one_asks(self, holder, ttl_s, delay_s):
        asked_at_s = self.now_s
        self.now_s += delay_s
        match acquire(self.engine, self.name, holder, ttl_s=ttl_s, now_s=self.clock_s):
            case Lease() as lease:
                assert lease.holder == holder
                assert lease.token > self.newest_token
                self.newest_token = self.living_token = lease.token
                self.take(holder, asked_at_s, lease)
            case Held() as held:
                assert held.holder not in (None, holder)
                assert held.free_in_s > 0

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def one_is_paused_and_another_takes_over(self, data):
        paused = data.draw(st.sampled_from(sorted(self.leases)))
        self.now_s += 11.0
        for holder in HOLDERS:
            if holder != paused:
                self.one_asks(holder, 5.0, 0.0)

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), ttl_s=lengths_s, delay_s=short_s)
    def one_renews(self, data, ttl_s, delay_s):
        lease = data.draw(st.sampled_from([self.leases[name] for name in sorted(self.leases)]))
        asked_at_s = self.now_s
        self.now_s += delay_s
        match renew(self.engine, lease, ttl_s=ttl_s, now_s=self.clock_s):
            case Lease() as renewed:
                assert renewed.token == lease.token == self.living_token
                self.take(lease.holder, asked_at_s, renewed)
            case Held():
                assert lease.token != self.living_token
                self.believed_until_s.pop(lease.holder, None)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def one_releases(self, data):
        holder = data.draw(st.sampled_from(sorted(self.leases)))
        lease = self.leases.pop(holder)
        self.believed_until_s.pop(holder, None)
        if release(self.engine, lease):
            assert lease.token == self.living_token
            self.newest_token += 1
            self.living_token = None
        else:
            assert lease.token != self.living_token

    @precondition(lambda self: self.ever)
    @rule(data=st.data())
    def one_writes_however_late(self, data):
        lease = data.draw(st.sampled_from(self.ever))
        fenced = Fenced(self.engine, self.name, lease.token)
        body = b"%d" % lease.token
        if lease.token == self.living_token:
            fenced.save({"a": body})
            assert fenced.load() == {"a": body}
        else:
            before = fenced.load()
            with pytest.raises(FencedError):
                fenced.save({"a": body})
            assert fenced.load() == before

    @precondition(lambda self: self.ever)
    @rule()
    def after_the_longest_lease_all_are_free(self):
        look_at_s = self.clock_s
        free_in_s = look(self.engine, self.name, now_s=look_at_s).free_in_s
        assert free_in_s < 10.1, "even when the clock went back by more than that"
        if free_in_s == 0:
            assert self.believers() == []

    @invariant()
    def never_do_two_believe(self):
        assert len(self.believers()) <= 1

    def believers(self):
        return [name for name, until_s in self.believed_until_s.items() if self.now_s < until_s]


def test_no_two_believe_to_hold_and_only_the_newest_token_writes(engine):
    run_state_machine_as_test(
        lambda: Leases(engine),
        settings=settings(
            max_examples=50 if engine.dialect.name == "sqlite" else 20,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_threads_that_race_never_hold_at_once(engine):
    spans, lock, ttl_s = [], threading.Lock(), 0.03
    end_s = time.monotonic() + 0.8

    def race(holder):
        held = 0
        while time.monotonic() < end_s:
            asked_at_s = time.monotonic()
            match acquire(engine, "race", f"{holder}-{held}", ttl_s=ttl_s):
                case Lease() as lease:
                    got_at_s = time.monotonic()
                    held += 1
                    until_s = asked_at_s + lease.lasts_s
                    if held % 2:  # let go early, every other time
                        time.sleep(0.002)
                        until_s = min(until_s, time.monotonic())
                        release(engine, lease)
                    with lock:
                        spans.append((lease.token, got_at_s, until_s))
                case Held(free_in_s=free_in_s):
                    time.sleep(free_in_s / 2)

    threads = [threading.Thread(target=race, args=(f"h{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    spans.sort()
    assert len(spans) >= 4
    for (token, _, until_s), (next_token, got_at_s, _) in itertools.pairwise(spans):
        assert token < next_token
        assert until_s <= got_at_s
