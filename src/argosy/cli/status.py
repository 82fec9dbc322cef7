"""`argosy status`: replicas, their health and load, as the running fleet sees them now."""

import time
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from argosy.cli.running import PortOption, refuse, running_fleet
from argosy.cli.state import StateDir
from argosy.fleet.messages import FleetStatus, RunFile

if TYPE_CHECKING:
    from rich.console import Group

_WATCH_S = 1.0
_TIMEOUT_S = 5.0
_STYLES = {"ready": "green", "starting": "yellow", "suspect": "yellow", "stopping": "yellow"}


def status(
    *,
    state: StateDir,
    port: PortOption = None,
    watch: Annotated[bool, typer.Option("--watch", help="Again every second.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show the replicas of the running fleet: health, load, tokens per second, TTFT.

    Examples:
        argosy status

        argosy status --watch

    """
    run = running_fleet(state, port)
    if as_json:
        _print_json(run, watch=watch)
        return
    from rich.console import Console
    from rich.live import Live

    if not watch:
        Console().print(_picture(read_status(run)))
        return
    try:
        with Live(_picture(read_status(run)), auto_refresh=False) as live:
            while True:
                time.sleep(_WATCH_S)
                live.update(_picture(read_status(run)), refresh=True)
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


def _picture(status: FleetStatus) -> "Group":
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("REPLICA", "STATE", "MODEL", "ENGINE"):
        table.add_column(heading)
    for heading in ("IN FLIGHT", "DONE", "TOKENS/S", "TTFT P50", "TTFT P95", "RESTARTS", "PID"):
        table.add_column(heading, justify="right")
    reasons: list[Text] = []
    for row in status.replicas:
        replica, load = row.replica, row.load
        style = _STYLES.get(replica.state, "red")
        table.add_row(
            replica.name,
            Text(replica.state, style=style),
            replica.model,
            str(replica.engine.__struct_config__.tag),
            str(load.requests_in_flight),
            str(load.requests_finished),
            f"{load.tokens_out_per_s:.1f}",
            _seconds(load.ttft_s_p50),
            _seconds(load.ttft_s_p95),
            str(replica.restarts),
            "-" if replica.pid is None else str(replica.pid),
        )
        if replica.state != "ready" and replica.reason:
            reasons.append(Text(f"{replica.name}: {replica.reason}", style=style))
    head = Text(
        f"fleet {status.fleet} at {status.gateway_url}, up {_duration(status.uptime_s)}: "
        f"{status.requests_in_flight} in flight, {status.requests_waiting} waiting, "
        f"{status.connections} connections"
    )
    foot = Text("tokens/s and TTFT of streams: requests of the last minute", style="dim")
    return Group(head, Text(), table, *reasons, foot)


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value * 1000:.0f} ms"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
