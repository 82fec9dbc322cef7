"""One vector of fp32 values out of all tensors, cut in fragments; owns no values itself.

A fragment is the unit of transfer alone: it may cut through a tensor. All are equally long but the
last, and a multiple of `ALIGNED_VALUES`, so that a fragment's codec blocks are those of the vector.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence

import msgspec

from argosy.training.inner import Tensor, Vector

ALIGNED_VALUES = 1024  # a multiple of every codec block


class Fragment(msgspec.Struct, frozen=True, kw_only=True):
    """The values start <= i < start + values of the vector."""

    index: int
    start: int
    values: int

    @property
    def stop(self) -> int:
        """One past its last value."""
        return self.start + self.values

    def of(self, vector: Vector) -> Vector:
        """A view of its part of the vector; writing to it writes there."""
        return vector[self.start : self.stop]


class ParameterMap:
    """Where each tensor lies in the vector, and where the vector is cut."""

    def __init__(self, tensors: Sequence[Tensor], fragment_bytes_max: int) -> None:
        """Raises ValueError for no values, a name twice, or a dimension below one."""
        self.tensors = tuple(tensors)
        self.values = _values(self.tensors)
        self.tensors_sha256 = hashlib.sha256(msgspec.json.encode(self.tensors)).hexdigest()
        self.fragments = _cut(self.values, fragment_bytes_max)

    def views(self, vector: Vector) -> Iterator[tuple[Tensor, Vector]]:
        """Each tensor with a view of its values in its shape. Raises ValueError for another size.

        Writing to a view writes to the vector, which must be contiguous.
        """
        if vector.shape != (self.values,):
            raise ValueError(
                f"a vector of shape {vector.shape} was given; the tensors have {self.values} values"
            )
        start = 0
        for tensor in self.tensors:
            stop = start + math.prod(tensor.shape)
            yield tensor, vector[start:stop].reshape(tensor.shape)
            start = stop


def _values(tensors: tuple[Tensor, ...]) -> int:
    names = [tensor.name for tensor in tensors]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"tensors must have a name each; twice or more: {', '.join(twice)}")
    for tensor in tensors:
        if any(size < 1 for size in tensor.shape):
            raise ValueError(f"tensor {tensor.name} has shape {tensor.shape}; each must be >= 1")
    values = sum(math.prod(tensor.shape) for tensor in tensors)
    if values == 0:
        raise ValueError("no tensors were given: there is nothing to train")
    return values


def _cut(values: int, fragment_bytes_max: int) -> tuple[Fragment, ...]:
    length = max(ALIGNED_VALUES, fragment_bytes_max // 4 // ALIGNED_VALUES * ALIGNED_VALUES)
    starts = range(0, values, length)
    return tuple(
        Fragment(index=index, start=start, values=min(length, values - start))
        for index, start in enumerate(starts)
    )
