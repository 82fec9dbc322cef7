"""What an island measures of itself comes to the ledger, and from there to the pages."""

import threading
import time

import msgspec
import pytest

from argosy.cli.training_picture import picture
from argosy.fleet.runs import Island
from argosy.store import runs
from argosy.store.schema import open_store
from argosy.training.credentials import folder_of
from argosy.training.inner import Figures
from argosy.training.island.link import Link
from argosy.training.island.loop import IslandLoop, Setting
from argosy.training.island.reference import ReferenceInner, ReferenceSource
from tests.training.syncer.running_run import VOCABULARY, a_run

FIGURES = Figures(
    tokens=640,
    seconds=0.5,
    tokens_per_s=1280.0,
    flops_per_s=4e14,
    mfu=0.404,
    energy_j_per_million_tokens=5.5e5,
    cost_usd_per_million_tokens=None,  # the file has no price
)


class MeasuredInner(ReferenceInner):
    """Of a chip whose peak is known and whose watts can be read."""

    def figures(self):
        return FIGURES


def of_island(running, island):
    rows = {row.island: row for row in running.read(runs.islands_of)}
    return rows.get(island)


def test_figures_come_to_the_ledger_and_to_the_pages(start):
    running = start(
        msgspec.structs.replace(
            a_run(blocks=1_000_000),
            islands=(Island(name="ann", power_w=70.0), Island(name="bob", power_w=70.0)),
        )
    )
    running.syncer()
    ann = running.island("ann")
    link = Link(running.url, folder_of(running.credentials, "island", "bob"))
    bob = IslandLoop(
        MeasuredInner(running.run, vocabulary=VOCABULARY, step_s=0.01),
        ReferenceSource(running.run, vocabulary=VOCABULARY),
        link,
        Setting(run=running.run, island="bob"),
    )
    training = threading.Thread(target=bob.run)
    training.start()
    try:
        ann.wait_for(lambda event: event.get("event") == "accepted")
        while (row := of_island(running, "bob")) is None or row.mfu is None:
            assert training.is_alive()
            time.sleep(0.05)
        while (other := of_island(running, "ann")) is None or other.steps_per_s is None:
            time.sleep(0.05)
        engine = open_store(running.store)
        seen = picture(engine, running.run, is_kept=True, now_s=time.time())
        engine.dispose()
    finally:
        running.read(runs.set_wanted, "stopped")
        training.join(60)
        link.close()
    assert (row.mfu, row.energy_j_per_million_tokens) == (0.404, 5.5e5)
    assert row.cost_usd_per_million_tokens is None
    shown = {one.island: one for one in seen.islands}
    assert (shown["bob"].mfu, shown["bob"].joules_per_million_tokens) == (0.404, 5.5e5)
    assert shown["bob"].usd_per_million_tokens is None
    assert shown["ann"].mfu is None, "nobody knows the peak of this chip"
    assert shown["ann"].tokens_per_s is not None
    by_file = 70.0 * 1e6 / shown["ann"].tokens_per_s
    assert shown["ann"].joules_per_million_tokens == pytest.approx(by_file)
