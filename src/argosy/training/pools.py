"""The pools that islands of a run are on, as a run's folder keeps them. Light: the CLI reads it."""

import msgspec

from argosy.fleet.launchers import RayLauncher


class PlacedPool(msgspec.Struct, frozen=True, kw_only=True):
    """A pool, without the rest of its fleet."""

    name: str
    fleet: str | None = None  # whose pool it is; None: in a folder of an older Argosy
    launcher: RayLauncher
    chip: str | None
    maker: str | None  # of the chip


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Which islands of a run are where."""

    pools: tuple[PlacedPool, ...]
    islands: dict[str, str]  # the pool of each
