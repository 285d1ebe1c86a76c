"""O9: the version before goes on writing and reading while the database is migrated, to and fro."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres import running_postgres
from tests.served import ROOT
from tests.system import newer
from tests.system.older import BEFORE, TABLES, Database, Older, at_work

LONGEST_WAIT_S = 1.0
ON = pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
PRICES = "SELECT input_nanos FROM gateway_price ORDER BY valid_from DESC, id DESC"


@contextlib.contextmanager
def database_of_before(kind: str, var_dir: Path) -> Iterator[Database]:
    """As the version before has it, with nothing in it."""
    var_dir.mkdir()
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(running_postgres(quick=False)).url if kind == "postgresql" else ""
        database = Database(var_dir, url)
        database.set_up()
        for table, columns in TABLES.items():
            assert database.columns(table) - {"id"} == set(columns), "what it writes is all that there is"
        yield database


def steps_back() -> Iterator[tuple[str, str]]:
    """App and migration, one step at a time to what the version before knows."""
    for app, last_known in sorted(BEFORE.items(), reverse=True):
        names = [each.name[:4] for each in (ROOT / app / "migrations").glob("[0-9]*.py")]
        for each in sorted((each for each in names if each >= last_known), reverse=True)[1:]:
            yield app, each


def to_and_fro(database: Database) -> Older:
    """The new schema, both versions beside each other on it, each step back, and the new one again."""
    with at_work(database) as older:
        with older.beside("forth"):
            database.migrate()
        with older.beside("both"):
            assert int(database.run("-m", "tests.system.newer", "book")) == newer.CALLS
        for app, name in steps_back():
            with older.beside(f"back to {name}"):
                database.migrate(app, name)
        with older.beside("the version before"):
            assert database.rows(PRICES) == [(1,), (2,), (3,)]
        with older.beside("forth again"):
            database.migrate()
    return older


def check(database: Database, older: Older, filled: int) -> None:
    """Nobody failed, and everything is there once, as the new models read it."""
    assert older.failures == []
    assert len(older.booked) == len(set(older.booked))
    written = filled + len(older.booked)
    found = database.read()
    assert found == {
        "older": written,
        "newer": newer.CALLS,
        "attempts": written + newer.CALLS,
        "wrong": [],
    }
    assert database.rows(PRICES) == [(1,), (2,), (3,)]


@ON
def test_the_version_before_works_on_while_the_database_is_migrated(kind: str, var_dir: Path):
    with database_of_before(kind, var_dir) as database:
        database.fill(20_000)
        check(database, to_and_fro(database), 20_000)


@ON
@pytest.mark.prove
def test_no_migration_of_a_million_calls_holds_anybody_up(
    kind: str, var_dir: Path, say: Callable[[str], None]
):
    with database_of_before(kind, var_dir) as database:
        database.fill(1_000_000)
        older = to_and_fro(database)
        check(database, older, 1_000_000)
    say(f"O9  {kind}, 1,000,000 calls and {len(older.booked):,} booked meanwhile: {older}")
    assert max(older.longest_s.values()) <= LONGEST_WAIT_S
