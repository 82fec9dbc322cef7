"""What of a fleet's pool its rented machines depend on: one small value, made once."""

import hashlib
import re

import msgspec

from argosy.fleet import rented
from argosy.fleet.catalogue import chip
from argosy.fleet.command_lines import found_at
from argosy.fleet.config import Fleet, Pool
from argosy.fleet.launchers import SkypilotLauncher

# With a replica's part, 40 characters: clouds shorten longer ones each in its own way
# (sky/utils/common_utils.py, make_cluster_name_on_cloud).
_FLEET_LENGTH_MAX = 10
_REPLICA_LENGTH_MAX = 14
_HASH_LENGTH = 6


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """A pool of rented machines, as its launcher needs to know it."""

    fleet: str
    pool: str
    launcher: SkypilotLauncher
    region: str  # cloud/region
    chip: str | None = None  # as the catalogue names it; None: replicas run on processors
    maker: str | None = None
    chips_max: int = 1  # of all its replicas together
    is_spot: bool = False
    weights: dict[str, str] = {}  # by model: what its engine is told to load

    @property
    def prefix(self) -> str:
        """How the names of this pool's clusters begin, and no others'."""
        slug = _slug(self.fleet, _FLEET_LENGTH_MAX)
        return "-".join((slug, _hashed("\n".join((self.fleet, self.pool))), ""))

    def cluster(self, replica: str) -> str:
        """The name of a replica's cluster, alike whenever it is asked for."""
        return f"{self.prefix}{_slug(replica, _REPLICA_LENGTH_MAX)}-{_hashed(replica)}"


def cell_of(fleet: Fleet, pool: Pool) -> Cell:
    """Of a checked fleet; `pool.launcher` is a SkyPilot one."""
    assert isinstance(pool.launcher, SkypilotLauncher)
    assert pool.region is not None
    return Cell(
        fleet=fleet.fleet,
        pool=pool.name,
        launcher=pool.launcher,
        region=pool.region,
        chip=pool.chip,
        maker=None if pool.chip is None else chip(pool.chip).maker,
        chips_max=pool.nodes.max * pool.nodes.chips_per_node,
        is_spot=rented.is_spot(pool.name, fleet.contracts),
        weights={model.name: found_at(model) for model in fleet.models},
    )


def _slug(text: str, length: int) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    slug = slug if slug[:1].isalpha() else f"r-{slug}"  # SkyPilot wants a letter first
    return slug[:length].rstrip("-")


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
