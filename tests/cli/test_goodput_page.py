"""`argosy goodput`: a page for people, JSON for machines, and what it refuses."""

import json

from typer.testing import CliRunner

from argosy.cli.main import app


def test_islands_keep_what_a_large_whole_run_loses() -> None:
    said = CliRunner().invoke(
        app, ["goodput", "--chips", "16,16384", "--days", "2", "--seeds", "1", "--json"]
    )
    small, large = json.loads(said.stdout)
    assert said.exit_code == 0
    assert small["islands"] == 2  # a node each
    assert large["islands_goodput"] > large["whole_goodput"] + 0.03


def test_the_page_has_a_line_for_each_number_of_chips() -> None:
    said = CliRunner().invoke(app, ["goodput", "--chips", "64,800", "--days", "1", "--seeds", "1"])
    assert [line.split()[0] for line in said.stdout.splitlines()] == ["chips", "64", "800"]


def test_nothing_fails_where_nothing_ever_does() -> None:
    said = CliRunner().invoke(
        app, ["goodput", "--chips", "64", "--faults", "0", "--days", "1", "--seeds", "1", "--json"]
    )
    (row,) = json.loads(said.stdout)
    assert row["faults"] == 0
    assert row["whole_goodput"] > 0.99


def test_nonsense_is_refused_with_what_would_work() -> None:
    for chips in ("4", "many", "", "1e9", "64,"):
        said = CliRunner().invoke(app, ["goodput", "--chips", chips])
        assert said.exit_code == 1
        assert "Write, for example, --chips 1024,16384" in said.stderr
