"""What `argosy catalogue` shows: tables of chips and models, and the page of one of them.

A table leaves columns out rather than break its cells where a terminal is narrow.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import TYPE_CHECKING

import msgspec

from argosy.cli.tables import fits, plain_console
from argosy.fleet import catalogue
from argosy.fleet.architectures import Architecture, kv_bytes_per_token, state_bytes
from argosy.fleet.catalogue import Chip, Offer, Source

if TYPE_CHECKING:
    from rich.table import Table

_BF16_BYTES = 2
_OLD = (
    f"* from a price list more than {catalogue.OLD_AFTER_DAYS} days old, or of no known date; "
    "ask the cloud"
)
_UNITS = {
    "bf16_flops": ("BF16, dense", 1e12, "TFLOP/s"),
    "fp8_flops": ("FP8, dense", 1e12, "TFLOP/s"),
    "int8_ops": ("INT8, dense", 1e12, "TOP/s"),
    "fp4_flops": ("FP4, dense", 1e12, "TFLOP/s"),
    "memory_bytes": ("memory", 2**30, "GiB"),
    "memory_bytes_per_s": ("memory bandwidth", 1e12, "TB/s"),
    "scale_up_bytes_per_s": ("scale-up, both ways", 1e9, "GB/s"),
    "scale_up_chips": ("scale-up domain", 1, "chips"),
    "scale_out_bytes_per_s": ("scale-out, one way", 1e9, "GB/s"),
    "power_w_max": ("power, rated", 1, "W"),
}


class PricedOffer(msgspec.Struct, frozen=True, kw_only=True):
    """An offer, and whether its price may have changed."""

    offer: Offer
    is_old: bool


class ChipLine(msgspec.Struct, frozen=True, kw_only=True):
    """A chip in the table; `--json` prints a list of these."""

    chip: Chip
    cheapest_on_demand: PricedOffer | None


class ChipPage(msgspec.Struct, frozen=True, kw_only=True):
    """All about one chip; what `--json` prints of it."""

    chip: Chip
    offers: tuple[PricedOffer, ...]
    sources: tuple[Source, ...]


class ModelLine(msgspec.Struct, frozen=True, kw_only=True):
    """A model and what follows from its dimensions; what `--json` prints of it."""

    architecture: Architecture
    parameters_total: int
    parameters_active: int
    kv_bytes_per_token_bf16: float
    state_bytes: int


def chip_line(chip: Chip, today: date) -> ChipLine:
    """With its cheapest known offer on demand, the older list where two are alike."""
    offers = [one for one in catalogue.offers(chip.name) if one.term == "on_demand"]
    cheapest = min(offers, key=lambda one: one.price_usd_per_chip_hour, default=None)
    return ChipLine(
        chip=chip, cheapest_on_demand=None if cheapest is None else _priced(cheapest, today)
    )


def chip_page(chip: Chip, today: date) -> ChipPage:
    """With all its offers by region, and what its sources are: those that its notes name, too."""
    offers = sorted(catalogue.offers(chip.name), key=lambda one: (one.region, one.node, one.term))
    codes = {*chip.sources, *(one.source for one in offers)}
    for figure in chip.figures:
        codes.update((figure.note or "").replace(":", " ").replace(";", " ").split())
    return ChipPage(
        chip=chip,
        offers=tuple(_priced(one, today) for one in offers),
        sources=tuple(one for one in catalogue.sources() if one.code in codes),
    )


def model_line(architecture: Architecture) -> ModelLine:
    """With what is computed from its dimensions."""
    return ModelLine(
        architecture=architecture,
        parameters_total=architecture.parameters_total,
        parameters_active=architecture.parameters_active,
        kv_bytes_per_token_bf16=kv_bytes_per_token(architecture, _BF16_BYTES),
        state_bytes=state_bytes(architecture),
    )


def print_chips(lines: Sequence[ChipLine]) -> None:
    """One row a chip."""
    narrow = ("CHIP", "MAKER", "MEM\nGiB", "\nTB/s", "BF16\nTFLOP/s", "FP8\n ", "FP4\n ")
    headings = (*narrow, "POWER\nW", "USD\n/HOUR")
    wide = ("SCALE-UP\nGB/s", "\nCHIPS", "SCALE-OUT\nGB/s", "CHEAPEST\nIN", "LIST OF\n ")
    rows = [(*_short_cells(line), *_more_cells(line)) for line in lines]
    _print_fitting((*headings, *wide), rows, len(headings), left=(0, 1, 12, 13))
    _print_lines(
        "dense peaks; - not known; USD per chip-hour: the cheapest known, on demand, "
        "with its share of the node (a CPU counts per node)",
        _OLD,
        "argosy catalogue CHIP shows who says so",
    )


def print_chip(page: ChipPage) -> None:
    """Its figures, its offers, its sources."""
    from rich.text import Text

    chip = page.chip
    console = plain_console()
    console.print(Text(f"{chip.name}: {chip.maker} {chip.title} ({chip.kind})", style="bold"))
    if chip.notes:
        console.print(chip.notes)
    console.print()
    console.print(_figures_table(chip))
    console.print()
    if page.offers:
        _print_offers(page.offers)
    else:
        console.print("No offer of a cloud is known.")
    console.print()
    console.print(_sources_table(page.sources))


def print_models(lines: Sequence[ModelLine]) -> None:
    """One row a model."""
    headings = ("MODEL", "PARAMETERS\n1e9", "ACTIVE\n ", "KV/TOKEN\nKiB", "LAYERS", "ATTENTION")
    wide = ("EXPERTS", "HIDDEN", "HEADS", "KV\nHEADS", "VOCABULARY")
    rows = [(*_model_cells(line), *_more_model_cells(line.architecture)) for line in lines]
    _print_fitting((*headings, *wide), rows, len(headings), left=(0, 5, 6))
    _print_lines(
        "computed from the dimensions; active: per token, embeddings included; KV in bf16, "
        "while no window is full",
        "36 x 8192: as many layers attend to so many tokens; states: layers with a state of "
        "fixed size, and no KV; sparse: each token attends to so many",
        "argosy catalogue --models MODEL shows all dimensions",
    )


def print_model(line: ModelLine) -> None:
    """All its dimensions, and what follows from them."""
    from rich.text import Text

    own = line.architecture
    console = plain_console()
    console.print(Text(own.name, style="bold"))
    if own.notes:
        console.print(own.notes)
    console.print()
    computed = msgspec.structs.asdict(line)
    named = {name: value for name, value in computed.items() if name != "architecture"}
    fields = msgspec.structs.asdict(own)
    hidden = ("name", "notes", "sources", "huggingface_ids")
    named |= {name: value for name, value in fields.items() if name not in hidden}
    table = _plain_table(("", ""), left=(0, 1))
    for name, value in named.items():
        if value is not None and value != 0 and value is not False:
            table.add_row(name, f"{value:,}" if type(value) in (int, float) else str(value))
    table.add_row("huggingface_ids", "\n".join(own.huggingface_ids))
    table.add_row("sources", "\n".join(own.sources))
    console.print(table)


def _priced(offer: Offer, today: date) -> PricedOffer:
    return PricedOffer(offer=offer, is_old=catalogue.is_old(offer, today))


def _short_cells(line: ChipLine) -> tuple[str, ...]:
    chip = line.chip
    return (
        chip.name,
        chip.maker,
        _scaled(chip.memory_bytes, 2**30),
        _scaled(chip.memory_bytes_per_s, 1e12, ".2f"),
        _scaled(chip.bf16_flops, 1e12),
        _scaled(chip.fp8_flops, 1e12),
        _scaled(chip.fp4_flops, 1e12),
        _scaled(chip.power_w_max, 1),
        _price(line.cheapest_on_demand),
    )


def _more_cells(line: ChipLine) -> tuple[str, ...]:
    chip, cheapest = line.chip, line.cheapest_on_demand
    return (
        _scaled(chip.scale_up_bytes_per_s, 1e9),
        _scaled(chip.scale_up_chips, 1),
        _scaled(chip.scale_out_bytes_per_s, 1e9, ".1f"),
        "-" if cheapest is None else cheapest.offer.region,
        "-" if cheapest is None else str(cheapest.offer.price_date or "no date"),
    )


def _model_cells(line: ModelLine) -> tuple[str, ...]:
    own = line.architecture
    return (
        own.name,
        f"{line.parameters_total / 1e9:.2f}",
        f"{line.parameters_active / 1e9:.2f}",
        f"{line.kv_bytes_per_token_bf16 / 1024:.1f}",
        str(own.layers),
        _attention(own),
    )


def _more_model_cells(own: Architecture) -> tuple[str, ...]:
    shared = f" + {own.shared_experts}" if own.shared_experts else ""
    experts = f"{own.experts_per_token} of {own.experts}{shared}" if own.experts else "-"
    return (
        experts,
        str(own.hidden),
        str(own.heads),
        "-" if own.attention == "mla" else str(own.kv_heads),
        str(own.vocabulary),
    )


def _attention(own: Architecture) -> str:
    """In a few words: what a token attends to, in how many of the layers."""
    parts = ["MLA" if own.attention == "mla" else "GQA" if own.kv_heads < own.heads else "MHA"]
    if own.attended_tokens_max is not None:
        parts.append(f"sparse {own.attended_tokens_max}")
    if own.window_layers:
        parts.append(f"{own.window_layers} x {own.window_tokens}")
    if own.state_layers:
        parts.append(f"{own.state_layers} states")
    return ", ".join(parts)


def _figures_table(chip: Chip) -> "Table":
    table = _plain_table(("FIGURE", "VALUE", "", "SOURCES", "NOTE"), left=(0, 2, 3, 4))
    for figure in chip.figures:
        title, unit, name = _UNITS[figure.name]
        table.add_row(
            title,
            f"{figure.value / unit:,.5g}".replace("e+", "e"),
            name,
            " ".join(figure.sources),
            figure.note or "",
        )
    return table


def _print_offers(offers: Sequence[PricedOffer]) -> None:
    narrow = ("REGION", "NODE", "CHIPS", "ON DEMAND", "SPOT")
    wide = ("LIST OF", "SOURCE", "gCO2e/kWh", "PUE")
    rows: dict[tuple[str, str], dict[str, PricedOffer]] = {}
    for one in offers:
        rows.setdefault((one.offer.region, one.offer.node), {})[one.offer.term] = one
    cells = [_offer_cells(terms) for terms in rows.values()]
    _print_fitting((*narrow, *wide), cells, len(narrow), left=(0, 1, 5, 6))
    noted = {one.offer.node: one.offer.notes for one in offers if one.offer.notes}
    _print_lines(
        "USD per chip-hour, the node's price divided by its chips",
        _OLD,
        *(f"{node}: {note}" for node, note in noted.items()),
    )


def _offer_cells(terms: dict[str, PricedOffer]) -> tuple[str, ...]:
    offer = next(iter(terms.values())).offer
    place = catalogue.region(offer.region)
    return (
        offer.region,
        offer.node,
        str(offer.chips_per_node),
        _price(terms.get("on_demand")),
        _price(terms.get("spot")),
        str(offer.price_date or "no date"),
        offer.source,
        _scaled(place.carbon_g_per_kwh, 1),
        _scaled(place.pue, 1, ".2f"),
    )


def _sources_table(sources: Iterable[Source]) -> "Table":
    table = _plain_table(("SOURCE", ""), left=(0, 1))
    for one in sources:
        published = "" if one.published is None else f"of {one.published}, "
        table.add_row(
            one.code, f"{one.title} ({one.where}); {one.nature}; {published}read {one.collected}"
        )
    return table


def _print_fitting(
    headings: Sequence[str], rows: Sequence[Sequence[str]], few: int, *, left: Sequence[int]
) -> None:
    """All columns where the terminal holds them, else the first few."""
    console = plain_console()
    table = _filled(headings, rows, left)
    if not fits(table, console):
        table = _filled(headings[:few], [row[:few] for row in rows], left)
    console.print(table)


def _filled(headings: Sequence[str], rows: Iterable[Sequence[str]], left: Sequence[int]) -> "Table":
    table = _plain_table(headings, left=left)
    for row in rows:
        table.add_row(*row)
    return table


def _plain_table(headings: Sequence[str], *, left: Sequence[int]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(headings))
    for place, heading in enumerate(headings):
        is_left = place in left
        table.add_column(heading, overflow="fold", justify="left" if is_left else "right")
    return table


def _print_lines(*lines: str) -> None:
    from rich.text import Text

    console = plain_console()
    console.print()
    for line in lines:
        console.print(Text(line, style="dim"))


def _price(priced: PricedOffer | None) -> str:
    if priced is None:
        return "-"
    return f"{priced.offer.price_usd_per_chip_hour:.2f}{'*' if priced.is_old else ' '}"


def _scaled(value: float | None, unit: float, how: str = ",.0f") -> str:
    return "-" if value is None else format(value / unit, how)
