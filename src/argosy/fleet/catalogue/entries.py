"""What the catalogue holds: chips, their figures, offers, regions, measured energy, sources.

Every number carries the codes of its sources; `Source` says what a code stands for and when it
was read. Unknown is None: nothing here was estimated.
"""

from datetime import date
from typing import Literal

import msgspec

ChipKind = Literal["gpu", "tpu", "npu", "cpu"]
Maker = Literal["NVIDIA", "AMD", "Google", "AWS", "Microsoft", "Intel", "generic"]
Term = Literal["on_demand", "spot"]
FigureName = Literal[
    "bf16_flops",
    "fp8_flops",
    "int8_ops",
    "fp4_flops",
    "memory_bytes",
    "memory_bytes_per_s",
    "scale_up_bytes_per_s",
    "scale_up_chips",
    "scale_out_bytes_per_s",
    "power_w_max",
]


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where numbers were read."""

    code: str
    title: str
    where: str  # repository and commit, or the page
    nature: str  # the licence, or that facts were quoted from it, and whether it is secondary
    published: date | None  # of the page or the commit, where known
    collected: date  # when we read it


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One number of a chip, in SI units, and who says so."""

    name: FigureName
    value: float
    sources: tuple[str, ...]  # codes of `Source`; never empty
    collected: date  # the latest of its sources
    note: str | None = None  # how it was derived, and who disagrees


class Chip(msgspec.Struct, frozen=True, kw_only=True):
    """One accelerator as a cloud counts it: a card, or the package that is sold as one.

    Peaks are dense, without 2:4 sparsity, at the datasheet's clock. A CPU counts per node, and
    has no figures: it is measured where it runs.
    """

    name: str
    maker: Maker
    title: str  # as its maker calls it
    kind: ChipKind
    bf16_flops: float | None = None  # per second, as all peaks
    fp8_flops: float | None = None
    int8_ops: float | None = None
    fp4_flops: float | None = None
    memory_bytes: float | None = None
    memory_bytes_per_s: float | None = None
    scale_up_bytes_per_s: float | None = None  # both directions added, per chip
    scale_up_chips: int | None = None  # chips that one such fabric joins
    scale_out_bytes_per_s: float | None = None  # of its share of the network cards, one direction
    power_w_max: float | None = None  # as its maker rates the package
    figures: tuple[Figure, ...] = ()  # the numbers above once more, each with its sources
    sources: tuple[str, ...] = ()  # codes, of all figures
    collected: date
    notes: str | None = None


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A chip in a region at a price term, list price without discounts.

    The price is that of the whole node divided by its chips: CPUs and disks are in it.
    """

    chip: str
    cloud: str
    region: str  # "cloud/region"
    term: Term
    price_usd_per_chip_hour: float
    price_date: date | None  # of the price list; None: not known
    source: str  # code of `Source`
    chips_per_node: int
    node: str  # the cloud's name of the machine type
    notes: str | None = None


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """The electricity of a cloud's region."""

    name: str  # "cloud/region"
    cloud: str
    grid: str | None  # the grid or country that the carbon figure is of
    carbon_g_per_kwh: float | None  # g CO2e per kWh, annual average, location-based
    carbon_year: int | None  # the year of the data
    pue: float | None  # the cloud's average over its data centres, not this region's
    sources: tuple[str, ...]  # codes of `Source`
    collected: date


class EnergyMeasurement(msgspec.Struct, frozen=True, kw_only=True):
    """Measured energy of a model on chips, of the chips alone: vLLM, chat requests.

    `best` is the batch limit at which a token takes the least energy, `low` the smallest tried.
    """

    chip: str
    model: str  # Hugging Face id
    precision: Literal["bf16", "fp8"]
    chips: int
    requests_max_best: int
    energy_j_per_token_best: float
    power_w_best: float
    tokens_per_s_best: float
    itl_s_p50_best: float
    requests_max_low: int
    energy_j_per_token_low: float
    power_w_low: float
    itl_s_p50_low: float
    source: str  # code of `Source`
    collected: date
