"""Large problems, split by slot: what is committed ties the slots together, and nothing else.

With nodes and credit fixed, each slot is a small linear program of its own; its cost is convex in
what is committed, and its reduced costs are a slope (Benders 1962). A master program over the
commitments collects these cuts, bounds the cost from below, and proposes; the next point is taken
between its proposal and the best known, which settles it in fewer rounds. Full size, one core: a
slot costs 5-30 ms, where the whole program at once costs 20 s (measured, HiGHS 1.15).

Only for problems without rows over several slots (`can_split`): batch that waits, credit, training
runs and averages over the horizon are solved whole.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import highspy
import numpy as np

from argosy.planner.program.columns import Floats
from argosy.planner.program.highs import Answer, Arrays, loaded, more_rows, solved
from argosy.planner.program.losses import Losses
from argosy.planner.program.program import Model, Rows
from argosy.planner.solving.binding import Prices
from argosy.planner.solving.rounding import part_of

SPLIT_COLUMNS = 20_000  # smaller problems are solved whole as fast
BETWEEN = 0.5  # of the way from the best point to the master's proposal
ROUNDS_MAX = 100
UNMET = 1e-7  # share of the demand that the solver's tolerance may leave


@dataclass
class SlotProgram:
    """One slot with commitments as fixed columns; `unmet` is a share of its demand, at a price."""

    solver: highspy.Highs
    firsts: int
    cost_F: Floats = field(default_factory=lambda: np.empty(0))
    held_F: Floats = field(default_factory=lambda: np.empty(0))
    slopes_F: Floats = field(default_factory=lambda: np.empty(0))
    x: Floats = field(default_factory=lambda: np.empty(0))
    usd_per_hour: float = 0.0
    seconds: float = 0.0

    def cost(self, held_F: Floats) -> None:
        """USD an hour of this slot with that committed, and its slopes."""
        self.hold(held_F, held_F, np.zeros(self.firsts))
        self.run()

    def hold(self, lower_F: Floats, upper_F: Floats, cost_F: Floats) -> None:
        """Between what and at which price commitments are its own to choose."""
        index = np.arange(self.firsts, dtype=np.int32)
        self.solver.changeColsBounds(self.firsts, index, lower_F, upper_F)
        self.solver.changeColsCost(self.firsts, index, cost_F)
        self.cost_F = cost_F

    def run(self) -> None:
        """Solve it from where it stands; commitments themselves are not in its cost."""
        answer = solved(self.solver)
        self.seconds += answer.seconds
        if answer.status != "optimal":
            raise ArithmeticError(f"a slot's program ended as {answer.status}, not solved")
        self.x, self.held_F = answer.x, answer.x[: self.firsts]
        self.usd_per_hour = answer.cost - float(self.cost_F @ self.held_F)
        self.slopes_F = np.array(self.solver.getSolution().col_dual)[: self.firsts] - self.cost_F

    @property
    def unmet(self) -> float:
        """Share of the demand that is not served."""
        return float(self.x[-1])

    def more(self, rows: Rows, shift: int) -> None:
        """Add rows of this slot; `shift`: where its columns begin in the model, less the first."""
        count = len(rows.lower)
        entries = (
            np.concatenate([rows.at_row, np.arange(count)]),
            np.concatenate([rows.at_col - shift, np.full(count, len(self.x) - 1)]),
            np.concatenate([rows.value, rows.lower]),
        )
        more_rows(self.solver, rows.lower, rows.upper, entries)


@dataclass
class Split:
    """All slots' programs and the master over the commitments."""

    model: Model
    losses: Losses
    slots: list[SlotProgram]
    master: highspy.Highs
    tell: Callable[[float], None]
    bound: float = 0.0
    best: float = np.inf
    held_F: Floats = field(default_factory=lambda: np.empty(0))
    seconds: float = 0.0

    @property
    def x(self) -> Floats:
        """The last solution over all columns of the model."""
        firsts = len(self.model.first)
        parts = [self.slots[0].x[:firsts], *(slot.x[firsts:-1] for slot in self.slots)]
        return np.concatenate(parts)

    @property
    def is_met(self) -> bool:
        """Whether the last solution serves all demand."""
        return all(slot.unmet <= UNMET for slot in self.slots)

    def prices(self) -> Prices:
        """Shadow prices of the last solution, in the model's rows and columns."""
        firsts, rows = len(self.model.first), np.zeros(len(self.model.rows.lower))
        columns = np.zeros(len(self.model.cost))
        columns[:firsts] = self.model.cost[:firsts] + sum(slot.slopes_F for slot in self.slots)
        for s, slot in enumerate(self.slots):
            solution = slot.solver.getSolution()
            rows[self.model.rows.slot == s] = solution.row_dual
            start = firsts + s * self.model.width
            columns[start : start + self.model.width] = solution.col_dual[firsts:-1]
        return Prices(model=self.model, rows=rows, columns=columns, x=self.x)

    def evaluate(self, held_F: Floats) -> float:
        """What these commitments cost in all, every loss known survived; the master learns it."""
        for slot in self.slots:
            slot.cost(held_F)
        self.learn()
        return self.usd_per_hour(held_F)

    def survived(self, held_F: Floats) -> float:
        """The same, and every loss is checked."""
        for slot in self.slots:
            slot.cost(held_F)
        self.survive(range(len(self.slots)))
        self.learn()
        return self.usd_per_hour(held_F)

    def survive(self, slots: Iterable[int]) -> None:
        """Add the losses that the present solution fails, and solve again, until it fails none."""
        for s in slots:
            while (rows := self.losses.violated(self.model, self.x, [s])) is not None:
                self._more(s, rows)
                self.slots[s].run()

    def start_like(self, slot: int, other: int) -> None:
        """Begin another slot with the losses and the basis of one that is solved."""
        rows = self.losses.repeated(self.model, slot, other)
        if rows is not None:
            self._more(other, rows)
        self.carry_basis(slot, other)

    def carry_basis(self, slot: int, other: int) -> None:
        """A slot's basis for another whose rows begin with the same; the others' are slack."""
        basis = self.slots[slot].solver.getBasis()
        more = self.slots[other].solver.getNumRow() - self.slots[slot].solver.getNumRow()
        basis.row_status = [*basis.row_status, *[highspy.HighsBasisStatus.kBasic] * more]
        self.slots[other].solver.setBasis(basis)

    def _more(self, s: int, rows: Rows) -> None:
        self.model = self.model.with_rows(rows)
        self.slots[s].more(rows, s * self.model.width)

    def usd_per_hour(self, held_F: Floats) -> float:
        """In all, of what the slots found last with that committed."""
        usd = sum(slot.usd_per_hour for slot in self.slots)
        return float(usd + self.model.cost[: len(held_F)] @ held_F)

    def learn(self) -> None:
        """Tell the master what the slots found."""
        costs = np.array([slot.usd_per_hour for slot in self.slots])
        held_SF = np.array([slot.held_F for slot in self.slots])
        count, firsts = held_SF.shape
        slopes = np.array([slot.slopes_F for slot in self.slots])
        # cost of slot s >= costs[s] + slopes[s] . (held - held_SF[s])
        at_row = np.repeat(np.arange(count), firsts + 1)
        own = np.arange(count)[:, None] + firsts
        at_col = np.concatenate([np.tile(np.arange(firsts), (count, 1)), own], axis=1)
        value = np.concatenate([-slopes, np.ones((count, 1))], axis=1)
        keep = value.ravel() != 0
        entries = (at_row[keep], at_col.ravel()[keep], value.ravel()[keep])
        lower = costs - (slopes * held_SF).sum(axis=1)
        more_rows(self.master, lower, np.full(count, np.inf), entries)

    def propose(self) -> Floats:
        """The master's best commitments by what it knows; raises the bound."""
        answer = solved(self.master)
        self.seconds += answer.seconds
        self.bound = max(self.bound, answer.bound)
        return answer.x[: len(self.model.first)]

    def converge(self, gap: float) -> None:
        """Rounds of proposal and answer until the best point is within `gap` of the bound."""
        for round_ in range(ROUNDS_MAX):
            proposal_F = self.propose()
            if self.best - self.bound <= gap * abs(self.best):
                return
            step = BETWEEN if round_ % 4 < 3 else 1.0
            held_F = self.held_F + step * (proposal_F - self.held_F)
            cost = self.evaluate(held_F)
            if cost < self.best:
                self.best, self.held_F = cost, held_F
            self.tell(max(0.0, 1.0 - self.bound / self.best))


def can_split(model: Model) -> bool:
    """Whether it is worth it, and commitments alone tie its slots together."""
    return len(model.cost) >= SPLIT_COLUMNS and not (model.rows.slot < 0).any()


def split(model: Model, losses: Losses, tell: Callable[[float], None]) -> Split:
    """The programs, nothing solved yet."""
    firsts, count = len(model.first), len(model.outline.problem.slots)
    cost = np.concatenate([model.cost[:firsts], np.ones(count)])
    empty = np.empty(0, dtype=np.int64)
    master = Arrays(
        cost=cost,
        lower=np.concatenate([model.lower[:firsts], np.zeros(count)]),
        upper=np.concatenate([model.upper[:firsts], np.full(count, np.inf)]),
        row_lower=np.empty(0),
        row_upper=np.empty(0),
        at_row=empty,
        at_col=empty,
        value=np.empty(0),
    )
    return Split(
        model=model,
        losses=losses,
        slots=[_slot(model, s) for s in range(count)],
        master=loaded(master, presolve="off"),
        tell=tell,
    )


def _slot(model: Model, s: int) -> SlotProgram:
    firsts = len(model.first)
    mine = np.zeros(len(model.cost), dtype=bool)
    mine[:firsts] = True
    mine[firsts + s * model.width : firsts + (s + 1) * model.width] = True
    part = part_of(model, np.zeros(len(model.cost)), mine, model.lower)
    # Unmet demand costs ten times all that could ever be spent: it is never chosen, only needed.
    most = float(model.cost[:firsts] @ model.upper[:firsts])
    rent = np.flatnonzero(part.cost[firsts:]) + firsts
    most += float(part.cost[rent] @ np.minimum(part.upper[rent], 1e9))
    served = np.flatnonzero(part.row_lower > 0)
    columns = len(part.cost)
    elastic = Arrays(
        cost=np.concatenate([np.zeros(firsts), part.cost[firsts:], [10.0 * most]]),
        lower=np.append(part.lower, 0.0),
        upper=np.append(part.upper, 1.0),
        row_lower=part.row_lower,
        row_upper=part.row_upper,
        at_row=np.concatenate([part.at_row, served]),
        at_col=np.concatenate([part.at_col, np.full(len(served), columns)]),
        value=np.concatenate([part.value, part.row_lower[served]]),
    )
    program = SlotProgram(solver=loaded(elastic, presolve="off"), firsts=firsts)
    program.x = np.zeros(columns + 1)
    return program


def relaxed(search: Split, gap: float) -> bool:
    """The best commitments in fractions, every loss survived; False: not even all would do."""
    search.held_F = _chosen_apart(search)
    for s, slot in enumerate(search.slots):
        if s:
            search.carry_basis(s - 1, s)
        slot.cost(search.held_F)
    search.learn()
    search.best = search.usd_per_hour(search.held_F)
    _descend(search, gap)
    if search.is_met:
        return True
    search.held_F = search.model.upper[: len(search.model.first)]
    search.best = search.survived(search.held_F)
    if not search.is_met:
        return False
    _descend(search, gap)
    return search.is_met


def _descend(search: Split, gap: float) -> None:
    """Nearer and nearer, with the losses that the best point of each stage still fails."""
    for near in (8 * gap, 2 * gap, gap):
        while True:
            search.converge(near)
            before, search.best = search.best, search.survived(search.held_F)
            if search.best <= before + 0.1 * near * abs(before):
                break


def _chosen_apart(search: Split) -> Floats:
    """The mean of what each slot would hold if it paid for its hours alone: a start and a bound."""
    model = search.model
    problem = model.outline.problem
    firsts = len(model.first)
    hours_S = np.array([slot.hours for slot in problem.slots])
    share_SF = np.tile(hours_S[:, None] / hours_S.sum(), (1, firsts))
    for key, column in model.first.items():
        if key[0] == "nodes":
            periods = problem.supplies[int(key[1])].periods
            held_S = np.array([slot.period in periods for slot in problem.slots]) * hours_S
            share_SF[:, column] = held_S / max(held_S.sum(), 1e-9)
    for s, slot in enumerate(search.slots):
        slot.hold(model.lower[:firsts], model.upper[:firsts], model.cost[:firsts] * share_SF[s])
        if s:
            search.start_like(s - 1, s)
        slot.run()
        search.survive([s])
    search.learn()
    return sum(
        (share_F * slot.held_F for slot, share_F in zip(search.slots, share_SF, strict=True)),
        np.zeros(firsts),
    )


def committed(search: Split) -> Answer:
    """Whole commitments near the best fractions: the cheapest of a few roundings."""
    firsts = len(search.model.first)
    best, chosen = np.inf, search.held_F
    for up in (0.5, 0.2, 0.8):
        held_F = np.clip(
            np.floor(search.held_F + 1.0 - up + 1e-9),
            search.model.lower[:firsts],
            search.model.upper[:firsts],
        )
        cost = search.survived(held_F)
        if cost < best:
            best, chosen = cost, held_F
    search.evaluate(chosen)
    search.propose()
    seconds = search.seconds + sum(slot.seconds for slot in search.slots)
    return Answer(status="optimal", x=search.x, cost=best, bound=search.bound, seconds=seconds)
