"""What Ray places: an actor that holds a replica's chips and its process, until it is killed.

Runs on the nodes, which need Argosy installed. It stays when its process has ended, and says how.
"""

# An extra, which make test-ray installs.
# pyright: reportMissingImports=false

import os
import threading
from pathlib import Path
from time import monotonic, sleep  # noqa: TID251  (of a real process; nothing here is simulated)
from typing import Any

import msgspec
import platformdirs
import ray.util

from argosy.launchers.ray.child import Child
from argosy.launchers.ray.protocol import Launch

_LOOK_S = 1.0
_GRACE_S = 10.0


class ReplicaActor:
    """Its methods run in threads, several at a time. Values cross as plain builtins.

    Files come by a call of their own: what an actor is made with stays in the cluster's store.
    """

    def __init__(self, launch: bytes, awaits_files: bool = False) -> None:
        what = msgspec.json.decode(launch, type=Launch)
        self._heard_s = monotonic()
        self._child = Child(
            what.name,
            what.argv,
            what.env,
            folder=Path(platformdirs.user_state_dir("argosy")) / "ray" / what.fleet,
            host=ray.util.get_node_ip_address(),
            awaits_files=awaits_files,
        )
        if what.unheard_s_max is not None:
            threading.Thread(
                target=self._end_unheard, args=(what.unheard_s_max,), daemon=True
            ).start()

    def take_files(self, names: list[str], *contents: bytes) -> None:
        """What its process finds in `{files}`; only then is it started."""
        self._child.take_files(dict(zip(names, contents, strict=True)))

    def describe(self) -> dict[str, Any]:
        """A `Description`."""
        self._heard_s = monotonic()
        return msgspec.to_builtins(self._child.describe())

    def next_description(self, version: int, wait_s: float) -> dict[str, Any]:
        """A `Description` as soon as it is another than `version`, or after `wait_s`."""
        self._heard_s = monotonic()
        return msgspec.to_builtins(self._child.next_description(version, wait_s))

    def stop(self, grace_s: float) -> None:
        """End the process; returns when it is gone."""
        self._child.stop(grace_s)

    def _end_unheard(self, unheard_s_max: float) -> None:
        while monotonic() - self._heard_s < unheard_s_max:
            sleep(_LOOK_S)
        self._child.stop(_GRACE_S)
        os._exit(0)  # it gives its chips back
