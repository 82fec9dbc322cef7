"""Closing a round: deltas in, the next parameters and the update that everyone takes up out. Pure.

Per fragment, with weights w (`policies/elasticity`), g = sum of w x delta:
    parameters <- parameters - lr x (momentum + (1 + mu) x g)
    momentum   <- mu x (momentum + mu x g)
    update     =  encode(published - parameters)
    published  <- published - decode(update)
With the same lr and mu in every round this is Nesterov's momentum as in DiLoCo (this momentum is
mu^2 times the usual one). Of lr / (1 - mu) x g a round spends 1 - mu^2, and later ones 1 - mu of
what is left: of rounds of any size too, as `lr_of` and `momentum_of` of that policy have it.
What an update could not say for want of bits is in the next one, for it is made from what was
published: that is the error feedback, and needs no memory of its own.

Sums are taken in fp64 in the order of the deltas, which the caller fixes, and rounded once to fp32:
the same deltas in the same order give the same bits on every machine. Work is in pieces that stay
in the cache; a round of 3 deltas takes about 9 passes over the parameters.
"""

from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from argosy.training.inner import Vector
from argosy.training.outer.codec import decode, encode_and_decode
from argosy.training.outer.parameters import ParameterMap

_CHUNK_VALUES = 65536


class OuterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Of one round; `fleet/runs.py` says where they come from."""

    lr: float
    momentum: float
    bits: int


class OuterFragment(msgspec.Struct, frozen=True, kw_only=True):
    """One fragment's state; the arrays are nobody's to write to."""

    parameters: Vector  # the true ones
    momentum: Vector  # what it has yet to do of earlier deltas
    published: Vector  # what all islands have


class OuterState(msgspec.Struct, frozen=True, kw_only=True):
    """All of it, by fragment."""

    version: int
    fragments: tuple[OuterFragment, ...]

    def published(self) -> Vector:
        """The whole vector that all islands have at this version."""
        return np.concatenate([fragment.published for fragment in self.fragments])

    def parameters(self) -> Vector:
        """The whole vector of the true parameters: what the run comes to."""
        return np.concatenate([fragment.parameters for fragment in self.fragments])


def first_state(vector: Vector, parameter_map: ParameterMap, *, version: int = 0) -> OuterState:
    """Of parameters that all have; copies them."""
    return OuterState(
        version=version,
        fragments=tuple(first_fragment(part.of(vector)) for part in parameter_map.fragments),
    )


def first_fragment(values: Vector) -> OuterFragment:
    """Without momentum, published as it is; copies."""
    return OuterFragment(
        parameters=values.astype(np.float32),
        momentum=np.zeros(values.size, np.float32),
        published=values.astype(np.float32),
    )


def close(
    state: OuterState, deltas: Sequence[tuple[Sequence[bytes], float]], settings: OuterSettings
) -> tuple[OuterState, tuple[bytes, ...]]:
    """The next version and its encoded update, by fragment; a delta is its encoded fragments.

    Raises DamagedError for a delta that does not fit, NotFiniteError when the sum is not finite.
    """
    closed = [
        close_fragment(
            fragment,
            [
                (decode(encoded[index], values=fragment.parameters.size), weight)
                for encoded, weight in deltas
            ],
            settings,
        )
        for index, fragment in enumerate(state.fragments)
    ]
    return (
        OuterState(version=state.version + 1, fragments=tuple(after for after, _ in closed)),
        tuple(update for _, update in closed),
    )


def close_fragment(
    before: OuterFragment, deltas: Iterable[tuple[Vector, float]], settings: OuterSettings
) -> tuple[OuterFragment, bytes]:
    """One fragment's part of it: the next state and the encoded update.

    `deltas` are decoded. Raises NotFiniteError when the result is not finite.
    """
    deltas = list(deltas)
    parameters = np.empty_like(before.parameters)
    momentum = np.empty_like(before.momentum)
    for start in range(0, parameters.size, _CHUNK_VALUES):
        part = slice(start, start + _CHUNK_VALUES)
        gradient = np.zeros(parameters[part].size, np.float64)
        for delta, weight in deltas:
            gradient += np.multiply(delta[part], weight, dtype=np.float64)
        moved = before.momentum[part] + (1 + settings.momentum) * gradient
        moved *= settings.lr
        parameters[part] = before.parameters[part] - moved
        gradient *= settings.momentum
        gradient += before.momentum[part]
        momentum[part] = gradient * settings.momentum
    update, decoded = encode_and_decode(before.published - parameters, bits=settings.bits)
    after = OuterFragment(
        parameters=parameters, momentum=momentum, published=before.published - decoded
    )
    return after, update


def publish(published: Vector, update: bytes) -> Vector:
    """The next published values of a fragment, as everyone computes them. Raises DamagedError."""
    return published - decode(update, values=published.size)
