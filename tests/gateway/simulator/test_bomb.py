"""A small gzip that unpacks to a large one."""

import gzip
import zlib

import pytest

from gateway.simulator.bomb import bomb


@pytest.mark.parametrize("blanks", [0, 1, 5000, 1 << 20, (3 << 20) + 17])
def test_it_unpacks_to_head_blanks_and_tail(blanks):
    assert gzip.decompress(bomb(b"head", blanks, b"tail")) == b"head" + b" " * blanks + b"tail"


def test_two_hundred_mebibytes_fit_into_two_hundred_kilobytes():
    packed = bomb(b"{", 200 << 20, b"}")
    assert len(packed) < 250_000
    unpacker, size = zlib.decompressobj(wbits=31), 0
    for start in range(0, len(packed), 1000):
        size += len(unpacker.decompress(packed[start : start + 1000]))
    assert unpacker.eof
    assert size == (200 << 20) + 2
