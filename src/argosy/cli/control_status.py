"""`argosy status --control`: who leads, the replicas, the gateways that report."""

import time
from typing import TYPE_CHECKING

import typer

from argosy.cli.running import ask_control
from argosy.cli.tables import print_table

if TYPE_CHECKING:
    from argosy.cli.running import ControlPlanes
    from argosy.control.api import ControlStatus

_TIMEOUT_S = 5.0
_WATCH_S = 1.0


def show(control: "ControlPlanes", *, as_json: bool, watch: bool) -> None:
    """Print it, once or every second. Exits with 1 when no control plane answers."""
    import msgspec

    from argosy.control.api import ControlStatus

    try:
        while True:
            body = ask_control(control, "/v1/status", None, timeout_s=_TIMEOUT_S)
            if as_json:
                typer.echo(body if watch else msgspec.json.format(body, indent=2))
            else:
                _print(msgspec.json.decode(body, type=ControlStatus))
            if not watch:
                return
            time.sleep(_WATCH_S)
    except KeyboardInterrupt:
        return


def _print(status: "ControlStatus") -> None:
    leader = "nobody leads" if status.leader is None else f"{status.leader} leads"
    age = "never confirmed" if status.age_s is None else f"confirmed {status.age_s:.1f} s ago"
    typer.echo(f"fleet {status.fleet}: {leader}; table {status.version}, {age}")
    print_table(
        ("replica", "state", "model", "pool", "node", "url", "restarts"),
        [
            (row.name, row.state, row.model, row.pool, row.node, row.url, row.restarts)
            for row in status.replicas
        ],
    )
    for row in status.replicas:
        if row.state != "ready" and row.reason:
            typer.echo(f"{row.name}: {row.reason}")
    for wait in status.waits or ():
        typer.echo(f"waits: {wait}")
    print_table(
        ("gateway", "url", "table", "heard (s ago)", "in flight"),
        [
            (one.name, one.url, one.version, round(one.silent_s, 1), one.requests_in_flight)
            for one in status.gateways
        ],
    )
