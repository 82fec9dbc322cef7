"""The fault wall before a real fleet: sixteen faults, of which fifteen must pass.

By default four of them, in short; `-m slow` runs the rest, and with the true durations those that
have any. `make failover` runs them all.
"""

import asyncio
from pathlib import Path

import pytest

from tests.system.failover.run import run_scenario
from tests.system.failover.scenarios import SHORT, TRUE, Scenario, Times, scenarios

# A replica that garbles every one of its streams after ten tokens is gone on from twice and then
# given up with an error: passing would take more attempts than the wall allows, or skipping an
# event that may have held a token.
_QUICK = ("S05", "S08", "S12", "S13")  # each fleet takes two seconds to come and go
_TIMED = ("S06", "S07", "S09", "S15")


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(
            scenario, id=scenario.id, marks=() if scenario.id in _QUICK else pytest.mark.slow
        )
        for scenario in scenarios(SHORT)
    ],
)
def test_the_client_does_not_notice(scenario: Scenario, tmp_path: Path):
    _check(scenario, SHORT, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "scenario",
    [scenario for scenario in scenarios(TRUE) if scenario.id in _TIMED],
    ids=lambda scenario: scenario.id,
)
def test_the_client_does_not_notice_however_long_it_lasts(scenario: Scenario, tmp_path: Path):
    _check(scenario, TRUE, tmp_path)


def _check(scenario: Scenario, times: Times, state: Path) -> None:
    row = asyncio.run(run_scenario(scenario, times=times, state=state))
    assert row.grade == "pass", (
        f"{scenario.fault}\nexpected: {scenario.expected}\n"
        f"{row.grade}: {row.reason}\n{row.attempts_primary} attempts on the primary, "
        f"{row.attempts_backup} on the backup, {row.seconds:.1f} s"
    )
