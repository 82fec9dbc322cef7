"""Laws of what an island holds in memory for others."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from argosy.training.island.held_copies import HeldCopies, OffsetError, UnlikeError
from argosy.training.wire import CopiedFile, Copy, CopyRefused

CONTENTS = [bytes([at]) * size for at, size in enumerate((0, 1, 7, 20, 33))]
NAMES = {hashlib.sha256(one).hexdigest(): one for one in CONTENTS}


def copy_of(island, label, chosen):
    files = tuple(
        CopiedFile(path=f"f{at}", bytes=len(one), sha256=hashlib.sha256(one).hexdigest())
        for at, one in enumerate(CONTENTS)
        if at in chosen
    )
    return Copy(island=island, label=str(label), files=files)


COPIES = st.builds(
    copy_of,
    st.sampled_from(["ann", "bob", "cid"]),
    st.integers(0, 2),
    st.sets(st.integers(0, 4), min_size=1),
)
MOVES = st.lists(
    st.tuples(COPIES, st.sampled_from(["begin", "send", "cut", "damage", "drop"])), max_size=30
)


def send(held, copy, there, act):
    for name, offset in there.items():
        rest = NAMES[name][offset:]
        piece = {"send": rest, "cut": rest[: len(rest) // 2], "damage": b"?" * len(rest)}[act]
        try:
            held.add(copy.island, name, offset, piece, now_s=0.0)
        except (UnlikeError, OffsetError):
            assert act == "damage"


@given(MOVES, st.integers(0, 120))
def test_what_is_held_is_whole_as_sent_and_within_the_bound(moves, bytes_max):
    held = HeldCopies(bytes_max)
    for copy, act in moves:
        if act == "drop":
            held.drop(copy.island)
            continue
        answer = held.begin(copy, now_s=0.0)
        assert held.bytes_held <= bytes_max
        if isinstance(answer, CopyRefused):
            assert answer.bytes_asked > answer.bytes_free
            continue
        if act != "begin":
            send(held, copy, answer, act)
            if act == "send":
                assert held.begin(copy, now_s=0.0) == {}
                assert held.newest(copy.island) == copy
        assert held.bytes_held <= bytes_max
        for island in ("ann", "bob", "cid"):
            newest = held.newest(island)
            for file in () if newest is None else newest.files:
                assert bytes(held.content(island, file.sha256)) == NAMES[file.sha256]
