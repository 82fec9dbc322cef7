"""Leases between processes: killed, stopped and woken, and while PostgreSQL is restarted."""

import signal
import subprocess
import sys
import threading
import time

import msgspec
import pytest

from argosy.store.control import Fenced
from argosy.store.errors import FencedError
from argosy.store.leases import Held, Lease, acquire, look, release, renew
from argosy.store.schema import StoreError, open_store

# Takes the lease and says so; then, for each line, writes with its token and says what came of it.
LEADER = """
import sys
import msgspec
from argosy.store.control import Fenced
from argosy.store.errors import FencedError
from argosy.store.leases import acquire
from argosy.store.schema import open_store
engine = open_store(sys.argv[1], busy_timeout_s=1.0)
lease = acquire(engine, "example", "old", ttl_s=float(sys.argv[2]))
print(msgspec.json.encode(lease).decode(), flush=True)
fenced = Fenced(engine, "example", lease.token)
for line in sys.stdin:
    try:
        if line == "inside\\n":
            with fenced.writing() as connection:
                print("inside", flush=True)
                sys.stdin.readline()
        else:
            fenced.save({"replica-1": b'"old"'})
        print("saved", flush=True)
    except FencedError:
        print("fenced", flush=True)
    except Exception as error:
        print(f"{type(error).__name__}: {error}".splitlines()[0], flush=True)
"""


class Leader:
    """A process that holds the lease of `example`."""

    def __init__(self, place, ttl_s):
        self.process = subprocess.Popen(
            [sys.executable, "-c", LEADER, str(place), str(ttl_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lease = msgspec.json.decode(self.hear(), type=Lease)

    def hear(self):
        return self.process.stdout.readline().strip()

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end(self):
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def leader_of():
    leaders = []

    def start(place, ttl_s=0.4):
        leaders.append(Leader(place, ttl_s))
        return leaders[-1]

    yield start
    for leader in leaders:
        leader.end()


def acquired(engine, holder="new", ttl_s=5.0, tries_s=10.0):
    """Ask until it is granted, as a control plane that stands by does."""
    deadline_s = time.monotonic() + tries_s
    while True:
        try:
            got = acquire(engine, "example", holder, ttl_s=ttl_s)
        except StoreError:
            got = None
        if isinstance(got, Lease):
            return got
        assert time.monotonic() < deadline_s, f"not granted in time: {got}"
        time.sleep(0.02)


def test_a_lease_is_granted_once_and_who_is_refused_hears_who_has_it(engine):
    lease = acquire(engine, "example", "ann", ttl_s=10.0, now_s=100.0)
    assert isinstance(lease, Lease)
    assert (lease.holder, lease.token, lease.lasts_s) == ("ann", 1, 10.0)
    held = acquire(engine, "example", "bob", ttl_s=10.0, now_s=104.0)
    assert isinstance(held, Held)
    assert (held.holder, held.token) == ("ann", 1)
    assert 6.0 <= held.free_in_s <= 6.1
    assert isinstance(acquire(engine, "other", "bob", ttl_s=10.0, now_s=104.0), Lease)


def test_a_lease_that_ended_goes_to_the_next_with_a_higher_token(engine):
    old = acquire(engine, "example", "ann", ttl_s=10.0, now_s=100.0)
    new = acquire(engine, "example", "bob", ttl_s=10.0, now_s=110.1)
    assert (new.holder, new.token) == ("bob", old.token + 1)
    assert renew(engine, old, ttl_s=10.0, now_s=111.0).holder == "bob"
    assert not release(engine, old)
    assert renew(engine, new, ttl_s=10.0, now_s=112.0).token == new.token


def test_a_late_renewal_keeps_the_token_if_nobody_came_in_between(engine):
    lease = acquire(engine, "example", "ann", ttl_s=10.0, now_s=100.0)
    renewed = renew(engine, lease, ttl_s=10.0, now_s=200.0)
    assert (renewed.token, renewed.granted_at_s) == (lease.token, 200.0)


def test_a_released_lease_is_free_at_once_and_its_token_is_spent(engine):
    lease = acquire(engine, "example", "ann", ttl_s=10.0, now_s=100.0)
    assert release(engine, lease)
    assert look(engine, "example", now_s=100.0) == Held(
        name="example", holder=None, token=lease.token + 1, free_in_s=0.0
    )
    with pytest.raises(FencedError, match="nobody has it now"):
        Fenced(engine, "example", lease.token).save({"a": b"1"})
    assert isinstance(renew(engine, lease, ttl_s=10.0, now_s=100.0), Held)
    assert acquire(engine, "example", "bob", ttl_s=10.0, now_s=100.0).token > lease.token + 1


def test_whoever_asks_again_under_its_name_shuts_out_what_it_was_before(engine):
    before = acquire(engine, "example", "ann", ttl_s=10.0, now_s=100.0)
    after = acquire(engine, "example", "ann", ttl_s=10.0, now_s=101.0)
    assert after.token > before.token
    with pytest.raises(FencedError, match=f"ann has it now, token {after.token}"):
        Fenced(engine, "example", before.token).save({"a": b"1"})


def test_a_clock_that_goes_back_by_an_hour_costs_one_lease_and_no_hour(engine):
    acquire(engine, "example", "ann", ttl_s=10.0, now_s=5000.0)
    held = acquire(engine, "example", "bob", ttl_s=10.0, now_s=1400.0)
    assert 10.0 <= held.free_in_s <= 10.1
    assert isinstance(acquire(engine, "example", "bob", ttl_s=10.0, now_s=1405.0), Held)
    assert isinstance(acquire(engine, "example", "bob", ttl_s=10.0, now_s=1410.1), Lease)


def test_a_lease_without_a_length_is_a_mistake(engine):
    for ttl_s in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="longer than 0 s"):
            acquire(engine, "example", "ann", ttl_s=ttl_s)


def test_the_databases_clock_counts_where_no_other_is_given(engine):
    lease = acquire(engine, "example", "ann", ttl_s=10.0)
    assert abs(lease.granted_at_s - time.time()) < 5.0
    assert acquire(engine, "example", "bob", ttl_s=10.0).free_in_s > 5.0


def test_nobody_has_a_lease_that_was_never_asked_for(engine):
    assert look(engine, "example").holder is None
    with pytest.raises(FencedError, match="nobody has had it"):
        Fenced(engine, "example", 1).save({})


def test_what_a_killed_holder_had_is_free_when_its_lease_ends_and_not_before(
    engine, place, leader_of
):
    leader = leader_of(place)
    leader.process.send_signal(signal.SIGKILL)
    leader.process.wait()
    new = acquired(engine)
    assert new.token == leader.lease.token + 1
    assert new.granted_at_s >= leader.lease.expires_at_s


def test_a_stopped_holder_that_wakes_after_another_took_over_writes_nothing(
    engine, place, leader_of
):
    leader = leader_of(place)
    leader.tell("write")
    assert leader.hear() == "saved"
    leader.process.send_signal(signal.SIGSTOP)
    fenced = Fenced(engine, "example", acquired(engine).token)
    fenced.save({"replica-1": b'"new"'})
    leader.tell("write")
    leader.process.send_signal(signal.SIGCONT)
    assert leader.hear() == "fenced"
    assert fenced.load() == {"replica-1": b'"new"'}


def test_a_holder_that_is_stopped_inside_a_transaction_is_cut_off(postgresql, leader_of):
    url = postgresql.fresh_url()
    engine = open_store(url, busy_timeout_s=0.3)
    leader = leader_of(url)
    leader.tell("inside")
    assert leader.hear() == "inside"
    leader.process.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreError, match="is locked by another transaction"):
        acquire(engine, "example", "new", ttl_s=5.0)
    fenced = Fenced(engine, "example", acquired(engine).token)
    fenced.save({"replica-1": b'"new"'})
    leader.tell("go on")
    leader.process.send_signal(signal.SIGCONT)
    assert "Error" in leader.hear()
    assert fenced.load() == {"replica-1": b'"new"'}
    engine.dispose()


def test_a_write_that_was_checked_is_done_before_anyone_takes_over(engine):
    lease = acquire(engine, "example", "old", ttl_s=0.05)
    fenced = Fenced(engine, "example", lease.token)
    time.sleep(0.1)
    order = []

    def take_over():
        acquired(engine)
        order.append("taken over")

    thread = threading.Thread(target=take_over)
    with fenced.writing():
        thread.start()
        time.sleep(0.2)
        order.append("written")
    thread.join()
    assert order == ["written", "taken over"]


def test_leases_and_what_they_fence_outlive_a_crash_of_postgresql(own_postgresql):
    engine = open_store(own_postgresql.url(), busy_timeout_s=1.0)
    lease = acquire(engine, "example", "ann", ttl_s=60.0)
    fenced = Fenced(engine, "example", lease.token)
    fenced.save({"a": b"1"})
    own_postgresql.stop(crash=True)
    for act in (lambda: renew(engine, lease, ttl_s=60.0), lambda: fenced.save({"b": b"2"})):
        with pytest.raises(StoreError, match=r"cannot be reached|lost the connection"):
            act()
    own_postgresql.start()
    renewed = renew(engine, lease, ttl_s=60.0)
    assert (renewed.token, renewed.granted_at_s > lease.granted_at_s) == (lease.token, True)
    fenced.save({"b": b"2"})
    assert fenced.load() == {"a": b"1", "b": b"2"}
    assert isinstance(acquire(engine, "example", "bob", ttl_s=60.0), Held)
    own_postgresql.restart()
    assert acquire(engine, "example", "ann", ttl_s=60.0).token > lease.token, "no error before it"
    engine.dispose()
