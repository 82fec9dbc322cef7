"""An input file is the same requests, and the same faults, however its bytes are torn."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from argosy.gateway.batches.input_file import InputFile

ENDPOINT = "/v1/embeddings"


def good(custom_id: str) -> bytes:
    body = {"model": "tiny", "input": "\u00e9"}
    line = {"custom_id": custom_id, "method": "POST", "url": ENDPOINT, "body": body}
    return json.dumps(line, ensure_ascii=False).encode()


lines = st.lists(
    st.one_of(
        st.sampled_from("abc").map(good),
        st.sampled_from([b"", b"  ", b"{", b"[]", b"\xff", b'{"custom_id": 1}', b"\r"]),
        st.binary(max_size=8),
    ),
    max_size=12,
)


def read(pieces):
    reading = InputFile(ENDPOINT)
    items = [item for piece in pieces for item in reading.feed(piece)]
    return [*items, *reading.close()], reading.faults, reading.items


@given(lines, st.booleans(), st.lists(st.integers(0, 2000), max_size=10))
def test_an_input_file_is_read_alike_however_it_is_torn(lines, has_last_end, places):
    whole = b"\n".join(lines) + b"\n" * has_last_end
    at = [0, *sorted(place % (len(whole) + 1) for place in places), len(whole)]
    torn = [whole[start:end] for start, end in pairwise(at)]
    assert read(torn) == read([whole])


@given(lines)
def test_every_line_is_a_request_or_a_fault_or_blank(lines):
    whole = b"\n".join(lines)
    items, faults, count = read([whole])
    said = [line for line in whole.split(b"\n") if line.strip()]
    assert count == len(said)
    faulty = {fault.line for fault in faults if fault.line is not None}
    if not faulty:
        assert len(items) == len(said)
    assert faulty or items or [fault.code for fault in faults] == ["empty_file"]


@given(st.lists(st.text("xyz-0123", min_size=1, max_size=6), unique=True, min_size=1, max_size=20))
def test_a_good_file_gives_its_requests_in_order(custom_ids):
    items, faults, _ = read([b"\n".join(map(good, custom_ids))])
    assert faults == []
    assert [item.custom_id for item in items] == custom_ids
    assert json.loads(items[0].body) == {"model": "tiny", "input": "\u00e9"}
