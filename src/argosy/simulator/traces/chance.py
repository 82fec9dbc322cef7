"""Chance that belongs to a thing, not to when it is asked: hashes of (seed, what for, which row).

So a transform treats a row alike however the trace is cut into windows. The mixing function is
splitmix64 (Steele, Lea, Flood 2014: "Fast splittable pseudorandom number generators").
"""

import numpy as np
from numpy.typing import NDArray

_MASK = 2**64 - 1
_STEP = 0x9E3779B97F4A7C15  # 2^64 / golden ratio, odd


def mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Each number's hash; no two numbers share one."""
    mixed = values + np.uint64(_STEP)
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed


def key(seed: int, *words: int | str) -> int:
    """64 bits that differ for every seed and purpose."""
    made = seed & _MASK
    for word in words:
        number = int.from_bytes(word.encode(), "big") if isinstance(word, str) else word
        made = int(mixed(np.array([made ^ (number * _STEP & _MASK)], np.uint64))[0])
    return made


def hashes(of_key: int, ids: NDArray[np.generic]) -> NDArray[np.uint64]:
    """A hash for each id under this key."""
    return mixed(ids.astype(np.uint64) ^ np.uint64(of_key))


def uniforms(values: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Hashes as numbers in [0, 1)."""
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(seed: int, *path: int) -> np.random.Generator:
    """The PCG64 generator of one stream's one purpose."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=path)))
