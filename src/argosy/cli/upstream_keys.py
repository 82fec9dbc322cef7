"""The keys of endpoint pools, from the environment: the fleet file only names the variables."""

import os

from argosy.fleet.config import Fleet
from argosy.fleet.launchers import EndpointLauncher


class MissingKeyError(Exception):
    """A pool's key is not in the environment; the message says which."""


def upstream_keys(fleet: Fleet) -> dict[str, str]:
    """The keys by pool. Raises MissingKeyError."""
    keys: dict[str, str] = {}
    for pool in fleet.pools:
        name = pool.launcher.key_env if isinstance(pool.launcher, EndpointLauncher) else None
        if name is None:
            continue
        if not os.environ.get(name):
            told = f"pool {pool.name} wants its key in the environment variable {name}: it is unset"
            raise MissingKeyError(told)
        keys[pool.name] = os.environ[name]
    return keys
