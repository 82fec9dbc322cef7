"""Packing keeps every token once, fills every block, and drops less than one block."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from argosy.training.data.pack import Segments, packed

lengths = st.lists(st.integers(1, 60), max_size=60)
block_tokens = st.integers(1, 33)


@given(lengths=lengths, block_tokens=block_tokens)
def test_every_token_is_in_one_place_or_in_the_tail(lengths: list[int], block_tokens: int):
    segments = packed(np.array(lengths, dtype=np.int64), block_tokens)
    seen = _tokens(segments)
    assert len(seen) == len(set(seen)) == segments.blocks * block_tokens
    assert set(seen) <= {(at, one) for at, length in enumerate(lengths) for one in range(length)}
    assert sum(lengths) - len(seen) == segments.tokens_dropped < block_tokens


@given(lengths=lengths, block_tokens=block_tokens)
def test_every_block_is_full(lengths: list[int], block_tokens: int):
    segments = packed(np.array(lengths, dtype=np.int64), block_tokens)
    filled = np.bincount(segments.block, weights=segments.length, minlength=segments.blocks)
    assert (filled == block_tokens).all()
    assert (np.diff(segments.block) >= 0).all()
    assert (segments.length > 0).all()


@given(lengths=lengths, block_tokens=block_tokens)
def test_a_document_is_cut_only_where_it_is_longer_than_a_block_or_fills_one(
    lengths: list[int], block_tokens: int
):
    segments = packed(np.array(lengths, dtype=np.int64), block_tokens)
    pieces = np.bincount(segments.document, minlength=len(lengths))
    needed = sum(-(-length // block_tokens) for length in lengths)
    assert pieces.sum() <= needed + segments.fillings


@given(lengths=lengths, block_tokens=block_tokens)
def test_packing_again_gives_the_same(lengths: list[int], block_tokens: int):
    array = np.array(lengths, dtype=np.int64)
    assert _tokens(packed(array, block_tokens)) == _tokens(packed(array, block_tokens))


def _tokens(segments: Segments) -> list[tuple[int, int]]:
    columns = (segments.document, segments.offset, segments.length)
    return [
        (document, token)
        for document, offset, length in zip(*(one.tolist() for one in columns), strict=True)
        for token in range(offset, offset + length)
    ]
