"""Which country a region is in, and which countries an area has: what `residency` asks for.

A region's country is the grid of the catalogue's `regions.csv` (US-AZ: a state of the USA; else
ISO 3166-1 alpha-3), or what the fleet file says of the pool. Areas: the EU's members as of 2026
(european-union.europa.eu, list of countries), the EEA (efta.int), continents as the UN's M49 has
them (unstats.un.org/unsd/methodology/m49), of the countries where the catalogue knows a region.
"""

from collections.abc import Sequence

from argosy.fleet.catalogue import NotInCatalogue, region
from argosy.fleet.contracts import ON_PREMISES, OWN

_EU = (
    "AUT BEL BGR CYP CZE DEU DNK ESP EST FIN FRA GRC HRV HUN IRL ITA LTU LUX LVA MLT NLD POL PRT "
    "ROU SVK SVN SWE"
)
_ASIA = "ARE BHR CHN HKG IDN IND ISR JPN KOR MYS QAT SAU SGP THA TWN VNM"
AREAS: dict[str, frozenset[str]] = {
    name: frozenset(countries.split())
    for name, countries in {
        "eu": _EU,
        "eea": f"{_EU} ISL LIE NOR",
        "europe": f"{_EU} ISL LIE NOR CHE GBR",
        "uk": "GBR",
        "us": "USA",
        "north-america": "USA CAN MEX",
        "south-america": "ARG BRA CHL COL PER URY",
        "asia": _ASIA,
        "africa": "EGY KEN MAR NGA ZAF",
        "oceania": "AUS NZL",
    }.items()
}


def country_of(name: str, stated: str | None = None) -> str | None:
    """Of the region "cloud/region"; `stated` by the fleet file goes first. None: not known."""
    if stated is not None:
        return stated
    try:
        grid = region(name).grid
    except NotInCatalogue:
        return None
    return "USA" if grid is not None and grid.startswith("US-") else grid


def may_stay(residency: Sequence[str], name: str, stated: str | None = None) -> bool:
    """Whether data that must stay in these places may be in the region "cloud/region".

    Nowhere in particular: anywhere. `stated`: its country, as for `country_of`.
    """
    cloud, country = name.split("/")[0], country_of(name, stated)
    return not residency or any(
        place in (name, cloud)
        or (place == ON_PREMISES and cloud == OWN)
        or country in AREAS.get(place, ())
        for place in residency
    )
