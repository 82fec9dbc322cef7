"""`argosy keys`: who may ask. Makes, lists and revokes API keys in the state folder's store.

A running gateway sees a change within seconds; it needs no restart.
"""

from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer

from argosy.cli.state import UP_KEY_NAME, StateDir, StoreUrlOrNone, now_s, open_state_store
from argosy.cli.tables import print_table
from argosy.fleet.config import Name, Tier
from argosy.fleet.messages import Key

keys = typer.Typer(
    name="keys",
    no_args_is_help=True,
    help="Make, list and revoke API keys.\n\n"
    "Try:\n\n"
    "  argosy keys create --tenant acme --tier enterprise --name acme-laptop\n\n"
    "  argosy keys revoke acme-laptop",
)


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True):
    """What `argosy keys create --json` prints."""

    api_key: str
    key: Key


def _checked_name(value: str) -> str:
    try:
        return msgspec.convert(value, Name)
    except msgspec.ValidationError as error:
        raise typer.BadParameter(
            f'"{value}" is not a name: use up to 100 letters, digits and . _ : / -,'
            " beginning with a letter or digit."
        ) from error


def _checked_key_name(value: str) -> str:
    if value == UP_KEY_NAME:
        raise typer.BadParameter(
            f'"{UP_KEY_NAME}" is the key that argosy up makes and revokes; choose another name.'
        )
    return _checked_name(value)


JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


@keys.command()
def create(
    *,
    tenant: Annotated[str, typer.Option(help="Who pays for the requests.", callback=_checked_name)],
    tier: Annotated[Tier, typer.Option(help="The priority class of the requests.")],
    name: Annotated[str, typer.Option(help="What you call the key.", callback=_checked_key_name)],
    state: StateDir,
    store: StoreUrlOrNone = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a key and print its secret, this once.

    Try:

      argosy keys create --tenant acme --tier enterprise --name acme-laptop

      argosy keys create --tenant acme --tier batch --name nightly --json
    """
    with open_state_store(state, store) as engine:
        from argosy.store.keys import mint

        secret, key = mint(engine, tenant=tenant, tier=tier, name=name, now_s=now_s())
    if as_json:
        typer.echo(msgspec.json.encode(CreatedKey(api_key=secret, key=key)))
        return
    typer.echo(f"API key: {secret}")
    typer.echo(f"Keep it: it is not shown again. Revoke it: argosy keys revoke {key.id}", err=True)


@keys.command("list")
def list_(
    *,
    state: StateDir,
    store: StoreUrlOrNone = None,
    include_revoked: Annotated[bool, typer.Option("--all", help="Revoked keys too.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the keys, oldest first; secrets are not kept and cannot be listed.

    Try:

      argosy keys list

      argosy keys list --all --json
    """
    with open_state_store(state, store) as engine:
        from argosy.store.keys import list_keys

        found = list_keys(engine, include_revoked=include_revoked)
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        _print_table(found)


@keys.command()
def revoke(
    *,
    id_or_name: Annotated[str, typer.Argument(metavar="ID_OR_NAME", help="Which key.")],
    state: StateDir,
    store: StoreUrlOrNone = None,
) -> None:
    """Close a key for good; requests under way finish.

    Try:

      argosy keys revoke acme-laptop

      argosy keys revoke nightly
    """
    with open_state_store(state, store) as engine:
        from argosy.store.keys import UnknownKeyError, revoke

        try:
            key = revoke(engine, id_or_name, now_s=now_s())
        except UnknownKeyError as error:
            typer.echo(f"argosy: {error}", err=True)
            raise typer.Exit(1) from error
    typer.echo(f"{key.id} ({key.name}, tenant {key.tenant}) is revoked")


def _print_table(found: list[Key]) -> None:
    print_table(
        ("id", "name", "tenant", "tier", "created (UTC)", "revoked (UTC)"),
        [
            (
                key.id,
                key.name,
                key.tenant,
                key.tier,
                _minute(key.created_at_s),
                _minute(key.revoked_at_s),
            )
            for key in found
        ],
    )


def _minute(at_s: float | None) -> str | None:
    return None if at_s is None else f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M}"
