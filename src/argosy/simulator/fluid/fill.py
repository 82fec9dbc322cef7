"""The sums: each stretch of time adds what its place on the surfaces says of its requests.

Times to the first token and refusals are those of the place at which a request comes; times
between tokens those of the places while it is answered. Counts are kept as fractions and made
whole at the end, so that all that came is done or refused, to the last one.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from argosy.policies.admission.work import RANKS, TIERS
from argosy.simulator.driver import SAMPLE
from argosy.simulator.engine import Account
from argosy.simulator.fluid.cell import Cell
from argosy.simulator.fluid.course import Course
from argosy.simulator.fluid.surface import (
    ACCOUNT_FIELDS,
    BLOCKS,
    RUNNING,
    WAITING,
    Floats,
    Point,
)
from argosy.simulator.outcomes import DONE, EXPIRED, LOST, OUTCOMES, SHED
from argosy.simulator.scenario import Scenario
from argosy.simulator.serving import DETECT_S, Ran, slos_s
from argosy.simulator.tally import BUCKETS, COARSE, Tally, bins_of

SAMPLES = 512  # of how it stood
_FLOATS_OF_ACCOUNT = ("busy_s", "batch_s")
_TIERS = len(TIERS)


class Part(NamedTuple):
    """One model's way through the time."""

    model: int
    course: Course
    cells: tuple[Cell | None, ...]  # by stretch
    tiers: tuple[str, ...]  # of kinds
    requests: Floats  # [stretch, kind]; behind the last one nobody comes
    origins: tuple[str, ...]  # of kinds


class _Answers(NamedTuple):
    """Of the requests of one stretch, by tier."""

    outcomes: Floats  # [tier, outcome]
    met: Floats  # [tier]
    tokens_out: Floats  # [tier]


class Filling:
    """The sums of one run."""

    def __init__(self, scenario: Scenario, *, seconds: float, bucket_s: float) -> None:
        self._scenario, self._seconds = scenario, seconds
        self._slos_s = slos_s(scenario)
        self._bucket_s = bucket_s
        self._end_s = seconds
        tally = Tally(self._slos_s, bucket_s=bucket_s)
        # The same arrays, of fractions.
        self._sums = {
            name: np.zeros(getattr(tally, name).shape)
            for name in ("outcomes", "met", "tokens_in", "tokens_out", "ttft", "tpot", "waited_s")
        }
        self._over_time = {name: np.zeros(counts.shape) for name, counts in tally.over_time.items()}
        self._ttft_over_time = np.zeros(tally.ttft_over_time.shape)
        groups = len(scenario.groups)
        self._accounts = np.zeros((groups, len(ACCOUNT_FIELDS)))
        self._busy_s_arriving = np.zeros(groups)
        self._origins: set[str] = set()
        self._itl = np.zeros((groups, tally.ttft.shape[2]))
        self._sample_s = np.linspace(0.0, seconds, SAMPLES + 1)[1:]
        self._samples = np.zeros((SAMPLES, groups), SAMPLE)
        self._samples["at_s"] = self._sample_s[:, None]
        self._coarse: dict[int, Floats] = {}  # by id of a point, which the surfaces keep alive

    def add(self, part: Part) -> None:
        """A model's stretches."""
        sampled = 0
        self._origins.update(part.origins)
        ranks = [RANKS[tier] for tier in part.tiers]
        before: Cell | None = None
        for number, stretch in enumerate(part.course.stretches):
            came = np.zeros(_TIERS)
            if number < len(part.requests):
                np.add.at(came, ranks, part.requests[number])
                answers = self._answers(part, number, came)
                self._note_over_time(part, number, came, answers)
            elif number == len(part.requests):
                self._mark_end(part.model)
            cell = part.cells[number]
            if before is not None and before is not cell:
                self._break_off(part, number, before, cell)
            before = cell
            self._work(part, number, cell)
            end_s = stretch.at_s + stretch.seconds
            while sampled < SAMPLES and self._sample_s[sampled] <= end_s + 1e-9:
                self._sample(part, number, cell, sampled)
                sampled += 1
            self._end_s = max(self._end_s, end_s)
        if len(part.course.stretches) == len(part.requests):
            self._mark_end(part.model)

    def _mark_end(self, model: int) -> None:
        """The last has come: from here on replicas only finish."""
        column = ACCOUNT_FIELDS.index("busy_s")
        for place, group in enumerate(self._scenario.groups):
            if group.model == model:
                self._busy_s_arriving[place] = self._accounts[place, column]

    # Requests.

    def _answers(self, part: Part, number: int, came: Floats) -> _Answers:
        blend = part.course.stretches[number].blend
        if blend is None:
            return self._refused(part, number, came)
        model, course = part.model, part.course
        lost = float(course.lost_share[number])
        came_on = came * (1.0 - lost)
        outcomes = np.zeros((_TIERS, len(OUTCOMES)))
        in_time, tokens_out = np.zeros(_TIERS), np.zeros(_TIERS)
        for surface, place, weight in blend.corners(
            float(course.place[number]), is_by_request=True
        ):
            point, share = surface.points[place], came_on * weight
            outcomes += share[:, None] * point.outcomes
            in_time += share * point.in_time
            tokens_out += share * point.tokens_out
            self._sums["tokens_in"][model] += share * point.tokens_in
            self._sums["waited_s"][model] += share * point.waited_s
            self._sums["ttft"][model] += share[:, None] * point.ttft
            bucket = self._bucket(part.course.stretches[number].at_s)
            self._ttft_over_time[bucket, model] += share @ self._coarse_of(point)
        met = self._while_answered(part, number, outcomes[:, DONE], in_time)
        outcomes[:, LOST] += came * lost
        self._sums["outcomes"][model] += outcomes
        self._sums["met"][model] += met
        self._sums["tokens_out"][model] += tokens_out
        return _Answers(outcomes, met, tokens_out)

    def _while_answered(self, part: Part, number: int, done: Floats, in_time: Floats) -> Floats:
        """Add the times between tokens; how many met the SLO."""
        blend = part.course.stretches[number].blend
        assert blend is not None
        done_there, in_time_there, met_there = np.zeros(_TIERS), np.zeros(_TIERS), np.zeros(_TIERS)
        place = float(part.course.place_of_answers[number])
        corners = blend.corners(place, is_by_request=True)
        for surface, at, weight in corners:
            point = surface.points[at]
            done_there += weight * point.outcomes[:, DONE]
            in_time_there += weight * point.in_time
            met_there += weight * point.met
        share = done / np.maximum(done_there, 1e-12)
        for surface, at, weight in corners:
            self._sums["tpot"][part.model] += (weight * share)[:, None] * surface.points[at].tpot
        return in_time * np.where(
            in_time_there > 0, met_there / np.maximum(in_time_there, 1e-12), 0.0
        )

    def _refused(self, part: Part, number: int, came: Floats) -> _Answers:
        """Nobody is there: as many as may wait do so until they may no longer."""
        gateway = self._scenario.fleet.gateway
        timeouts = gateway.queue_timeout_s
        seconds = part.course.stretches[number].seconds
        limits_s = np.array([getattr(timeouts, tier) for tier in TIERS])
        # The longer one may wait, the fewer take turns in the queue.
        most = gateway.waiting_max * seconds / max(float(limits_s[came > 0].max(initial=1.0)), 1e-9)
        share = min(1.0, most / max(float(came.sum()), 1e-9))
        outcomes = np.zeros((_TIERS, len(OUTCOMES)))
        outcomes[:, EXPIRED], outcomes[:, SHED] = came * share, came * (1.0 - share)
        self._sums["outcomes"][part.model] += outcomes
        self._sums["waited_s"][part.model] += outcomes[:, EXPIRED] * limits_s
        return _Answers(outcomes, np.zeros(_TIERS), np.zeros(_TIERS))

    def _note_over_time(self, part: Part, number: int, came: Floats, answers: _Answers) -> None:
        stretch, model, done = part.course.stretches[number], part.model, answers.outcomes[:, DONE]
        bucket = self._bucket(stretch.at_s)
        end = self._bucket(stretch.at_s + float(part.course.residence_s[number]))
        for name, at, value in (
            ("arrived", bucket, came.sum()),
            ("met", bucket, answers.met.sum()),
            ("refused", bucket, (came - done).sum()),
            ("done", end, done.sum()),
            ("tokens_out", end, answers.tokens_out.sum()),
        ):
            self._over_time[name][at, model] += value

    def _bucket(self, at_s: float) -> int:
        return min(int((at_s + 1e-6) / self._bucket_s), BUCKETS - 1)

    def _coarse_of(self, point: Point) -> Floats:
        known = self._coarse.get(id(point))
        if known is None:
            known = np.add.reduceat(point.ttft, np.arange(0, point.ttft.shape[1], COARSE), axis=1)
            self._coarse[id(point)] = known
        return known

    # Groups.

    def _work(self, part: Part, number: int, cell: Cell | None) -> None:
        stretch = part.course.stretches[number]
        if cell is None or stretch.blend is None:
            return
        times = np.array(cell.group_times)[:, None] * stretch.seconds
        places = list(cell.places)
        for surface, place, weight in stretch.blend.corners(
            float(part.course.place_of_work[number]), is_by_request=False
        ):
            point = surface.points[place]
            self._accounts[places] += times * weight * point.accounts
            self._itl[places] += times * weight * point.itl

    def _standing(self, part: Part, number: int, cell: Cell) -> tuple[Floats, float]:
        """[group, 3] of the fleet, and requests queued at the gateway."""
        stretch = part.course.stretches[number]
        assert stretch.blend is not None
        standing, queued = np.zeros((len(cell.places), 3)), 0.0
        place = float(part.course.place_of_work[number])
        for surface, at, weight in stretch.blend.corners(place, is_by_request=False):
            standing += weight * surface.points[at].standing
            queued += weight * surface.points[at].queued
        return standing * np.array(cell.group_times)[:, None], queued * cell.times

    def _break_off(self, part: Part, number: int, before: Cell, cell: Cell | None) -> None:
        """Answers on groups that went: each has one long gap."""
        left = set(before.places) - set(() if cell is None else cell.places)
        if not left:
            return
        standing, _ = self._standing(part, number - 1, before)
        gap_s = bins_of(np.array([DETECT_S + 0.1]))[0]
        for row, place in enumerate(before.places):
            if place in left:
                killed = float(standing[row, RUNNING] + standing[row, WAITING])
                self._accounts[place, ACCOUNT_FIELDS.index("killed")] += killed
                self._itl[place, gap_s] += killed if cell is not None else 0.0

    def _sample(self, part: Part, number: int, cell: Cell | None, sampled: int) -> None:
        if cell is None:
            return
        standing, queued = self._standing(part, number, cell)
        row = self._samples[sampled]
        for place, stands in zip(cell.places, standing, strict=True):
            one, did = row[place], self._accounts[place]
            one["listening"] = self._scenario.groups[place].replicas
            one["running"], one["waiting"] = round(stands[RUNNING]), round(stands[WAITING])
            one["blocks_used"] = round(stands[BLOCKS])
            one["queued"] = round(queued)
            one["busy_s"] = did[ACCOUNT_FIELDS.index("busy_s")]
            one["tokens"] = round(
                did[ACCOUNT_FIELDS.index("tokens_prefilled")]
                + did[ACCOUNT_FIELDS.index("tokens_decoded")]
            )

    # The end.

    def ran(self) -> Ran:
        """All of it, in whole numbers."""
        tally = Tally(self._slos_s, bucket_s=self._bucket_s)
        for name in ("outcomes", "ttft", "tpot"):
            setattr(tally, name, _whole(self._sums[name], axis=-1))
        for name in ("met", "tokens_in", "tokens_out"):
            setattr(tally, name, np.rint(self._sums[name]).astype(np.int64))
        tally.met = np.minimum(tally.met, tally.outcomes[:, :, DONE])
        tally.waited_s[:] = self._sums["waited_s"]
        tally.over_time = {name: _whole(sums, axis=0) for name, sums in self._over_time.items()}
        # Beyond 2^31 in a bucket, where the exact simulator never comes.
        tally.ttft_over_time = _whole(self._ttft_over_time, axis=-1)  # type: ignore[assignment]
        return Ran(
            scenario=self._scenario,
            tally=tally,
            samples=self._samples,
            accounts=tuple(_account(row) for row in self._accounts),
            itl=tuple(_whole(row, axis=0) for row in self._itl),
            end_s=self._end_s,
            fed_s=self._seconds,
            requests=int(tally.outcomes.sum()),
            busy_s_arriving=tuple(self._busy_s_arriving.tolist()),
            origins=tuple(sorted(self._origins)),
        )


def _whole(sums: Floats, *, axis: int) -> NDArray[np.int64]:
    """Rounded so that sums along the axis stay what they were."""
    running = np.rint(np.cumsum(sums, axis=axis))
    first = np.zeros_like(np.take(running, [0], axis=axis))
    return np.diff(running, axis=axis, prepend=first).astype(np.int64)


def _account(row: Floats) -> Account:
    values = {
        field: float(value) if field in _FLOATS_OF_ACCOUNT else round(float(value))
        for field, value in zip(ACCOUNT_FIELDS, row, strict=True)
    }
    return Account(**values)  # type: ignore[arg-type]  # counts are whole
