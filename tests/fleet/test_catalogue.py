"""The catalogue: every number has a source and a date, and the tables fit together."""

import csv
import subprocess
import sys
import tomllib
from datetime import date, timedelta
from importlib import resources
from pathlib import Path

import msgspec
import pytest

from argosy.fleet.catalogue import (
    OLD_AFTER_DAYS,
    Chip,
    NotInCatalogue,
    chip,
    chips,
    energy_measurements,
    is_old,
    offers,
    region,
    regions,
    source,
    sources,
    tables,
)

# Fleet files, calibrations and plans name chips by these: a rename breaks them.
NAMES = (
    "A100-80GB A100-40GB H100-SXM H100-PCIe H100-NVL H200 B200 B300 GB200 GB300 L4 L40S A10G "
    "RTX-PRO-6000 MI300X MI325X MI355X TPU-v5e TPU-v5p TPU-v6e TPU-v7 Inferentia2 Trainium1 "
    "Trainium2 Trainium3 Maia-100 Maia-200 Gaudi3 CPU-x86 CPU-Arm"
)
NOT_NUMBERS = {"name", "maker", "title", "kind", "figures", "sources", "collected", "notes"}
DATA = resources.files("argosy.fleet.catalogue") / "data"


def test_the_chips_are_those_that_others_name():
    assert " ".join(one.name for one in chips()) == NAMES


@pytest.mark.parametrize("one", chips(), ids=lambda one: one.name)
def test_every_number_of_a_chip_has_a_figure_with_source_and_date(one: Chip):
    fields = [name for name in one.__struct_fields__ if name not in NOT_NUMBERS]
    numbers = {name: getattr(one, name) for name in fields if getattr(one, name) is not None}
    assert numbers == {figure.name: figure.value for figure in one.figures}
    for figure in one.figures:
        assert figure.sources
        assert set(figure.sources) <= set(one.sources)
        assert figure.value > 0
        assert isinstance(figure.collected, date)
        for code in figure.sources:
            assert source(code).collected <= figure.collected


def test_every_row_of_every_table_names_sources_that_are_listed():
    known = {one.code for one in sources()}
    columns = {"sources", "source", "carbon_source", "pue_source"}
    for file in DATA.iterdir():
        rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
        assert rows, file.name
        for row in rows:
            cited = [row[name].split(";") for name in columns & row.keys() if row[name]]
            assert all(set(codes) <= known for codes in cited), (file.name, row)
            if columns & row.keys():
                assert cited, (file.name, row)


def test_every_offer_has_a_price_a_source_and_a_known_region():
    for one in offers():
        assert one.price_usd_per_chip_hour > 0
        assert one.chips_per_node >= 1
        assert source(one.source).collected >= (one.price_date or date.min)
        assert region(one.region).cloud == one.cloud
        assert chip(one.chip).name == one.chip


def test_every_region_has_sources_for_what_it_knows():
    for one in regions():
        known = [one.carbon_g_per_kwh, one.pue]
        assert len(one.sources) == len([value for value in known if value is not None])
        assert one.pue is None or 1.0 <= one.pue < 2.0
        assert one.carbon_g_per_kwh is None or 0 < one.carbon_g_per_kwh < 1000


def test_sources_are_dated_and_their_codes_differ():
    codes = [one.code for one in sources()]
    assert len(codes) == len(set(codes))
    for one in sources():
        assert one.title
        assert one.where
        assert one.nature
        assert one.published is None or one.published <= one.collected


def test_no_source_is_listed_that_nothing_uses():
    text = "".join(
        file.read_text(encoding="utf-8") for file in DATA.iterdir() if file.name != "sources.csv"
    )
    assert [one.code for one in sources() if one.code not in text] == []


def test_a_price_of_a_node_is_divided_by_its_chips():
    found = [one for one in offers("H100-SXM", "aws/us-east-1") if one.node == "p5.48xlarge"]
    assert [(one.term, one.chips_per_node) for one in found] == [("on_demand", 8)]
    # 55.04 USD for the node of 8: karpenter-provider-aws at 1d92708
    assert found[0].price_usd_per_chip_hour == pytest.approx(55.04 / 8)
    assert found[0].price_date == date(2026, 7, 20)


def test_spot_is_cheaper_than_on_demand():
    pairs: dict[tuple[str, str, str], dict[str, float]] = {}
    for one in offers():
        key = (one.chip, one.region, one.node)
        pairs.setdefault(key, {})[one.term] = one.price_usd_per_chip_hour
    both = [prices for prices in pairs.values() if len(prices) == 2]
    assert len(both) > 400
    assert all(prices["spot"] < prices["on_demand"] for prices in both)


def test_a_price_is_old_after_45_days_or_without_a_date():
    dated = offers("H100-SXM", "aws/us-east-1")[0]
    assert dated.price_date is not None
    last_day = dated.price_date + timedelta(days=OLD_AFTER_DAYS)
    assert not is_old(dated, last_day)
    assert is_old(dated, last_day + timedelta(days=1))
    undated = offers("TPU-v6e")[0]
    assert undated.price_date is None
    assert is_old(undated, date(2026, 1, 1))


def test_peaks_are_dense_and_narrower_numbers_are_not_slower():
    for one in chips():
        if one.bf16_flops and one.fp8_flops:
            assert one.fp8_flops >= one.bf16_flops
        if one.fp8_flops and one.fp4_flops:
            assert one.fp4_flops >= one.fp8_flops
    assert chip("H100-SXM").bf16_flops == 989e12  # NVIDIA's datasheet, without sparsity
    assert chip("H100-SXM").memory_bytes == 80 * 2**30
    maia = chip("Maia-200")  # Microsoft, 2026-01-26
    assert (maia.scale_up_bytes_per_s, maia.scale_up_chips) == (2.8e12, 6144)
    assert maia.bf16_flops is None
    assert source("MSMAIA").published == date(2026, 1, 26)


def test_a_cpu_has_no_figures_and_has_offers_by_node():
    assert chip("CPU-x86").figures == ()
    assert {one.chips_per_node for one in offers("CPU-x86")} == {1}


def test_a_name_is_found_whatever_its_case():
    assert chip("h100-sxm") is chip("H100-SXM")
    assert offers("mi300x", "AZURE/westus3") == offers("MI300X", "azure/westus3")


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: chip("H100-SMX"), 'chip "H100-SMX" is not in the catalogue (30 chips). Did you'),
        (lambda: chip("H100"), '"H100-SXM"'),
        (lambda: chip(""), "List them: argosy catalogue"),
        (lambda: offers("B2000"), '"B200"'),
        (lambda: offers(region="gcp/us-centrl1"), '"gcp/us-central1"'),
        (lambda: region("us-east-1"), '"aws/us-east-1"'),
        (lambda: source("AICC"), '"AIC"'),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_ones(ask, says):
    with pytest.raises(NotInCatalogue) as refused:
        ask()
    assert says in str(refused.value)


def test_energy_measurements_name_chips_of_the_catalogue():
    found = energy_measurements()
    assert len(found) == 38  # ML.ENERGY leaderboard v3, chat
    for one in found:
        assert chip(one.chip).kind == "gpu"
        assert 0 < one.energy_j_per_token_best < one.energy_j_per_token_low
        assert one.requests_max_low < one.requests_max_best
        # power is joules per second: the two columns are of one run
        watts = one.energy_j_per_token_best * one.tokens_per_s_best
        assert watts == pytest.approx(one.power_w_best, rel=0.01)
        rated = chip(one.chip).power_w_max
        assert rated is not None
        assert one.power_w_best <= rated * one.chips


def test_a_row_that_cannot_be_read_is_refused_by_its_line():
    def convert(row: dict[str, str]) -> float:
        return float(row["published"])

    with pytest.raises(ValueError, match=r"sources\.csv:2 cannot be read"):
        list(tables._read("sources.csv", convert))


def test_structs_go_through_json():
    page = msgspec.json.encode(chip("H200"))
    assert msgspec.json.decode(page, type=Chip) == chip("H200")


def test_loading_needs_no_numpy_and_reads_nothing_before_it_is_asked():
    code = (
        "import sys; from argosy.fleet import catalogue, architectures;"
        "from argosy.fleet.catalogue import tables;"
        "assert tables.chips.cache_info().currsize == 0;"
        "catalogue.chips(); architectures.architectures();"
        "assert not {'numpy', 'pandas', 'yaml', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_data_files_ship_with_the_package():
    top = Path(__file__).parents[2]
    settings = tomllib.loads((top / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["argosy"]
    package = top / "src" / "argosy"
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    data = {path for path in (package / "fleet").rglob("data/*") if path.is_file()}
    assert data
    assert data <= shipped
