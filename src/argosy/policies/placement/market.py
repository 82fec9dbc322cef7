"""Models, their rows and the pools by place: what the search counts with.

A row is something that a model's replicas must cover. With needs grouped by the regions that may
serve them, routing is possible exactly when every union of region sets holds enough capacity for
the needs that may go nowhere else (the least cut of Ford and Fulkerson): so there are no flows
here, only sums. Three kinds, all concave in the replicas:

    plain    sum of capacity                                         >= need
    spread   sum over domains of min(capacity, share_max x need)     >= need
    lost     sum of capacity off spot - that of its largest domain   >= need while lost

Needs are cumulative by level (`rows.LEVELS`): levels are the order in which chips are given out.
"""

from typing import NamedTuple

from argosy.policies.placement.views import DOMAIN_KINDS, DomainKind, OptionView, PoolView, Tuning

Counts = dict[int, int]  # replicas by option of one model; no zeros


class Row(NamedTuple):
    """Something that a model's replicas must cover; by level, what of it and the limit of a domain.

    `kind` None: no domains. `is_lost`: the largest domain does not count.
    """

    regions: int  # bits
    kind: DomainKind | None
    is_lost: bool
    needs: tuple[float, ...]
    limits: tuple[float, ...]
    domains: int = 0  # in which there is anything that could serve it


class Model:
    """One model's options by place, those first that cost least per capacity; and its rows."""

    def __init__(self, name: str, rows: list[Row]) -> None:
        self.name = name
        self.rows = rows
        self.views: list[OptionView] = []
        self.pools: list[int] = []
        self.chips: list[int] = []
        self.rates: list[float] = []
        self.starts_usd: list[float] = []  # an hour, of each replica beyond those up
        self.up: list[int] = []  # beyond the base
        self.was: list[int] = []  # all that are up
        self.base: Counts = {}  # kept in any case; all other counts are beyond these
        self.most: list[float] = []  # beyond the base
        self.planned: list[float] = []  # share of the model's capacity
        # Options by the least that covered capacity can cost there: as it counts in all its rows.
        self.keys: list[tuple[float, int]] = []
        # Of each in that order and those after it: the least of a unit of capacity and a replica.
        self.floors: list[tuple[float, float]] = []
        self._bare: list[float] = []  # of the keys, without starts
        self._links: dict[int, list[tuple[int, int]]] = {}

    def add(self, view: OptionView, pool: int, usd: float, start_usd: float) -> None:
        """An option more, whose replica costs `usd` an hour at its pool's first price."""
        self.views.append(view)
        self.pools.append(pool)
        self.chips.append(view.chips)
        self.rates.append(view.sustains)
        self.starts_usd.append(start_usd)
        self._bare.append(usd)
        self.up.append(0)
        self.was.append(0)
        self.most.append(float("inf") if view.most is None else max(0, view.most - view.least))
        self.planned.append(0.0)

    def set_up(self, counts: Counts, market: "Market") -> None:
        """These are up: they need no start."""
        self.up = [0] * len(self.views)
        costs = [
            (bare + start) / rate
            for bare, start, rate in zip(self._bare, self.starts_usd, self.rates, strict=True)
        ]
        for option, count in counts.items():
            self.up[option] = count
            costs[option] = self._bare[option] / self.rates[option]
        rows_in: dict[tuple[int, bool], int] = {}
        keys: list[tuple[float, int]] = []
        for option, pool in enumerate(self.pools):
            where = market.bits[pool], market.is_spot[pool]
            rows = rows_in.get(where)
            if rows is None:
                rows = rows_in[where] = max(1, len(self.links(option, market)))
            keys.append((costs[option] / rows, option))
        keys.sort()
        least = least_usd = float("inf")
        floors: list[tuple[float, float]] = []
        for _, option in keys[::-1]:
            least = min(least, costs[option])
            least_usd = min(least_usd, costs[option] * self.rates[option])
            floors.append((least, least_usd))
        self.keys, self.floors = keys, floors[::-1]

    def links(self, option: int, market: "Market") -> list[tuple[int, int]]:
        """The rows that it counts in, and its domain there."""
        pool = self.pools[option]
        found = self._links.get(pool)
        if found is None:
            bit, is_spot, domains = market.bits[pool], market.is_spot[pool], market.domains[pool]
            found = self._links[pool] = [
                (place, 0 if row.kind is None else domains[DOMAIN_KINDS.index(row.kind)])
                for place, row in enumerate(self.rows)
                if row.regions & bit and not (row.is_lost and is_spot)
            ]
        return found

    def counts_up(self) -> Counts:
        """What is up now."""
        return {option: count for option, count in enumerate(self.up) if count}

    def moves_usd(self, counts: Counts) -> float:
        """An hour, of all starts that these counts ask for."""
        starts, up = self.starts_usd, self.up
        return sum(
            starts[option] * (count - up[option])
            for option, count in counts.items()
            if count > up[option]
        )


class Market:
    """The pools by place: their chips, how many are used, and what one more costs."""

    def __init__(self, views: tuple[PoolView, ...], tuning: Tuning) -> None:
        self.views = sorted(views, key=lambda view: view.name)
        self.place = {view.name: place for place, view in enumerate(self.views)}
        self.worth_usd = tuning.chip_usd_per_hour
        self.chips = [view.chips for view in self.views]
        self.used = [0] * len(self.views)
        self.steps = [
            sorted((step.usd_per_chip_hour, step.chips) for step in view.steps if step.chips > 0)
            for view in self.views
        ]
        self.price_min = [steps[0][0] if steps else 0.0 for steps in self.steps]
        self.is_spot = [view.is_spot for view in self.views]
        self.toll_usd = [0.0] * len(self.views)  # per chip-hour, while models haggle for chips
        regions = sorted({view.region for view in self.views})
        self.region_bits = {region: 1 << place for place, region in enumerate(regions)}
        self.bits = [self.region_bits[view.region] for view in self.views]
        names: list[dict[str, int]] = [{} for _ in DOMAIN_KINDS]
        self.domains = [
            tuple(
                names[at].setdefault(view.domain(kind), len(names[at]))
                for at, kind in enumerate(DOMAIN_KINDS)
            )
            for view in self.views
        ]
        self._counted: dict[tuple[int, DomainKind, bool], int] = {}
        self.work = 0  # options weighed so far

    def domains_of(self, row: Row) -> int:
        """In how many domains of its kind a row could be covered; 1 for a row without."""
        if row.kind is None:
            return 1
        key = row.regions, row.kind, row.is_lost
        found = self._counted.get(key)
        if found is None:
            at = DOMAIN_KINDS.index(row.kind)
            able = (
                domains[at]
                for domains, bit, is_spot in zip(self.domains, self.bits, self.is_spot, strict=True)
                if bit & row.regions and not (row.is_lost and is_spot)
            )
            found = self._counted[key] = len(set(able))
        return found

    def set_aside(self, pool: int, chips: int) -> float:
        """For what is kept in any case: they are no longer there; what they cost an hour."""
        usd, left = self.cost_usd(pool, chips), chips
        self.chips[pool] -= chips
        steps: list[tuple[float, int]] = []
        for price, count in self.steps[pool]:
            taken = min(count, left)
            left -= taken
            if count > taken:
                steps.append((price, count - taken))
        self.steps[pool] = steps or self.steps[pool][-1:]
        return usd

    def cost_usd(self, pool: int, used: int) -> float:
        """Of so many chips of the pool, an hour, at their prices; beyond the last at the last."""
        steps = self.steps[pool]
        if len(steps) == 1:
            return steps[0][0] * used
        total, price = 0.0, 0.0
        for price, chips in steps:
            taken = min(chips, used)
            total += taken * price
            used -= taken
            if not used:
                return total
        return total + used * price

    def step_of(self, pool: int) -> tuple[float, int]:
        """The price of the pool's next chip, and how many there are at it."""
        left = self.used[pool]
        price, chips = 0.0, 0
        for price, chips in self.steps[pool]:
            if left < chips:
                return price, chips - left
            left -= chips
        return price, 0

    def total_usd(self) -> float:
        """An hour of all that is used, and what the chips would be worth free."""
        total = sum(self.cost_usd(pool, used) for pool, used in enumerate(self.used) if used)
        return total + self.worth_usd * sum(self.used)

    def take(self, model: Model, counts: Counts, sign: int = 1) -> None:
        """Count the chips of a model's replicas as used, or (-1) as free again."""
        used, pools, chips = self.used, model.pools, model.chips
        for option, count in counts.items():
            used[pools[option]] += sign * count * chips[option]

    def fits(self, model: Model, counts: Counts) -> bool:
        """These replicas on top of what is used."""
        left: dict[int, int] = {}
        for option, count in counts.items():
            if count > model.most[option]:
                return False
            pool = model.pools[option]
            if pool not in left:
                left[pool] = self.chips[pool] - self.used[pool]
            left[pool] -= count * model.chips[option]
        return all(chips >= 0 for chips in left.values())

    def added_usd(self, model: Model, counts: Counts) -> float:
        """An hour, of these replicas on top of what is used, their starts and tolls included."""
        chips_of: dict[int, int] = {}
        for option, count in counts.items():
            pool = model.pools[option]
            chips_of[pool] = chips_of.get(pool, 0) + count * model.chips[option]
        total = model.moves_usd(counts)
        for pool, chips in chips_of.items():
            used = self.used[pool]
            total += self.cost_usd(pool, used + chips) - self.cost_usd(pool, used)
            total += chips * (self.worth_usd + self.toll_usd[pool])
        return total
