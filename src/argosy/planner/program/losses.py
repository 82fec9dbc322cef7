"""The loss of any one domain, as rows that are added only where a plan would fail it.

A model survives a loss in a slot if its replicas outside the lost domain can serve its surviving
groups, each in its own regions. That is a small program whose optimal duals are a cut: weights on
replicas whose sum must reach a weighted sum of rates (max-flow/min-cut, where there is one length
class). The weights do not depend on the slot, so a cut found in one slot is tried in all of them
by one product before another small program is solved. Spot replicas carry nothing in a loss.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import highspy
import numpy as np
from numpy.typing import NDArray

from argosy.planner.program.columns import Floats, Group, Outline
from argosy.planner.program.highs import Arrays, Ints, loaded, solved
from argosy.planner.program.program import Model, Rows

Bools = NDArray[np.bool_]
SHORT_SHARE = 1e-6  # of the rate asked for: what is less is the solver's own tolerance


@dataclass(frozen=True)
class Cut:
    """Weighted replicas outside a lost domain reach what the surviving groups ask for."""

    survival: int
    domain: str
    places: Ints  # in a slot's block
    weights: Floats
    asked_S: Floats

    def is_broken_S(self, block_SW: Floats, asked_S: Floats) -> Bools:
        """Whether something is lacking, by slot."""
        short_S = asked_S - block_SW[:, self.places] @ self.weights
        return short_S > SHORT_SHARE * np.maximum(1.0, asked_S)


@dataclass(frozen=True)
class Loss:
    """One domain lost to one model: the small program that says whether the rest serves."""

    survival: int
    domain: str
    asked_SG: Floats  # of the surviving groups
    reach_GR: Bools  # which rooms a group may be sent to
    room: "_Room"
    program: highspy.Highs

    def cuts(self, s: int, block_W: Floats) -> list[Cut]:
        """The reasons why requests cannot be served in that slot; none: all can."""
        room, rates_G = self.room, self.asked_SG[s]
        room_R = np.bincount(
            room.row, weights=room.value * block_W[room.place], minlength=room.rows
        )
        groups = len(rates_G)
        index = np.arange(groups + room.rows, dtype=np.int32)
        lower = np.concatenate([rates_G, np.full(room.rows, -np.inf)])
        upper = np.concatenate([np.full(groups, np.inf), np.maximum(room_R, 0.0)])
        change = self.program.changeRowsBounds  # pyright: ignore[reportAttributeAccessIssue]
        change(len(index), index, lower, upper)  # exists; the package's stub lacks it
        answer = solved(self.program)
        if answer.cost <= SHORT_SHARE * max(1.0, float(rates_G.sum())):
            return []
        dual = np.array(self.program.getSolution().row_dual)
        price_G = np.maximum(dual[:groups], 0.0)
        price_R = np.maximum(-dual[groups : groups + room.rows], 0.0)
        parts = _parts(self.reach_GR, price_G > 0, price_R > 0)
        return [self._cut(price_G * g, price_R * r) for g, r in parts]

    def _cut(self, price_G: Floats, price_R: Floats) -> Cut:
        weights = price_R[self.room.row] * self.room.value
        used = weights != 0
        return Cut(
            survival=self.survival,
            domain=self.domain,
            places=self.room.place[used],
            weights=weights[used],
            asked_S=self.asked_SG @ price_G,
        )


def _parts(reach_GR: Bools, in_G: Bools, in_R: Bools) -> list[tuple[Bools, Bools]]:
    """Groups and rooms that touch no others of the cut: each part lacks by itself."""
    left_G, parts = in_G.copy(), []
    while left_G.any():
        part_G = np.zeros_like(in_G)
        part_G[int(np.argmax(left_G))] = True
        while True:
            part_R = in_R & reach_GR[part_G].any(axis=0)
            grown_G = part_G | (in_G & reach_GR[:, part_R].any(axis=1))
            if (grown_G == part_G).all():
                break
            part_G = grown_G
        parts.append((part_G, part_R))
        left_G &= ~part_G
    return parts


@dataclass
class Losses:
    """All losses of a problem, and the cuts found so far."""

    losses: list[Loss]
    cuts: list[Cut] = field(default_factory=list)
    added: set[tuple[int, int]] = field(default_factory=set)  # (cut, slot) that are rows
    known: dict[tuple[object, ...], int] = field(default_factory=dict)  # what a cut says -> place

    @property
    def checked(self) -> int:
        """Pairs of a lost domain and a slot."""
        return sum(len(loss.asked_SG) for loss in self.losses)

    @property
    def binding(self) -> int:
        """Those pairs of which a cut became a row."""
        return len({(self.cuts[c].survival, self.cuts[c].domain, s) for c, s in self.added})

    def violated(self, model: Model, x: Floats, slots: Sequence[int] | None = None) -> Rows | None:
        """Rows that this solution breaks: known cuts first, then new ones; None: it has none.

        `slots`: look at these alone.
        """
        block_SW = model.slots_of(x)
        looked = range(len(block_SW)) if slots is None else slots
        short = self._known(block_SW, looked)
        for loss in self.losses:
            self._search(loss, block_SW, short, looked)
        if not short:
            return None
        self.added.update(short)
        return self._rows(model, short)

    def repeated(self, model: Model, slot: int, other: int) -> Rows | None:
        """The rows of one slot once more for another that has none yet, in the same order."""
        rows = model.rows
        keys = [rows.key[row] for row in np.flatnonzero(rows.slot == slot)]
        short = [(int(key[3]), other) for key in keys if key[0] == "loss"]
        self.added.update(short)
        return self._rows(model, short) if short else None

    def _known(self, block_SW: Floats, slots: Sequence[int]) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for c, cut in enumerate(self.cuts):
            broken = cut.is_broken_S(block_SW[slots], cut.asked_S[slots])
            found.extend((c, s) for s in np.array(slots)[broken] if (c, s) not in self.added)
        return found

    def _search(
        self, loss: Loss, block_SW: Floats, short: list[tuple[int, int]], slots: Sequence[int]
    ) -> None:
        """Solve the slots, the busiest first, in which no known cut is broken."""
        place = (loss.survival, loss.domain)
        known = {s for c, s in short if (self.cuts[c].survival, self.cuts[c].domain) == place}
        total_S = loss.asked_SG.sum(axis=1)
        for s in sorted(slots, key=lambda s: -total_S[s]):
            if s in known or total_S[s] <= 0:
                continue
            for cut in loss.cuts(s, block_SW[s]):
                c = self._place(cut)
                broken = cut.is_broken_S(block_SW[slots], cut.asked_S[slots])
                for other in {s, *np.array(slots)[broken].tolist()}:
                    known.add(other)
                    if (c, other) not in self.added:
                        short.append((c, other))

    def _place(self, cut: Cut) -> int:
        """Where that cut is among those found, new or known."""
        weights = np.round(cut.weights, 9).tobytes()
        asked = np.round(cut.asked_S, 6).tobytes()
        key = (cut.survival, cut.domain, cut.places.tobytes(), weights, asked)
        if key not in self.known:
            self.known[key] = len(self.cuts)
            self.cuts.append(cut)
        return self.known[key]

    def _rows(self, model: Model, short: list[tuple[int, int]]) -> Rows:
        lower: list[float] = []
        parts: list[tuple[Ints, Ints, Floats]] = []
        for row, (c, s) in enumerate(short):
            cut = self.cuts[c]
            scale = 1.0 / max(1.0, float(cut.asked_S[s]))
            lower.append(float(cut.asked_S[s]) * scale)
            columns = len(model.first) + s * model.width + cut.places
            at = np.full(len(columns), row, dtype=np.int64)
            parts.append((at, columns, cut.weights * scale))
        at_row, at_col, value = zip(*parts, strict=True)
        return Rows(
            lower=np.array(lower),
            upper=np.full(len(short), np.inf),
            slot=np.array([s for _, s in short], dtype=np.int64),
            key=tuple(("loss", self.cuts[c].survival, self.cuts[c].domain, c) for c, _ in short),
            at_row=np.concatenate(at_row),
            at_col=np.concatenate(at_col),
            value=np.concatenate(value),
        )


def losses_of(model: Model) -> Losses:
    """Every domain whose loss some model of the problem is to survive."""
    outline = model.outline
    problem = outline.problem
    found: list[Loss] = []
    for i, survival in enumerate(problem.survivals):
        groups = [g for g, group in enumerate(outline.groups) if i in group.survivals]
        options = outline.options_of(survival.model)
        if not groups:
            continue
        domains = {problem.pools[problem.options[k].pool].domain(survival.kind) for k in options}
        found.extend(_loss(model, i, domain, groups) for domain in sorted(domains))
    return Losses(found)


def _loss(model: Model, i: int, domain: str, members: list[int]) -> Loss:
    outline = model.outline
    survival = outline.problem.survivals[i]
    inside = {
        k
        for k in outline.options_of(survival.model)
        if outline.problem.pools[outline.problem.options[k].pool].domain(survival.kind) == domain
    }
    groups = [outline.groups[g] for g in members]
    is_flat = len({group.length_class for group in groups}) == 1
    sketch = _by_region if is_flat else _by_option
    program, room, reach_GR = sketch(model, groups, inside)
    return Loss(
        survival=i,
        domain=domain,
        asked_SG=np.stack([group.rate_S for group in groups], axis=1),
        reach_GR=reach_GR,
        room=room,
        program=loaded(program.arrays(len(groups)), presolve="off"),
    )


@dataclass(frozen=True)
class _Room:
    """What carries requests after a loss: each row the sum of values times places of a block."""

    rows: int
    row: Ints
    place: Ints
    value: Floats


def _room(rows: int, terms: list[tuple[int, int, float]]) -> _Room:
    at = np.array(terms, dtype=float).reshape(-1, 3)
    return _Room(rows, at[:, 0].astype(np.int64), at[:, 1].astype(np.int64), at[:, 2])


@dataclass
class _Program:
    """Columns: what is short of each group, then flows. Rows: groups, room, balances."""

    rows: int
    entries: list[tuple[int, int, float]] = field(default_factory=list)
    columns: int = 0

    def column(self, *entries: tuple[int, float]) -> None:
        self.entries.extend((row, self.columns, value) for row, value in entries)
        self.columns += 1

    def arrays(self, groups: int) -> Arrays:
        """Short requests/s cost 1; the bounds of groups and room come slot by slot."""
        at = np.array(self.entries, dtype=float).reshape(-1, 3)
        cost = np.zeros(self.columns)
        cost[:groups] = 1.0
        return Arrays(
            cost=cost,
            lower=np.zeros(self.columns),
            upper=np.full(self.columns, np.inf),
            row_lower=np.zeros(self.rows),
            row_upper=np.zeros(self.rows),
            at_row=at[:, 0].astype(np.int64),
            at_col=at[:, 1].astype(np.int64),
            value=at[:, 2],
        )


def _by_region(model: Model, groups: list[Group], lost: set[int]) -> tuple[_Program, _Room, Bools]:
    """One length class: a region's replicas are one room."""
    problem = model.outline.problem
    name, c = groups[0].model, groups[0].length_class
    at: dict[str, list[int]] = defaultdict(list)
    for k in model.outline.options_of(name):
        at[problem.pools[problem.options[k].pool].region].append(k)
    left = [region for region in sorted(at) if not lost.issuperset(at[region])]
    terms: list[tuple[int, int, float]] = []
    for row, region in enumerate(left):
        terms.extend((row, *term) for term in _capacity(model, c, at[region], lost))
    rows = {region: len(groups) + row for row, region in enumerate(left)}
    program = _Program(rows=len(groups) + len(left))
    for g in range(len(groups)):
        program.column((g, 1.0))
    reach_GR = np.array([[region in group.regions for region in left] for group in groups])
    for g, group in enumerate(groups):
        for region in group.regions:
            if region in rows:
                program.column((g, 1.0), (rows[region], 1.0))
    return program, _room(len(left), terms), reach_GR.reshape(len(groups), len(left))


def _capacity(model: Model, c: int, options: list[int], lost: set[int]) -> list[tuple[int, float]]:
    """A region's requests/s after the loss, in as few terms as can be: the whole less the lost."""
    outline = model.outline
    problem = outline.problem
    scale = 1 + problem.headroom_lost
    option = problem.options[options[0]]
    whole = ("capacity", option.model, problem.pools[option.pool].region)
    if whole in model.block and not outline.firm.intersection(options):
        terms = [(model.block[whole], 1.0 / scale)]
        kind, counted, sign = "replicas", [k for k in options if k in lost], -1.0
    else:
        terms = []
        kind, counted, sign = "", [k for k in options if k not in lost], 1.0
    for k in counted:
        name = kind or _surviving(outline, k)
        rate = problem.options[k].requests_per_s[c]
        terms.append((model.block[name, k], sign * rate / scale))
    return terms


def _surviving(outline: Outline, k: int) -> str:
    """The column that counts an option's replicas in a loss."""
    return "firm" if k in outline.firm else "replicas"


def _by_option(model: Model, groups: list[Group], lost: set[int]) -> tuple[_Program, _Room, Bools]:
    """Several length classes: each option's replicas are a room that classes fill unlike."""
    outline = model.outline
    problem = outline.problem
    outside = [k for k in outline.options_of(groups[0].model) if k not in lost]
    terms = [(row, model.block[_surviving(outline, k), k], 1.0) for row, k in enumerate(outside)]
    program = _Program(rows=len(groups) + len(outside))
    for g in range(len(groups)):
        program.column((g, 1.0))
    balances: dict[tuple[int, str], int] = {}
    for g, group in enumerate(groups):
        for region in group.regions:
            row = balances.setdefault((group.length_class, region), program.rows + len(balances))
            program.column((g, 1.0), (row, -1.0))
    for place, k in enumerate(outside):
        option = problem.options[k]
        region = problem.pools[option.pool].region
        for c, rate in enumerate(option.requests_per_s):
            if rate > 0 and (c, region) in balances:
                fill = (1 + problem.headroom_lost) / rate
                program.column((len(groups) + place, fill), (balances[c, region], 1.0))
    program.rows += len(balances)
    regions = [problem.pools[problem.options[k].pool].region for k in outside]
    reach_GR = np.array([[region in group.regions for region in regions] for group in groups])
    return program, _room(len(outside), terms), reach_GR.reshape(len(groups), len(outside))
