"""The state folder as the commands see it: where it is, how it opens, what time it is.

Owns the edge between the store and a person at a terminal: errors become a line and an exit code.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import platformdirs
import typer

if TYPE_CHECKING:
    from sqlalchemy import Engine

STORE_FILE = "argosy.db"  # in the state folder
LEDGER_FILE = "budgets.ledger"  # likewise: what gateway processes share of this run's budgets
QUOTA_FILE = "quotas.ledger"  # and of the quotas of endpoint pools
UP_KEY_NAME = "up"  # the key that each `argosy up` makes, after it revoked the last one's


def default_state_dir() -> Path:
    """Where this operating system keeps a user's state, e.g. ~/.local/state/argosy."""
    return platformdirs.user_state_path("argosy")


STATE_OPTION = typer.Option(
    "--state",
    metavar="DIR",
    default_factory=default_state_dir,
    show_default="the user's state folder, e.g. ~/.local/state/argosy",
    help="The folder that holds keys and usage.",
    file_okay=False,
)
StateDir = Annotated[Path, STATE_OPTION]

StoreUrl = Annotated[
    str,
    typer.Option(
        "--store",
        metavar="URL",
        help="The store that control planes and gateways share, postgresql://USER@HOST/DATABASE; "
        "its password: PGPASSWORD, or ~/.pgpass.",
    ),
]
StoreUrlOrNone = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="URL",
        help="A shared store, postgresql://USER@HOST/DATABASE; unset: the state folder's own.",
    ),
]


@contextmanager
def open_state_store(
    state: Path, url: str | None = None, *, is_needed: bool = True
) -> Iterator["Engine"]:
    """The store of the state folder, or at that URL, until the end of the block.

    Not needed: it may be away, and come back; see `open_store`.
    A store that cannot be opened or used inside the block is told on stderr: exit 1.
    """
    # Imported here: SQLAlchemy alone takes longer to load than `argosy --help` may.
    from argosy.store.schema import StoreError, open_store, place_of, store_errors

    try:
        engine = open_store(store_place(state, url), is_needed=is_needed)
        try:
            with store_errors(place_of(engine)):
                yield engine
        finally:
            engine.dispose()
    except StoreError as error:
        typer.echo(f"argosy: {error}", err=True)
        raise typer.Exit(1) from error


def store_place(state: Path, url: str | None) -> Path | str:
    """What `open_store` takes; a URL without a scheme is a file's path, for tests on one host."""
    if url is None:
        return state / STORE_FILE
    return url if "://" in url else Path(url)


def now_s() -> float:
    """Unix time, from the calendar: the edge may read it and hands it down."""
    return time.time()  # noqa: TID251  the edge reads the calendar, once a command
