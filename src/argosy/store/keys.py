"""API keys: minted, listed, revoked, and found by their secret while requests wait.

Owns what a secret looks like and that it is never kept. What a key may do is left to the gateway.
"""

import difflib
import hashlib
import secrets
import threading

import msgspec
import sqlalchemy
from sqlalchemy import Connection, Engine, Row

from argosy.fleet.config import Tier
from argosy.fleet.messages import Key, LiveKeys
from argosy.store.errors import StoreError
from argosy.store.schema import key_table, revision_table, store_errors, writing

SECRET_PREFIX = "argosy-"
SECRET_CHARS = len(SECRET_PREFIX) + 43  # 43 URL-safe characters hold 32 random bytes


class UnknownKeyError(LookupError):
    """No single live key goes by that id or name; the message says which come near."""


def mint(engine: Engine, *, tenant: str, tier: Tier, name: str, now_s: float) -> tuple[str, Key]:
    """A new key and its secret, which is kept nowhere: only its SHA-256 is."""
    secret = SECRET_PREFIX + secrets.token_urlsafe(32)
    with writing(engine) as connection:
        key = Key(
            id=_fresh_id(connection),
            sha256=_sha256(secret),
            tenant=tenant,
            tier=tier,
            name=name,
            created_at_s=now_s,
        )
        connection.execute(sqlalchemy.insert(key_table), [msgspec.structs.asdict(key)])
        _note_change(connection)
    return secret, key


def list_keys(engine: Engine, *, include_revoked: bool = False) -> list[Key]:
    """The keys, oldest first."""
    with engine.connect() as connection:
        return _read_keys(connection, include_revoked=include_revoked)


def revoke(engine: Engine, id_or_name: str, *, now_s: float) -> Key:
    """Close one key; one that was revoked before keeps its time. Raises UnknownKeyError."""
    with writing(engine) as connection:
        key = _only_match(id_or_name, _read_keys(connection, include_revoked=True))
        if key.revoked_at_s is not None:
            return key
        _set_revoked(connection, key_table.c.id == key.id, now_s)
    return msgspec.structs.replace(key, revoked_at_s=now_s)


def revoke_named(engine: Engine, name: str, *, now_s: float) -> int:
    """Close all live keys of that name; how many there were, which may be 0."""
    with writing(engine) as connection:
        return _set_revoked(connection, key_table.c.name == name, now_s)


def live_keys(engine: Engine, *, unlike: int | None) -> LiveKeys | None:
    """The keys that may be used; None while they are those of revision `unlike`.

    Raises StoreError.
    """
    with store_errors("the keys"), engine.connect() as connection:
        # The revision first: a change between the two reads costs one more read, later.
        revision = connection.execute(
            sqlalchemy.select(revision_table.c.revision).where(revision_table.c.name == "keys")
        ).scalar_one()
        if revision == unlike:
            return None
        keys = _read_keys(connection, include_revoked=False)
        return LiveKeys(revision=revision, keys=tuple(keys))


class HeldKeys:
    """The live keys in memory, for the gateway: found without touching the disk.

    `find` may run in one thread while they are replaced in another.
    """

    def __init__(self, told: LiveKeys | None = None) -> None:
        self._replacing = threading.Lock()
        self._revision: int | None = None
        self._keys: dict[str, Key] = {}  # by SHA-256; replaced whole, never changed
        self._by_id: dict[str, Key] = {}
        if told is not None:
            self.take(told)

    def take(self, told: LiveKeys) -> bool:
        """Hold these from now on, where they are newer; whether they were."""
        with self._replacing:
            if self._revision is not None and told.revision <= self._revision:
                return False
            self._hold(told)
            return True

    def find(self, secret: str) -> Key | None:
        """The live key of that secret. Any text may be asked for; it costs one SHA-256 at most."""
        if len(secret) != SECRET_CHARS:
            return None
        return self._keys.get(_sha256(secret))

    def find_by_id(self, key: str) -> Key | None:
        """The live key of that id."""
        return self._by_id.get(key)

    def _hold(self, held: LiveKeys) -> None:
        self._keys = {key.sha256: key for key in held.keys}
        self._by_id = {key.id: key for key in held.keys}
        self._revision = held.revision


class KeyRing(HeldKeys):
    """Those of a store, which is asked again and again."""

    def __init__(self, engine: Engine, told: LiveKeys | None = None) -> None:
        """Raises StoreError, where nothing was told that could be held until the store answers."""
        super().__init__(told)
        self._engine = engine
        try:
            self.refresh()
        except StoreError:
            if told is None:
                raise

    def refresh(self) -> bool:
        """Read the keys again if any process changed one since; whether it did so.

        Raises StoreError; the keys known so far then stay.
        """
        with self._replacing:
            known = self._revision
        found = live_keys(self._engine, unlike=known)
        with self._replacing:  # what was told meanwhile may be newer
            if found is None or self._revision != known:
                return False
            self._hold(found)
            return True


def _sha256(secret: str) -> str:
    # One fast hash, no salt and no stretching: 256 random bits cannot be guessed.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _fresh_id(connection: Connection) -> str:
    while True:
        key_id = f"key_{secrets.token_hex(4)}"
        same = sqlalchemy.select(key_table.c.id).where(key_table.c.id == key_id)
        if connection.execute(same).first() is None:
            return key_id


def _read_keys(connection: Connection, *, include_revoked: bool) -> list[Key]:
    query = sqlalchemy.select(key_table).order_by(key_table.c.created_at_s, key_table.c.id)
    if not include_revoked:
        query = query.where(key_table.c.revoked_at_s.is_(None))
    return [_key(row) for row in connection.execute(query)]


def _key(row: Row) -> Key:
    try:
        return msgspec.convert(row, Key, from_attributes=True)
    except msgspec.ValidationError as error:
        raise StoreError(f"key {row.id} in the store cannot be read: {error}") from error


def _only_match(id_or_name: str, keys: list[Key]) -> Key:
    """The key of that id, revoked or not, or else the only live key of that name."""
    for key in keys:
        if key.id == id_or_name:
            return key
    live = [key for key in keys if key.revoked_at_s is None]
    named = [key for key in live if key.name == id_or_name]
    if len(named) == 1:
        return named[0]
    if named:
        ids = ", ".join(key.id for key in named)
        raise UnknownKeyError(
            f'{len(named)} live keys are named "{id_or_name}". Revoke by id: {ids}'
        )
    known = [key.id for key in live] + [key.name for key in live]
    near = difflib.get_close_matches(id_or_name, dict.fromkeys(known), n=3)
    hint = " Did you mean " + " or ".join(f'"{match}"' for match in near) + "?" if near else ""
    raise UnknownKeyError(
        f'no live key has the id or name "{id_or_name}" (live keys: {len(live)}).{hint}'
        " List them: argosy keys list"
    )


def _set_revoked(
    connection: Connection, which: sqlalchemy.ColumnElement[bool], now_s: float
) -> int:
    revoked = connection.execute(
        sqlalchemy.update(key_table)
        .where(which, key_table.c.revoked_at_s.is_(None))
        .values(revoked_at_s=now_s)
    ).rowcount
    if revoked:
        _note_change(connection)
    return revoked


def _note_change(connection: Connection) -> None:
    connection.execute(
        sqlalchemy.update(revision_table)
        .where(revision_table.c.name == "keys")
        .values(revision=revision_table.c.revision + 1)
    )
