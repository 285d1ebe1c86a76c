"""What a comparison takes must not tell how much of a secret was right (goal S3)."""

import gc
import random
import statistics
import time
from collections.abc import Callable
from math import sqrt

import pytest

from accounts import keys

PAIRS = 100_000
MOST_T = 4.5
PEPPER = "a pepper of the house " * 2


def welch_t(one: list[int], other: list[int]) -> float:
    """Welch's t of two samples (B. L. Welch, 1947)."""
    spread = statistics.variance(one) / len(one) + statistics.variance(other) / len(other)
    return (statistics.fmean(one) - statistics.fmean(other)) / sqrt(spread)


def without_interruptions(one: list[int], other: list[int]) -> tuple[list[int], list[int]]:
    """Both cut at the same bound, their common 90th percentile: what is slower was the machine.

    As dudect does (Reparaz, Balasch, Verbauwhede: Dude, is my code constant time?, 2017).
    """
    bound = statistics.quantiles([*one, *other], n=10)[-1]
    return [each for each in one if each <= bound], [each for each in other if each <= bound]


def t_of(compare: Callable[[bytes], bool], one: bytes, other: bytes, pairs: int) -> float:
    """Of interleaved pairs, each in an order drawn by lot."""
    lots, took = random.Random(1), {one: [], other: []}
    gc.collect()
    gc.disable()
    try:
        for _ in range(pairs):
            for presented in (one, other) if lots.random() < 0.5 else (other, one):
                began = time.perf_counter_ns()
                compare(presented)
                took[presented].append(time.perf_counter_ns() - began)
    finally:
        gc.enable()
    return welch_t(*without_interruptions(took[one], took[other]))


def wrong_at(text: bytes, place: int) -> bytes:
    wrong = bytearray(text)
    wrong[place] = ord("x") if wrong[place] != ord("x") else ord("y")
    return bytes(wrong)


def test_the_measure_finds_a_comparison_that_stops_at_the_first_difference():
    right = bytes(range(48, 80))

    def leaks(presented: bytes) -> bool:
        return all(mine == theirs for mine, theirs in zip(right, presented, strict=True))

    assert abs(t_of(leaks, wrong_at(right, 0), wrong_at(right, -1), 2_000)) > MOST_T


@pytest.mark.prove
@pytest.mark.parametrize("what", ["secret", "digest"])
def test_a_comparison_takes_as_long_wherever_it_differs(what, capsys):
    """The secret as it is presented; and, stricter, digests that are right but for one byte."""
    secret = keys.mint().secret.encode()
    stored = keys.digest(secret.decode(), PEPPER)

    def by_secret(presented: bytes) -> bool:
        return keys.same(keys.digest(presented.decode(), PEPPER), stored)

    def by_digest(presented: bytes) -> bool:
        return keys.same(presented, stored)

    compare, right = (by_secret, secret) if what == "secret" else (by_digest, stored)
    # The best of three: one in 150,000 runs passes the bound by chance, and a busy machine tries harder.
    runs = [abs(t_of(compare, wrong_at(right, 0), wrong_at(right, -1), PAIRS)) for _ in range(3)]
    assert min(runs) < MOST_T, runs
    with capsys.disabled():
        print(f"\n{what}: |t| {', '.join(f'{run:.2f}' for run in runs)} over {PAIRS:,} pairs each")
