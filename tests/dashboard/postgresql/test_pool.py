"""The connections of one process."""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator

import psycopg
import pytest

from dashboard.postgresql.pool import AGAIN_AFTER_S, LIVES_S, RESTS_S, Pool
from dashboard.postgresql.wire import Wire
from tests.served import eventually


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pool(connect: Callable[[], Wire], clock: Clock) -> Iterator[Pool]:
    made = Pool(connect, 2, 0.0, clock)
    yield made
    made.close()


def pid(wire: Wire) -> int:
    return wire.info.backend_pid


def test_what_was_given_back_is_lent_again(pool):
    first = pool.getconn()
    pool.putconn(first)
    assert pool.getconn() is first
    pool.putconn(first)


def test_two_borrowers_have_two_connections(pool):
    one, other = pool.getconn(), pool.getconn()
    assert pid(one) != pid(other)
    pool.putconn(one)
    pool.putconn(other)


def test_no_more_are_lent_than_there_may_be(pool):
    lent = [pool.getconn(), pool.getconn()]
    with pytest.raises(psycopg.OperationalError, match="all 2 connections"):
        pool.getconn()
    for each in lent:
        pool.putconn(each)


def test_who_waits_has_the_one_that_is_given_back(connect):
    pool = Pool(connect, 1, 30.0)
    lent, found = pool.getconn(), []
    waiting = threading.Thread(target=lambda: found.append(pool.getconn()))
    waiting.start()
    pool.putconn(lent)
    waiting.join()
    assert found == [lent]
    pool.putconn(lent)
    pool.close()


def test_a_connection_lost_with_its_borrower_makes_room(pool):
    pool.getconn(), pool.getconn()
    gc.collect()
    pool.putconn(pool.getconn())


def test_one_left_in_the_middle_of_a_transaction_is_closed(pool):
    lent = pool.getconn()
    lent.execute("BEGIN")
    pool.putconn(lent)
    assert lent.closed


def test_what_the_server_closed_meanwhile_is_not_lent(pool, server):
    lent = pool.getconn()
    pool.putconn(lent)
    server.rows("SELECT pg_terminate_backend(%s)", pid(lent))

    def gone() -> bool:
        return not server.rows("SELECT 1 FROM pg_stat_activity WHERE pid = %s", pid(lent))

    eventually(gone, what="the connection's end")
    fresh = pool.getconn()
    assert fresh.execute("SELECT 1").fetchone() == (1,)
    assert lent.closed
    pool.putconn(fresh)


def test_one_that_has_lived_long_is_replaced(pool, clock):
    old = pool.getconn()
    pool.putconn(old)
    clock.now_s += LIVES_S
    fresh = pool.getconn()
    assert fresh is not old
    assert old.closed
    pool.putconn(fresh)


def test_one_that_has_rested_long_is_closed_when_another_is_given_back(pool, clock):
    one, other = pool.getconn(), pool.getconn()
    pool.putconn(one)
    clock.now_s += RESTS_S
    pool.putconn(other)
    assert one.closed
    assert not other.closed


def test_closing_closes_what_is_lent_when_it_comes_back(pool):
    lent = pool.getconn()
    pool.close()
    assert not lent.closed
    pool.putconn(lent)
    assert lent.closed


def test_a_forked_process_leaves_its_parents_connections_alone(pool):
    lent = pool.getconn()
    pool.putconn(lent)
    told, tell = os.pipe()
    child = os.fork()
    if not child:
        own = pool.getconn()
        os.write(tell, str(pid(own)).encode())
        own.close()
        os._exit(0)
    os.close(tell)
    os.waitpid(child, 0)
    with os.fdopen(told) as said:
        assert int(said.read()) != pid(lent)
    again = pool.getconn()
    assert again is lent
    assert again.execute("SELECT 1").fetchone() == (1,)
    pool.putconn(again)


class Away:
    """A database that refuses connections until it is back. Counts who asked."""

    def __init__(self, connect: Callable[[], Wire]) -> None:
        self.is_away, self.asked, self._connect = True, 0, connect

    def __call__(self) -> Wire:
        self.asked += 1
        if self.is_away:
            raise psycopg.OperationalError("connection refused")
        return self._connect()


def test_while_it_is_away_it_is_asked_now_and_then(connect, clock):
    away = Away(connect)
    pool = Pool(away, 2, 0.0, clock)
    for _ in range(10):
        with pytest.raises(psycopg.OperationalError, match="connection refused"):
            pool.getconn()
    assert away.asked == 1

    clock.now_s += AGAIN_AFTER_S
    with pytest.raises(psycopg.OperationalError, match="connection refused"):
        pool.getconn()
    assert away.asked == 2


def test_when_it_is_back_the_next_try_finds_it(connect, clock):
    away = Away(connect)
    pool = Pool(away, 2, 0.0, clock)
    with pytest.raises(psycopg.OperationalError):
        pool.getconn()
    away.is_away = False
    clock.now_s += AGAIN_AFTER_S

    one, other = pool.getconn(), pool.getconn()
    pool.putconn(one)
    pool.putconn(other)
    pool.close()


def test_one_thread_finds_out_and_the_others_do_not_wait_for_it(connect, clock):
    trying, go_on = threading.Event(), threading.Event()

    class Slow(Away):
        def __call__(self) -> Wire:
            if self.asked:
                trying.set()
                go_on.wait(30)
            return super().__call__()

    pool = Pool(Slow(connect), 3, 0.0, clock)
    with pytest.raises(psycopg.OperationalError):
        pool.getconn()
    clock.now_s += AGAIN_AFTER_S
    failures: list[str] = []

    def borrow() -> None:
        try:
            pool.getconn()
        except psycopg.OperationalError as why:
            failures.append(str(why))

    first = threading.Thread(target=borrow)
    first.start()
    assert trying.wait(30)
    borrow()
    assert failures == ["connection refused"]
    go_on.set()
    first.join()
    assert len(failures) == 2


def test_connections_made_at_once_by_many_threads_are_all_told_apart(connect):
    pool = Pool(connect, 4, 30.0, time.monotonic)
    seen: set[int] = set()
    lent: set[int] = set()
    doubled: list[int] = []

    def work() -> None:
        for _ in range(50):
            wire = pool.getconn()
            number = pid(wire)
            if number in lent:
                doubled.append(number)
            lent.add(number)
            seen.add(number)
            wire.execute("SELECT 1")
            lent.discard(number)
            pool.putconn(wire)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert doubled == []
    assert 1 <= len(seen) <= 4
    pool.close()
