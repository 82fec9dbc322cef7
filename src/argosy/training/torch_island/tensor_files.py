"""Writes safetensors files: fp32 values by name, hashed on the way; loads no torch.

The format is eight bytes of length, a JSON header, then the values. The package's own writer makes
a copy of everything first and returns no hash: here a value is read once, in pieces, without the
interpreter's lock, so that a thread can write while another trains. Reading is the package's.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_PIECE_BYTES = 4 * 2**20
Values = NDArray[np.float32]


def write_tensors(
    path: Path, tensors: Mapping[str, Values], *, metadata: Mapping[str, str] | None = None
) -> str:
    """Writes a new file, on the disk when this returns; its SHA-256. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("xb") as file:
        for piece in _pieces(tensors, metadata or {}):
            file.write(piece)
            digest.update(piece)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _pieces(
    tensors: Mapping[str, Values], metadata: Mapping[str, str]
) -> Iterable[bytes | memoryview]:
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, values in tensors.items():
        begin, end = end, end + 4 * values.size
        shape = list(values.shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for values in tensors.values():
        little = np.ascontiguousarray(values, dtype="<f4").reshape(-1)
        raw = little.view(np.uint8).data
        for begin in range(0, len(raw), _PIECE_BYTES):
            yield raw[begin : begin + _PIECE_BYTES]


def sha256_of(path: Path) -> str:
    """Of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
