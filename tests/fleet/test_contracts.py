"""Contracts, promises and the plan table: what a fleet file may say, and how it is refused."""

import copy
import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from argosy.fleet import load
from argosy.fleet.areas import AREAS, country_of
from argosy.fleet.catalogue import chip, chips, regions
from argosy.fleet.contracts import Amount, CommittedSpend, Planning, Reserved, Spot
from argosy.fleet.software import engines_of, why_no_training

EXAMPLE = Path(__file__).parents[2] / "examples" / "five-makers.yaml"
VALUE = yaml.safe_load(EXAMPLE.read_text("utf-8"))


def parsed(value: Any):
    return load.parse(yaml.safe_dump(value), source="fleet.yaml")


def changed(**changes: Any) -> dict[str, Any]:
    """The example with other values at dotted paths: contracts__0__until."""
    value = copy.deepcopy(VALUE)
    for path, new in changes.items():
        *before, last = (int(part) if part.isdigit() else part for part in path.split("__"))
        at: Any = value
        for part in before:
            at = at[part]
        at[last] = new
    return value


def refused(value: Any) -> str:
    with pytest.raises(load.FleetFileError) as told:
        parsed(value)
    return str(told.value)


def test_days_are_written_without_quotes_and_read_as_days():
    fleet = load.parse(EXAMPLE.read_text("utf-8"), source="fleet.yaml")
    assert fleet.plan.begin == datetime.date(2027, 1, 1)
    reserved, signed, _, spend, spot = fleet.contracts
    assert isinstance(reserved, Reserved)
    assert reserved.until == datetime.date(2028, 1, 1)
    assert signed.is_signed
    assert isinstance(spend, CommittedSpend)
    assert isinstance(spot, Spot)


def test_a_file_without_contracts_is_planned_with_what_the_struct_says():
    value = {key: inner for key, inner in VALUE.items() if key not in ("contracts", "plan")}
    fleet = parsed(value)
    assert fleet.contracts == ()
    assert fleet.plan == Planning()
    assert fleet.plan.headroom == 0.5


def test_the_schema_knows_from_and_until_and_the_kinds_of_contracts():
    schema = load.schema()
    reserved = schema["$defs"]["Reserved"]
    assert {"from", "until", "kind"} <= set(reserved["required"])
    assert schema["$defs"]["Planning"]["properties"]["from"]["description"]
    kinds = schema["$defs"]["Fleet"]["properties"]["contracts"]["items"]["discriminator"]["mapping"]
    assert set(kinds) == {"reserved", "committed_spend", "spot"}
    assert msgspec.json.encode(schema)


@pytest.mark.parametrize(
    ("changes", "path", "told"),
    [
        ({"contracts__0__kind": "reservd"}, "contracts[0].kind", 'Did you mean "reserved"?'),
        ({"contracts__0__until": "2026-01-01"}, "contracts[0].until", "not after from = 2027"),
        ({"contracts__0__until": "2027-02-30"}, "contracts[0].until", "YYYY-MM-DD"),
        ({"contracts__0__pools": ["azure-h10"]}, "contracts[0].pools[0]", "not a planned pool"),
        ({"contracts__0__pools": ["own-mi300x"]}, "contracts[0].pools[0]", "one's own need no"),
        ({"contracts__0__pools": []}, "contracts[0].pools", "at least one is wanted"),
        ({"contracts__0__nodes": {"max": 40}}, "contracts[0].nodes.max", "has 24 nodes at most"),
        ({"contracts__0__nodes": {"min": 5, "max": 4}}, "contracts[0].nodes.min", "Lower one"),
        ({"contracts__1__nodes": {"max": 12}}, "contracts[1].nodes", "the contract is signed"),
        ({"contracts__1__name": "azure-h100-1y"}, "contracts[1]", 'a second "azure-h100-1y"'),
        ({"contracts__3__cloud": "ibm"}, "contracts[3].cloud", "Clouds: aws, azure, gcp"),
        ({"contracts__3__discount": 1.0}, "contracts[3].discount", "does not fit"),
        ({"contracts__4__availability": 1.5}, "contracts[4].availability", "does not fit"),
        ({"pools__2__nodes": {"min": 90, "max": 96}}, "contracts[1].nodes", "102 nodes are held"),
        (
            {"plan__power_kw_max": {"azure/westus": 1}},
            'plan.power_kw_max."azure/westus"',
            'Did you mean "azure/westus3"?',
        ),
        (
            {"plan__power_kw_max": {"own/frankfurt": 0}},
            'plan.power_kw_max."own/frankfurt"',
            "Expected `float` > 0.0",
        ),
        ({"plan__runs__0__pools": ["azure-maia"]}, "plan.runs[0].pools[0]", "inference"),
        ({"plan__runs__0__architecture": "Llama-3.1-7B"}, "plan.runs[0].architecture", "Llama-3.1"),
        ({"plan__runs__0__by": "2026-12-31"}, "plan.runs[0].by", "not after plan.from"),
        ({"plan__years": 0}, "plan.years", "does not fit"),
        ({"models__0__residency": ["ue"]}, "models[0].residency[0]", "no area, no cloud"),
        ({"models__0__survive": ["any_one_clod"]}, "models[0].survive[0]", "any_one_cloud"),
        ({"models__0__survive": ["any_one_cloud"] * 2}, "models[0].survive[1]", "there twice"),
        ({"models__0__spread": {"cloud": 1.5}}, "models[0].spread.cloud", "does not fit"),
        ({"pools__0__country": "DEU"}, "pools[0].country", "is in USA by the catalogue"),
        ({"pools__1__country": "de"}, "pools[1].country", "ISO 3166"),
    ],
)
def test_what_cannot_be_bought_or_kept_is_told_with_what_would_work(changes, path, told):
    lines = refused(changed(**changes)).splitlines()
    assert any(f"  {path} " in line and told in line for line in lines), lines


_IN_FRANKFURT = [("large", "own-mi300x"), ("small", "gcp-v6e"), ("reasoning", "azure-h100")]


def test_nothing_is_deployed_where_its_data_may_not_be():
    told = refused(changed(models__2__residency=["eu"]))
    assert "deployments[5].pool" in told
    assert (
        '"azure-maia" is in azure/westus3, but reasoning must stay in eu. Deploy it there' in told
    )


def test_an_area_is_refused_while_nobody_knows_in_which_country_a_region_is():
    value = changed(models__0__residency=["eu"], models__2__residency=[])
    del value["pools"][1]["country"]
    value["deployments"] = [
        one for one in value["deployments"] if (one["model"], one["pool"]) in _IN_FRANKFURT
    ]
    told = refused(value)
    assert "the country of own/frankfurt (pool own-mi300x) is not known" in told
    assert "Write pools[1].country" in told
    for words in (["eu", "own/frankfurt"], ["eu", "on-premises"], ["eu", "own"]):
        value["models"][0]["residency"] = words
        assert parsed(value).models[0].residency == tuple(words)


def test_regions_are_in_the_country_that_the_catalogue_says():
    assert country_of("azure/westus3") == "USA"
    assert country_of("aws/eu-central-1") == "DEU"
    assert country_of("own/frankfurt") is None
    assert country_of("own/frankfurt", "DEU") == "DEU"
    assert AREAS["eu"] < AREAS["eea"] < AREAS["europe"]
    assert len(AREAS["eu"]) == 27
    assert "GBR" not in AREAS["eu"]


def test_every_country_of_the_catalogue_is_in_an_area():
    known = {country_of(region.name) for region in regions()} - {None}
    assert not known - frozenset().union(*AREAS.values())


def test_every_chip_with_an_engine_is_named_and_chips_for_inference_do_not_train():
    assert engines_of(chip("H100-SXM")) == ("vllm", "sglang", "trtllm")
    assert "trtllm" not in engines_of(chip("MI300X"))
    assert engines_of(chip("CPU-x86")) == ()
    assert why_no_training(chip("H100-SXM")) is None
    assert why_no_training(chip("TPU-v6e")) is None
    assert "inference" in str(why_no_training(chip("Maia-200")))
    assert why_no_training(chip("Inferentia2"))
    assert {one.maker for one in chips() if engines_of(one)} == {
        "NVIDIA",
        "AMD",
        "Google",
        "AWS",
        "Microsoft",
        "Intel",
    }


def test_an_amount_is_a_whole_number_of_at_least_one():
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"max": 0}, Amount)
