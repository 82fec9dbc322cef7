"""The ledger of a run: every block ends done exactly once, whatever order things happen in."""

import itertools

import msgspec
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

from argosy.store import runs
from argosy.store.errors import FencedError
from argosy.store.leases import acquire
from argosy.store.run_claims import Booked, Declined
from argosy.store.run_ledger import Ledger, lease_name
from argosy.store.schema import open_store
from tests.store.running_postgresql import shared_postgresql

ISLANDS = ("ann", "bob", "cid")
SERIALS = itertools.count()
STEP = 4
BLOCKS = 4 * 15
STALENESS_MAX = 2
SETTINGS = runs.RoundSettings(lr=0.7, momentum=0.9, bits=4)

islands = st.sampled_from(ISLANDS)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request, tmp_path_factory):
    if request.param == "postgresql":
        running = shared_postgresql()
        if running is None:
            pytest.skip("PostgreSQL is not installed")
        engine = open_store(running.fresh_url())
    else:
        engine = open_store(tmp_path_factory.mktemp("runs") / "argosy.db")
        engine.dispose()
        sqlalchemy.event.listen(
            engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF")
        )
    yield engine
    engine.dispose()


class Books(RuleBasedStateMachine):
    """A syncer that is restarted, islands that die and come back, and a list as the oracle."""

    def __init__(self, engine):
        super().__init__()
        self.engine = engine
        self.run = f"run-{next(SERIALS)}"
        runs.create_run(engine, self.run, spec="spec", blocks=BLOCKS, blocks_a_step=STEP)
        self.ledger = self.take_over()
        seed = runs.Seed(island="ann", tensors_sha256="t", fragments=())
        assert self.ledger.seed(seed)
        assert not self.ledger.seed(seed)
        self.epochs = {}  # of each island that lives
        self.numbers = {}
        self.leases = {}  # that each holds, by name
        self.lost_answers = []  # contributions that were accepted, and may be sent again
        self.old = []  # leases of lives that are over
        self.done = {}  # by position: the contribution that counted it
        self.version = 0

    def take_over(self):
        holder = f"syncer-{next(SERIALS)}"
        lease = acquire(
            self.engine, lease_name(self.run), holder, ttl_s=1e-3, now_s=float(next(SERIALS))
        )
        return Ledger(self.engine, self.run, lease.token)

    def sent(self, island, lease, **changes):
        sent = runs.Sent(
            island=island,
            epoch=self.epochs[island],
            number=self.numbers[island] + 1,
            base_version=self.version,
            lease=lease.lease,
            steps=lease.blocks // STEP,
            blocks=lease.blocks,
            loss=1.0,
            fragments=(f"{island}-{self.epochs[island]}-{self.numbers[island]}",),
            tokens_sha256="t",
        )
        return msgspec.structs.replace(sent, **changes)

    @rule(island=islands)
    def an_island_joins_or_is_relaunched(self, island):
        before = self.epochs.get(island, 0)
        self.epochs[island] = self.ledger.join(island, None)
        assert self.epochs[island] > before
        self.numbers[island] = 0
        self.old += [(island, lease) for lease in self.leases.pop(island, {}).values()]

    @rule(island=islands)
    def an_island_falls_silent(self, island):
        if island in self.epochs:
            self.ledger.part(island, self.epochs[island], state="silent")
            self.old += [(island, lease) for lease in self.leases.pop(island, {}).values()]

    @rule(island=islands, steps=st.integers(1, 6))
    def a_lease_is_granted(self, island, steps):
        epoch = self.epochs.get(island, 0)
        lease = self.ledger.grant(island, epoch, blocks=steps * STEP)
        if lease is not None:
            assert epoch > 0
            assert lease.blocks % STEP == 0
            self.leases.setdefault(island, {})[lease.lease] = lease

    @rule(data=st.data(), steps_behind=st.integers(0, 4))
    def a_contribution_comes(self, data, steps_behind):
        if not any(self.leases.values()):
            return
        island = data.draw(
            st.sampled_from(sorted(name for name in self.leases if self.leases[name]))
        )
        lease = data.draw(st.sampled_from(list(self.leases[island].values())))
        base = max(0, self.version - steps_behind)
        own = {
            one.version
            for one in runs.contributions_of(self.engine, self.run)
            if (one.island, one.epoch) == (island, self.epochs[island])
            and (one.version or 0) > base
        }
        sent = self.sent(island, lease, base_version=base)
        answer = self.ledger.accept(sent, staleness_max=STALENESS_MAX)
        self.numbers[island] += 1
        del self.leases[island][lease.lease]
        if self.version - base - len(own) > STALENESS_MAX:
            assert isinstance(answer, Declined)
            assert answer.code == "too_stale"
        else:
            assert isinstance(answer, Booked)
            self.count(sent, lease)
        self.lost_answers.append((sent, answer))

    def count(self, sent, lease):
        for start, stop in lease.spans:
            for position in range(start, stop):
                assert position not in self.done
                self.done[position] = (sent.island, sent.epoch, sent.number)

    @rule(data=st.data())
    def bytes_are_damaged(self, data):
        if not any(self.leases.values()):
            return
        island = data.draw(
            st.sampled_from(sorted(name for name in self.leases if self.leases[name]))
        )
        _, lease = self.leases[island].popitem()
        sent = self.sent(island, lease)
        self.numbers[island] += 1
        assert self.ledger.decline(sent, code="damaged", reason="r").code == "damaged"
        again = self.ledger.accept(sent, staleness_max=STALENESS_MAX)
        assert isinstance(again, Declined)

    @precondition(lambda self: self.lost_answers)
    @rule(data=st.data())
    def a_contribution_comes_again(self, data):
        sent, before = data.draw(st.sampled_from(self.lost_answers))
        done = self.ledger.record().blocks_done
        answer = self.ledger.accept(sent, staleness_max=STALENESS_MAX)
        assert self.ledger.record().blocks_done == done
        newest = (self.epochs[sent.island], self.numbers[sent.island])
        if newest == (sent.epoch, sent.number):
            assert type(answer) is type(before)
            if isinstance(answer, Booked):
                assert not answer.is_new
        else:
            assert isinstance(answer, Declined)
            assert answer.code in ("stale_epoch", "replayed")

    @precondition(lambda self: self.old)
    @rule(data=st.data())
    def a_void_lease_is_used(self, data):
        island, lease = data.draw(st.sampled_from(self.old))
        answer = self.ledger.accept(self.sent(island, lease), staleness_max=STALENESS_MAX)
        self.numbers[island] += 1
        assert isinstance(answer, Declined)
        assert answer.code == "unknown_lease"

    @rule(data=st.data())
    def another_islands_lease_is_used(self, data):
        owners = sorted(name for name in self.leases if self.leases[name])
        if not owners or len(self.epochs) < 2:
            return
        owner = data.draw(st.sampled_from(owners))
        thief = data.draw(st.sampled_from(sorted(set(self.epochs) - {owner})))
        lease = next(iter(self.leases[owner].values()))
        answer = self.ledger.accept(self.sent(thief, lease), staleness_max=STALENESS_MAX)
        self.numbers[thief] += 1
        assert isinstance(answer, Declined)
        assert answer.code == "unknown_lease"

    @rule(data=st.data())
    def a_round_closes(self, data):
        pending = self.ledger.pending()
        if not pending:
            return
        kept = [one for one in pending if data.draw(st.booleans())]
        out = [one for one in pending if one not in kept and data.draw(st.booleans())]
        taken = [
            runs.Weighed(
                island=one.island,
                epoch=one.epoch,
                number=one.number,
                weight=1.0,
                fragments=one.fragments,
            )
            for one in kept
        ]
        distrusted = [(one, "its norm is far off") for one in out]
        args = (self.version + 1, taken)
        closed = self.ledger.close_round(
            *args, distrusted=distrusted, settings=SETTINGS, reason="all"
        )
        assert closed is not None
        assert self.ledger.close_round(*args, settings=SETTINGS, reason="again") is None
        self.version += 1
        for one in out:
            key = (one.island, one.epoch, one.number)
            self.done = {at: by for at, by in self.done.items() if by != key}
        left = {(one.island, one.epoch, one.number) for one in self.ledger.pending()}
        assert left == {
            (one.island, one.epoch, one.number)
            for one in pending
            if one not in kept and one not in out
        }

    @rule()
    def the_syncer_is_restarted(self):
        before = self.ledger
        self.ledger = self.take_over()
        with pytest.raises(FencedError):
            before.set_state("stopped")
        with pytest.raises(FencedError):
            before.grant("ann", self.epochs.get("ann", 0), blocks=STEP)
        held = {lease.lease for lease in self.ledger.open_leases()}
        assert held == {name for leases in self.leases.values() for name in leases}

    @invariant()
    def each_block_is_free_leased_or_done(self):
        record = self.ledger.record()
        free = [at for start, stop in record.freed for at in range(start, stop)]
        free += range(record.frontier, record.blocks)
        leased = [
            at
            for leases in self.leases.values()
            for lease in leases.values()
            for start, stop in lease.spans
            for at in range(start, stop)
        ]
        assert sorted([*free, *leased, *self.done]) == list(range(BLOCKS))
        assert record.blocks_done == len(self.done)
        assert record.version == self.version
        of_islands = sum(row.blocks_done for row in runs.islands_of(self.engine, self.run))
        assert of_islands == len(self.done)

    def teardown(self):
        """Whatever came before, one island that stays brings the run to its end."""
        self.an_island_joins_or_is_relaunched("ann")
        for name in ISLANDS[1:]:
            self.an_island_falls_silent(name)
        while True:
            lease = self.ledger.grant("ann", self.epochs["ann"], blocks=7 * STEP)
            if lease is None:
                break
            sent = self.sent("ann", lease)
            assert isinstance(self.ledger.accept(sent, staleness_max=STALENESS_MAX), Booked)
            self.numbers["ann"] += 1
            self.count(sent, lease)
        assert sorted(self.done) == list(range(BLOCKS))


def test_every_block_ends_done_exactly_once(engine):
    run_state_machine_as_test(
        lambda: Books(engine),
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
