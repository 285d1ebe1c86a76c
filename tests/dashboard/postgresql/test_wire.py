"""A wait for the database ends."""

import time

import psycopg
import pytest
from psycopg.errors import DivisionByZero


def test_a_frozen_server_is_waited_for_no_longer_than_that(server, connect):
    wire = connect()
    wire.longest_wait_s = 0.3
    server.freeze()
    try:
        began_at_s = time.monotonic()
        with pytest.raises(psycopg.OperationalError, match="did not answer in time"):
            wire.execute("SELECT 1")
        assert time.monotonic() - began_at_s >= 0.3
    finally:
        server.thaw()

    assert wire.closed, "its late answer would be the next statement's"


def test_a_new_connection_to_a_frozen_server_is_given_up_too(server, connect):
    server.freeze()
    try:
        with pytest.raises(psycopg.OperationalError, match="timeout"):
            connect()
    finally:
        server.thaw()


def test_what_the_server_refuses_leaves_the_connection_of_use(connect):
    with connect() as wire:
        wire.longest_wait_s = 10
        with pytest.raises(DivisionByZero):
            wire.execute("SELECT 1 / 0")
        assert wire.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_dies_is_noticed_at_once(server, connect):
    wire = connect()
    wire.longest_wait_s = 60
    server.kill()
    try:
        with pytest.raises(psycopg.OperationalError) as told:
            wire.execute("SELECT 1")
        assert "in time" not in str(told.value)
    finally:
        wire.close()
        server.start()
