"""What the simulator says of a live fleet of this machine, beside what was measured.

    python -m bench.reality
    python -m bench.reality --rounds 1 --requests 60 --loads 0.5
    python -m bench.reality --replay samples.json

Measures how long steps take here (two minutes), then asks a fleet of two llama.cpp replicas at
shares of its capacity and all at once, and simulates exactly what was asked. Tables go to stdout,
progress to stderr. `--replay` simulates the loads of an earlier run's --json again.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from argosy.cli.fetch import weights_of
from argosy.cli.measuring_local import measure
from argosy.perf.local import LocalCalibration
from bench.reality.figures import figures_of, report
from bench.reality.foreign import counted, foreign_cores, wait_until_quiet
from bench.reality.live import Lived, Load, Planned, live, planned, write_trace
from bench.reality.replayed import at_the_pace_had, capacity_per_s, fleet, simulated

BURST = "all at once"
_BURST_REQUESTS = 40
_QUIET_CORES = 0.15
_PLANNED_FOR_CAPACITY = 200


def main() -> None:
    options = _options()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs behind a shell
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    raw: dict[str, Any]
    if options.replay:
        raw = json.loads(options.replay.read_text())
    else:
        raw = {"calibrations": [], "rounds": []}
        print(f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores", flush=True)
    rounds = []
    for number in range(len(raw["rounds"]) if options.replay else options.rounds):
        if not options.replay:
            raw["calibrations"].append(_calibrated(options, number, raw))
            raw["rounds"].append({})
            _live_round(number, options, raw)
        rounds.append(_compared(raw["rounds"][number], _read(raw["calibrations"][number])))
        print(_said(raw["rounds"][number], rounds[-1]), flush=True)
    print(f"\n{_of_machine(raw)}\n\n{report(rounds)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="(3)")
    parser.add_argument("--requests", type=int, default=150, help="of each load (150)")
    parser.add_argument(
        "--loads", type=float, nargs="*", default=[0.55, 0.85], help="of capacity (0.55 0.85)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the first round (1)")
    parser.add_argument("--calibration", type=Path, help="use this one instead of measuring")
    parser.add_argument(
        "--each-round", action="store_true", help="measure steps anew before each round"
    )
    parser.add_argument(
        "--wait-s", type=float, default=0.0,
        help=f"before each part, wait that long for others to use < {_QUIET_CORES} cores (0)",
    )  # fmt: skip
    parser.add_argument(
        "--tries", type=int, default=1, help="of each part, until others use that little (1)"
    )
    parser.add_argument(
        "--ahead", action="store_true", help="the fleet goes before other programs (as root)"
    )
    parser.add_argument("--json", type=Path, help="write every request there")
    parser.add_argument("--traces", type=Path, help="a folder: write each load there as a trace")
    parser.add_argument("--replay", type=Path, help="simulate the loads of this --json again")
    return parser.parse_args()


def _calibrated(options: argparse.Namespace, number: int, raw: dict[str, Any]) -> dict[str, Any]:
    if number and not options.each_round:
        return raw["calibrations"][0]
    if options.calibration:
        return json.loads(options.calibration.read_text())
    wait_until_quiet(_QUIET_CORES, seconds_max=options.wait_s)
    checked, before = fleet(), counted()
    deployment = checked.deployments[0]
    weights = weights_of(checked)[deployment.model]
    with tempfile.TemporaryDirectory() as state:
        made = asyncio.run(
            measure(checked, deployment, weights=weights, state=Path(state), say=_progress)
        )
    _say(f"steps measured, others used {foreign_cores(before, counted()):.2f} cores")
    return json.loads(msgspec.json.encode(made))


def _live_round(number: int, options: argparse.Namespace, raw: dict[str, Any]) -> None:
    calibration, seed = _read(raw["calibrations"][number]), options.seed + 10 * number
    capacity = capacity_per_s(
        planned(_PLANNED_FOR_CAPACITY, rate_per_s=None, seed=seed), calibration
    )
    plans = {
        f"{load:.0%}": planned(options.requests, rate_per_s=load * capacity, seed=seed + place)
        for place, load in enumerate(options.loads)
    }
    plans[BURST] = planned(_BURST_REQUESTS, rate_per_s=None, seed=seed + 9)
    for name, plan in plans.items():
        found = _lived_quietly(plan, options, seed=seed)
        _say(
            f"round {number + 1}, {name}: {len(found.lived)} answers, {len(found.errors)} errors, "
            f"others used {found.foreign_cores:.2f} cores"
        )
        raw["rounds"][number][name] = json.loads(msgspec.json.encode(found))
        raw["rounds"][number][name]["capacity_per_s"] = capacity
        if options.traces:
            options.traces.mkdir(parents=True, exist_ok=True)
            write_trace(found, options.traces / f"{number + 1}-{name.replace(' ', '-')}.csv")
        if options.json:
            options.json.write_text(json.dumps(raw, indent=1))


def _lived_quietly(plan: list[Planned], options: argparse.Namespace, *, seed: int) -> Load:
    """The load in which others disturbed least, of as many tries as it takes or are allowed."""
    found: list[Load] = []
    while len(found) < options.tries:
        wait_until_quiet(_QUIET_CORES, seconds_max=options.wait_s)
        found.append(live(plan, seed=seed + 1000 * len(found), is_ahead=options.ahead))
        if options.ahead or found[-1].foreign_cores < _QUIET_CORES:
            break
        _say(f"others used {found[-1].foreign_cores:.2f} cores")
    return min(found, key=lambda load: load.foreign_cores)


def _compared(loads: dict[str, Any], calibration: LocalCalibration) -> dict[str, Any]:
    found = {}
    for name, load in loads.items():
        lived = [Lived(**one) for one in load["lived"]]
        load["pace"], paced = at_the_pace_had(
            lived, calibration, load["beside"], load["replicas_cpu_s"]
        )
        found[name] = {
            "live": figures_of(lived),
            "idle": figures_of(simulated(lived, calibration)),
            "sim": figures_of(simulated(lived, calibration, load["beside"])),
            "paced": figures_of(paced),
        }
    return found


def _said(loads: dict[str, Any], compared: dict[str, Any]) -> str:
    lines = []
    for name, load in loads.items():
        pairs = ", ".join(
            f"{figure} {compared[name]['live'][figure]:.0f} -> {compared[name]['sim'][figure]:.0f} "
            f"(idle machine {compared[name]['idle'][figure]:.0f}, "
            f"at that pace {compared[name]['paced'][figure]:.0f})"
            for figure in compared[name]["live"]
        )
        lines.append(
            f"{name}: {len(load['lived'])} requests, {len(load['errors'])} errors, others used "
            f"{load['foreign_cores']:.2f} cores, steps cost {load['pace']:.2f} times the CPU time: "
            f"{pairs}"
        )
    return "\n".join(lines)


def _of_machine(raw: dict[str, Any]) -> str:
    lines = []
    for one in map(_read, raw["calibrations"]):
        line = (
            f"{one.cpu}, {one.cores} cores; {one.engine} {one.engine_version}, {one.replicas} "
            f"replicas of {one.threads} thread and {one.slots} slots. Steps: residuals median "
            f"{one.residuals.median:.1%}, p90 {one.residuals.p90:.1%}; slowdown beside busy "
            f"replicas {one.slowdown:.2f}; overhead {one.overhead_s * 1000:.0f} ms"
        )
        if line not in lines:
            lines.append(line)
    return "\n".join(lines)


def _read(calibration: dict[str, Any]) -> LocalCalibration:
    return msgspec.convert(calibration, LocalCalibration)


def _progress(what: str, share: float) -> None:
    _say(f"{share:4.0%}  {what}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
