"""`argosy events`: what the control plane decided, and why, out of its log."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from argosy.cli.running import ControlOption, TlsOption, far, refuse
from argosy.cli.state import StateDir, StoreUrlOrNone, now_s
from argosy.cli.usage import duration_s

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from argosy.store.decisions import LoggedDecision

_FOLLOW_EVERY_S = 0.5
_PAGE = 500


def events(
    subject: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="Of this replica, deployment, pool or node alone."),
    ] = None,
    *,
    state: StateDir,
    store: StoreUrlOrNone = None,
    control: ControlOption = None,
    tls: TlsOption = None,
    since: Annotated[
        str, typer.Option(metavar="DURATION", help="How far back: 30m, 1h, 7d.")
    ] = "1h",
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="create, remove, scale, ready, dead ...")
    ] = None,
    fleet: Annotated[
        str | None, typer.Option(help="Of which fleet, where the folder has seen several.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes; Ctrl-C ends it.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A line of JSON each, with what it was decided from.")
    ] = False,
) -> None:
    """Show what the control plane decided and why, the oldest first, with its number.

    A decision to scale in full: argosy explain --decision NUMBER

    Examples:
        argosy events --since 10m

        argosy events smollm2-135m-1 --json

        argosy events --kind scale --follow

    """
    reach_s = duration_s(since)
    from argosy.cli.decision_log import far_log, near_log

    planes = far(control, tls)
    with far_log(planes) if planes else near_log(state, store, fleet) as read:
        found = read(since_s=now_s() - reach_s, subject=subject, kind=kind, limit=_PAGE)
        newest = found or read(limit=1)
        last = newest[0].seq if newest else 0
        for one in reversed(found):
            _print(one, as_json=as_json)
        while follow:
            try:
                time.sleep(_FOLLOW_EVERY_S)
            except KeyboardInterrupt:
                return
            for one in read(after_seq=last, limit=_PAGE):
                last = one.seq
                if subject in (None, one.subject) and kind in (None, one.kind):
                    _print(one, as_json=as_json)


def fleet_of(store: "Engine", asked: str | None) -> str:
    """The fleet that is meant: the one that was decided for last, unless one is named."""
    from argosy.store.decisions import fleets

    known = fleets(store)
    if asked is not None:
        if asked not in known:
            refuse(f"nothing was decided for a fleet {asked}; known: {', '.join(known) or 'none'}")
        return asked
    if not known:
        refuse("nothing was decided yet: argosy up starts a fleet")
    return known[0]


def _print(one: "LoggedDecision", *, as_json: bool) -> None:
    if as_json:
        from argosy.store.decisions import decision_json

        typer.echo(decision_json(one))
        return
    at = datetime.fromtimestamp(one.at_s, UTC)
    first, *rest = one.reason.splitlines() or [""]
    typer.echo(f"{one.seq:>5}  {at:%Y-%m-%d %H:%M:%S}  {one.kind:<10} {one.subject}  {first}")
    for line in rest:
        typer.echo(f"{'':<39}{line}")
