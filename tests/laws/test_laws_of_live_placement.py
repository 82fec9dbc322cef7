"""What holds of every decision on how many replicas each deployment has, whatever is closed."""

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from argosy.policies.autoscaling import Ask, Decision, Part, spread_over
from argosy.policies.capacity import (
    Closed,
    Limit,
    Placing,
    Sited,
    Stock,
    Taken,
    World,
    decided,
    placing_of,
)
from tests.policies.asks import FAR_MORE, ask, capacity, part

EPS = 1e-6
REGIONS = ("aws/eu", "aws/us", "gcp/eu", "gcp/us", "own/eu")
seeds = st.integers(0, 10**6)
few = settings(max_examples=15, derandomize=True, deadline=None)


def case_of(seed: int) -> tuple[list[Ask], World]:
    """Up to three models over up to six pools; some closed, some barred, some without limit."""
    chance = random.Random(seed)
    pools = {f"p{at}": chance.choice(REGIONS) for at in range(chance.randint(2, 6))}
    usd = {pool: round(chance.uniform(0.5, 6.0), 2) for pool in pools}
    asks: list[Ask] = []
    sites: list[Sited] = []
    for model in [f"m{at}" for at in range(chance.randint(1, 3))]:
        parts: list[Part] = []
        for pool in sorted(chance.sample(sorted(pools), chance.randint(1, len(pools)))):
            chips = chance.choice([1, 2, 4])
            parts.append(part_of(f"{model}@{pool}", pools[pool], usd[pool] * chips, chance))
            sites.append(Sited(deployment=parts[-1].name, pool=pool, chips=chips,
                               may_serve=len(parts) == 1 or chance.random() < 0.85))  # fmt: skip
        whole = round(chance.uniform(0.0, 14.0), 2)
        asks.append(
            ask(*parts, whole=whole, lost=round(whole * chance.uniform(0.5, 1.0), 2),
                batch=chance.choice([0.0, 0.0, round(0.3 * whole, 2)]),
                survive=tuple(kind for kind in ("cloud", "region") if chance.random() < 0.25))
        )  # fmt: skip
    limits = [Limit(model="m0", kind="cloud", share_max=0.6)] if chance.random() < 0.15 else []
    return asks, World(
        stocks=tuple(stock_of(pool, asks, sites, chance) for pool in pools),
        sites=tuple(sites),
        limits=tuple(limits),
        residency={each.model: "eu" for each in asks},
        closed=tuple(
            Closed(pool=pool, why="is closed", is_left=chance.random() < 0.5)
            for pool in pools
            if chance.random() < 0.2
        ),
        taken=(Taken(pool="p0", chips=2),) if chance.random() < 0.2 else (),
    )


def part_of(name: str, region: str, usd: float, chance: random.Random) -> Part:
    most, least = chance.randint(1, 8), chance.choice([0, 0, 0, 1])
    replicas = chance.randint(0, most)
    return part(
        name, region, usd=usd, min=least, max=most, replicas=replicas,
        ready=chance.randint(0, replicas), capacity=chance.choice([1.0, 0.5, 2.3]),
        shrink_max=chance.choice([0, 1, FAR_MORE]), start_s=chance.choice([60.0, 600.0]),
    )  # fmt: skip


def stock_of(pool: str, asks: list[Ask], sites: list[Sited], chance: random.Random) -> Stock:
    """What is up fits; of what may be up, not all."""
    chips = {one.deployment: one.chips for one in sites if one.pool == pool}
    parts = [one for each in asks for one in each.parts if one.name in chips]
    up = sum(max(one.replicas, one.min) * chips[one.name] for one in parts)
    if chance.random() < 0.4:
        return Stock(pool=pool, chips=None)
    return Stock(pool=pool, chips=max(1, up) + chance.choice([0, 2, 8, 32]),
                 chips_paid=chance.choice([0, 0, 4]))  # fmt: skip


def told(asks: list[Ask], world: World) -> list[list[int]]:
    return [[one.replicas for one in each.targets] for each in decided(asks, world)]


def placed(asks: list[Ask], world: World) -> list[tuple[Ask, Part, Sited, Closed | None, int]]:
    """Every deployment of a model that has a choice, with what it is to have."""
    sites = {one.deployment: one for one in world.sites}
    closed = {one.pool: one for one in world.closed}
    return [
        (each, one, sites[one.name], closed.get(sites[one.name].pool), count)
        for each, counts in zip(asks, told(asks, world), strict=True)
        for one, count in zip(each.parts, counts, strict=True)
        if len(each.parts) > 1
    ]


@given(seeds)
@few
def test_residency_and_bounds_are_never_violated(seed):
    asks, world = case_of(seed)
    for _, one, site, closed, count in placed(asks, world):
        if not site.may_serve or (closed is not None and closed.is_left):
            assert count == 0
        else:
            assert one.min <= count <= one.max


@given(seeds)
@few
def test_no_more_go_than_the_cap_says(seed):
    asks, world = case_of(seed)
    for _, one, site, closed, count in placed(asks, world):
        if site.may_serve and not (closed is not None and closed.is_left):
            assert one.replicas - count <= one.shrink_max


@given(seeds)
@few
def test_no_pool_has_more_than_its_chips(seed):
    asks, world = case_of(seed)
    chips = {one.deployment: (one.pool, one.chips) for one in world.sites}
    for stock in world.stocks:
        if stock.chips is None:
            continue
        there = stock.chips - sum(one.chips for one in world.taken if one.pool == stock.pool)
        now = up = alone = 0
        for each, counts in zip(asks, told(asks, world), strict=True):
            for one, count in zip(each.parts, counts, strict=True):
                pool, size = chips[one.name]
                if pool == stock.pool and len(each.parts) > 1:
                    now, up = now + count * size, up + max(one.replicas, one.min) * size
                elif pool == stock.pool:
                    alone += max(count, one.replicas) * size
        assert now <= max(there - alone, up)


@given(seeds)
@few
def test_a_closed_pool_grows_only_where_nothing_else_has_room(seed):
    asks, world = case_of(seed)
    counts = dict(zip((each.model for each in asks), told(asks, world), strict=True))
    for each, one, _, closed, count in placed(asks, world):
        if closed is not None and count > max(one.min, one.replicas):
            others = [
                0 if name == one.name else have
                for name, have in zip(
                    (other.name for other in each.parts), counts[each.model], strict=True
                )
            ]
            assert capacity(each, others) + one.capacity * (count - 1) < each.whole


@given(seeds)
@few
def test_a_ready_replica_goes_only_where_enough_others_are_ready(seed):
    asks, world = case_of(seed)
    able = {one.deployment for one in world.sites if one.may_serve}
    left = {one.pool for one in world.closed if one.is_left}
    able -= {one.deployment for one in world.sites if one.pool in left}
    for each, counts in zip(asks, told(asks, world), strict=True):
        if len(each.parts) > 1:
            pairs = [pair for pair in zip(each.parts, counts, strict=True) if pair[0].name in able]
            ready = sum(one.ready * one.capacity for one, _ in pairs)
            kept = sum(min(one.ready, count) * one.capacity for one, count in pairs)
            assert kept >= min(each.whole, ready) - EPS


@given(seeds)
@few
def test_what_a_lost_region_did_moves_elsewhere_at_that_tick(seed):
    """As far as the others' bounds allow; pools without limit, so that none starves another."""
    asks, world = case_of(seed)
    world = replace(world, stocks=tuple(replace(one, chips=None) for one in world.stocks))
    lost = random.Random(seed).choice(REGIONS)
    gone = [replace(each, parts=tuple(without(one, lost) for one in each.parts)) for each in asks]
    sites = {one.deployment: one for one in world.sites}
    left = {one.pool for one in world.closed if one.is_left}
    for each, counts in zip(gone, told(gone, world), strict=True):
        if len(each.parts) > 1:
            most = [
                one.max if sites[one.name].may_serve and sites[one.name].pool not in left else 0
                for one in each.parts
            ]
            needed = min(each.whole, capacity(each, most))
            assert capacity(each, counts) >= needed - 1e-4 * max(1.0, needed)
            assert all(
                not count
                for one, count in zip(each.parts, counts, strict=True)
                if dict(one.domains)["region"] == lost
            )


def without(one: Part, region: str) -> Part:
    """As the views have it of a pool that nobody sees, and whose replicas do not answer."""
    if dict(one.domains)["region"] != region:
        return one
    return replace(one, replicas=0, ready=0, min=0, max=0)


@given(seeds)
@few
def test_with_nothing_changed_nothing_moves(seed):
    """What was decided is up and ready; after a few ticks nothing is decided any more."""
    asks, world = case_of(seed)
    for _ in range(30):
        now = told(asks, world)
        asks = [settled(each, counts) for each, counts in zip(asks, now, strict=True)]
        if told(asks, world) == now:
            break
    for _ in range(3):
        again = told(asks, world)
        assert again == now
        asks = [settled(each, counts) for each, counts in zip(asks, again, strict=True)]


def settled(each: Ask, counts: list[int]) -> Ask:
    pairs = zip(each.parts, counts, strict=True)
    return replace(
        each, parts=tuple(replace(one, replicas=count, ready=count) for one, count in pairs)
    )


@given(seeds)
@few
def test_what_is_logged_of_one_model_decides_the_same_again(seed):
    asks, world = case_of(seed)
    for each, decision in zip(asks, decided(asks, world), strict=True):
        placing = placing_of(each, asks, world)
        if placing is None:
            assert decision == spread_over(each)
            continue
        read = msgspec.json.decode(msgspec.json.encode((each, placing)), type=tuple[Ask, Placing])
        again: Decision = decided((read[0], *read[1].others), read[1].world)[0]
        assert again == decision


@given(seeds)
@few
def test_the_order_in_which_models_are_told_changes_nothing(seed):
    asks, world = case_of(seed)
    backwards = decided(asks[::-1], world)
    assert backwards[::-1] == decided(asks, world)
    assert all(target.reason for each in backwards for target in each.targets)
