"""Runs the faults under load, and prints what clients saw of each.

Exit status 0: no stream failed; 1: some did; a fault that the fleet does not get over ends it.
"""

import argparse
import sys
import time

import msgspec

from tests.system.ray_failover.faults import FAULTS, Broken
from tests.system.ray_failover.fleet import RayFleet
from tests.system.ray_failover.load import Load, Stream

_CALM_S = 3.0  # of load before each fault and after it
_USAGE_S = 2.0  # until the last records are written


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """One fault and the time around it that is its own."""

    fault: str
    broken: Broken
    until_s: float


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What clients saw of one kind of fault."""

    fault: str
    times: int
    streams: int
    failed: tuple[str, ...]
    continued: int  # streams that went on elsewhere
    same_texts: int  # as on a calm fleet, of all
    elsewhere_s: tuple[float, ...]  # from the fault to the first token elsewhere, each of these
    next_s: tuple[float, ...]  # from the fault to the first token of the next request
    whole_s: tuple[float, ...]
    told: tuple[str, ...]


def break_all(fleet: RayFleet, load: Load, faults: list[str]) -> list[Window]:
    """One by one, each with calm before and after it."""
    windows: list[Window] = []
    load.start()
    try:
        for fault in faults:
            time.sleep(_CALM_S)
            try:
                broken = FAULTS[fault](fleet)
            except AssertionError as error:
                sys.stderr.write(f"{fault}: {error}\n")
                broken = Broken(at_s=time.monotonic(), whole_s=float("inf"), told="not got over")
            time.sleep(_CALM_S)
            windows.append(Window(fault=fault, broken=broken, until_s=time.monotonic()))
            sys.stderr.write(f"{fault}: whole after {broken.whole_s:.1f} s; {broken.told}\n")
    finally:
        load.end()
    time.sleep(_USAGE_S)
    return windows


def rows(fleet: RayFleet, load: Load, windows: list[Window]) -> list[Row]:
    """By kind of fault."""
    attempts = {request: one.attempts for request, one in fleet.usage().items()}
    return [
        _row(fault, [one for one in windows if one.fault == fault], load, attempts)
        for fault in dict.fromkeys(window.fault for window in windows)
    ]


def _row(fault: str, windows: list[Window], load: Load, attempts: dict[str, int]) -> Row:
    streams: list[Stream] = []
    elsewhere_s: list[float] = []
    next_s: list[float] = []
    for window in windows:
        at_s = window.broken.at_s
        mine = [one for one in load.streams if at_s <= one.ended_s and one.began_s < window.until_s]
        hit = [one for one in mine if attempts.get(one.request or "", 1) > 1]
        streams += mine
        elsewhere_s += [s for one in hit if (s := one.first_after(at_s)) is not None]
        begun = [one.chunks_s[0] for one in mine if one.began_s >= at_s and one.chunks_s]
        next_s += [min(begun) - at_s] if begun else []
    return Row(
        fault=fault,
        times=len(windows),
        streams=len(streams),
        failed=tuple(one.failure for one in streams if one.failure is not None),
        continued=sum(attempts.get(one.request or "", 1) > 1 for one in streams),
        same_texts=sum(one.text == load.texts[one.question] for one in streams),
        elsewhere_s=tuple(sorted(elsewhere_s)),
        next_s=tuple(sorted(next_s)),
        whole_s=tuple(sorted(window.broken.whole_s for window in windows)),
        told=tuple(window.broken.told for window in windows),
    )


def calm_s(load: Load, windows: list[Window]) -> tuple[float, ...]:
    """Seconds to the first token of all streams that met no fault."""
    first = [
        one.chunks_s[0] - one.began_s
        for one in load.streams
        if one.chunks_s
        and not any(w.broken.at_s <= one.ended_s and one.began_s < w.until_s for w in windows)
    ]
    return tuple(sorted(first))


def as_markdown(table: list[Row]) -> str:
    """For docs/RAY.md."""
    head = (
        "| fault | times | streams | failed | continued | texts as on a calm fleet "
        "| first token elsewhere (s) | next request's first token (s) | whole again (s) |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
    )
    return head + "".join(
        f"| {row.fault} | {row.times} | {row.streams} | {len(row.failed)} | {row.continued} "
        f"| {row.same_texts} | {_spread(row.elsewhere_s)} | {_spread(row.next_s)} "
        f"| {_spread(row.whole_s)} |\n"
        for row in table
    )


def _spread(seconds: tuple[float, ...]) -> str:
    """The median and the most."""
    if not seconds:
        return "-"
    if len(seconds) == 1:
        return f"{seconds[0]:.2f}"
    return f"{seconds[len(seconds) // 2]:.2f}, most {seconds[-1]:.2f}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.system.ray_failover.run")
    parser.add_argument("--clients", type=int, default=2, help="streams at once (default: 2)")
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    parser.add_argument(
        "faults", nargs="*", metavar="FAULT", help=f"of {', '.join(FAULTS)} (default: each once)"
    )
    arguments = parser.parse_args()
    unknown = [fault for fault in arguments.faults if fault not in FAULTS]
    if unknown:
        parser.error(f"no fault {unknown[0]}; there are {', '.join(FAULTS)}")
    fleet = RayFleet()
    try:
        load = Load(fleet, clients=arguments.clients)
        windows = break_all(fleet, load, arguments.faults or list(FAULTS))
        table = rows(fleet, load, windows)
    finally:
        fleet.close()
    said = msgspec.json.format(msgspec.json.encode(table)).decode() + "\n"
    sys.stdout.write(said if arguments.json else as_markdown(table))
    sys.stderr.write(f"first token without a fault: {_spread(calm_s(load, windows))} s\n")
    for row in table:
        for failure in row.failed:
            sys.stderr.write(f"{row.fault}: {failure}\n")
    sys.exit(any(row.failed for row in table))


if __name__ == "__main__":
    main()
