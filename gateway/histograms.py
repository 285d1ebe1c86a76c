"""Logarithmic histograms of durations: sparse, they add up, and their percentiles are within 1 %.

Pure. Durations are whole microseconds. Live frames and rollups count into the same buckets,
so a page shows the same percentiles while it is live and afterwards.
"""

import struct
import sys
from array import array
from collections.abc import Mapping
from itertools import compress
from math import ceil, log

# A bucket is 2 % wide, so its middle is within 1 % of everything in it.
GAMMA = 1.02
PER_LOG = 1 / log(GAMMA)
"""Buckets for each time that a duration grows by the factor e."""
_MIDDLE = 2 / (GAMMA + 1)
_PAIR = struct.Struct("<HI")
_MOST = 2**32 - 1
_MANY = 1000
"""Pairs from which on a table is quicker than a dictionary."""
_TABLE = 2048
"""Buckets of that table: all durations up to 12,000 years."""

Histogram = dict[int, int]
"""How many durations fell into each logarithmic bucket; sparse, and two of them add up."""


def bucket_of(duration_us: int) -> int:
    """The bucket of a duration; all up to a microsecond share the first."""
    return ceil(log(duration_us) * PER_LOG) if duration_us > 1 else 0


def value_of(bucket: int) -> int:
    """The middle of a bucket, within 1 % of every duration in it."""
    return round(GAMMA**bucket * _MIDDLE)


def percentiles(
    histogram: Mapping[int, int], shares: tuple[float, ...] = (0.5, 0.95, 0.99)
) -> list[int | None]:
    """The duration that each share of all stays within (nearest rank); None where there is none."""
    count = sum(histogram.values())
    if not count:
        return [None for _ in shares]
    found: list[int | None] = []
    buckets = iter(sorted(histogram))
    bucket, seen = 0, 0
    for share in shares:  # growing, so that one walk finds all
        rank = ceil(share * count)
        while seen < rank:
            bucket = next(buckets)
            seen += histogram[bucket]
        found.append(value_of(bucket))
    return found


def add(into: Histogram, more: Mapping[int, int]) -> None:
    """Count another histogram in."""
    for bucket, count in more.items():
        into[bucket] = into.get(bucket, 0) + count


def subtract(from_: Histogram, less: Mapping[int, int]) -> None:
    """Take out what was counted in before."""
    for bucket, count in less.items():
        left = from_[bucket] - count
        if left:
            from_[bucket] = left
        else:
            del from_[bucket]


def packed(histogram: Mapping[int, int]) -> bytes:
    """Six bytes a bucket, in order: its number in two, its count in four, both little-endian.

    A count that does not fit is the largest that does: beyond 4 billion a percentile is as good.
    """
    return b"".join(
        _PAIR.pack(bucket, min(count, _MOST)) for bucket, count in sorted(histogram.items()) if count
    )


def add_packed(into: Histogram, data: bytes) -> None:
    """Count in what `packed` made, or several joined. Raises `struct.error` where it is no such thing.

    A thousand joined cost half of what they cost one by one, or less.
    """
    if len(data) < _MANY * _PAIR.size or len(data) % _PAIR.size:
        _add_pairs(into, data)
        return
    try:
        add(into, _table_of(data))
    except IndexError:  # a bucket that is longer than any call
        _add_pairs(into, data)


def _add_pairs(into: Histogram, data: bytes) -> None:
    for bucket, count in _PAIR.iter_unpack(data):
        into[bucket] = into.get(bucket, 0) + count


def _table_of(data: bytes) -> Histogram:
    """All pairs added up in a list, which is quicker than in a dictionary. Raises IndexError."""
    words = array("H", data)
    if sys.byteorder == "big":
        words.byteswap()
    table = [0] * _TABLE
    for bucket, count in zip(words[0::3], words[1::3], strict=True):
        table[bucket] += count
    if data[4::6].strip(b"\0") or data[5::6].strip(b"\0"):  # counts that need more than two bytes are rare
        for bucket, high in zip(words[0::3], words[2::3], strict=True):
            table[bucket] += high << 16
    return dict(zip(compress(range(_TABLE), table), filter(None, table), strict=True))


def unpacked(data: bytes) -> Histogram:
    """What `packed` made. Raises `struct.error` where it is no such thing."""
    found: Histogram = {}
    add_packed(found, data)
    return found
