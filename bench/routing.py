"""What a routing decision costs in CPU, in its parts.

    python -m bench.routing [--repeats 7]

Microseconds of one thread's CPU time, the best of the repeats: a decision of each policy over 2
and 8 replicas, hashing and looking up a prompt of three sizes, and learning from an answer.
"""

import argparse
import itertools
import random
import time
from collections.abc import Callable

from argosy.gateway.prefixes import PrefixIndex, block_hashes, salt_of
from argosy.gateway.rates import PoolRates
from argosy.policies.routing import POLICIES, ReplicaView, RequestShape, home_of, note

REPLICAS = (2, 8)
PROMPT_BYTES = (365, 8_192, 100_000)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7, help="the best of so many (7)")
    repeats = parser.parse_args().repeats
    for title, rows in (
        ("a decision", decisions()),
        ("a prompt's prefix", prefixes()),
        ("learning", learning()),
    ):
        print(f"\n{title:<44} us of CPU")
        for name, call in rows:
            print(f"  {name:<42} {cost_us(call, repeats):9.2f}")


def cost_us(call: Callable[[], object], repeats: int) -> float:
    """The best of some rounds of a few milliseconds each."""
    count = 1
    while timed_s(call, count) < 0.005:
        count *= 2
    return min(timed_s(call, count) for _ in range(repeats)) / count * 1e6


def timed_s(call: Callable[[], object], count: int) -> float:
    before_s = time.thread_time()
    for _ in itertools.repeat(None, count):
        call()
    return time.thread_time() - before_s


def views(count: int) -> list[ReplicaView]:
    """Replicas that differ a little, as live ones do; one is new."""
    chance = random.Random(count)
    return [
        ReplicaView(
            replica=f"llama-{number}",
            is_ready=True,
            requests_in_flight=chance.randrange(10),
            slots=8,
            ready_since_s=None if number else 3.0,
            prefill_bytes_queued=chance.randrange(20_000),
            prefill_s_per_byte=5e-5 * (1 + chance.random() / 10),
        )
        for number in range(count)
    ]


def decisions():
    for count in REPLICAS:
        replicas = views(count)
        cached = {view.replica: 4_096 for view in replicas}
        plain = RequestShape(prompt_bytes=8_192, turn=17, chance=0.4, now_s=9.0)
        known = RequestShape(prompt_bytes=8_192, turn=17, cached=cached, now_s=9.0)
        for name, policy in POLICIES.items():
            yield (
                f"{name}, {count} replicas",
                lambda p=policy, r=replicas, q=plain: p(r, request=q),
            )
        yield (
            f"predicted, {count} replicas, all hold a part",
            lambda r=replicas, q=known: POLICIES["predicted"](r, request=q),
        )
        yield (
            f"note, {count} replicas",
            lambda r=replicas, q=known: note("predicted", r, request=q),
        )
        yield f"home_of, {count} replicas", lambda r=replicas: home_of(b"session-17", r)
    yield (
        "the request's shape",
        lambda: RequestShape(prompt_bytes=8_192, turn=17, cached=cached, now_s=9.0),
    )


def prefixes():
    chance = random.Random(1)
    salt = salt_of(b"llama")
    for size in PROMPT_BYTES:
        prompt = chance.randbytes(size)
        hashes = block_hashes(prompt, salt)
        for count in REPLICAS:
            index = PrefixIndex()
            for number in range(count):
                index.join(f"llama-{number}", capacity_bytes=2**22)
                index.insert(hashes[: len(hashes) - number], f"llama-{number}")
            if count == REPLICAS[0]:
                yield f"{size} B: hash", lambda p=prompt: block_hashes(p, salt)
            yield (
                f"{size} B: hash and look up, {count} replicas",
                lambda p=prompt, i=index: i.longest(block_hashes(p, salt)),
            )
        yield f"{size} B: insert, known", lambda h=hashes, i=index: i.insert(h, "llama-0")
        yield f"{size} B: insert, new, others evicted", newcomer(size)


def newcomer(size: int) -> Callable[[], object]:
    """Inserts a prompt that was never seen into a replica that is full."""
    index, numbers = PrefixIndex(), itertools.count()
    index.join("llama-0", capacity_bytes=2**20)
    blocks = len(block_hashes(bytes(size)))

    def insert() -> None:
        start = next(numbers) * 1_000
        index.insert(range(start, start + blocks), "llama-0")

    for _ in range(3_000):
        insert()
    return insert


def learning():
    rates = PoolRates()
    for view in views(8):
        rates.join(view)
    yield (
        "a first token, one of 8 replicas",
        lambda: rates.first_token("llama-1", ttft_s=0.4, prompt_bytes=8_000),
    )
    yield (
        "an end, one of 8 replicas",
        lambda: rates.finished("llama-1", duration_s=2.0, tokens_out=80, ttft_s=0.4),
    )


if __name__ == "__main__":
    main()
