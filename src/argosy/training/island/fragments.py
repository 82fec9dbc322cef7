"""Fragments of the published parameters: named, taken apart, put together. Pure."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from argosy.training.inner import Vector
from argosy.training.outer.parameters import ParameterMap
from argosy.training.wire import FragmentName


def sha256_of(content: bytes | memoryview) -> str:
    """In lower-case hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def named(parameter_map: ParameterMap, vector: Vector) -> list[tuple[FragmentName, bytes]]:
    """Each fragment's name and its fp32 bytes."""
    pairs: list[tuple[FragmentName, bytes]] = []
    for part in parameter_map.fragments:
        content = part.of(vector).astype("<f4", copy=False).tobytes()
        name = FragmentName(
            index=part.index, start=part.start, values=part.values, sha256=sha256_of(content)
        )
        pairs.append((name, content))
    return pairs


def unlike(parameter_map: ParameterMap, vector: Vector, names: Sequence[FragmentName]) -> list[int]:
    """Fragments of the vector that are not the named ones; []: it is that version, bit for bit."""
    return [
        part.index
        for part, name in zip(parameter_map.fragments, names, strict=True)
        if sha256_of(part.of(vector).astype("<f4", copy=False).data) != name.sha256
    ]


def joined(
    parameter_map: ParameterMap, names: Sequence[FragmentName], contents: Mapping[str, bytes]
) -> Vector:
    """The whole vector. Raises ValueError where the fragments are not the map's."""
    cut = [(part.index, part.start, part.values) for part in parameter_map.fragments]
    if [(one.index, one.start, one.values) for one in names] != cut:
        raise ValueError(f"{len(names)} fragments were named; these tensors have {len(cut)} others")
    parts = [np.frombuffer(contents[name.sha256], "<f4") for name in names]
    if any(part.size != name.values for part, name in zip(parts, names, strict=True)):
        raise ValueError("a fragment has another length than its name says")
    return np.concatenate(parts).astype(np.float32)
