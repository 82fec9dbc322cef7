"""Any values: a stupid oracle has the same bytes, errors are bounded, damage is refused."""

import struct
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from argosy.training.outer.codec import (
    BLOCK_VALUES,
    HEADER,
    LEVELS,
    LIMIT,
    TINY,
    DamagedError,
    NotFiniteError,
    decode,
    encode,
    encode_and_decode,
    encoded_bytes,
)

normal = st.floats(-1.0, 1.0, width=32)
any_finite = st.floats(-(2.0**119), 2.0**119, width=32)
vectors = arrays(np.float32, st.integers(1, 3 * BLOCK_VALUES + 5), elements=normal | any_finite)
bits_of_a_value = st.sampled_from([4, 8])


@given(vectors, bits_of_a_value)
def test_the_codec_agrees_with_a_stupid_one(values, bits):
    assert encode(values, bits=bits) == _stupid(values, bits)


@given(vectors, bits_of_a_value)
def test_what_is_decoded_is_what_the_sender_knows_and_at_most_half_a_step_off(values, bits):
    data, known = encode_and_decode(values, bits=bits)
    decoded = decode(data, values=values.size)
    assert decoded.tobytes() == known.tobytes()
    assert len(data) == encoded_bytes(values.size, bits)
    for start in range(0, values.size, BLOCK_VALUES):
        block = values[start : start + BLOCK_VALUES].astype(np.float64)
        step = np.abs(block).max() / (LEVELS[bits] + 0.5)
        error = np.abs(block - decoded[start : start + BLOCK_VALUES])
        assert error.max() <= max(step * (0.5 + LEVELS[bits] / 256), TINY)  # bf16: 8 bits


@given(vectors)
def test_32_bits_say_the_values_themselves(values):
    assert decode(encode(values, bits=32)).tobytes() == values.tobytes()


@given(st.integers(0, 200), st.sampled_from([np.nan, np.inf, -np.inf, LIMIT, -3e38]))
def test_what_is_not_finite_is_not_encoded(place, bad):
    values = np.ones(201, np.float32)
    values[place] = bad
    for bits in (4, 8, 32):
        with pytest.raises(NotFiniteError):
            encode(values, bits=bits)


@settings(max_examples=300)
@given(vectors, st.sampled_from([4, 8, 32]), st.data())
def test_damaged_bytes_are_refused_or_are_another_encoding(values, bits, data):
    encoded = bytearray(encode(values, bits=bits))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    stop = data.draw(st.integers(0, len(encoded)) | st.just(len(encoded)))
    encoded = bytes(encoded[:stop]) + data.draw(st.binary(max_size=3))
    try:
        decoded = decode(encoded)
    except DamagedError:
        return
    assert np.abs(decoded.astype(np.float64)).max() <= LIMIT * LEVELS[8]
    assert decoded.nbytes <= 8 * len(encoded)


@given(st.binary(max_size=200))
def test_any_bytes_after_a_right_beginning_are_read_or_refused(rest):
    for bits in (4, 8, 32):
        with pytest.raises(DamagedError):
            decode(HEADER.pack(b"ARGD", 1, bits, BLOCK_VALUES, 2**63) + rest)


@given(vectors, bits_of_a_value, st.integers(1, 30))
def test_what_was_not_said_is_said_in_the_end(values, bits, rounds):
    """Feedback as both sides use it: the next message is made of what is still unsaid."""
    said = np.zeros(values.size, np.float64)
    unsaid = values.astype(np.float64)
    errors = []
    for _ in range(rounds):
        _, decoded = encode_and_decode(unsaid.astype(np.float32), bits=bits)
        said += decoded
        unsaid = values - said
        errors.append(np.abs(unsaid).max())
    for before, after in pairwise(errors):
        assert after <= before * 0.51 or after <= TINY * 2


def _stupid(values, bits):
    """Value by value, each operation rounded to fp32 by hand."""
    f = np.float32
    most = LEVELS[bits]
    scales, codes = [], []
    for start in range(0, values.size, BLOCK_VALUES):
        block = values[start : start + BLOCK_VALUES]
        absmax = max(abs(f(v)) for v in block)
        scale_bits, scale = 0, f(0)
        if absmax >= TINY:
            plain = struct.unpack("<I", struct.pack("<f", f(absmax * f(1 / (most + 0.5)))))[0]
            low, scale_bits = plain % 65536, plain // 65536
            if low > 32768 or (low == 32768 and scale_bits % 2 == 1):
                scale_bits += 1
            scale = f(struct.unpack("<f", struct.pack("<I", scale_bits * 65536))[0])
        scales.append(scale_bits)
        inverse = f(f(1) / scale) if scale > 0 else f(0)
        codes += [max(-most, min(most, round(float(f(v * inverse))))) for v in block]
    header = struct.pack("<4sBBHQ", b"ARGD", 1, bits, BLOCK_VALUES, values.size)
    if bits == 8:
        packed = bytes(code % 256 for code in codes)
    else:
        codes += [0] * (len(codes) % 2)
        packed = bytes(
            low + 8 + 16 * (high + 8) for low, high in zip(codes[::2], codes[1::2], strict=True)
        )
    return header + struct.pack(f"<{len(scales)}H", *scales) + packed
