"""How often each document is in the dataset: whole ones, once or more, by the sources' weights."""

import numpy as np
from numpy.typing import NDArray

from argosy.training.data.manifest import DatasetError
from argosy.training.data.recipe import Recipe


class MixError(DatasetError):
    """The weights ask for more than the sources have; the message says what would work."""


def mixed(
    recipe: Recipe, source: NDArray[np.int64], length: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The documents of the dataset by index, repeated ones repeatedly.

    `source` and `length` (tokens) of each document. Without weights: all, once. With them a source
    gets its share of `recipe.tokens`; the last, broken epoch of it is a random choice by the seed.
    """
    if recipe.sources[0].weight is None:
        return np.arange(len(source), dtype=np.int64)
    chance = np.random.Generator(np.random.Philox(key=recipe.seed))
    epochs = wanted_epochs(recipe, source, length)
    picked: list[NDArray[np.int64]] = []
    for position, times in enumerate(epochs):
        own = np.flatnonzero(source == position)
        whole, rest = divmod(times, 1.0)
        picked += [own] * int(whole)
        shuffled = chance.permutation(own)
        reached = np.cumsum(length[shuffled])
        picked.append(shuffled[: int(np.searchsorted(reached, rest * length[own].sum()))])
    return np.concatenate(picked)


def wanted_epochs(
    recipe: Recipe, source: NDArray[np.int64], length: NDArray[np.int64]
) -> list[float]:
    """By source: how often its tokens are wanted. Raises MixError."""
    weights = [one.weight or 0.0 for one in recipe.sources]
    has = [int(length[source == position].sum()) for position in range(len(weights))]
    total = recipe.tokens or sum(has)
    epochs: list[float] = []
    for one, weight, tokens in zip(recipe.sources, weights, has, strict=True):
        wanted = total * weight / sum(weights)
        if tokens == 0 or wanted / tokens > recipe.epochs_max:
            able = min(
                has[place] * recipe.epochs_max * sum(weights) / other
                for place, other in enumerate(weights)
            )
            raise MixError(
                f"source {one.name} has {tokens:,} tokens, and {wanted:,.0f} are wanted of it: "
                f"more than {recipe.epochs_max:g} epochs. With these weights, tokens: "
                f"{int(able):,} is the most; or lower its weight, or raise epochs_max"
            )
        epochs.append(wanted / tokens)
    return epochs
