"""How the tables came to be: one migration after the other, the same list for both databases."""

from collections.abc import Callable, Iterable

from sqlalchemy import Connection, text

from argosy.store import postgresql


def _create_keys_and_usage(connection: Connection) -> None:
    statements = (
        "CREATE TABLE schema_version (version BIGINT NOT NULL)",
        "INSERT INTO schema_version (version) VALUES (0)",
        "CREATE TABLE revisions (name VARCHAR NOT NULL PRIMARY KEY, revision BIGINT NOT NULL)",
        "INSERT INTO revisions (name, revision) VALUES ('keys', 0)",
        "CREATE TABLE keys (id VARCHAR NOT NULL PRIMARY KEY, sha256 VARCHAR NOT NULL UNIQUE,"
        " tenant VARCHAR NOT NULL, tier VARCHAR NOT NULL, name VARCHAR NOT NULL,"
        " created_at_s DOUBLE PRECISION NOT NULL, revoked_at_s DOUBLE PRECISION)",
        "CREATE TABLE usage (request VARCHAR NOT NULL PRIMARY KEY,"
        " at_s DOUBLE PRECISION NOT NULL, tenant VARCHAR, key VARCHAR, tier VARCHAR,"
        " surface VARCHAR NOT NULL, model VARCHAR, replica VARCHAR, outcome VARCHAR NOT NULL,"
        " status BIGINT NOT NULL, reason VARCHAR NOT NULL, attempts BIGINT NOT NULL,"
        " tokens_in BIGINT NOT NULL, tokens_cached BIGINT NOT NULL, tokens_out BIGINT NOT NULL,"
        " ttft_s DOUBLE PRECISION, duration_s DOUBLE PRECISION NOT NULL)",
        "CREATE INDEX ix_usage_at_s ON usage (at_s)",
        "CREATE INDEX ix_usage_tenant_at_s ON usage (tenant, at_s)",
    )
    _execute(connection, statements)


def _create_batches(connection: Connection) -> None:
    statements = (
        "CREATE TABLE files (id VARCHAR NOT NULL PRIMARY KEY, tenant VARCHAR, key VARCHAR,"
        " purpose VARCHAR NOT NULL, filename VARCHAR NOT NULL, bytes BIGINT NOT NULL,"
        " created_at_s DOUBLE PRECISION NOT NULL, batch VARCHAR, part VARCHAR)",
        "CREATE INDEX ix_files_tenant_id ON files (tenant, id)",
        "CREATE TABLE file_chunks (file VARCHAR NOT NULL, position BIGINT NOT NULL,"
        " content BLOB NOT NULL, PRIMARY KEY (file, position))",
        "CREATE TABLE batches (id VARCHAR NOT NULL PRIMARY KEY, tenant VARCHAR, key VARCHAR,"
        " tier VARCHAR NOT NULL, api VARCHAR NOT NULL, endpoint VARCHAR NOT NULL,"
        " state VARCHAR NOT NULL, model VARCHAR, input_file VARCHAR, output_file VARCHAR,"
        " error_file VARCHAR, metadata VARCHAR, faults VARCHAR NOT NULL,"
        " created_at_s DOUBLE PRECISION NOT NULL, expires_at_s DOUBLE PRECISION NOT NULL,"
        " started_at_s DOUBLE PRECISION, cancelling_at_s DOUBLE PRECISION,"
        " ended_at_s DOUBLE PRECISION, items BIGINT NOT NULL, succeeded BIGINT NOT NULL,"
        " errored BIGINT NOT NULL, canceled BIGINT NOT NULL, expired BIGINT NOT NULL)",
        "CREATE INDEX ix_batches_state ON batches (state)",
        "CREATE INDEX ix_batches_tenant_id ON batches (tenant, id)",
        "CREATE TABLE batch_items (batch VARCHAR NOT NULL, position BIGINT NOT NULL,"
        " custom_id VARCHAR NOT NULL, state VARCHAR NOT NULL, attempts BIGINT NOT NULL,"
        " outcome VARCHAR, status BIGINT, request VARCHAR, body BLOB, line BLOB,"
        " PRIMARY KEY (batch, position))",
    )
    _execute(connection, statements)


def _create_control(connection: Connection) -> None:
    statements = (
        "CREATE TABLE leases (name VARCHAR NOT NULL PRIMARY KEY, holder VARCHAR,"
        " token BIGINT NOT NULL, granted_at_s DOUBLE PRECISION NOT NULL,"
        " expires_at_s DOUBLE PRECISION NOT NULL)",
        "CREATE TABLE fleet_records (fleet VARCHAR NOT NULL, kind VARCHAR NOT NULL,"
        " name VARCHAR NOT NULL, body BLOB NOT NULL, PRIMARY KEY (fleet, kind, name))",
        "CREATE TABLE replica_tables (fleet VARCHAR NOT NULL PRIMARY KEY, version BIGINT NOT NULL,"
        " at_s DOUBLE PRECISION NOT NULL, body BLOB NOT NULL)",
        "CREATE TABLE fleet_specs (fleet VARCHAR NOT NULL, revision BIGINT NOT NULL,"
        " at_s DOUBLE PRECISION NOT NULL, applied_by VARCHAR NOT NULL, sha256 VARCHAR NOT NULL,"
        " text VARCHAR NOT NULL, PRIMARY KEY (fleet, revision))",
        "CREATE TABLE decisions (fleet VARCHAR NOT NULL, seq BIGINT NOT NULL,"
        " at_s DOUBLE PRECISION NOT NULL, token BIGINT NOT NULL, kind VARCHAR NOT NULL,"
        " subject VARCHAR NOT NULL, reason VARCHAR NOT NULL, inputs BLOB,"
        " PRIMARY KEY (fleet, seq))",
        "CREATE INDEX ix_decisions_fleet_at_s ON decisions (fleet, at_s)",
        "CREATE INDEX ix_decisions_fleet_subject_seq ON decisions (fleet, subject, seq)",
    )
    _execute(connection, statements)


def _create_runs(connection: Connection) -> None:
    statements = (
        "CREATE TABLE runs (run VARCHAR NOT NULL PRIMARY KEY, spec VARCHAR NOT NULL,"
        " state VARCHAR NOT NULL, wanted VARCHAR NOT NULL,"
        " created_at_s DOUBLE PRECISION NOT NULL, ended_at_s DOUBLE PRECISION,"
        " blocks BIGINT NOT NULL, blocks_a_step BIGINT NOT NULL, frontier BIGINT NOT NULL,"
        " freed VARCHAR NOT NULL, blocks_done BIGINT NOT NULL, version BIGINT, seed VARCHAR)",
        "CREATE TABLE run_islands (run VARCHAR NOT NULL, island VARCHAR NOT NULL,"
        " epoch BIGINT NOT NULL, state VARCHAR NOT NULL, number BIGINT NOT NULL,"
        " joined_at_s DOUBLE PRECISION NOT NULL, beat_at_s DOUBLE PRECISION NOT NULL,"
        " steps_per_s DOUBLE PRECISION, waited_s DOUBLE PRECISION NOT NULL,"
        " blocks_done BIGINT NOT NULL, bytes_in BIGINT NOT NULL, bytes_out BIGINT NOT NULL,"
        " PRIMARY KEY (run, island))",
        "CREATE TABLE run_leases (run VARCHAR NOT NULL, lease VARCHAR NOT NULL,"
        " island VARCHAR NOT NULL, epoch BIGINT NOT NULL, spans VARCHAR NOT NULL,"
        " blocks BIGINT NOT NULL, state VARCHAR NOT NULL,"
        " granted_at_s DOUBLE PRECISION NOT NULL, PRIMARY KEY (run, lease))",
        "CREATE INDEX ix_run_leases_run_state ON run_leases (run, state)",
        "CREATE TABLE run_contributions (run VARCHAR NOT NULL, island VARCHAR NOT NULL,"
        " epoch BIGINT NOT NULL, number BIGINT NOT NULL, base_version BIGINT NOT NULL,"
        " lease VARCHAR NOT NULL, steps BIGINT NOT NULL, blocks BIGINT NOT NULL,"
        " loss DOUBLE PRECISION NOT NULL, fragments VARCHAR NOT NULL,"
        " tokens_sha256 VARCHAR NOT NULL, state VARCHAR NOT NULL, version BIGINT,"
        " reason VARCHAR NOT NULL, at_s DOUBLE PRECISION NOT NULL,"
        " PRIMARY KEY (run, island, epoch, number))",
        "CREATE INDEX ix_run_contributions_run_state ON run_contributions (run, state)",
        "CREATE TABLE run_rounds (run VARCHAR NOT NULL, version BIGINT NOT NULL,"
        " contributions VARCHAR NOT NULL, settings VARCHAR NOT NULL, reason VARCHAR NOT NULL,"
        " blocks_done BIGINT NOT NULL, at_s DOUBLE PRECISION NOT NULL,"
        " PRIMARY KEY (run, version))",
        "CREATE TABLE run_points (run VARCHAR NOT NULL, seq BIGINT NOT NULL,"
        " at_s DOUBLE PRECISION NOT NULL, kind VARCHAR NOT NULL, island VARCHAR NOT NULL,"
        " version BIGINT NOT NULL, blocks_done BIGINT NOT NULL, loss DOUBLE PRECISION NOT NULL,"
        " PRIMARY KEY (run, seq))",
    )
    _execute(connection, statements)


def _add_figures(connection: Connection) -> None:
    names = ("mfu", "energy_j_per_million_tokens", "cost_usd_per_million_tokens")
    _execute(
        connection,
        [f"ALTER TABLE run_islands ADD COLUMN {name} DOUBLE PRECISION" for name in names],
    )


def _execute(connection: Connection, statements: Iterable[str]) -> None:
    is_postgresql = connection.dialect.name == "postgresql"
    for statement in statements:
        connection.execute(text(postgresql.spelt(statement) if is_postgresql else statement))


# The n-th brings a store from version n - 1 to n. One that was released never changes, so it
# spells its SQL out instead of reading schema.py's tables; a test holds the two together.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    _create_keys_and_usage,
    _create_batches,
    _create_control,
    _create_runs,
    _add_figures,
)
