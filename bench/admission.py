"""What admission costs, and what the shares of slots give and take.

    python -m bench.admission [--rounds 20]

Costs are microseconds of this process, the least of the rounds: what others on the machine do
only adds. The shares are simulated in virtual time with the very queue that the gateway uses: one
tenant floods a model, another asks now and then; how long does the other wait at the gateway?
"""

import argparse
import heapq
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from argosy.fleet.config import Budget, Tier
from argosy.gateway.ledger import Ledger, Reservation
from argosy.policies.admission.fair_queue import FairQueue
from argosy.policies.admission.work import AdmissionSettings, Admit, TenantShare, Work

SLOTS = 16
ANSWER_S = 4.0  # of a request, exponentially distributed
OTHER_EVERY_S = 4.0  # between two requests of the tenant that does not flood, so too
NOW_S = 1_900_000_000.0
TENANTS = [f"tenant-{number}" for number in range(20)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    print("us each, the least of", rounds, "rounds")
    with tempfile.TemporaryDirectory() as folder:
        costs = {
            **cost_of_fast_path(rounds),
            **cost_of_queue(rounds),
            **cost_of_ledger(Path(folder), rounds),
        }
    for what, us in costs.items():
        print(f"  {what:<60} {us:6.2f}")
    print(f"\n{SLOTS} slots, answers of {ANSWER_S:g} s; one tenant floods, another asks every "
          f"{OTHER_EVERY_S:g} s")  # fmt: skip
    for share in (1.0, 0.9, 0.75, 0.5):
        flood, waits_s = flooded(share)
        p95_s = statistics.quantiles(waits_s, n=20)[-1]
        print(
            f"  tenant_share_max {share:<4}  the flood holds {flood:4.0%} of the slots; "
            f"the other waits {statistics.mean(waits_s):5.3f} s, p95 {p95_s:5.3f} s"
        )


def least_us(rounds: int, count: int, run: Callable[[], float]) -> float:
    """`run` gives the seconds of `count` steps."""
    return min(run() for _ in range(rounds)) / count * 1e6


def works(count: int, *, tier: Tier = "consumer", prefix: str = "req") -> list[Work]:
    return [
        Work(
            request=f"{prefix}_{number}",
            tenant=TENANTS[number % len(TENANTS)],
            tier=tier,
            cost_tokens=100 + number % 900,
            arrived_s=0.0,
            deadline_s=30.0,
        )
        for number in range(count)
    ]


def queue() -> FairQueue:
    settings = AdmissionSettings(
        waiting_max=2000,
        tenant_share_max=0.75,
        lower_share_max=0.9,
        batch_share_max=0.5,
        tenants={tenant: TenantShare() for tenant in TENANTS},
    )
    return FairQueue(settings, now_s=0.0)


def cost_of_fast_path(rounds: int, count: int = 5000) -> dict[str, float]:
    several = works(count)
    found: dict[str, float] = {}

    def offer_all() -> float:
        fair = queue()
        began_s = time.perf_counter()
        for work in several:
            fair.offer(work, 10 * count, 0.0)
        ended_s = time.perf_counter()
        for work in several:
            fair.settle(work, 50, 1.0)
        settled.append(time.perf_counter() - ended_s)
        return ended_s - began_s

    settled: list[float] = []
    found["offer: a slot is free, nobody waits"] = least_us(rounds, count, offer_all)
    found["settle"] = min(settled) / count * 1e6
    return found


def cost_of_queue(rounds: int, count: int = 500) -> dict[str, float]:
    """1,000 works of 20 tenants wait all the time."""
    found = {
        "offer: 1,000 works of 20 tenants wait": 1e9,
        "settle and next: 1,000 works of 20 tenants wait": 1e9,
    }
    shed_s = 1e9
    for turn in range(rounds):
        fair = queue()
        running = works(SLOTS, prefix="running", tier="enterprise")
        first = (*running, *works(1000))
        running = [work for work in first if isinstance(fair.offer(work, SLOTS, 0.0), Admit)]
        began_s = time.perf_counter()
        for work in works(count, prefix="more"):
            fair.offer(work, SLOTS, 0.0)
        offered_s = time.perf_counter()
        for _ in range(count):
            fair.settle(running.pop(), 50, 1.0)
            while (start := fair.next(SLOTS, 1.0)) is not None:
                running.append(start.work)
        ended_s = time.perf_counter()
        for key, seconds in zip(found, (offered_s - began_s, ended_s - offered_s), strict=True):
            found[key] = min(found[key], seconds / count * 1e6)
        for work in works(2000, prefix="full"):
            fair.offer(work, SLOTS, 1.0)
        several = works(count, prefix=f"shed{turn}")
        began_s = time.perf_counter()
        for work in several:
            fair.offer(work, SLOTS, 1.0)
        shed_s = min(shed_s, (time.perf_counter() - began_s) / count * 1e6)
    return {**found, "offer: 2,000 wait, which is the limit, so one is refused": shed_s}


def cost_of_ledger(folder: Path, rounds: int, count: int = 3000) -> dict[str, float]:
    found: dict[str, float] = {}
    for windows in (0, 1, 3):
        budgets = tuple(
            Budget(tokens=10**15, per=per) for per in ("day", "month", "minute")[:windows]
        )
        ledger = Ledger(
            folder / f"ledger-{windows}",
            {"acme": budgets},
            spent=lambda *_: (0, 0),
            now_unix_s=NOW_S,
        )

        def reserve_and_settle(ledger: Ledger = ledger) -> float:
            began_s = time.perf_counter()
            for _ in range(count):
                held = ledger.reserve("acme", 500, NOW_S)
                assert isinstance(held, Reservation)
                ledger.settle(held, 120)
            return time.perf_counter() - began_s

        us = least_us(rounds, count, reserve_and_settle)
        found[f"reserve and settle: {windows} budgets"] = us
    return found


def flooded(tenant_share_max: float, others: int = 5000) -> tuple[float, list[float]]:
    """What part of the slots a flooding tenant holds, and how long another's requests wait."""
    chance = random.Random(2026)
    fair = FairQueue(AdmissionSettings(tenant_share_max=tenant_share_max, tenants={}), now_s=0.0)
    ids = itertools.count()
    ends: list[tuple[float, int, Work]] = []
    waits_s: list[float] = []
    flood_held_s = 0.0

    def begin(work: Work, now_s: float) -> None:
        nonlocal flood_held_s
        answer_s = chance.expovariate(1 / ANSWER_S)
        heapq.heappush(ends, (now_s + answer_s, next(ids), work))
        if work.tenant == "flood":
            flood_held_s += answer_s
            ask("flood", now_s)
        else:
            waits_s.append(now_s - work.arrived_s)

    def ask(tenant: str, now_s: float) -> None:
        work = Work(request=str(next(ids)), tenant=tenant, tier="consumer", cost_tokens=500,
                    arrived_s=now_s, deadline_s=1e12)  # fmt: skip
        if isinstance(fair.offer(work, SLOTS, now_s), Admit):
            begin(work, now_s)

    for _ in range(4):  # those that wait ask again as they start
        ask("flood", 0.0)
    next_other_s = chance.expovariate(1 / OTHER_EVERY_S)
    now_s = 0.0
    while len(waits_s) < others:
        if next_other_s < ends[0][0]:
            now_s = next_other_s
            next_other_s += chance.expovariate(1 / OTHER_EVERY_S)
            ask("other", now_s)
        else:
            now_s, _, work = heapq.heappop(ends)
            fair.settle(work, work.cost_tokens, now_s)
        while (start := fair.next(SLOTS, now_s)) is not None:
            begin(start.work, now_s)
    return flood_held_s / (now_s * SLOTS), waits_s


if __name__ == "__main__":
    main()
