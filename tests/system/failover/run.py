"""Runs the wall: a fleet and two upstreams per scenario, then the scorecard.

Each scenario has a fleet of its own, so that a circuit that one has opened says nothing to the
next. Durations are the true ones unless `--short` is given. Exit status 0: the scorecard is there,
whatever its grades; 1: the fleet does not start.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

import msgspec

from tests.system.failover.answer import ANSWER
from tests.system.failover.client import ask, ask_whole
from tests.system.failover.fleet import control_file, fleet_file
from tests.system.failover.grade import Verdict, grade
from tests.system.failover.scenarios import SHORT, TRUE, Scenario, Times, scenarios
from tests.system.failover.scorecard import Row, as_markdown, as_table
from tests.system.failover.seen import Reply, Seen
from tests.system.failover.upstream import Upstream, answers
from tests.system.fleet_process import FleetProcess

_ALIVE_S = 10.0
_STRAGGLERS_S = 0.1  # an attempt that is made after the client's answer is counted too
_EXAMPLES = """\
examples:
  python -m tests.system.failover.run
  python -m tests.system.failover.run --short --only S08 --only S14
"""


async def run_scenario(
    scenario: Scenario, *, times: Times, state: Path, control: bool = False
) -> Row:
    """One scenario on a fleet of its own; `control` takes failover out of the fleet file."""
    async with (
        Upstream(token_gap_s=times.token_gap_s) as primary,
        Upstream(token_gap_s=times.token_gap_s) as backup,
    ):
        file = state / "fleet.yaml"
        file.write_text(_fleet(primary, backup, times, control=control))
        fleet = FleetProcess(state, file, "--port", "0")
        try:
            await asyncio.to_thread(fleet.wait_ready)
            seen = await _observe(scenario, fleet.url, primary, backup)
        finally:
            await asyncio.to_thread(fleet.kill)
    return _row(scenario, seen, grade(seen, scenario.rules))


def _fleet(primary: Upstream, backup: Upstream, times: Times, *, control: bool) -> str:
    if control:
        return control_file(primary_url=primary.url, backup_url=backup.url)
    return fleet_file(
        primary_url=primary.url,
        backup_url=backup.url,
        ttft_timeout_s=times.ttft_timeout_s,
        stall_timeout_s=times.stall_timeout_s,
    )


async def _observe(scenario: Scenario, url: str, primary: Upstream, backup: Upstream) -> Seen:
    began_s = asyncio.get_running_loop().time()
    primary.begin(scenario.primary, began_s=began_s)
    backup.begin(scenario.backup, began_s=began_s)
    replies: list[Reply] = []
    for number in range(scenario.requests):
        await asyncio.sleep(number * scenario.interval_s - primary.now_s())
        replies.append(await ask(url, deadline_s=scenario.deadline_s, at_s=primary.now_s()))
    await asyncio.sleep(_STRAGGLERS_S)
    attempts = primary.attempts(), backup.attempts()
    primary.behave = backup.behave = answers
    return Seen(
        replies=tuple(replies),
        primary=attempts[0],
        backup=attempts[1],
        is_alive_after=await ask_whole(url, deadline_s=_ALIVE_S) == ANSWER,
    )


def _row(scenario: Scenario, seen: Seen, verdict: Verdict) -> Row:
    last = seen.replies[-1]
    return Row(
        id=scenario.id,
        name=scenario.name,
        grade=verdict.grade,
        seconds=last.at_s + last.seconds,
        attempts_primary=len(seen.primary),
        attempts_backup=len(seen.backup),
        reason=verdict.reason,
    )


async def run_wall(*, only: list[str], times: Times, control: bool) -> list[Row]:
    """The scenarios named, or all; a line to stderr as each begins."""
    rows: list[Row] = []
    for scenario in scenarios(times):
        if only and scenario.id not in only:
            continue
        sys.stderr.write(f"{scenario.id}  {scenario.name}: {scenario.fault}\n")
        with tempfile.TemporaryDirectory(prefix="fault-wall-") as state:
            rows.append(
                await run_scenario(scenario, times=times, state=Path(state), control=control)
            )
    return rows


def main() -> None:
    arguments = _arguments()
    times = SHORT if arguments.short else TRUE
    try:
        rows = asyncio.run(run_wall(only=arguments.only, times=times, control=arguments.control))
    except AssertionError as error:  # how FleetProcess says that the fleet does not come up
        sys.exit(f"the fleet does not start: {error}")
    if arguments.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(rows)).decode() + "\n")
    elif arguments.markdown:
        sys.stdout.write(as_markdown(rows))
    else:
        sys.stdout.write(as_table(rows))


def _arguments() -> argparse.Namespace:
    ids = [scenario.id for scenario in scenarios(TRUE)]
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.failover.run",
        description="Run the fault wall before a real fleet and print its scorecard.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", action="append", default=[], choices=ids, metavar="ID",
        help="run this scenario; may be given again (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--short", action="store_true", help="seconds instead of minutes; not for publishing"
    )
    parser.add_argument(
        "--control", action="store_true", help="without fallback and limits, for comparison"
    )
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--json", action="store_true", help="rows as JSON")
    shape.add_argument(
        "--markdown", action="store_true", help="for docs/FAILOVER.md, beside the published"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
