"""A plan is not believed: its hours are replayed in the exact simulator, request by request.

For chosen hours each region's replicas answer what the plan sends them, with the fleet's own
gateway, the way from each origin counted, and the engines' own batching. What the plan took from
one replica with one class of requests is so seen with all of them together, whole replicas, and
tiers that share them. A loss is replayed as it stands after it: the domain is gone, requests go to
what is left. Where an SLO is not kept, rates are cut and the problem is solved again.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from argosy.fleet.fields import Tier
from argosy.planner.plan import Conflict, Plan
from argosy.planner.problem import DomainKind, Problem, layout_text
from argosy.planner.questions.changed import Solving, with_rates
from argosy.planner.replay.cells import (
    Ground,
    Lost,
    RegionCell,
    Replicas,
    Scene,
    SlotCells,
    cells_of,
)
from argosy.planner.replay.runs import Counted, How, Judged, judged_of, ran
from argosy.policies.admission.work import TIERS

SAMPLED = 2  # hours beside those that are the peak of something
ROUNDS = 4
CUT_MOST = 0.5  # a rate that must be lower than this is no cut, it is a mistake
_CUT_STEPS = 4


class Attained(msgspec.Struct, frozen=True, kw_only=True):
    """Requests of one model and tier in one slot, all regions together."""

    model: str
    tier: Tier
    slot: int
    requests: int  # simulated and counted
    asked_per_s: float  # in the plan
    unrouted_share: float  # nobody serves them; only when a domain is lost
    slo_met_share: float  # of all that is asked for: what is refused or unrouted missed it
    slo_met_share_low: float | None  # if all steps are as slow as the 80 % interval says
    slo_met_share_high: float | None  # as fast


class CellKept(msgspec.Struct, frozen=True, kw_only=True):
    """Whether one model's SLO is kept in one region and slot; batch does not count."""

    model: str
    region: str
    slot: int
    ttft_in_time_share: float | None  # None: batch alone
    itl_in_time_share: float | None
    judged: Judged


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """Some slots of a plan, replayed."""

    what: str  # "as planned", "cloud azure lost", "every step 1.5 x as long"
    lost: Lost | None
    attained: tuple[Attained, ...]
    kept: tuple[CellKept, ...]

    @property
    def is_kept(self) -> bool:
        """No promise is broken anywhere."""
        return not any(one.judged == "broken" for one in self.kept)

    def share(self, model: str | None = None, tier: Tier | None = None) -> float | None:
        """Of requests that met the SLO, each slot by what is asked for in it; None of nothing."""
        rows = [
            one for one in self.attained if model in (None, one.model) and tier in (None, one.tier)
        ]
        asked = sum(one.asked_per_s for one in rows)
        met = sum(one.asked_per_s * one.slo_met_share for one in rows)
        return met / asked if asked > 0 else None


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """Rates that were believed too high."""

    option: int
    text: str  # "large@azure-h100 tp4 fp8"
    times: float  # of what was believed
    because: str


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One plan, its replays, and what they cut."""

    usd_per_hour: float
    replays: tuple[Replay, ...]
    cuts: tuple[Cut, ...]
    hopeless: tuple[str, ...]  # promises that no lower rate would keep


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """The last plan, and how it came to be."""

    answer: Plan | Conflict  # Conflict: with the rates that the simulator shows there is no plan
    rounds: tuple[Round, ...]
    is_kept: bool


def plan_until_kept(
    problem: Problem, ground: Ground, *, solving: Solving, how: How | None = None
) -> Verified:
    """Solve, replay, cut, solve again, until every promise is kept or `ROUNDS` are over."""
    how = how or How()
    rounds: list[Round] = []
    answer = solving(problem)
    while isinstance(answer, Plan):
        solving.tell(f"replay {len(rounds) + 1}")
        said = _round(answer, ground, how)
        rounds.append(said)
        if not said.cuts or len(rounds) > ROUNDS:
            break
        solving.tell(f"{len(said.cuts)} rates cut; the plan again")
        for cut in said.cuts:
            problem = with_rates(problem, cut.times, options={cut.option})
        answer = solving(problem)
    is_kept = isinstance(answer, Plan) and all(one.is_kept for one in rounds[-1].replays)
    return Verified(answer=answer, rounds=tuple(rounds), is_kept=is_kept)


def replays_of(plan: Plan, ground: Ground, *, how: How | None = None) -> tuple[Replay, ...]:
    """As planned, and each loss that is to be survived at its models' peaks, without interval."""
    how = how or How()
    lean = replace(how, with_interval=False)
    found = [replay(plan, ground, slots_of_interest(plan), how=how)]
    if how.with_losses:
        for lost, slot in losses_of_interest(plan):
            found.append(replay(plan, ground, (slot,), how=lean, lost=lost))
    return tuple(found)


def replay(
    plan: Plan,
    ground: Ground,
    slots: Sequence[int],
    *,
    how: How | None = None,
    lost: Lost | None = None,
    slowness: float = 1.0,
) -> Replay:
    """These slots, simulated. Raises UnplayableError where the plan is not of this fleet."""
    how, replicas = how or How(), Replicas(ground)
    attained: list[Attained] = []
    kept: list[CellKept] = []
    promised = _promised(plan.problem, lost)
    for slot in slots:
        found = cells_of(Scene(plan, ground, replicas, slot, lost, slowness))
        cells = found if promised is None else _only(found, promised)
        looked = _largest(cells.cells, how.cells_max)
        expected = [ran(cell, how, "expected") for cell in looked]
        ends: list[list[Counted]] = []
        if how.with_interval:
            ends = [[ran(cell, how, case) for cell in looked] for case in ("slow", "fast")]
        attained += _attained(cells, looked, expected, ends)
        if lost is None or promised is not None:
            pairs = zip(looked, expected, strict=True)
            kept += [_kept(cell, slot, one) for cell, one in pairs]
    return Replay(what=_what(lost, slowness), lost=lost, attained=tuple(attained), kept=tuple(kept))


def _largest(cells: Sequence[RegionCell], cells_max: int) -> list[RegionCell]:
    """By the requests that they stand for; of each model at least one."""
    order = sorted(cells, key=lambda cell: (-cell.times * cell.requests_per_s, cell.region))
    first = {cell.model: cell for cell in reversed(order)}
    others = [cell for cell in order if first[cell.model] is not cell]
    return [*first.values(), *others[: max(0, cells_max - len(first))]]


def _what(lost: Lost | None, slowness: float) -> str:
    parts = [] if lost is None else [f"{lost.kind} {lost.domain} lost"]
    parts += [] if slowness == 1.0 else [f"every step {slowness:g} x as long"]
    return ", ".join(parts) or "as planned"


def _promised(problem: Problem, lost: Lost | None) -> set[tuple[str, Tier]] | None:
    """Models and tiers that are to survive it; None: all are looked at, for none is promised."""
    if lost is None:
        return None
    of_kind = (one for one in problem.survivals if one.kind == lost.kind)
    return {(one.model, tier) for one in of_kind for tier in one.tiers} or None


def _only(cells: SlotCells, promised: set[tuple[str, Tier]]) -> SlotCells:
    """What a loss does to others is told by `losses_told.py`."""
    models = {model for model, _ in promised}
    return replace(
        cells,
        cells=tuple(cell for cell in cells.cells if cell.model in models),
        asked={key: rate for key, rate in cells.asked.items() if key in promised},
    )


def slots_of_interest(plan: Plan, *, sampled: int = SAMPLED) -> tuple[int, ...]:
    """The peak of each model, the slot in which a pool is fullest, and some between."""
    problem = plan.problem
    slots = {_peak(problem, model) for model in {need.model for need in problem.needs}}
    fullest = max(_fills(plan), default=None)
    if fullest is not None:
        slots.add(-fullest[1])
    count = len(problem.slots)
    # Evenly over the horizon, off the hour at which it begins.
    slots.update((2 * number + 1) * count // (2 * sampled) for number in range(sampled))
    return tuple(sorted(slots))


def _peak(problem: Problem, model: str) -> int:
    rows = [need.requests_per_s for need in problem.needs if need.model == model]
    sums = [sum(column) for column in zip(*rows, strict=True)]
    return max(range(len(sums)), key=lambda slot: (sums[slot], -slot))


def _fills(plan: Plan) -> Iterable[tuple[float, int]]:
    """Each option's share of what its replicas could take, and the slot, negated."""
    problem = plan.problem
    used: dict[int, list[float]] = {}
    for route in plan.routes:
        option = problem.options[route.option]
        rate = option.requests_per_s[problem.needs[route.need].length_class]
        row = used.setdefault(route.option, [0.0] * len(problem.slots))
        for slot, flow in enumerate(route.requests_per_s):
            row[slot] += flow / rate
    for run in plan.runs:
        row = used.get(run.option, [])
        for slot, (filled, count) in enumerate(zip(row, run.replicas, strict=False)):
            if count:
                yield round(filled / count, 6), -slot


def losses_of_interest(plan: Plan) -> list[tuple[Lost, int]]:
    """Each domain that is to be survived and hosts replicas of the model, at the model's peak."""
    problem = plan.problem
    found: dict[tuple[Lost, int], None] = {}
    for survival in problem.survivals:
        slot = _peak(problem, survival.model)
        for run in plan.runs:
            option = problem.options[run.option]
            if option.model == survival.model and run.replicas[slot] > 0:
                domain = problem.pools[option.pool].domain(survival.kind)
                found[Lost(survival.kind, domain), slot] = None
    kinds: dict[DomainKind, int] = {"cloud": 0, "maker": 1, "region": 2, "pool": 3}
    return sorted(found, key=lambda one: (kinds[one[0].kind], one[0].domain, one[1]))


def _attained(
    cells: SlotCells,
    looked: Sequence[RegionCell],
    expected: Sequence[Counted],
    ends: Sequence[Sequence[Counted]],
) -> Iterable[Attained]:
    for (model, tier), asked_per_s in sorted(cells.asked.items()):
        sent_per_s = sum(_sent_per_s(cell, tier) for cell in cells.cells if cell.model == model)
        routed = min(1.0, sent_per_s / asked_per_s)
        places = [place for place, cell in enumerate(looked) if cell.model == model]
        share, *both = (
            routed * _share([(looked[place], counted[place]) for place in places], tier)
            for counted in (expected, *ends)
        )
        low, high = both or (None, None)
        rank = TIERS.index(tier)
        yield Attained(
            model=model,
            tier=tier,
            slot=cells.slot,
            requests=sum(int(expected[place].requests[rank]) for place in places),
            asked_per_s=asked_per_s,
            unrouted_share=1.0 - routed,
            slo_met_share=share,
            slo_met_share_low=low,
            slo_met_share_high=high,
        )


def _sent_per_s(cell: RegionCell, tier: Tier) -> float:
    """Of the region, not of the smaller cell."""
    rates = (float(one.rate) for one in cell.streams if one.tier == tier)  # type: ignore[arg-type]
    return cell.times * sum(rates)


def _share(pairs: Sequence[tuple[RegionCell, Counted]], tier: Tier) -> float:
    """Of requests that met the SLO, each region by what it is sent; 1 of none."""
    rank = TIERS.index(tier)
    met, seen = 0.0, 0.0
    for cell, one in pairs:
        if one.requests[rank]:
            sent_per_s = _sent_per_s(cell, tier)
            met += sent_per_s * float(one.met[rank] / one.requests[rank])
            seen += sent_per_s
    return met / seen if seen > 0 else 1.0


def _kept(cell: RegionCell, slot: int, counted: Counted) -> CellKept:
    verdict = judged_of(cell, counted)
    return CellKept(
        model=cell.model,
        region=cell.region,
        slot=slot,
        ttft_in_time_share=verdict.ttft_in_time_share,
        itl_in_time_share=verdict.itl_in_time_share,
        judged=verdict.judged,
    )


def _round(plan: Plan, ground: Ground, how: How) -> Round:
    replays = replays_of(plan, ground, how=how)
    cuts: dict[int, Cut] = {}
    hopeless: list[str] = []
    replicas = Replicas(ground)
    for one in replays:
        for broken in (kept for kept in one.kept if kept.judged == "broken"):
            cell = _cell_again(plan, ground, replicas, one, broken)
            times = _times(cell, how)
            because = f"{one.what}: {broken.model} in {broken.region} {_shortfall(broken)}"
            if times is None:
                hopeless.append(f"{because}, and with half the requests still")
                continue
            for cut in _cuts(plan.problem, cell, times, because):
                known = cuts.get(cut.option)
                cuts[cut.option] = cut if known is None or cut.times < known.times else known
    return Round(
        usd_per_hour=plan.usd_per_hour,
        replays=replays,
        cuts=tuple(cuts[option] for option in sorted(cuts)),
        hopeless=tuple(hopeless),
    )


def _cell_again(
    plan: Plan, ground: Ground, replicas: Replicas, of: Replay, broken: CellKept
) -> RegionCell:
    cells = cells_of(Scene(plan, ground, replicas, broken.slot, of.lost)).cells
    return next(
        cell for cell in cells if (cell.model, cell.region) == (broken.model, broken.region)
    )


def _shortfall(broken: CellKept) -> str:
    gaps = ""
    if broken.itl_in_time_share is not None:
        gaps = f" and {broken.itl_in_time_share:.1%} of its gaps"
    return f"had {broken.ttft_in_time_share or 0.0:.1%} of its first tokens{gaps} in time"


def _times(cell: RegionCell, how: How) -> float | None:
    """The largest share of its requests with which the SLO is kept; None: less than half."""
    below, beyond = CUT_MOST, 1.0
    if judged_of(cell, ran(cell, how, "expected", share=below)).judged == "broken":
        return None
    for _ in range(_CUT_STEPS):
        middle = (below + beyond) / 2
        if judged_of(cell, ran(cell, how, "expected", share=middle)).judged == "broken":
            beyond = middle
        else:
            below = middle
    return below


def _cuts(problem: Problem, cell: RegionCell, times: float, because: str) -> Iterable[Cut]:
    for option in cell.options:
        one = problem.options[option]
        pool = problem.pools[one.pool].name
        text = f"{one.model}@{pool} {layout_text(one.layout)}"
        yield Cut(option=option, text=text, times=times, because=because)
