"""A training run taken out of the store, with all that is told of it."""

import sqlalchemy
from sqlalchemy import Engine

from argosy.store.schema import (
    place_of,
    run_contribution_table,
    run_island_table,
    run_lease_table,
    run_point_table,
    run_round_table,
    run_table,
    store_errors,
    writing,
)

_TABLES = (
    run_point_table,
    run_round_table,
    run_contribution_table,
    run_lease_table,
    run_island_table,
    run_table,
)


def forget_run(engine: Engine, run: str) -> bool:
    """Delete all of it; False: it was not there. Nobody may be training it. Raises StoreError."""
    found = 0
    with store_errors(place_of(engine)), writing(engine) as connection:
        for table in _TABLES:
            deleted = connection.execute(sqlalchemy.delete(table).where(table.c.run == run))
            found = deleted.rowcount
    return bool(found)
