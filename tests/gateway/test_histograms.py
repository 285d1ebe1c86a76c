"""Histograms know percentiles within 1 %, add up, and come back from bytes as they were."""

import struct
from collections import Counter
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.histograms import add, add_packed, bucket_of, packed, percentiles, subtract, unpacked, value_of

durations_us = st.integers(0, 3_600_000_000)
histograms = st.lists(durations_us, max_size=50).map(lambda each: dict(Counter(map(bucket_of, each))))


@given(st.lists(st.integers(50, 600_000_000), min_size=1, max_size=300))
def test_percentiles_are_within_one_percent_of_the_nearest_rank(durations: list[int]) -> None:
    histogram = Counter(bucket_of(duration) for duration in durations)
    ordered = sorted(durations)
    for share, found in zip((0.5, 0.95, 0.99), percentiles(dict(histogram)), strict=True):
        exact = ordered[ceil(share * len(ordered)) - 1]
        assert found is not None
        assert abs(found - exact) <= 0.01 * exact + 0.5  # it is rounded to a microsecond


def test_a_duration_of_nothing_has_a_bucket_too() -> None:
    assert [bucket_of(0), bucket_of(1)] == [0, 0]
    assert value_of(0) == 1


def test_there_is_no_percentile_of_nothing() -> None:
    assert percentiles({}) == [None, None, None]


@given(histograms)
def test_a_histogram_comes_back_from_bytes(histogram: dict[int, int]) -> None:
    assert unpacked(packed(histogram)) == histogram
    assert len(packed(histogram)) == 6 * len(histogram)


@given(histograms, histograms)
def test_two_histograms_add_up_and_one_can_be_taken_out_again(
    one: dict[int, int], other: dict[int, int]
) -> None:
    both = dict(one)
    add(both, other)
    assert both == Counter(one) + Counter(other)

    from_bytes = dict(one)
    add_packed(from_bytes, packed(other))
    assert from_bytes == both

    subtract(both, other)
    assert both == one


def test_a_count_beyond_four_bytes_is_the_most_that_fits() -> None:
    assert unpacked(packed({7: 2**40})) == {7: 2**32 - 1}


def test_the_longest_duration_has_a_bucket_that_can_be_packed() -> None:
    assert unpacked(packed({bucket_of(2**63): 1})) == {bucket_of(2**63): 1}


@pytest.mark.parametrize(
    "one",
    [
        {each: each % 7 + 1 for each in range(300, 340)},
        {each: 2**16 * each + each for each in range(300, 340)},  # more than two bytes of a count
        dict.fromkeys(range(2030, 2070), 1),  # longer than any call
    ],
)
def test_many_joined_are_the_sum_of_each(one: dict[int, int]) -> None:
    joined = {305: 4}
    add_packed(joined, packed(one) * 50)

    assert joined == Counter({305: 4}) + Counter({bucket: 50 * count for bucket, count in one.items()})


def test_what_is_cut_off_is_no_histogram() -> None:
    for data in (packed({3: 1})[:-1], packed(dict.fromkeys(range(300), 1))[:-1]):
        with pytest.raises(struct.error):
            unpacked(data)
