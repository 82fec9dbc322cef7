"""What Ray places: an actor that holds a replica's chips and its process, until it is killed.

Runs on the nodes, which need Argosy installed. It stays when its process has ended, and says how.
"""

# An extra, which make test-ray installs.
# pyright: reportMissingImports=false

from pathlib import Path
from typing import Any

import msgspec
import platformdirs
import ray.util

from argosy.launchers.ray.child import Child
from argosy.launchers.ray.protocol import Launch


class ReplicaActor:
    """Its methods run in threads, several at a time. Values cross as plain builtins."""

    def __init__(self, launch: bytes) -> None:
        what = msgspec.json.decode(launch, type=Launch)
        self._child = Child(
            what.name,
            what.argv,
            what.env,
            folder=Path(platformdirs.user_state_dir("argosy")) / "ray" / what.fleet,
            host=ray.util.get_node_ip_address(),
        )

    def describe(self) -> dict[str, Any]:
        """A `Description`."""
        return msgspec.to_builtins(self._child.describe())

    def next_description(self, version: int, wait_s: float) -> dict[str, Any]:
        """A `Description` as soon as it is another than `version`, or after `wait_s`."""
        return msgspec.to_builtins(self._child.next_description(version, wait_s))

    def stop(self, grace_s: float) -> None:
        """End the process; returns when it is gone."""
        self._child.stop(grace_s)
