"""The catalogue's front: finds chips, offers, regions and measurements by their names."""

import difflib
from collections.abc import Collection
from datetime import date

from argosy.fleet.catalogue import tables
from argosy.fleet.catalogue.entries import Chip, EnergyMeasurement, Offer, Region, Source

OLD_AFTER_DAYS = 45  # clouds change list prices a few times a year, and spot prices daily


class NotInCatalogue(ValueError):
    """A name that is not in the catalogue; the message says what is."""


def chips() -> tuple[Chip, ...]:
    """All chips, in the order of the catalogue's file: by maker."""
    return tuple(tables.chips().values())


def chip(name: str) -> Chip:
    """The chip of that name, whatever the case of its letters.

    Raises `NotInCatalogue` with the nearest names.
    """
    known = tables.chips()
    return known[_found(name, known, what="chip", listing="argosy catalogue")]


def offers(chip: str | None = None, region: str | None = None) -> tuple[Offer, ...]:
    """Offers of that chip, in that region ("cloud/region"); of all where None. May be none.

    Raises `NotInCatalogue` where the chip or the region is not known at all.
    """
    by_chip = tables.offers()
    if chip is not None:
        known = tables.chips()
        name = _found(chip, known, what="chip", listing="argosy catalogue")
        found = by_chip.get(name, ())
    else:
        found = tuple(offer for some in by_chip.values() for offer in some)
    if region is None:
        return found
    place = _found(region, tables.regions(), what="region", listing=None)
    return tuple(offer for offer in found if offer.region == place)


def is_old(offer: Offer, today: date) -> bool:
    """True where its list is more than 45 days old or of no known date: it may have changed."""
    if offer.price_date is None:
        return True
    return (today - offer.price_date).days > OLD_AFTER_DAYS


def regions() -> tuple[Region, ...]:
    """All regions: of some that offer chips the grid is not known."""
    return tuple(tables.regions().values())


def region(name: str) -> Region:
    """The region "cloud/region". Raises `NotInCatalogue` with the nearest names."""
    known = tables.regions()
    return known[_found(name, known, what="region", listing=None)]


def sources() -> tuple[Source, ...]:
    """All sources, in the order of the file."""
    return tuple(tables.sources().values())


def source(code: str) -> Source:
    """What a code of a source stands for. Raises `NotInCatalogue`."""
    known = tables.sources()
    return known[_found(code, known, what="source", listing=None)]


def energy_measurements() -> tuple[EnergyMeasurement, ...]:
    """Measured joules per output token, for calibration."""
    return tables.energy_measurements()


def _found(name: str, known: Collection[str], *, what: str, listing: str | None) -> str:
    if name in known:
        return name
    by_lower = {one.lower(): one for one in known}
    same = by_lower.get(name.lower())
    if same is not None:
        return same
    raise NotInCatalogue(not_in(name, known, what=what, listing=listing))


def not_in(name: str, known: Collection[str], *, what: str, listing: str | None) -> str:
    """The message for a name that is not among the known ones."""
    by_lower = {one.lower(): one for one in known}
    near = [by_lower[one] for one in difflib.get_close_matches(name.lower(), by_lower, n=3)]
    if not near and len(name) > 1:
        near = sorted(one for low, one in by_lower.items() if name.lower() in low)[:3]
    message = f'{what} "{name}" is not in the catalogue ({len(known)} {what}s).'
    if near:
        names = " or ".join(f'"{one}"' for one in near)
        message += f" Did you mean {names}?"
    if listing is not None:
        message += f" List them: {listing}"
    return message
