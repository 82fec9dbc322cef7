"""The codec on a torch device writes the reference's bytes. Another device is to pass this too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from argosy.training.outer import codec

torch = pytest.importorskip("torch", reason="the extra `train` is not installed")
DEVICE = "cpu"

from argosy.training.outer import codec_torch  # noqa: E402

values_of_any_size = st.floats(-1.0, 1.0, width=32) | st.floats(-(2.0**119), 2.0**119, width=32)
vectors = arrays(np.float32, st.integers(1, 200), elements=values_of_any_size)


@settings(deadline=None)
@given(vectors, st.sampled_from([4, 8, 32]))
def test_torch_writes_the_same_bytes(values, bits):
    on_device = torch.from_numpy(values).to(DEVICE)
    assert codec_torch.encode(on_device, bits=bits) == codec.encode(values, bits=bits)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(1e-30, 1e30), st.sampled_from([4, 8]))
def test_torch_writes_the_same_bytes_for_many_values(seed, size, bits):
    values = (np.random.default_rng(seed).standard_normal(70_001) * size).astype(np.float32)
    on_device = torch.from_numpy(values).to(DEVICE)
    assert codec_torch.encode(on_device, bits=bits) == codec.encode(values, bits=bits)


@settings(deadline=None)
@given(st.integers(0, 200), st.sampled_from([np.nan, np.inf, -np.inf, codec.LIMIT]))
def test_torch_refuses_what_is_not_finite(place, bad):
    values = torch.ones(201)
    values[place] = float(bad)
    for bits in (4, 8, 32):
        with pytest.raises(codec.NotFiniteError):
            codec_torch.encode(values, bits=bits)
