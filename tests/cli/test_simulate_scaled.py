"""`argosy simulate` of a fleet whose replicas follow the demand."""

from pathlib import Path

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from argosy.cli.simulate import simulate
from argosy.cli.simulating import Answer, SweepRow

HOUSE = Path(__file__).parents[2]
SCALED = str(HOUSE / "examples/autoscaled.yaml")
AZURE = str(HOUSE / "traces/azure_llm_2023_conv.csv.gz")
ASKED = (SCALED, "--trace", AZURE, "--until", "300", "--no-interval")

app = typer.Typer()
app.command()(simulate)


def argosy(*words: str):
    shown = CliRunner().invoke(app, list(words))
    if shown.exception is not None and not isinstance(shown.exception, SystemExit):
        raise shown.exception
    return shown


def test_it_says_how_many_replicas_there_were():
    shown = argosy(*ASKED)
    assert shown.exit_code == 0
    [heads] = [line for line in shown.output.splitlines() if line.startswith("SCALED")]
    assert heads.split() == [
        "SCALED", "BETWEEN", "MEAN", "MOST", "REPLICA-HOURS", "STARTED", "STOPPED", "COLD", "START",
    ]  # fmt: skip
    assert "1-16" in shown.output


def test_costs_are_those_of_the_replicas_that_were_there():
    report = msgspec.json.decode(argosy(*ASKED, "--json").stdout, type=Answer).expected
    for group in report.groups:
        assert group.scaling is not None
        assert group.paid_s == pytest.approx(3600 * group.scaling.replica_hours, rel=0.05)
        assert group.scaling.replicas_mean < group.replicas == 16


def test_a_sweep_scales_in_each_row():
    shown = argosy(SCALED, "--trace", AZURE, "--until", "120", "--sweep", "scale=1,4", "--json")
    rows = msgspec.json.decode(shown.stdout, type=list[SweepRow])
    assert all(group.scaling is not None for row in rows for group in row.report.groups)


def test_the_fluid_mode_refuses_it_and_says_what_would_work():
    shown = argosy(*ASKED, "--mode", "fluid")
    assert shown.exit_code == 1
    assert "remove autoscale" in shown.output
