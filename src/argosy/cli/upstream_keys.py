"""The keys that pools' replicas ask for, from the environment: the fleet file names variables."""

import os

from argosy.fleet.config import Fleet
from argosy.fleet.launchers import EndpointLauncher, SkypilotLauncher


class MissingKeyError(Exception):
    """A pool's key is not in the environment; the message says which."""


def upstream_keys(fleet: Fleet) -> dict[str, str]:
    """The keys by pool. Raises MissingKeyError."""
    keys: dict[str, str] = {}
    for pool in fleet.pools:
        launcher = pool.launcher
        has_key = isinstance(launcher, EndpointLauncher | SkypilotLauncher)
        name = launcher.key_env if has_key else None
        if name is None:
            continue
        if not os.environ.get(name):
            told = f"pool {pool.name} wants its key in the environment variable {name}: it is unset"
            raise MissingKeyError(told)
        keys[pool.name] = os.environ[name]
    return keys
