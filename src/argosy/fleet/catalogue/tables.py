"""Reads the catalogue's CSV files, once and when first asked; refuses a row that it cannot read."""

import csv
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache
from importlib import resources
from io import StringIO
from typing import TypeVar, get_args

import msgspec

from argosy.fleet.catalogue.entries import (
    Chip,
    EnergyMeasurement,
    Figure,
    FigureName,
    Offer,
    Region,
    Source,
    Term,
)

T = TypeVar("T")
_FIGURES: tuple[FigureName, ...] = get_args(FigureName)


@cache
def sources() -> dict[str, Source]:
    """By code."""
    return {one.code: one for one in _read("sources.csv", _source)}


@cache
def chips() -> dict[str, Chip]:
    """By name, with their figures."""
    figures: dict[str, list[Figure]] = {}
    for name, figure in _read("figures.csv", _figure):
        figures.setdefault(name, []).append(figure)
    found = {one.name: one for one in _read("chips.csv", lambda row: _chip(row, figures))}
    strangers = figures.keys() - found.keys()
    if strangers:
        raise ValueError(f"figures.csv: no such chip in chips.csv: {', '.join(sorted(strangers))}")
    return found


@cache
def offers() -> dict[str, tuple[Offer, ...]]:
    """By chip."""
    found: dict[str, list[Offer]] = {}
    for pair in _read("offers.csv", _offers):
        for offer in pair:
            found.setdefault(offer.chip, []).append(offer)
    return {name: tuple(some) for name, some in found.items()}


@cache
def regions() -> dict[str, Region]:
    """By name, "cloud/region"."""
    return {one.name: one for one in _read("regions.csv", _region)}


@cache
def energy_measurements() -> tuple[EnergyMeasurement, ...]:
    """In the order of the file."""
    return tuple(_read("energy_per_token.csv", _energy))


def _read(name: str, convert: Callable[[dict[str, str]], T]) -> Iterator[T]:
    text = (resources.files("argosy.fleet.catalogue") / "data" / name).read_text(encoding="utf-8")
    for number, row in enumerate(csv.DictReader(StringIO(text)), start=2):
        try:
            yield convert(row)
        except (KeyError, ValueError, TypeError) as error:
            raise ValueError(f"{name}:{number} cannot be read: {error}") from error


def _source(row: dict[str, str]) -> Source:
    return Source(
        code=row["code"],
        title=row["title"],
        where=row["where"],
        nature=row["nature"],
        published=_date(row["published"]),
        collected=date.fromisoformat(row["collected"]),
    )


def _figure(row: dict[str, str]) -> tuple[str, Figure]:
    name = row["figure"]
    if name not in _FIGURES:
        raise ValueError(f'"{name}" is not a figure; these are: {", ".join(_FIGURES)}')
    codes = tuple(row["sources"].split(";"))
    figure = Figure(
        name=name,
        value=float(row["value"]),
        sources=codes,
        collected=_collected(codes),
        note=row["note"] or None,
    )
    return row["chip"], figure


def _chip(row: dict[str, str], figures: dict[str, list[Figure]]) -> Chip:
    own = {figure.name: figure for figure in figures.get(row["name"], ())}
    codes = tuple(dict.fromkeys(code for figure in own.values() for code in figure.sources))
    values: dict[str, float | int] = {name: figure.value for name, figure in own.items()}
    if "scale_up_chips" in values:
        values["scale_up_chips"] = int(values["scale_up_chips"])
    return msgspec.convert(
        {
            "name": row["name"],
            "maker": row["maker"],
            "title": row["title"],
            "kind": row["kind"],
            **values,
            "figures": tuple(own.values()),
            "sources": codes,
            "collected": _collected(codes) if codes else date.fromisoformat(row["collected"]),
            "notes": row["notes"] or None,
        },
        Chip,
    )


def _offers(row: dict[str, str]) -> list[Offer]:
    """One line of a price list: the node on demand, and spot where it is known."""
    prices: tuple[tuple[Term, str], ...] = (
        ("on_demand", row["node_usd_per_hour_on_demand"]),
        ("spot", row["node_usd_per_hour_spot"]),
    )
    chips_per_node = int(row["chips_per_node"])
    code = sources()[row["source"]].code
    return [
        Offer(
            chip=row["chip"],
            cloud=row["cloud"],
            region=f"{row['cloud']}/{row['region']}",
            term=term,
            price_usd_per_chip_hour=float(price) / chips_per_node,
            price_date=_date(row["price_date"]),
            source=code,
            chips_per_node=chips_per_node,
            node=row["node"],
            notes=row["notes"] or None,
        )
        for term, price in prices
        if price
    ]


def _region(row: dict[str, str]) -> Region:
    codes = tuple(code for code in (row["carbon_source"], row["pue_source"]) if code)
    return Region(
        name=f"{row['cloud']}/{row['region']}",
        cloud=row["cloud"],
        grid=row["grid"] or None,
        carbon_g_per_kwh=_number(row["carbon_g_per_kwh"]),
        carbon_year=int(row["carbon_year"]) if row["carbon_year"] else None,
        pue=_number(row["pue"]),
        sources=codes,
        collected=_collected(codes),
    )


def _energy(row: dict[str, str]) -> EnergyMeasurement:
    fields: dict[str, object] = {**row, "collected": _collected((row["source"],))}
    return msgspec.convert(fields, EnergyMeasurement, strict=False)


def _collected(codes: tuple[str, ...]) -> date:
    """The latest of these sources. A KeyError names a code that sources.csv lacks."""
    return max(sources()[code].collected for code in codes)


def _date(text: str) -> date | None:
    return date.fromisoformat(text) if text else None


def _number(text: str) -> float | None:
    return float(text) if text else None
