"""Files of the real server: whole or plainly broken off, at the pace of whoever reads."""

import contextlib
import socket
import sqlite3
from collections.abc import Iterator

import pytest

from tests.served import Served, eventually

CALLS = 60_000
"""Some 20 MB as a file: more than a server and a socket hold back for a slow reader."""
MAKE_TOKEN = """
from accounts.models import User
from accounts.tokens import make_token
print("token " + make_token(User.objects.get(), "tests", ["read"])[1])
"""
BOOK = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
INSERT INTO gateway_entry (call_id, team_id, key_id, route, streamed, simulated, outcome, status, code,
    started_at, ended_at, latency_us, input_tokens, cached_tokens, output_tokens, usage_basis, cost_nanos,
    unpriced, tags, priority, skipped)
SELECT printf('%032x', i), (SELECT min(id) FROM accounts_team), (SELECT min(id) FROM accounts_apikey),
    'gpt-4o', 0, 0, 'answered', 200, '', strftime('%Y-%m-%d %H:%M:%S', 1790000000 + i, 'unixepoch'),
    strftime('%Y-%m-%d %H:%M:%S', 1790000001 + i, 'unixepoch'), 5, 10, 0, 35, 'reported', 1000, 0,
    '{}', 'normal', '[]'
FROM n
"""


@pytest.fixture
def token(served: Served) -> str:
    """Of the administrator, to read with; the ledger has many calls."""
    with books(served) as ledger:
        ledger.execute(BOOK, [CALLS])
    return served.manage("shell", "--no-imports", "-c", MAKE_TOKEN).split()[-1]


@contextlib.contextmanager
def books(served: Served) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(served.var_dir / "penstock.sqlite3", timeout=30)) as ledger:
        yield ledger
        ledger.commit()


@contextlib.contextmanager
def asked(served: Served, token: str, status: int = 200) -> Iterator[socket.socket]:
    """A connection on which all calls were asked for, and whose answer has begun."""
    path = "/api/calls.csv?since=2026-09-01T00:00:00Z&until=2026-11-01T00:00:00Z"
    with socket.create_connection(("127.0.0.1", served.port), 60) as wire:
        lines = (f"GET {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {token}", "", "")
        wire.sendall("\r\n".join(lines).encode())
        assert wire.recv(12) == f"HTTP/1.1 {status}".encode()
        yield wire


def begun(wire: socket.socket) -> bytes:
    """What comes until the first call is there, and little more."""
    read = b""
    while b",answered," not in read:
        more = wire.recv(1 << 12)
        assert more, "the file ended before its first call"
        read += more
    return read


def rest(wire: socket.socket) -> bytes:
    """What comes until the last chunk, or until the connection ends."""
    read = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while not read.endswith(b"\r\n0\r\n\r\n") and (more := wire.recv(1 << 20)):
            read += more
    return bytes(read)


def test_all_calls_come_and_the_file_says_where_it_ends(served: Served, token: str) -> None:
    with asked(served, token) as wire:
        read = rest(wire)

    assert read.endswith(b"\r\n0\r\n\r\n")
    assert read.count(b",answered,") == CALLS


def test_a_file_whose_ledger_goes_away_is_broken_off(served: Served, token: str) -> None:
    with asked(served, token) as wire:
        read = begun(wire)
        with books(served) as ledger:
            ledger.execute("ALTER TABLE gateway_entry RENAME TO gone")
        read += rest(wire)

    assert not read.endswith(b"0\r\n\r\n")
    assert 0 < read.count(b",answered,") < CALLS


def test_who_takes_many_files_at_once_is_told_to_wait_until_one_is_done(served: Served, token: str) -> None:
    def has_room() -> bool:
        try:
            with asked(served, token):
                return True
        except AssertionError:
            return False

    with asked(served, token), asked(served, token), asked(served, token):
        with asked(served, token, 429) as wire:
            said = wire.recv(1 << 16)
        assert b"application/problem+json" in said
        assert b"3 files at once" in said

    eventually(has_room, what="room for a file of a reader who left")
