"""The catalogue: what chips can do, what they cost where, and how clean the electricity is.

Belongs here: published numbers as data (`data/*.csv`), each with its source and date. Does not:
estimates and efficiencies (`perf`), decisions. Read `entries.py` first. Loaded when first asked.
"""

from argosy.fleet.catalogue.entries import (
    Chip,
    EnergyMeasurement,
    Figure,
    Offer,
    Region,
    Source,
)
from argosy.fleet.catalogue.lookup import (
    OLD_AFTER_DAYS,
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
)

__all__ = [
    "OLD_AFTER_DAYS",
    "Chip",
    "EnergyMeasurement",
    "Figure",
    "NotInCatalogue",
    "Offer",
    "Region",
    "Source",
    "chip",
    "chips",
    "energy_measurements",
    "is_old",
    "offers",
    "region",
    "regions",
    "source",
    "sources",
]
