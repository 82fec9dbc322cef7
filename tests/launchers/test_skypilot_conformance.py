"""What every launcher promises, on SkyPilot as the emulator plays its API server."""

import pytest

from argosy.fleet.launchers import SkypilotLauncher
from argosy.launchers.skypilot.cell import Cell
from argosy.launchers.skypilot.pool import SkyPilotPool
from argosy.launchers.skypilot.tending import Pace
from tests.launchers.conformance import (
    LAWS,
    Bench,
    Law,
    name_of,
    one_that_says_no_url_is_ended_and_says_what_it_said,
)
from tests.launchers.skypilot_emulator import Emulator
from tests.launchers.test_skypilot_launcher import go

# A rented machine says no URL: its address is SkyPilot's to give.
DO_NOT_APPLY = (one_that_says_no_url_is_ended_and_says_what_it_said,)


class SkyPilotBench(Bench):
    """Machines play what the spec's generation says."""

    chips_too_many = 9
    sees_pids = False

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._launcher = self.another()

    def launcher(self) -> SkyPilotPool:
        return self._launcher

    def another(self) -> SkyPilotPool:
        cell = Cell(
            fleet=self.fleet, pool=self.pool, region="aws/us-east-1", chip="H100-SXM",
            maker="NVIDIA", chips_max=8,
            launcher=SkypilotLauncher(api=self._emulator.url, image="bench"),
        )  # fmt: skip
        pace = Pace(look_s=0.0, connect_s=0.02, job_s=0.1, refusal_s=1.0)
        return SkyPilotPool(cell, pace=pace)


@pytest.mark.parametrize("law", [law for law in LAWS if law not in DO_NOT_APPLY], ids=name_of)
def test_the_launcher_conforms(law: Law):
    async def test(emulator: Emulator) -> None:
        bench = SkyPilotBench(emulator)
        try:
            await law(bench)
        finally:
            await bench.launcher().close(is_final=False)

    go(test)
