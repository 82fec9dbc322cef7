"""Rows over several slots: batch that waits, credit, training runs, averages over the horizon."""

import numpy as np

from argosy.planner.program.columns import Floats
from argosy.planner.program.highs import Ints
from argosy.planner.program.program import Key, Model, Rows
from argosy.planner.program.sketch import power_terms


def coupled(model: Model) -> Rows:
    """Rows over several slots: batch, credit, training runs, averages over the horizon."""
    writer = _Coupling(model)
    _wait(writer)
    _draw_credit(writer)
    _train(writer)
    _cap_averages(writer)
    return writer.rows()


class _Coupling:
    """Rows over several slots while they are written."""

    def __init__(self, model: Model) -> None:
        self.model = model
        problem = model.outline.problem
        self.hours = np.array([slot.hours for slot in problem.slots])
        self.period = np.array([slot.period for slot in problem.slots])
        self.keys: list[Key] = []
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.parts: list[tuple[Ints, Ints, Floats]] = []

    def row(self, key: Key, lower: float, upper: float) -> None:
        self.keys.append(key)
        self.lower.append(lower)
        self.upper.append(upper)

    def by_slot(self, place: int, value_S: Floats) -> None:
        """Entries of the last row: a place of every block where the value is not 0."""
        slots = np.flatnonzero(value_S)
        columns = len(self.model.first) + slots * self.model.width + place
        row = np.full(len(slots), len(self.keys) - 1, dtype=np.int64)
        self.parts.append((row, columns.astype(np.int64), value_S[slots]))

    def once(self, column: int, value: float) -> None:
        """An entry of the last row."""
        row = np.array([len(self.keys) - 1], dtype=np.int64)
        self.parts.append((row, np.array([column], dtype=np.int64), np.array([value])))

    def rows(self) -> Rows:
        empty = (np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0))
        at_row, at_col, value = zip(*(self.parts or [empty]), strict=True)
        return Rows(
            lower=np.array(self.lower, dtype=float),
            upper=np.array(self.upper, dtype=float),
            slot=np.full(len(self.keys), -1, dtype=np.int64),
            key=tuple(self.keys),
            at_row=np.concatenate(at_row),
            at_col=np.concatenate(at_col),
            value=np.concatenate(value),
        )


def _wait(writer: _Coupling) -> None:
    """What may wait is served within its period: hours times rates add up."""
    for g, group in enumerate(writer.model.outline.groups):
        if not group.may_wait:
            continue
        for period in np.unique(writer.period):
            share_S = np.where(writer.period == period, writer.hours, 0.0)
            share_S = share_S / share_S.sum()
            asked = float(group.rate_S @ share_S)
            writer.row(("wait", g, int(period)), asked, asked)
            for region in group.regions:
                writer.by_slot(writer.model.block["flow", g, region], share_S)


def _draw_credit(writer: _Coupling) -> None:
    problem = writer.model.outline.problem
    for q, credit in enumerate(problem.credits):
        writer.row(("credit", q), -np.inf, 0.0)
        for u in credit.supplies:
            if ("drawn", u) in writer.model.block:
                price = problem.supplies[u].price_usd_per_chip_hour / credit.usd_per_unit
                counts = np.isin(writer.period, credit.periods)
                place = writer.model.block["drawn", u]
                writer.by_slot(place, np.where(counts, price * writer.hours, 0.0))
        writer.once(writer.model.first["units", q], -1.0)


def _train(writer: _Coupling) -> None:
    problem = writer.model.outline.problem
    for t, training in enumerate(problem.trainings):
        writer.row(("training", t), 1.0, np.inf)
        counts = np.isin(writer.period, training.periods)
        for pool, tokens_per_s in training.tokens_per_chip_s.items():
            share_S = np.where(counts, writer.hours * 3600.0 * tokens_per_s / training.tokens, 0.0)
            writer.by_slot(writer.model.block["trained", t, pool], share_S)


def _cap_averages(writer: _Coupling) -> None:
    outline, caps = writer.model.outline, writer.model.outline.problem.caps
    share_S = writer.hours / writer.hours.sum()
    if caps.energy_kwh_per_day is not None or caps.carbon_kg_per_day is not None:
        by_pool = power_terms(writer.model.block, outline)
        if caps.energy_kwh_per_day is not None:
            writer.row(("energy",), -np.inf, caps.energy_kwh_per_day)
            for terms in by_pool.values():
                for place, kw in terms:
                    writer.by_slot(place, 24.0 * kw * share_S)
        if caps.carbon_kg_per_day is not None:
            writer.row(("carbon",), -np.inf, caps.carbon_kg_per_day)
            for p, terms in by_pool.items():
                grams = outline.problem.pools[p].carbon_g_per_kwh or 0.0
                for place, kw in terms:
                    writer.by_slot(place, 24.0 * kw * grams / 1e3 * share_S)
    if caps.usd_per_hour is not None:
        writer.row(("usd",), -np.inf, caps.usd_per_hour)
        for column in np.flatnonzero(writer.model.cost):
            writer.once(int(column), float(writer.model.cost[column]))
