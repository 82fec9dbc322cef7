"""Waits for news: each actor owes one answer, which it gives when its replica changes.

What the cluster itself says (actors that died, nodes) is looked at between, twice a second.
"""

# An extra, which make test-ray installs.
# pyright: reportMissingImports=false

from time import monotonic, sleep  # noqa: TID251  (Ray's time is real; nothing here is simulated)
from typing import Any

import ray

from argosy.launchers.ray.sight import Sight

_LOOK_S = 0.25
_NEWS_S = 10.0  # an actor answers at the latest then
_SILENT_S = 15.0


class Listening:
    """`step` again and again."""

    def __init__(self, sight: Sight) -> None:
        self._sight = sight
        self._signature: tuple[Any, ...] | None = None
        self._listened_s = monotonic()
        self._owed: dict[Any, tuple[str, float]] = {}  # by reference: actor, asked at (monotonic)

    def step(self) -> bool:
        """Wait a little; True when there is something new."""
        signature, alive = self._sight.look()
        self._excuse()
        is_new = signature != self._signature
        self._signature = signature
        self._ask(alive)
        if not self._owed:
            sleep(_LOOK_S)
            self._listened_s = monotonic()
            return is_new
        answered, _ = ray.wait(list(self._owed), num_returns=1, timeout=_LOOK_S)
        self._listened_s = monotonic()
        for ref in answered:
            id, _ = self._owed.pop(ref)
            was = self._sight.version(id)
            heard = self._sight.hear(id, ref)
            is_new = is_new or not heard or self._sight.version(id) != was
        return is_new

    def _excuse(self) -> None:
        """A look that hangs, or fails, is the head's doing: meanwhile no actor could be heard."""
        unheard_s = monotonic() - self._listened_s
        if unheard_s > _LOOK_S:
            self._owed = {ref: (id, at_s + unheard_s) for ref, (id, at_s) in self._owed.items()}

    def _ask(self, alive: dict[str, str]) -> None:
        now_s = monotonic()
        owing = {id for id, _ in self._owed.values()}
        for id, name in alive.items():
            if id not in owing and (handle := self._sight.handle(id, name)) is not None:
                ref = handle.next_description.remote(self._sight.version(id), _NEWS_S)
                self._owed[ref] = (id, now_s)
        for ref, (id, _) in list(self._owed.items()):
            if id not in alive:
                del self._owed[ref]
        self._sight.silent = {
            id for id, asked_s in self._owed.values() if now_s - asked_s > _SILENT_S
        }
