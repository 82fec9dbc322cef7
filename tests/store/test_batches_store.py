"""Files and batches in a real store: every move, and that an item has one result."""

import itertools
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.fleet.batches import (
    BATCH_S_MAX,
    BatchDraft,
    BatchFault,
    ItemResult,
    NewItem,
    Owner,
    Page,
    Upload,
)
from argosy.store.batch_work import BatchWork
from argosy.store.batches import Batches
from argosy.store.files import CHUNK_BYTES, Files
from argosy.store.schema import open_store

ACME = Owner(tenant="acme", key="key_1")
NOBODY = Owner(tenant=None, key=None)
FRESH = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
FAULT = BatchFault(code="invalid_json_line", message="no", line=3)


@pytest.fixture
def files(engine):
    return Files(engine)


@pytest.fixture
def batches(engine):
    return Batches(engine)


@pytest.fixture
def desk(engine):
    return BatchWork(engine)


def items(count):
    return [NewItem(custom_id=f"id-{i}", body=b'{"model":"tiny"}') for i in range(count)]


def result(position, outcome="succeeded", line=None):
    line = line or b'{"position": %d}\n' % position
    return ItemResult(position=position, outcome=outcome, line=line, status=200, request="req_1")


def draft(owner=ACME, api="openai", **changes):
    return BatchDraft(owner=owner, api=api, endpoint="/v1/chat/completions", **changes)


def begun(batches, count, **changes):
    return batches.create(draft(**changes), items(count), now_s=1000.0)


def find(batches, batch):
    return batches.find(batch.id, tenant="acme", api=batch.api)


def upload(files, content=b"x", owner=ACME, now_s=1000.0):
    return files.add(owner, Upload(filename="in.jsonl", content=memoryview(content)), now_s=now_s)


def whole(read, thing):
    pieces, after = [], -1
    while found := read(thing, after=after):
        pieces += [content for _, content in found]
        after = found[-1][0]
    return b"".join(pieces)


# Files.


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_a_file_comes_back_as_it_was(files, size):
    content = bytes(range(256)) * (size // 256 + 1)
    file = upload(files, content[:size])
    assert files.find(file.id, tenant="acme") == file
    assert file.bytes == size
    assert whole(files.read, file) == content[:size]


def test_a_deleted_file_leaves_no_byte(files, engine):
    file = upload(files, b"x" * 1000)
    assert not files.delete(file.id, tenant="other")
    assert files.delete(file.id, tenant="acme")
    assert not files.delete(file.id, tenant="acme")
    assert files.read(file, after=-1) == []


def test_files_without_keys_are_nobodys_and_so_found_by_nobody_else(files):
    file = upload(files, owner=NOBODY)
    assert files.find(file.id, tenant=None) == file
    assert files.find(file.id, tenant="acme") is None
    assert files.page(None, Page(limit=10))[0] == [file]


@given(
    count=st.integers(0, 7),
    limit=st.integers(1, 8),
    oldest_first=st.booleans(),
    backwards=st.booleans(),
)
@settings(max_examples=20, **FRESH)
def test_pages_put_together_are_the_list(fresh_place, count, limit, oldest_first, backwards):
    engine = open_store(fresh_place())
    files = Files(engine)
    made = [upload(files, now_s=1000.0 + i).id for i in range(count)]
    wanted = made if oldest_first else made[::-1]
    seen: list[str] = []
    cursor = ("~" if oldest_first else " ") if backwards else None  # behind the end of the list
    while True:
        where = {"before": cursor} if backwards else {"after": cursor}
        rows, has_more = files.page("acme", Page(limit=limit, oldest_first=oldest_first, **where))
        ids = [row.id for row in rows]
        seen = ids + seen if backwards else seen + ids
        if not has_more:
            break
        assert len(ids) == limit
        cursor = ids[0] if backwards else ids[-1]
    assert seen == wanted
    engine.dispose()


# Batches.


def test_a_batch_with_a_file_is_validated_first(batches, desk):
    batch = batches.create(draft(input_file="file-1", metadata={"a": "b"}), now_s=1000.0)
    assert (batch.state, batch.expires_at_s) == ("validating", 1000.0 + BATCH_S_MAX)
    assert find(batches, batch) == batch
    assert desk.add_items(batch.id, items(3), first=0)
    assert desk.add_items(batch.id, items(3), first=0), "a run that was killed begins again"
    assert desk.start(batch.id, items=3, model="tiny", now_s=1001.0)
    assert not desk.start(batch.id, items=3, model="tiny", now_s=1001.0)
    assert not desk.add_items(batch.id, items(1), first=3)
    found = find(batches, batch)
    assert (found.state, found.items, found.model) == ("in_progress", 3, "tiny")
    assert len(desk.claim(batch.id, after=-1, limit=10)) == 3


def test_a_batch_whose_file_is_wrong_says_why_and_keeps_no_item(batches, desk):
    batch = batches.create(draft(input_file="file-1"), now_s=1000.0)
    desk.add_items(batch.id, items(3), first=0)
    assert desk.fail(batch.id, [FAULT], now_s=1001.0)
    found = find(batches, batch)
    assert (found.state, found.faults, found.ended_at_s) == ("failed", (FAULT,), 1001.0)
    assert desk.list_unfinished(batch.id, limit=10) == []
    assert desk.list_open() == []


def test_each_item_is_claimed_once_and_again_after_a_crash(batches, desk):
    batch = begun(batches, 5)
    first = desk.claim(batch.id, after=-1, limit=3)
    assert [(item.position, item.custom_id, item.attempts) for item in first] == [
        (0, "id-0", 1),
        (1, "id-1", 1),
        (2, "id-2", 1),
    ]
    assert [item.position for item in desk.claim(batch.id, after=-1, limit=9)] == [3, 4]
    assert desk.claim(batch.id, after=-1, limit=9) == []
    desk.write_results(batch.id, [result(1)])
    assert desk.reclaim(batch.id) == 4
    again = desk.claim(batch.id, after=-1, limit=9)
    assert [(item.position, item.attempts) for item in again] == [(0, 2), (2, 2), (3, 2), (4, 2)]
    desk.try_again(batch.id, 0)
    desk.reclaim(batch.id)
    assert desk.claim(batch.id, after=-1, limit=1)[0].attempts == 4


def test_the_first_result_of_an_item_stays(batches, desk):
    batch = begun(batches, 2, api="anthropic")
    assert desk.write_results(batch.id, [result(0, line=b"first\n")]) == 1
    assert desk.write_results(batch.id, [result(0, "errored", line=b"second\n")]) == 0
    found = find(batches, batch)
    assert (found.succeeded, found.errored) == (1, 0)
    assert batches.read_results(batch.id, after=-1) == [(0, b"first\n")]


def test_a_batch_ends_when_every_item_is_done_and_its_results_are_files(batches, desk, files):
    batch = begun(batches, 5)
    outcomes = ["succeeded", "errored", "succeeded", "errored"]
    for position in (3, 1, 0, 2):
        assert not desk.end(batch.id, "completed", now_s=1002.0)
        desk.write_results(batch.id, [result(position, outcomes[position])])
    desk.write_results(batch.id, [result(4)])
    assert desk.end(batch.id, "completed", now_s=1002.0)
    assert not desk.end(batch.id, "completed", now_s=1003.0)
    found = find(batches, batch)
    assert (found.state, found.ended_at_s) == ("completed", 1002.0)
    output = files.find(found.output_file, tenant="acme")
    error = files.find(found.error_file, tenant="acme")
    assert files.find(found.output_file, tenant="other") is None
    assert [json.loads(x)["position"] for x in whole(files.read, output).splitlines()] == [0, 2, 4]
    assert [json.loads(x)["position"] for x in whole(files.read, error).splitlines()] == [1, 3]
    assert output.bytes == len(whole(files.read, output))
    assert files.delete(output.id, tenant="acme")
    assert files.read(output, after=-1) == []
    assert whole(files.read, error) != b"", "the other file is still there"


def test_a_batch_without_errors_has_no_error_file(batches, desk):
    batch = begun(batches, 1)
    desk.write_results(batch.id, [result(0)])
    desk.end(batch.id, "completed", now_s=1002.0)
    assert find(batches, batch).error_file is None


def test_a_cancelled_batch_takes_results_until_it_has_ended(batches, desk):
    batch = begun(batches, 3)
    desk.claim(batch.id, after=-1, limit=1)
    assert batches.cancel(batch.id, now_s=1001.0)
    assert not batches.cancel(batch.id, now_s=1002.0)
    assert not batches.delete(batch.id)
    desk.write_results(batch.id, [result(0)])
    left = desk.list_unfinished(batch.id, limit=10)
    assert left == [(1, "id-1"), (2, "id-2")]
    assert not desk.end(batch.id, "completed", now_s=1003.0)
    desk.write_results(batch.id, [result(position, "canceled") for position, _ in left])
    assert not desk.end(batch.id, "completed", now_s=1003.0)
    assert desk.end(batch.id, "cancelled", now_s=1003.0)
    found = find(batches, batch)
    assert (found.succeeded, found.canceled, found.items_unserved) == (1, 2, 2)
    assert batches.delete(batch.id)
    assert find(batches, batch) is None


def test_a_batch_that_is_cancelled_before_it_began_has_ended(batches, desk):
    batch = batches.create(draft(input_file="file-1"), now_s=1000.0)
    desk.add_items(batch.id, items(3), first=0)
    assert batches.cancel(batch.id, now_s=1001.0)
    assert find(batches, batch).state == "cancelled"
    assert desk.list_open() == []
    assert not desk.start(batch.id, items=3, model=None, now_s=1002.0)
    assert desk.list_unfinished(batch.id, limit=9) == []


def test_what_is_old_is_forgotten_and_what_is_open_is_not(batches, desk, files):
    old, kept = upload(files), upload(files, now_s=3000.0)
    ended, running = begun(batches, 1), begun(batches, 1)
    desk.write_results(ended.id, [result(0)])
    desk.end(ended.id, "completed", now_s=1500.0)
    assert desk.forget_before(2000.0) == 1
    assert files.forget_before(2000.0) == 2
    assert find(batches, ended) is None
    assert find(batches, running) == running
    assert files.find(old.id, tenant="acme") is None
    assert files.read(old, after=-1) == []
    assert files.find(kept.id, tenant="acme") == kept


def test_thousands_of_items_and_results_need_no_more_than_a_statement_takes(batches, desk):
    batch = begun(batches, 3000)
    left = desk.list_unfinished(batch.id, limit=5000)
    assert len(left) == 3000
    assert desk.write_results(batch.id, [result(position, "expired") for position, _ in left])
    assert find(batches, batch).expired == 3000
    assert batches.results_bytes(batch.id) == len(whole(batches.read_results, batch.id))


COUNT = 4
moves = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(1, COUNT)),
        st.tuples(st.just("crash"), st.just(0)),
        st.tuples(st.just("succeeded"), st.integers(0, COUNT - 1)),
        st.tuples(st.just("errored"), st.integers(0, COUNT - 1)),
        st.tuples(st.just("cancel"), st.just(0)),
        st.tuples(st.just("end"), st.just(0)),
    ),
    max_size=25,
)


@given(moves)
@settings(max_examples=30, **FRESH)
def test_whatever_happens_no_item_is_lost_and_none_has_two_results(fresh_place, moves):
    engine = open_store(fresh_place())
    batches, desk = Batches(engine), BatchWork(engine)
    batch = begun(batches, COUNT, api="anthropic")
    first: dict[int, bytes] = {}  # the oracle: the first result of an item is its result
    for serial, (move, argument) in enumerate(moves):
        match move:
            case "claim":
                claimed = desk.claim(batch.id, after=-1, limit=argument)
                assert not {item.position for item in claimed} & set(first)
            case "crash":
                desk.reclaim(batch.id)
            case "succeeded" | "errored":
                line = b"%d %d\n" % (argument, serial)
                desk.write_results(batch.id, [result(argument, move, line)])
                first.setdefault(argument, line)
            case "cancel":
                batches.cancel(batch.id, now_s=1001.0)
            case "end":
                state = find(batches, batch).state
                ending = "cancelled" if state == "cancelling" else "completed"
                can_end = state in ("in_progress", "cancelling") and len(first) == COUNT
                assert desk.end(batch.id, ending, now_s=1002.0) == can_end
    desk.reclaim(batch.id)
    pending = {item.position for item in desk.claim(batch.id, after=-1, limit=COUNT)}
    assert pending | set(first) == set(range(COUNT))
    assert not pending & set(first)
    assert dict(batches.read_results(batch.id, after=-1)) == first
    found = find(batches, batch)
    assert found.succeeded + found.errored == len(first)
    engine.dispose()


def test_ids_sort_by_time(batches):
    made = [batches.create(draft(), items(1), now_s=1000.0 + i).id for i in range(5)]
    assert all(earlier < later for earlier, later in itertools.pairwise(made))
