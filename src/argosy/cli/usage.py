"""`argosy usage`: what was asked and what it cost, summed or record by record."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from argosy.cli.state import StateDir, StoreUrlOrNone, now_s, open_state_store
from argosy.cli.tables import print_table

if TYPE_CHECKING:
    from argosy.fleet.messages import Usage
    from argosy.store.usage import UsageRow

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def usage(
    *,
    state: StateDir,
    store: StoreUrlOrNone = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help="How far back: 30m, 1h, 7d. Sums: 1d; records: any time."
        ),
    ] = None,
    by: Annotated[
        Literal["tenant", "key", "model", "replica", "outcome"],
        typer.Option(help="What to sum over."),
    ] = "tenant",
    records: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="The last N records at most, instead of sums."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Show what requests cost: counts, tokens, time to the first token.

    Try:

      argosy usage --since 7d --by model

      argosy usage --records 20 --json
    """
    reach_s = duration_s("1d" if since is None else since)
    with open_state_store(state, store) as engine:
        from argosy.store.usage import records as read_records
        from argosy.store.usage import summarise

        until_s = now_s()
        if records is not None:
            since_s = None if since is None else until_s - reach_s
            found = read_records(engine, limit=records, since_s=since_s)
            _print_records(found, as_json=as_json)
            return
        sums = summarise(engine, since_s=until_s - reach_s, until_s=until_s, by=by)
        _print_sums(sums, by=by, as_json=as_json)


def duration_s(text: str) -> float:
    """Seconds of "90s", "30m", "1h" or "7d"; misuse of the option otherwise."""
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if match is None:
        raise typer.BadParameter(
            f'"{text}" is not a duration: a whole number and s, m, h or d, such as 30m or 7d.',
            param_hint="--since",
        )
    return float(match[1]) * SECONDS[match[2]]


def _print_sums(sums: "list[UsageRow]", *, by: str, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(sums))
        return
    names = ("requests", "finished", "failed", "refused", "cancelled")
    tokens = ("tokens_in", "tokens_cached", "tokens_out")
    print_table(
        (by, *names, *(name.replace("_", " ") for name in tokens), "mean ttft (s)"),
        [
            (row.group, *(getattr(row, name) for name in (*names, *tokens)), row.ttft_s_mean)
            for row in sums
        ],
    )


def _print_records(found: "list[Usage]", *, as_json: bool) -> None:
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    names = ("tenant", "key", "surface", "model", "replica", "outcome", "status", "tokens_in")
    names = (*names, "tokens_out", "ttft_s", "duration_s")
    print_table(
        ("received (UTC)", "request", *names),
        [
            (_second(record.at_s), record.request, *(getattr(record, name) for name in names))
            for record in found
        ],
    )


def _second(at_s: float) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M:%S}"
