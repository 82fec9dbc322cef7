"""What a fleet may spend on machines that it rents, told before any is: SkyPilot's pools."""

import os
from collections.abc import Iterator

from argosy.cli.upstream_keys import MissingKeyError
from argosy.fleet import rented
from argosy.fleet.config import Fleet, Pool
from argosy.fleet.contracts import Spot
from argosy.fleet.launchers import SkypilotLauncher


def token_of(pool: Pool) -> str | None:
    """What its API server is shown; None: nothing is. Raises MissingKeyError."""
    name = pool.launcher.token_env if isinstance(pool.launcher, SkypilotLauncher) else None
    if name is None:
        return None
    if not os.environ.get(name):
        told = f"pool {pool.name} wants SkyPilot's token in the environment variable {name}"
        raise MissingKeyError(f"{told}: it is unset")
    return os.environ[name]


def check_tokens(fleet: Fleet) -> None:
    """Raises MissingKeyError, before anything starts."""
    for pool in fleet.pools:
        token_of(pool)


def rents(fleet: Fleet) -> Iterator[str]:
    """A line for each pool whose replicas cost by the hour."""
    for pool in fleet.pools:
        if isinstance(pool.launcher, SkypilotLauncher):
            yield _line(fleet, pool)


def _line(fleet: Fleet, pool: Pool) -> str:
    chips = _chips_max(fleet, pool)
    kind = "spot " if rented.is_spot(pool.name, fleet.contracts) else ""
    told = f"pool {pool.name} rents up to {chips} {kind}{pool.chip} in {pool.region} by SkyPilot"
    price = _price(fleet, pool)
    if price is None:
        return f"{told}; what they cost is not known here"
    usd, source = price
    return f"{told}: up to {chips * usd:,.2f} USD an hour ({usd:.4g} a chip, {source})"


def _chips_max(fleet: Fleet, pool: Pool) -> int:
    """What the launcher asks for at most, for a new replica comes before the one it replaces."""
    is_used = any(one.pool == pool.name for one in fleet.deployments)
    return pool.nodes.max * pool.nodes.chips_per_node if is_used else 0


def _price(fleet: Fleet, pool: Pool) -> tuple[float, str] | None:
    from argosy.planner.framing.supplies import price_of

    if rented.is_spot(pool.name, fleet.contracts):
        of_spot = [
            one for one in fleet.contracts if isinstance(one, Spot) and pool.name in one.pools
        ]
        best = max(of_spot, key=lambda one: one.price_usd_per_chip_hour)
        return best.price_usd_per_chip_hour, f"contract {best.name}"
    found = price_of(pool)
    return None if found is None else (found.usd_per_chip_hour, found.source)
