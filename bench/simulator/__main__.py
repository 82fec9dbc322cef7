"""python -m bench.simulator: requests replayed in a second on one core, ours beside peers'.

Examples: python -m bench.simulator --trace azure_llm_2023_conv.csv.gz
          python -m bench.simulator --stream 100000000 --replicas 1000
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from argosy.simulator.engine import account, build
from argosy.simulator.engine.replay import WINDOW, Replay, replay
from bench.simulator import peers
from bench.simulator.load import RATE_PER_REPLICA, Lengths, arrivals, group

# replicas, and requests for each: peers take seconds
COMPARED = {8: {"DynoSim": 20_000, "vllm-sr-sim": 20_000},
            100: {"DynoSim": 20_000, "vllm-sr-sim": 5_000},
            1_000: {"DynoSim": 10_000, "vllm-sr-sim": 1_000}}  # fmt: skip
ALONE = {1: 1_000_000, 8: 1_000_000, 100: 1_000_000, 1_000: 1_000_000, 10_000: 2_000_000}
WAYS = {"by event": True, "by replica": False}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulator", description=__doc__)
    parser.add_argument("--trace", type=Path, help="CSV (may be .gz): time, prompt, output tokens")
    parser.add_argument("--rounds", type=int, default=3, help="interleaved; 3")
    parser.add_argument("--alone", action="store_true", help="no peers")
    parser.add_argument("--stream", type=int, metavar="REQUESTS", help="only this, in windows")
    parser.add_argument("--replicas", type=int, default=1_000, help="of --stream; 1,000")
    parser.add_argument(
        "--by-event", action="store_true", help="of --stream: keep one global order"
    )
    asked = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    lengths = Lengths(asked.trace)
    print(f"lengths: {lengths.name}; Poisson arrivals, {RATE_PER_REPLICA:g} requests/s a replica")
    warm(lengths)
    if asked.stream:
        stream(lengths, asked.replicas, asked.stream, asked.by_event)
        return
    alone(lengths, asked.rounds)
    if not asked.alone:
        for peer in peers.ALL:
            beside(peer, lengths, asked.rounds)


def warm(lengths: Lengths) -> None:
    begin_s = time.perf_counter()
    for is_by_event in WAYS.values():
        timed(lengths, 1, 10, is_by_event)
    print(
        f"ready in {time.perf_counter() - begin_s:.1f} s (compiling, or reading what is compiled)"
    )


def timed(lengths: Lengths, replicas: int, count: int, is_by_event: bool) -> tuple[float, float]:
    """Seconds that the replay took; mean TTFT."""
    state, requests = build([group(replicas)]), arrivals(lengths, replicas, count)
    begin_s = time.perf_counter()
    answers = replay(state, requests, is_by_event=is_by_event)
    return time.perf_counter() - begin_s, float(np.nanmean(answers.ttft_s))


def alone(lengths: Lengths, rounds: int) -> None:
    print(f"\n{'replicas':>8} {'requests':>10} {'way':<10} {'requests/s (rounds)':<36}"
          f" {'median':>10} {'steps/s':>12} {'TTFT mean':>10}")  # fmt: skip
    for replicas, count in ALONE.items():
        rates: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, is_by_event in WAYS.items():
                took_s, ttft_s = timed(lengths, replicas, count, is_by_event)
                rates[way].append(count / took_s)
        state = build([group(replicas)])
        replay(state, arrivals(lengths, replicas, count))
        steps = account(state).steps / count
        for way, of in rates.items():
            told = " ".join(f"{rate:,.0f}" for rate in of)
            print(f"{replicas:>8,} {count:>10,} {way:<10} {told:<36} {median(of):>10,.0f}"
                  f" {steps * median(of):>12,.0f} {ttft_s:>8.3f} s", flush=True)  # fmt: skip


def beside(peer: peers.Peer, lengths: Lengths, rounds: int) -> None:
    try:
        python = peers.install(peer)
    except peers.PeerFailedError as failed:
        print(f"{peer.name}: not measured: {failed}", file=sys.stderr)
        return
    print(f"\nbeside {peer.requirements[0]}; ratios are of rounds, theirs and ours in turn")
    print(f"{'replicas':>8} {'requests':>9} {'theirs/s':>10} {'ours/s, event':>14} {'ratio':>8}"
          f" {'ours/s, replica':>16} {'ratio':>8} {'TTFT theirs, ours':>20}")  # fmt: skip
    for replicas, counts in COMPARED.items():
        compare(peer, python, lengths, (replicas, counts[peer.name]), rounds)


def compare(
    peer: peers.Peer, python: str, lengths: Lengths, size: tuple[int, int], rounds: int
) -> None:
    replicas, count = size
    requests = arrivals(lengths, replicas, count)
    theirs, ours = [], {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            ran = peers.run(peer, python, requests, replicas, Path(folder))
            theirs.append(ran.took_s)
            for way, is_by_event in WAYS.items():
                took_s, ttft_s = timed(lengths, replicas, count, is_by_event)
                ours[way].append(took_s)
    cells = []
    for of in ours.values():
        ratio = median(one / two for one, two in zip(theirs, of, strict=True))
        cells.append(f"{count / median(of):>14,.0f} {ratio:>8,.0f}x")
    told = f"{ran.ttft_s_mean:.3f}, {ttft_s:.3f} s" if ran.ttft_s_mean is not None else "-"
    lost = "" if ran.finished == count else f"  (it finished {ran.finished:,})"
    print(f"{replicas:>8,} {count:>9,} {count / median(theirs):>10,.0f} {'  '.join(cells)}"
          f" {told:>20}{lost}", flush=True)  # fmt: skip


def stream(lengths: Lengths, replicas: int, count: int, is_by_event: bool) -> None:
    """In windows, slots used again: what a billion would take."""
    chance = np.random.default_rng(7)
    run = Replay(build([group(replicas)]), is_by_event=is_by_event)
    window = max(WINDOW, 64 * replicas)
    ended, ttfts_s, at_s, replay_s = 0, 0.0, 0.0, 0.0
    begin_s = time.perf_counter()
    while run.fed < count:
        rate = RATE_PER_REPLICA * replicas
        asked = lengths.window(chance, min(window, count - run.fed), rate, at_s)
        at_s = float(asked.at_s[-1])
        fed_s = time.perf_counter()
        answers = run.feed(asked)
        replay_s += time.perf_counter() - fed_s
        ended += answers.request.size
        ttfts_s += float(np.nansum(answers.ttft_s))
    answers = run.drain()
    ended += answers.request.size
    ttfts_s += float(np.nansum(answers.ttft_s))
    took_s = time.perf_counter() - begin_s
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    done = account(run.state)
    print(f"{count:,} requests on {replicas:,} replicas, {at_s:,.0f} s of virtual time:"
          f" {took_s:.1f} s, of it the replay {replay_s:.1f} s")  # fmt: skip
    minutes = took_s / count * 1e9 / 60
    print(f"{count / took_s:,.0f} requests/s, {done.steps / replay_s:,.0f} steps/s,"
          f" {memory:,.0f} MiB at most; 1e9 would take {minutes:,.0f} min")  # fmt: skip
    print(f"in {done.submitted:,} = finished {done.finished:,} + refused {done.refused:,};"
          f" ended {ended:,}; TTFT mean {ttfts_s / ended:.3f} s")  # fmt: skip


if __name__ == "__main__":
    main()
