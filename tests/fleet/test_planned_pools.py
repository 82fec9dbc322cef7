"""Pools on paper: what a fleet file may say of them, and how it is told what it may not."""

from pathlib import Path

import pytest
import yaml

from argosy.fleet import load

EXAMPLE = Path(__file__).parents[2] / "examples" / "five-makers.yaml"
TEXT = EXAMPLE.read_text("utf-8")


def refusals(text: str) -> list[str]:
    with pytest.raises(load.FleetFileError) as refused:
        load.parse(text, source="fleet.yaml")
    return str(refused.value).splitlines()


def altered(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


def test_the_example_has_chips_of_five_makers_in_four_regions():
    fleet = load.parse(TEXT, source="fleet.yaml")
    assert len({pool.chip for pool in fleet.pools}) == 5
    assert len({pool.region for pool in fleet.pools}) == 4
    assert len(fleet.models) == 3


@pytest.mark.parametrize(
    ("old", "new", "path", "told"),
    [
        (
            "chip: H100-SXM",
            "chip: H100-SMX",
            "pools[0].chip",
            'is not in the catalogue (30 chips). Did you mean "H100-SXM"? '
            "List them: argosy catalogue",
        ),
        ("    chip: MI300X\n", "", "pools[1]", "is planned and lacks a chip"),
        ("    region: gcp/us-east5\n", "", "pools[2]", "is planned and lacks a region"),
        (
            "{max: 24, chips_per_node: 8}",
            "{max: 2, chips_per_node: 8}",
            "pools[0].nodes.max",
            "= 2 holds 16 chips; its deployments want 176",
        ),
        (
            "architecture: Llama-3.1-70B",
            "architecture: Llama-3.1-71B",
            "models[0].architecture",
            'Did you mean "Llama-3.1-70B"?',
        ),
        ("    architecture: Llama-3.1-8B\n", "", "models[1]", "lacks an architecture"),
        ("kind: planned", "kind: local", "deployments[0].engine.kind", "planned pools: vllm"),
        ("1.2, 1.2]", "1.2]", "demand[2].hourly", "has 23 factors; a day has 24 hours"),
        ("requests_per_s: 20", "requests_per_s: -20", "demand[0].requests_per_s", "does not fit"),
        ("p95: 4000", "p95: 400", "demand[0].prompt_tokens.p95", "= 400 is less than the mean"),
        ("  - model: large\n    origin", "  - model: lage\n    origin", "demand[0].model", "large"),
        (
            "tier: enterprise\n    requests",
            "tier: enterprise\n    tenant: web\n    requests",
            "demand[0].tier",
            "but web is of the consumer tier",
        ),
        ("[azure/westus3, own/frankfurt]", "[azure/westus3]", "links[0].between", "1 regions"),
        ("origin: azure/westus3", "origin: westus3", "demand[0].origin", "cloud/region"),
        ("tp: 4, dtype: fp8", "tp: 4, dtype: fp7", "deployments[0].layout.dtype", "fp8"),
    ],
)
def test_what_cannot_be_planned_is_told_with_what_would_work(old, new, path, told):
    line = next(line for line in refusals(altered(old, new)) if f"  {path} " in line)
    assert told in line


def test_a_layout_without_a_planned_pool_has_no_effect_and_is_refused():
    text = (EXAMPLE.parent / "simulated.yaml").read_text("utf-8")
    value = yaml.safe_load(text)
    value["deployments"][0]["layout"] = {"tp": 2}
    [line] = refusals(yaml.safe_dump(value))
    assert "has no effect" in line
