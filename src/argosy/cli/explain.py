"""`argosy explain`: where a request went and why, or why the control plane decided something.

The routing decisions and events come from the running gateway, which replays each decision; what
the request cost comes from the store. `decision_text.py` says a decision in words. What the
control plane decided is in the store, with what it was made from (`scaling_text.py`).
"""

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

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
from argosy.cli.state import StateDir, StoreUrlOrNone, open_state_store
from argosy.cli.tables import plain_console, print_table

if TYPE_CHECKING:
    import httpx

    from argosy.cli.decision_log import Read
    from argosy.fleet.messages import RunFile, Usage
    from argosy.gateway.explain import Explanation, Step

_RECENT = 10  # requests that are listed where none is named
_TIMEOUT_S = 5.0
_WRITTEN_AFTER_S = 0.5  # usage is written in batches, a little after the answer
_ID = re.compile(r"req_[0-9a-f]+")
_SEE_IDS = "it is in the header x-request-id of each answer; the latest: argosy explain"


def explain(
    *,
    request: Annotated[
        str | None,
        typer.Argument(
            metavar="REQUEST_ID",
            help="As in the header x-request-id. Without it: the last ten requests.",
            show_default=False,
        ),
    ] = None,
    decision: Annotated[
        int | None,
        typer.Option(
            metavar="SEQ",
            min=1,
            help="A decision of the control plane instead, by its number in argosy events.",
            show_default=False,
        ),
    ] = None,
    fleet: Annotated[
        str | None, typer.Option(help="Whose decision, where the folder has seen several.")
    ] = None,
    state: StateDir,
    store: StoreUrlOrNone = None,
    control: ControlOption = None,
    tls: TlsOption = None,
    port: PortOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show why a request went where it went, or why replicas were scaled.

    Of a request: candidates, scores, waits, failed attempts, cost.

    Of a decision to scale: the loads it was made from, decided once more.

    Try:

      argosy explain

      argosy explain --decision 12
    """
    if decision is not None:
        from argosy.cli.decision_log import far_log, near_log

        if request is not None:
            refuse("a request or a decision, not both: leave REQUEST_ID or --decision away")
        planes = far(control, tls)
        near = far_log(planes) if planes else near_log(state, store, fleet)
        with near as read:
            _explain_decision(read, decision, as_json=as_json)
        return
    if request is None:
        _print_recent(state, as_json=as_json)
        return
    request = request.strip()
    if _ID.fullmatch(request) is None:
        refuse(f"{request[:100]!r} is not a request id: req_ and hexadecimal digits; {_SEE_IDS}")
    told = _ask(running_fleet(state, port), request)
    record = _usage_of(state, request)
    if record is None and not isinstance(told, str) and not told.is_running:
        time.sleep(_WRITTEN_AFTER_S)
        record = _usage_of(state, request)
    if isinstance(told, str):
        if record is None:
            _refuse_unknown(told)
        typer.echo(f"argosy: {told}", err=True)
    explanation = None if isinstance(told, str) else told
    if as_json:
        encoded = msgspec.json.encode({"explanation": explanation, "usage": record})
        typer.echo(msgspec.json.format(encoded, indent=2))
        return
    _print(request, explanation, record)


def _explain_decision(read: "Read", seq: int, *, as_json: bool) -> None:
    from argosy.cli.scaling_text import print_logged, replay

    found, newest = read(after_seq=seq - 1, limit=1), read(limit=1)
    if not found or found[0].seq != seq:
        known = f"the newest is {newest[0].seq}" if newest else "nothing was decided yet"
        refuse(f"there is no decision {seq} in the log; {known}. See: argosy events")
    if as_json:
        told = {"decision": msgspec.structs.asdict(found[0]), "replay": replay(found[0])}
        told["decision"]["inputs"] = found[0].inputs and msgspec.Raw(found[0].inputs)
        typer.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
        return
    print_logged(found[0])


def _ask(run: "RunFile", request: str) -> "Explanation | str":
    """The gateway's story of that request, or why it has none. Exits with 1 without a gateway."""
    from argosy.gateway.explain import Explanation

    answer = _get(run, request)
    url, is_known = run.gateway_url, answer.status_code == 200
    if not is_known and answer.status_code != 404:
        refuse(f"what listens at {url} is not this fleet: HTTP {answer.status_code}")
    try:
        if is_known:
            told = msgspec.json.decode(answer.content, type=Explanation)
        else:
            told = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError) as error:
        refuse(f"what listens at {url} is not this fleet, or another version: {error}")
    return told


def _get(run: "RunFile", request: str) -> "httpx.Response":
    import httpx

    url = run.gateway_url
    try:
        return httpx.get(
            f"{url}/argosy/explain/{request}",
            headers={"authorization": f"Bearer {run.operator_token}"},
            timeout=_TIMEOUT_S,
            trust_env=False,
            verify=own_gateway_tls(run),
        )
    except httpx.HTTPError as error:
        refuse(f"the gateway at {url} does not answer ({error}); is pid {run.pid} up?")


def _refuse_unknown(told: str) -> NoReturn:
    refuse(f"{told}\nThe store has no usage record of it either. Check the id: {_SEE_IDS}")


def _usage_of(state: Path, request: str) -> "Usage | None":
    """The record of one request; None: it has not ended, or was never here."""
    with open_state_store(state) as engine:
        import sqlalchemy

        from argosy.fleet.messages import Usage
        from argosy.store.schema import usage_table

        query = sqlalchemy.select(usage_table).where(usage_table.c.request == request)
        with engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else msgspec.convert(row, Usage, from_attributes=True)


# For people.


def _print(request: str, told: "Explanation | None", record: "Usage | None") -> None:
    from argosy.cli.decision_text import LEGEND, print_decision

    if record is not None:
        names = ("request", "surface", "model", "tenant", "tier")
        row = [getattr(record, name) for name in names]
        print_table((*names, "received (UTC)"), [(*row, _second(record.at_s))])
    elif told is not None:
        typer.echo(f"request {request}, received {told.received_s_ago:.1f} s ago")
    if told is not None:
        _print_steps(told.steps)
        for number, routing in enumerate(told.decisions, 1):
            typer.echo()
            print_decision(routing, number=number, count=len(told.decisions))
        if any(routing.decision.scores for routing in told.decisions):
            typer.echo(f"({LEGEND})")
    typer.echo()
    if record is not None:
        _print_usage(record)
    elif told is not None:
        why = "it is still running" if told.is_running else "it is not on disk yet"
        typer.echo(f"No usage record: {why}.")


def _print_steps(steps: "tuple[Step, ...]") -> None:
    """One line each; where the terminal is narrow the words alone are broken."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("after", justify="right", no_wrap=True)
    table.add_column("step", no_wrap=True)
    table.add_column("", overflow="fold")
    for step in steps:
        # A replica's own words may be among these.
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in step.text)
        table.add_row(f"{step.after_s:.3f} s", step.kind.replace("_", " "), text)
    typer.echo()
    plain_console().print(table)


def _print_usage(record: "Usage") -> None:
    names = ("outcome", "status", "replica", "attempts")
    tokens = ("tokens_in", "tokens_cached", "tokens_out")
    print_table(
        (*names, *(name.replace("_", " ") for name in tokens), "ttft (s)", "duration (s)"),
        [
            (
                *(getattr(record, name) for name in (*names, *tokens)),
                record.ttft_s,
                record.duration_s,
            )
        ],
    )
    if record.reason:
        print_table(("reason",), [(record.reason,)])


def _print_recent(state: Path, *, as_json: bool) -> None:
    with open_state_store(state) as engine:
        from argosy.store.usage import records

        found = records(engine, limit=_RECENT)
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    if not found:
        refuse(f"no request has been recorded in {state}.")
    print_table(
        ("received (UTC)", "request", "outcome", "attempts", "replica", "reason"),
        [
            (_second(one.at_s), one.request, one.outcome, one.attempts, one.replica, one.reason)
            for one in found
        ],
    )
    typer.echo("Why one of them went where it went: argosy explain REQUEST_ID", err=True)


def _second(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S}"
