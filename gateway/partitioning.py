"""A migration step that turns a table into parts by month on PostgreSQL, and back, while it is used.

    forth   the table becomes the first part of a new one of its name, with everything up to next month in it
    back    a plain table is filled beside the parts, by a trigger and by copying, and takes their place

No lock is held for longer than names and catalog rows take, whatever the table's size:
what takes long (checking each row's month, copying) goes on beside reads and writes.
Either way may be interrupted anywhere and begun again. On SQLite nothing is done.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.migrations.operations.base import Operation

from gateway.ledger.partitions import ATTEMPTS, ENTRIES, TABLES, WORK, Parted, first_id, make_ahead, month_of
from gateway.patience import patient, with_short_locks

COPIED_AT_ONCE = 20_000
UNIQUE = {ENTRIES.name: "PRIMARY KEY (call_id)", ATTEMPTS.name: "UNIQUE (entry_id, attempt_no)"}
"""The one constraint of its rows that a table in parts can hold, because the parts' key is in it."""
LIKE = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING STORAGE"
NAMES = {ENTRIES.name: "gateway_entry_pkey", ATTEMPTS.name: "attempt_once"}


class PartByMonth(Operation):
    """Of the ledger's entries and attempts. The migration must not be atomic: the steps are."""

    reversible = True
    atomic = False

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Django's models stay as they are."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            for table in TABLES:
                part(table, datetime.now(UTC))
            make_ahead(datetime.now(UTC))

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            for table in TABLES:
                join(table)

    def describe(self) -> str:
        return "Part the ledger's tables by month on PostgreSQL"


# Forth


def part(table: Parted, now: datetime) -> None:
    """Raises DatabaseError."""
    if _kind(table.name) == "p":
        with_short_locks(lambda: _stop_filling(table, f"{table.name}_plain"))
        return
    end = _first_end(table, now)
    check = f"{table.name}_bound"

    def promise() -> None:
        """From now on no row of a later month comes into the old table."""
        _run(
            f"ALTER TABLE {table.name} DROP CONSTRAINT IF EXISTS {check}",
            f"ALTER TABLE {table.name} ADD CONSTRAINT {check} "
            f"CHECK ({table.key} < '{first_id(end)}') NOT VALID",
        )

    with_short_locks(promise)
    with transaction.atomic(), patient(None):
        _run(f"ALTER TABLE {table.name} VALIDATE CONSTRAINT {check}")  # reads every row, and locks none out
    with_short_locks(lambda: _swap_in(table, end, check))


def _first_end(table: Parted, now: datetime) -> datetime:
    """The end of the first part: of the month of the newest call, which may be of a clock that is fast.

    A day more, because midnight may come while this goes on.
    """
    found = _one(f"SELECT MAX({table.key}::text)::uuid FROM {table.name}")  # noqa: S608
    newest = datetime.fromtimestamp((UUID(str(found)).int >> 80) / 1000, UTC) if found else now
    return month_of(max(newest, now) + timedelta(days=1), 1)


def _swap_in(table: Parted, end: datetime, check: str) -> None:
    """In a transaction: the old table becomes the first part of the new one, without being read."""
    old = f"{table.name}_before_{end:%Y_%m}"
    _run(f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE")
    if table is ATTEMPTS:
        _count_in_a_sequence(table)
    indexes = _plain_indexes(table.name)
    _run(f"ALTER TABLE {table.name} RENAME TO {old}")
    for name in [*_index_names(old)]:
        _run(f"ALTER INDEX {name} RENAME TO {name}_before")
    _run(
        f"CREATE TABLE {table.name} (LIKE {old} {LIKE}) PARTITION BY RANGE ({table.key})",
        f"ALTER TABLE {table.name} DROP CONSTRAINT {check}",
        f"ALTER TABLE {table.name} ADD CONSTRAINT {NAMES[table.name]} {UNIQUE[table.name]}",
        *indexes,
        f"ALTER TABLE {table.name} ATTACH PARTITION {old} FOR VALUES FROM (MINVALUE) TO ('{first_id(end)}')",
        f"CREATE TABLE {table.rest} PARTITION OF {table.name} DEFAULT",
        f"ALTER TABLE {old} DROP CONSTRAINT {check}",
    )
    if table is ATTEMPTS:
        _run(f"ALTER SEQUENCE {_sequence(table)} OWNED BY {table.name}.id")


def _count_in_a_sequence(table: Parted) -> None:
    """An identity column cannot be in parts before PostgreSQL 17; the default of a column can."""
    following = _one(f"SELECT COALESCE(MAX(id), 0) + 1 FROM {table.name}")  # noqa: S608
    _run(
        f"ALTER TABLE {table.name} ALTER COLUMN id DROP IDENTITY",
        f"CREATE SEQUENCE {_sequence(table)} START {following}",
        f"ALTER TABLE {table.name} ALTER COLUMN id SET DEFAULT nextval('{_sequence(table)}')",
    )


def _sequence(table: Parted) -> str:
    return f"{table.name}_id_seq"


# Back


def join(table: Parted) -> None:
    """Raises DatabaseError."""
    if _kind(table.name) != "p":
        return
    plain = f"{table.name}_plain"
    with_short_locks(lambda: _begin_plain(table, plain))
    _copy(table, plain)
    with_short_locks(lambda: _swap_out(table, plain))


def _begin_plain(table: Parted, plain: str) -> None:
    """In a transaction: an empty table, to which whatever is written from now on is written too."""
    _run(
        f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE",
        f"SELECT pg_advisory_xact_lock({WORK})",
    )
    _stop_filling(table, plain)
    _run(
        f"CREATE TABLE {plain} (LIKE {table.name} {LIKE})",
        f"ALTER TABLE {plain} ADD CONSTRAINT {NAMES[table.name]}_plain {UNIQUE[table.name]}",
        *(_renamed(each, table.name, plain) for each in _plain_indexes(table.name)),
        f"CREATE FUNCTION {plain}() RETURNS trigger LANGUAGE plpgsql AS "  # noqa: S608
        f"$$ BEGIN INSERT INTO {plain} VALUES (NEW.*) ON CONFLICT DO NOTHING; RETURN NULL; END $$",
        f"CREATE TRIGGER {plain} AFTER INSERT ON {table.name} FOR EACH ROW EXECUTE FUNCTION {plain}()",
    )
    if table is ATTEMPTS:
        _run(f"ALTER TABLE {plain} ADD CONSTRAINT {table.name}_pkey_plain PRIMARY KEY (id)")


def _stop_filling(table: Parted, plain: str) -> None:
    """In a transaction: nothing stays of a way back that was broken off."""
    _run(
        f"DROP TRIGGER IF EXISTS {plain} ON {table.name}",
        f"DROP FUNCTION IF EXISTS {plain}()",
        f"DROP TABLE IF EXISTS {plain}",
    )


def _copy(table: Parted, plain: str) -> None:
    """By the call's id, a bounded number of calls in a transaction. Calls are never changed once written."""
    low: str | None = "00000000-0000-0000-0000-000000000000"
    while low is not None:
        with transaction.atomic(), patient(None):
            high = _one(
                f"SELECT MAX(id::text) FROM (SELECT {table.key} AS id FROM {table.name} "  # noqa: S608
                f"WHERE {table.key} > '{low}' ORDER BY {table.key} LIMIT {COPIED_AT_ONCE}) AS batch"
            )
            if high is not None:
                _run(
                    f"INSERT INTO {plain} SELECT * FROM {table.name} "  # noqa: S608
                    f"WHERE {table.key} > '{low}' AND {table.key} <= '{high}' ON CONFLICT DO NOTHING"
                )
        low = high


def _swap_out(table: Parted, plain: str) -> None:
    """In a transaction."""
    _run(f"LOCK TABLE {table.name} IN ACCESS EXCLUSIVE MODE")
    if table is ATTEMPTS:
        following = _one(f"SELECT nextval('{_sequence(table)}')")
        _run(f"ALTER TABLE {plain} ALTER COLUMN id DROP DEFAULT")
    _run(
        f"DROP TABLE {table.name} CASCADE",
        f"DROP FUNCTION {plain}()",
        f"ALTER TABLE {plain} RENAME TO {table.name}",
    )
    for name in _index_names(table.name):
        _run(f"ALTER INDEX {name} RENAME TO {name.removesuffix('_plain')}")
    if table is ATTEMPTS:
        _run(
            f"ALTER TABLE {table.name} ALTER COLUMN id "
            f"ADD GENERATED BY DEFAULT AS IDENTITY (START {following})",
        )


# Questions


def _kind(table: str) -> str:
    """`p`: in parts; `r`: plain."""
    return str(_one(f"SELECT relkind FROM pg_class WHERE oid = '{table}'::regclass"))  # noqa: S608


def _plain_indexes(table: str) -> list[str]:
    """How to make each index anew that belongs to no constraint."""
    return _column(
        "SELECT pg_get_indexdef(indexrelid) FROM pg_index "  # noqa: S608
        f"WHERE indrelid = '{table}'::regclass AND NOT indisunique"
    )


def _renamed(definition: str, table: str, plain: str) -> str:
    """The same index on another table, under another name."""
    head, _, tail = definition.replace(" ON ONLY ", " ON ").partition(f".{table} ")
    before, _, schema = head.rpartition(" ON ")
    return f"{before}_plain ON {schema}.{plain} {tail}"


def _index_names(table: str) -> list[str]:
    return _column(f"SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = '{table}'::regclass")  # noqa: S608


def _run(*statements: str) -> None:
    with connection.cursor() as cursor:
        for each in statements:
            cursor.execute(each)


def _one(query: str) -> Any:
    return next(iter(_column(query)), None)


def _column(query: str) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return [row[0] for row in cursor.fetchall()]
