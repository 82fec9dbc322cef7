"""The decision log as `argosy events` reads it: in a store that can be opened, or through a URL."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from argosy.cli.events import fleet_of
from argosy.cli.running import ControlPlanes, ask_control
from argosy.cli.state import open_state_store

if TYPE_CHECKING:
    from argosy.store.decisions import LoggedDecision

    Read = Callable[..., list[LoggedDecision]]  # as `store.decisions.read`, of one fleet

_TIMEOUT_S = 10.0


@contextmanager
def near_log(state: Path, store: str | None, fleet: str | None) -> "Iterator[Read]":
    """Of the state folder's store, or the one at a URL. Exits with 1 where there is none."""
    with open_state_store(state, store) as engine:
        from argosy.store.decisions import read

        yield partial(read, engine, fleet_of(engine, fleet))


@contextmanager
def far_log(control: ControlPlanes) -> "Iterator[Read]":
    """Of the fleet of these control planes. Exits with 1 when none answers."""
    yield partial(_read_far, control)


def _read_far(control: ControlPlanes, **query: object) -> "list[LoggedDecision]":
    from argosy.store.decisions import LoggedDecision

    asked = urlencode({name: value for name, value in query.items() if value is not None})
    body = ask_control(control, f"/v1/events?{asked}", None, timeout_s=_TIMEOUT_S)
    found: list[LoggedDecision] = []
    for told in msgspec.json.decode(body, type=list[dict[str, msgspec.Raw]]):
        inputs = told.pop("inputs", msgspec.Raw(b"null"))
        one = msgspec.json.decode(msgspec.json.encode(told), type=LoggedDecision)
        kept = None if bytes(inputs) == b"null" else bytes(inputs)
        found.append(msgspec.structs.replace(one, inputs=kept))
    return found
