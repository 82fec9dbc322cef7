"""What every launcher promises, on Kubernetes as the emulator plays it."""

import pytest
import uvloop

from argosy.fleet.launchers import KubernetesLauncher
from argosy.launchers.kubernetes.cell import Cell
from argosy.launchers.kubernetes.launch import KubernetesPool
from tests.launchers.conformance import (
    LAWS,
    Bench,
    Law,
    name_of,
    one_that_says_no_url_is_ended_and_says_what_it_said,
)
from tests.launchers.kubernetes_emulator import Emulator
from tests.launchers.kubernetes_pools import PRODUCT, config, go

# A pod says no URL: its address is the cluster's to give, and its start-up probe tells when it
# listens.
DO_NOT_APPLY = (one_that_says_no_url_is_ended_and_says_what_it_said,)


class KubernetesBench(Bench):
    """Pods play what the spec's generation says."""

    sees_pids = False

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator
        self._launcher = self.another()

    def launcher(self) -> KubernetesPool:
        return self._launcher

    def another(self) -> KubernetesPool:
        launcher = KubernetesLauncher(node_selector=PRODUCT, image="bench")
        cell = Cell(
            fleet=self.fleet, pool=self.pool, launcher=launcher, chip="H100-SXM", maker="NVIDIA"
        )
        return KubernetesPool(cell, config=config(self._emulator))


@pytest.mark.parametrize("law", [law for law in LAWS if law not in DO_NOT_APPLY], ids=name_of)
def test_the_launcher_conforms(law: Law):
    async def test(emulator: Emulator) -> None:
        bench = KubernetesBench(emulator)
        await law(bench)
        await bench.launcher().close(is_final=False)

    go(test, uvloop.new_event_loop)  # as in production; the launcher's own tests run on asyncio's
