"""The detectors of the soak find what is planted, and nothing where there is nothing. Pure."""

import random

import msgspec
import pytest

from tests.system import soaking_figures as s

EVERY_S = 10
HOUR_S = 3600
MIB = s.MIB


def samples(
    growing_mib_an_hour: float = 0.0, role: str = "worker", fds_an_hour: float = 0.0, seed: int = 1
) -> list[s.Sample]:
    """An hour: caches fill for a quarter of it, memory jumps now and then and comes back, counts swing."""
    rng = random.Random(seed)
    return [
        s.Sample(
            at_s=float(at_s),
            role=role,
            pid=7,
            rss=int((200 + own_mib(at_s, growing_mib_an_hour, rng) + journal) * MIB),
            files=journal * MIB,
            fds=40 + rng.randint(-5, 5) + int(fds_an_hour * at_s / HOUR_S),
            sockets=20 + rng.randint(-5, 5),
            threads=12,
            tasks=9 + rng.randint(-3, 3),
        )
        for at_s in range(0, HOUR_S, EVERY_S)
        for journal in [at_s // 60 % 16]
    ]


def own_mib(at_s: float, growing_an_hour: float, rng: random.Random) -> float:
    filling = 30 * min(1.0, at_s / 900)
    return filling + growing_an_hour * at_s / HOUR_S + rng.gauss(0, 0.2) + (8 if rng.random() < 0.05 else 0)


def test_the_slope_of_a_line_is_its_own_and_a_wild_point_does_not_move_it():
    line = [(float(x), 3.0 + 0.5 * x) for x in range(20)]

    assert s.slope(line) == pytest.approx(0.5)
    assert s.slope([*line[:10], (10.0, 900.0), *line[11:]]) == pytest.approx(0.5, rel=0.02)


def test_caches_that_fill_and_a_journal_that_comes_and_goes_are_no_leak():
    assert s.leaks(samples(), HOUR_S * s.WARM_UP_SHARE) == []


def test_two_mebibytes_an_hour_are_a_leak():
    [found] = s.leaks(samples(growing_mib_an_hour=2), HOUR_S * s.WARM_UP_SHARE)

    assert found.startswith("worker: +")
    assert found.endswith("MiB an hour")


def test_half_a_mebibyte_an_hour_is_none():
    assert s.leaks(samples(growing_mib_an_hour=0.5), HOUR_S * s.WARM_UP_SHARE) == []


def test_a_warm_up_that_is_counted_would_be_a_leak():
    assert s.leaks(samples(), 0.0) != []


def test_a_descriptor_every_two_minutes_is_a_leak():
    [found] = s.leaks(samples(fds_an_hour=30), HOUR_S * s.WARM_UP_SHARE)

    assert found.endswith("fds an hour")


def test_a_process_that_died_is_told_of():
    died = [*samples()[:200], *(msgspec.structs.replace(each, pid=8) for each in samples()[200:])]

    assert s.leaks(died, HOUR_S * s.WARM_UP_SHARE) == ["worker: it died and came back"]


def test_each_process_has_a_slope_of_its_own():
    both = [*samples(), *samples(growing_mib_an_hour=5, role="tasks")]

    [found] = s.leaks(both, HOUR_S * s.WARM_UP_SHARE)
    assert found.startswith("tasks: +")


def held(sockets: int, tasks: int | None) -> dict[str, s.Sample]:
    return {"worker": s.Sample(0.0, "worker", 7, MIB, 0, 40, sockets, 12, tasks)}


def test_what_is_not_given_back_is_told_of():
    assert s.not_back(held(5, 9), held(5, 9)) == []
    assert s.not_back(held(5, 9), held(6, 9)) == ["worker: 6 sockets, 5 before"]
    assert s.not_back(held(5, 9), held(4, 12)) == ["worker: 12 tasks, 9 before"]
    assert s.not_back(held(5, None), held(5, None)) == []


def test_warnings_are_found_in_a_log():
    log = """2026-01-02 03:04:05 INFO penstock ready
/app/x.py:3: RuntimeWarning: coroutine 'close' was never awaited
sys:1: ResourceWarning: unclosed <socket.socket fd=9>
ERROR asyncio Unclosed client session
"""

    assert len(s.warnings_in(log)) == 3
