"""A problem with fewer pools, and as much of its promises as can be kept there.

What cannot be kept is given up in this order: residency, only where some demand could be served
nowhere else, and training without a chip for it; surviving losses; the stock there is.
"""

from collections.abc import Collection, Iterable
from typing import Literal

import msgspec
from msgspec.structs import replace

from argosy.planner.plan import Conflict
from argosy.planner.problem import Need, Problem, Survival
from argosy.planner.questions.changed import (
    Solving,
    only_pools,
    signed_usd,
    with_stock,
    without_survivals,
)
from argosy.planner.solving.relaxed import relaxed

Promise = Literal["survive", "residency", "stock", "headroom", "training"]
STOCK_TIMES = 1000  # as good as any


class GivenUp(msgspec.Struct, frozen=True, kw_only=True):
    """What the problem asks for and the baseline does not keep."""

    promise: Promise
    text: str


class Narrowed(msgspec.Struct, frozen=True, kw_only=True):
    """A problem of less choice, with as much of the promises as can be kept in it."""

    name: str
    problem: Problem | None  # None: it cannot serve the demand, whatever is given up
    usd: float  # no plan of it costs less over the horizon; 0 where there is none
    gives_up: tuple[GivenUp, ...] = ()
    needs_stock: bool = False  # more than there is
    why_not: Conflict | None = None
    remarks: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[int, float, str]:
        """What keeps more is better, then what costs less."""
        if self.problem is None:
            return 16, 0.0, self.name
        lost = {given.promise for given in self.gives_up}
        steps = ("survive" in lost) + 2 * ("training" in lost) + 4 * ("residency" in lost)
        return steps + 8 * self.needs_stock, self.usd, self.name

    @property
    def text(self) -> str:
        """In a line: what it costs at least, what it gives up, or why it cannot be."""
        if self.problem is None:
            why = "; ".join(self.why_not.constraints) if self.why_not else "no plan was found"
            return f"{self.name}: cannot serve it; {why}"
        lost = [given.text for given in self.gives_up]
        lost += ["the stock there is"] if self.needs_stock else []
        text = f"{self.name}: {self.usd / self.problem.hours:,.2f} USD/h at least"
        return f"{text}, without {'; '.join(lost)}" if lost else text


def narrowed_to(
    problem: Problem, kept: Collection[int], solving: Solving, *, name: str
) -> Narrowed:
    """To the kept pools, with as much of the promises as can be kept there."""
    left = only_pools(problem, kept)
    remarks = left_out(problem, left)
    given: list[GivenUp] = []
    if _hopeless(left, name):
        left, given = _anywhere(left)
        conflict = _hopeless(left, name)
        if conflict is not None:
            return Narrowed(name=name, problem=None, usd=0.0, why_not=conflict, remarks=remarks)
    left, untrained = _trainable(left)
    given += untrained
    impossible = [one for one in left.survivals if not _may_survive(left, one)]
    given += [GivenUp(promise="survive", text=text) for text in survival_texts(impossible)]
    left = without_survivals(left, lambda one: one in impossible)
    for eased, more, needs_stock in _steps(left):
        found = relaxed(eased, seconds_max=solving.seconds_max)
        if found is not None:
            return Narrowed(
                name=name,
                problem=eased,
                usd=found.usd,
                gives_up=(*given, *more),
                needs_stock=needs_stock,
                remarks=remarks,
            )
    last = solving(left)
    why_not = last if isinstance(last, Conflict) else None
    return Narrowed(name=name, problem=None, usd=0.0, why_not=why_not, remarks=remarks)


def _trainable(problem: Problem) -> tuple[Problem, list[GivenUp]]:
    """Without the runs that have no chips here."""
    runs = tuple(run for run in problem.trainings if run.tokens_per_chip_s)
    given = [
        GivenUp(promise="training", text=f"training {run.name}")
        for run in problem.trainings
        if not run.tokens_per_chip_s
    ]
    return replace(problem, trainings=runs), given


def _steps(problem: Problem) -> Iterable[tuple[Problem, list[GivenUp], bool]]:
    """First all of it, then ever less; the last is whether more stock is needed than there is."""
    yield problem, [], False
    texts = survival_texts(problem.survivals)
    bare = [GivenUp(promise="survive", text=text) for text in texts]
    if bare:
        yield without_survivals(problem), bare, False
    more = with_stock(problem, STOCK_TIMES, pools=range(len(problem.pools)))
    yield more, [], True
    if bare:
        yield without_survivals(more), bare, True


def left_out(problem: Problem, left: Problem) -> tuple[str, ...]:
    """What is signed and not in what is left, as a remark."""
    usd = signed_usd(problem) - signed_usd(left)
    if usd <= 0:
        return ()
    return (f"signed contracts of {usd / problem.hours:,.2f} USD/h are not paid in it",)


def _may_survive(problem: Problem, survival: Survival) -> bool:
    """Whether the model has options in more than one such domain."""
    domains = {
        problem.pools[option.pool].domain(survival.kind)
        for option in problem.options
        if option.model == survival.model
    }
    return len(domains) > 1


def _hopeless(problem: Problem, name: str) -> Conflict | None:
    """Demand that nothing here may serve, told without solving."""
    unserved = [need for need in problem.needs if _wants(need) and not _served_in(problem, need)]
    if not unserved:
        return None
    first = unserved[0]
    where = ", ".join(sorted({pool.region for pool in problem.pools})) or "nowhere"
    return Conflict(
        constraints=(
            f"{len(unserved)} of {len(problem.needs)} needs may be served nowhere in {name}: "
            f"{first.name} may be served in {', '.join(first.regions) or 'no region'}",
        ),
        reliefs=(f"allow {first.name} in more of {where}",),
    )


def _wants(need: Need) -> bool:
    return any(rate > 0 for rate in need.requests_per_s)


def _served_in(problem: Problem, need: Need) -> set[str]:
    """Regions that may serve it, by residency and by what runs there."""
    return {
        problem.pools[option.pool].region
        for option in problem.options
        if option.model == need.model and option.requests_per_s[need.length_class] > 0
    }.intersection(need.regions)


def _anywhere(problem: Problem) -> tuple[Problem, list[GivenUp]]:
    """Every need may be served in every region."""
    regions = tuple(sorted({pool.region for pool in problem.pools}))
    needs = tuple(replace(need, regions=regions) for need in problem.needs)
    moved = [need.name for need in problem.needs if _wants(need) and not _served_in(problem, need)]
    text = "residency, or too far away"
    if moved:
        text += f" ({', '.join(moved[:3])}{', ...' * (len(moved) > 3)})"
    return replace(problem, needs=needs), [GivenUp(promise="residency", text=text)]


def survival_texts(survivals: Iterable[Survival]) -> list[str]:
    """By kind of domain."""
    by_kind: dict[str, list[str]] = {}
    for one in survivals:
        by_kind.setdefault(one.kind, []).append(one.model)
    return [
        f"surviving any one {kind} lost ({', '.join(dict.fromkeys(models))})"
        for kind, models in by_kind.items()
    ]
