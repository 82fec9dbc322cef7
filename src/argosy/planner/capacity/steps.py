"""How many tokens an engine computes in one step, where the operator does not say.

Owns the choice for one layout. Long steps read prompts cheaply and make others wait for their next
token: with the promise about gaps it takes either steps that keep it, or so few long ones that 99 %
of the gaps are no part of them. So what a replica does has two peaks over the size of its steps,
one about the largest that are still within the promise, one at the largest of all. Sizes are
compared where every step takes as much longer as there is headroom for: just within the promise as
believed, a step breaks it, and all is lost, when it is a little slower.
"""

from collections.abc import Callable, MutableMapping, Sequence
from typing import NamedTuple

from argosy.perf.engine_settings import EngineSettings
from argosy.perf.replica import ReplicaModel
from argosy.perf.step_time import StepTime
from argosy.planner.capacity.rates import Rates, kept_at, key_of, measured_roughly
from argosy.planner.capacity.sustain import Drawn, Limits, OneReplica

_GAIN_MIN = 1.05  # times as much, that another size must do: rough rates say no less for sure
_USUAL_TOKENS = 1024  # most of a chip's speed, and gaps are short: where the promise allows more

# Requests/s for which nothing is done, and replicas that the others take: less is better.
Cost = tuple[float, float]


class Stepped(NamedTuple):
    """A replica with steps of one size."""

    settings: EngineSettings
    perf: ReplicaModel
    limits: Limits


class Steps:
    """One layout on one pool: what the demand costs it in steps of each size. Each is seen once."""

    def __init__(
        self,
        stepped: Callable[[int], Stepped | None],
        asked: Sequence[tuple[Drawn, float]],
        *,
        known: MutableMapping[str, Rates],
        slowness: float,
    ) -> None:
        """`stepped`: None where it is unfit; `asked`: each class, and its requests/s."""
        self._stepped, self._asked, self._known = stepped, asked, known
        self._slowness = slowness
        self._built: dict[int, OneReplica] = {}
        self._rates: dict[int, tuple[float, ...]] = {}
        self._near: list[float | None] = [None] * len(asked)  # of the size before

    def choice(self, sizes: Sequence[int]) -> int | None:
        """Of the sizes; None: there is no such replica."""
        fit = {size: one for size in sizes if (one := self._stepped(size)) is not None}
        if not fit:
            return None
        some = next(iter(fit.values()))
        step, itl_s = some.perf.step_time, some.limits.itl_s_p99
        within = largest_within(tuple(fit), step, itl_s, self._slowness)
        return chosen(tuple(fit), within, self._is_better)

    def cost(self, tokens: int) -> Cost:
        """In steps of so many tokens, which are fit."""
        unserved = replicas = 0.0
        for rate, (_, requests_per_s) in zip(self.rates(tokens), self._asked, strict=True):
            unserved += 0.0 if rate else requests_per_s
            replicas += requests_per_s / rate if rate else 0.0
        return unserved, replicas

    def rates(self, tokens: int) -> tuple[float, ...]:
        """Of such a replica, each class alone: requests/s, roughly, with steps so much slower."""
        if tokens not in self._rates:
            places = range(len(self._asked))
            self._rates[tokens] = tuple(self._rate(tokens, place) for place in places)
        return self._rates[tokens]

    def _is_better(self, tokens: int, other: int) -> bool:
        if tokens not in self._rates and not any(
            self._keeps(tokens, place, rate * _GAIN_MIN)
            for place, rate in enumerate(self.rates(other))
        ):
            return False  # one try of each class shows it
        return is_less(self.cost(tokens), self.cost(other))

    def _rate(self, tokens: int, place: int) -> float:
        drawn, guess = self._asked[place][0], self._near[place]
        key, one, limits = self._question(tokens, place, guess)
        if key not in self._known:
            self._known[key] = measured_roughly(
                one(), drawn, limits, slowness=self._slowness, guess=guess
            )
        rate = self._known[key].requests_per_s
        self._near[place] = rate or guess
        return rate

    def _keeps(self, tokens: int, place: int, requests_per_s: float) -> bool:
        if not requests_per_s:
            return True  # of what is not served any rate is more
        drawn = self._asked[place][0]
        key, one, limits = self._question(tokens, place, requests_per_s, 1.0)
        if key not in self._known:
            self._known[key] = kept_at(
                requests_per_s, one(), drawn, limits, slowness=self._slowness
            )
        return not self._known[key].binds

    def _question(
        self, tokens: int, place: int, *how: float | None
    ) -> tuple[str, Callable[[], OneReplica], Limits]:
        """Its key, and whom to ask."""
        stepped = self._stepped(tokens)
        assert stepped is not None, "only who is fit is asked"

        def one() -> OneReplica:
            if tokens not in self._built:
                self._built[tokens] = OneReplica(stepped.perf, stepped.settings)
            return self._built[tokens]

        drawn = self._asked[place][0].roughly
        key = key_of(stepped.perf, stepped.settings, drawn, stepped.limits, self._slowness, *how)
        return key, one, stepped.limits


def is_less(mine: Cost, its: Cost) -> bool:
    """By more than rough rates may err."""
    return mine[0] < its[0] or (mine[0] == its[0] and mine[1] * _GAIN_MIN < its[1])


def chosen(sizes: Sequence[int], within: int | None, is_better: Callable[[int, int], bool]) -> int:
    """Of the sizes, ascending; `is_better` says whether one is than another.

    `within` is the largest whose steps keep the promise about gaps; None: there is none.
    """
    most = _USUAL_TOKENS if within is None else min(within, _USUAL_TOKENS)
    best = max((size for size in sizes if size <= most), default=sizes[0])
    for way in (-1, 1):
        place = sizes.index(best) + way
        while 0 <= place < len(sizes) and is_better(sizes[place], best):
            best, place = sizes[place], place + way
    return sizes[-1] if best != sizes[-1] and is_better(sizes[-1], best) else best


def largest_within(
    sizes: Sequence[int], step: StepTime, itl_s: float | None, slowness: float
) -> int | None:
    """The largest whose step is no longer than the gap promised; None: nothing is promised."""
    if itl_s is None:
        return None
    able = [size for size in sizes if step.step_s(tokens=size) * slowness <= itl_s]
    return able[-1] if able else sizes[0]
