"""What routing and admission are worth on real llama.cpp replicas, run against `argosy up`.

    python -m bench.routing_live
    python -m bench.routing_live --quick --scenarios chats
    python -m bench.routing_live --scenarios chats --set affinity_load_max=0.25

Tables go to stdout, progress to stderr. Every round runs all policies, one after the other, each
on a fresh fleet; each round begins with another one.
"""

import argparse
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.routing_live import chats, flood, mixed
from bench.routing_live.figures import rotated

Round = dict[str, Any]  # by policy


def main() -> None:
    options = _options()
    if not sys.platform.startswith("linux"):
        raise SystemExit(
            "bench.routing_live: it stops processes and ties them together: Linux only"
        )
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    gateway = {name: json.loads(value) for name, value in options.set}
    rounds = 1 if options.quick else options.rounds
    print(f"{time.strftime('%Y-%m-%d %H:%M')}, {_machine()}, load before: {_load()}")
    print(f"{rounds} rounds{', quick' if options.quick else ''}; gateway: {gateway or 'defaults'}")
    raw: dict[str, list[Round]] = {}
    for name in options.scenarios:
        one_round, report = SCENARIOS[name]
        raw[name] = []
        for number in range(rounds):
            raw[name].append(one_round(number, options, gateway))
            if options.json:
                options.json.write_text(json.dumps(raw, indent=1))
        print(f"\n{report(raw[name])}", flush=True)
    print(f"\nload after: {_load()}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2, help="of each scenario (2)")
    parser.add_argument("--quick", action="store_true", help="one short round: a smoke test")
    parser.add_argument(
        "--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS), help="(all)"
    )
    parser.add_argument("--policies", nargs="+", default=[], help="only these (all)")
    parser.add_argument(
        "--set", action="append", default=[], type=lambda said: said.split("=", 1),
        metavar="FIELD=VALUE", help="a field of the fleet file's gateway table, in JSON",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, help="write every sample there")
    return parser.parse_args()


def _chats(number: int, options: argparse.Namespace, gateway: Mapping[str, Any]) -> Round:
    turns = 3 if options.quick else 6
    return _each(
        chats.POLICIES, "chats", number, options,
        lambda policy: chats.once(policy, seed=number + 1, turns=turns, gateway=gateway),
    )  # fmt: skip


def _mixed(number: int, options: argparse.Namespace, gateway: Mapping[str, Any]) -> Round:
    window_s = 8.0 if options.quick else 10.0
    _say(f"mixed {number + 1}: calibrating")
    found = mixed.calibrate(seed=number + 1, window_s=4.0, gateway=gateway)
    return _each(
        mixed.POLICIES, "mixed", number, options,
        lambda policy: mixed.once(
            policy, found, seed=number + 1, window_s=window_s, gateway=gateway
        ),
    )  # fmt: skip


def _flood(number: int, options: argparse.Namespace, gateway: Mapping[str, Any]) -> Round:
    phase_s = 5.0 if options.quick else 10.0
    return _each(
        flood.POLICIES, "flood", number, options,
        lambda way: flood.once(way, seed=number + 1, phase_s=phase_s, gateway=gateway),
    )  # fmt: skip


SCENARIOS: dict[str, tuple[Callable[..., Round], Callable[[list[Round]], str]]] = {
    "chats": (_chats, chats.report),
    "mixed": (_mixed, mixed.report),
    "flood": (_flood, flood.report),
}


def _each(
    names: tuple[str, ...],
    scenario: str,
    number: int,
    options: argparse.Namespace,
    once: Callable[[str], Any],
) -> Round:
    """One round: every policy, another first each time; told in the usual order."""
    asked = [name for name in names if not options.policies or name in options.policies]
    found = {}
    for name in rotated(asked, number):
        begun = time.monotonic()
        found[name] = once(name)
        _say(f"{scenario} {number + 1}: {name}, {time.monotonic() - begun:.0f} s")
    return {name: found[name] for name in asked}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()} {platform.release()}"


def _load() -> str:
    return " ".join(f"{load:.2f}" for load in os.getloadavg())


if __name__ == "__main__":
    main()
