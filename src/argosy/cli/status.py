"""`argosy status`: replicas, their health and load, as the running fleet sees them now."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from argosy.cli.running import (
    ControlOption,
    PortOption,
    TlsOption,
    far,
    own_gateway_tls,
    refuse,
    running_fleet,
)
from argosy.cli.state import StateDir
from argosy.cli.tables import fits, plain_console
from argosy.fleet.messages import FleetStatus, QuotaStatus, ReplicaState, ReplicaStatus, RunFile

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

_WATCH_S = 1.0
_TIMEOUT_S = 5.0
_STYLES = {"ready": "green", "starting": "yellow", "suspect": "yellow", "stopping": "yellow"}


def status(
    *,
    state: StateDir,
    port: PortOption = None,
    control: ControlOption = None,
    tls: TlsOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show the replicas of the running fleet: health, load, tokens per second, TTFT.

    Examples:
        argosy status

        argosy status --watch

        argosy status --control http://c1:8470,http://c2:8470

    """
    planes = far(control, tls)
    if planes is not None:
        from argosy.cli.control_status import show

        show(planes, as_json=as_json, watch=watch)
        return
    run = running_fleet(state, port)
    if as_json:
        _print_json(run, watch=watch)
        return
    from rich.live import Live

    if not watch:
        plain_console().print(_Picture(read_status(run)))
        return
    try:
        picture = _Picture(read_status(run))
        with Live(picture, console=plain_console(), auto_refresh=False) as live:
            while True:
                time.sleep(_WATCH_S)
                live.update(_Picture(read_status(run)), refresh=True)
    except KeyboardInterrupt:
        return


def read_status(run: RunFile) -> FleetStatus:
    """Ask the gateway. Exits with 1 when it does not answer."""
    import httpx

    try:
        answer = httpx.get(
            f"{run.gateway_url}/argosy/status",
            headers={"authorization": f"Bearer {run.operator_token}"},
            timeout=_TIMEOUT_S,
            trust_env=False,
            verify=own_gateway_tls(run),
        )
    except httpx.HTTPError as error:
        refuse(f"the gateway at {run.gateway_url} does not answer ({error}); is pid {run.pid} up?")
    if answer.status_code != 200:
        refuse(f"what listens at {run.gateway_url} is not this fleet: HTTP {answer.status_code}")
    return msgspec.json.decode(answer.content, type=FleetStatus)


def _print_json(run: RunFile, *, watch: bool) -> None:
    """One JSON document; with `watch` one line a second."""
    try:
        while True:
            encoded = msgspec.json.encode(read_status(run))
            typer.echo(encoded if watch else msgspec.json.format(encoded, indent=2))
            if not watch:
                return
            time.sleep(_WATCH_S)
    except KeyboardInterrupt:
        return


class _Picture:
    """One screen: as many columns as the terminal holds, and every name whole."""

    def __init__(self, status: FleetStatus) -> None:
        self._status = status

    def __rich_console__(
        self, console: "Console", options: "ConsoleOptions"
    ) -> "Iterator[RenderableType]":
        from rich.text import Text

        status = self._status
        yield Text(f"fleet {status.fleet} at {status.gateway_url}, up {_duration(status.uptime_s)}")
        yield Text(
            f"{status.requests_in_flight} in flight, {status.requests_waiting} waiting, "
            f"connections: {status.connections}"
        )
        yield from _processes(status)
        yield Text()
        table = _table(status.replicas, is_wide=True)
        if not fits(table, console):
            table = _table(status.replicas, is_wide=False)
        yield table
        for row in status.replicas:
            replica = row.replica
            if (replica.state != "ready" or replica.share < 1.0) and replica.reason:
                yield Text(f"{replica.name}: {replica.reason}", style=_style(replica.state))
        yield from map(_quota, status.quotas)
        yield Text("tokens/s and TTFT of streams: requests of the last minute", style="dim")


def _processes(status: FleetStatus) -> "Iterator[RenderableType]":
    """Of the gateway, where there is more to say than that one process serves."""
    from rich.text import Text

    serving = [one for one in status.processes if one.state == "serving"]
    if len(status.processes) > 1 and serving:
        yield Text(f"gateway processes: {', '.join(str(one.pid) for one in serving)}")
    for one in status.processes:
        if one.state == "draining":
            count = one.requests_in_flight
            yield Text(f"gateway process {one.pid} ends its requests ({count}) after a reload")
        elif one.state == "silent":
            yield Text(f"gateway process {one.pid} does not answer; not counted here", style="red")


def _table(rows: tuple[ReplicaStatus, ...], *, is_wide: bool) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("REPLICA", overflow="fold")
    table.add_column("STATE", no_wrap=True)
    if is_wide:
        table.add_column("MODEL", no_wrap=True)
        table.add_column("ENGINE", no_wrap=True)
    for heading in ("IN\nFLIGHT", "\nDONE", "TOKENS\n/S", "TTFT\nP50", "TTFT\nP95", "RE-\nSTARTS"):
        table.add_column(heading, justify="right", no_wrap=True)
    if is_wide:
        table.add_column("PID", justify="right", no_wrap=True)
    for row in rows:
        replica, load = row.replica, row.load
        kind = str(replica.engine.__struct_config__.tag)
        pid = "-" if replica.pid is None else str(replica.pid)
        table.add_row(
            replica.name,
            Text(replica.state, style=_style(replica.state)),
            *((replica.model, kind) if is_wide else ()),
            str(load.requests_in_flight),
            str(load.requests_finished),
            f"{load.tokens_out_per_s:.1f}",
            _seconds(load.ttft_s_p50),
            _seconds(load.ttft_s_p95),
            str(replica.restarts),
            *((pid,) if is_wide else ()),
        )
    return table


def _quota(one: QuotaStatus) -> "RenderableType":
    from rich.text import Text

    parts = [
        f"{left:,} {unit} left at once of {limit:,} a minute"
        for left, limit, unit in (
            (one.requests_left, one.requests_per_min, "requests"),
            (one.tokens_left, one.tokens_per_min, "tokens"),
        )
        if left is not None and limit is not None
    ]
    if one.closed_s is not None:
        parts.append(f"it takes none for {one.closed_s:.0f} s, as it says")
    return Text(f"quota of {one.pool}: {'; '.join(parts)}")


def _style(state: ReplicaState) -> str:
    return _STYLES.get(state, "red")


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value * 1000:.0f} ms"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
