"""API keys, and access tokens in the same form: mint, take apart, digest and compare.

    pst_<public id>_<secret><checksum>
        12 base62    43 base62 (256 bits), 6 base62: CRC-32 of all before it

An access token begins with pat_ instead, so that neither is taken for the other.
The checksum tells a typo or garbage from a key before anything is looked up; it protects nothing.
Pure: no database, no Django.
"""

import hmac
import re
import secrets
import zlib
from typing import NamedTuple

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
PREFIX = "pst_"
ACCESS_PREFIX = "pat_"
"""As long as the other."""
PUBLIC_ID_LENGTH = 12
SECRET_LENGTH = 43
CHECKSUM_LENGTH = 6
LENGTH = len(PREFIX) + PUBLIC_ID_LENGTH + 1 + SECRET_LENGTH + CHECKSUM_LENGTH

_PAIRS = [
    high + low for high in ALPHABET for low in ALPHABET
]  # two digits at once: a checksum in three steps
_BEFORE_CHECKSUM = LENGTH - CHECKSUM_LENGTH
_SHAPES = {
    prefix: re.compile(
        f"{prefix}([0-9A-Za-z]{{{PUBLIC_ID_LENGTH}}})_"
        f"([0-9A-Za-z]{{{SECRET_LENGTH}}})[0-9A-Za-z]{{{CHECKSUM_LENGTH}}}"
    )
    for prefix in (PREFIX, ACCESS_PREFIX)
}


class Parts(NamedTuple):
    """An API key or access token in clear, taken apart. Its repr keeps the secret to itself."""

    public_id: str
    secret: str
    prefix: str = PREFIX

    @property
    def text(self) -> str:
        """As its owner presents it: the only time it is whole."""
        body = f"{self.prefix}{self.public_id}_{self.secret}"
        return body + checksum(body)

    def __repr__(self) -> str:
        return f"<Parts {prefix_of(self.public_id, self.prefix)}…>"


def mint(prefix: str = PREFIX) -> Parts:
    """A new one from the operating system's randomness."""
    return Parts(_random(PUBLIC_ID_LENGTH), _random(SECRET_LENGTH), prefix)


def take_apart(presented: str, prefix: str = PREFIX) -> Parts | None:
    """The parts of a well-formed one with a right checksum, else None. Never raises, whatever it is given."""
    if len(presented) != LENGTH:
        return None
    shape = _SHAPES[prefix].fullmatch(presented)
    if shape is None or checksum(presented[:_BEFORE_CHECKSUM]) != presented[_BEFORE_CHECKSUM:]:
        return None
    return Parts(shape[1], shape[2], prefix)


def prefix_of(public_id: str, prefix: str = PREFIX) -> str:
    """What may be shown of it after it was made."""
    return prefix + public_id


def public_id_of(text: str) -> str:
    """Of a key or the beginning of one, however long: no more than what may be shown."""
    return text.removeprefix(PREFIX).partition("_")[0][:PUBLIC_ID_LENGTH]


def without_secret(text: str) -> str:
    """What somebody looks for, but of a whole API key no more than what may be shown."""
    text = text.strip()
    return prefix_of(public_id_of(text)) if text.startswith(PREFIX) else text


def checksum(text: str) -> str:
    """CRC-32 of ASCII text in six base62 digits, highest first."""
    rest, low = divmod(zlib.crc32(text.encode("ascii")), 3844)
    high, middle = divmod(rest, 3844)
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]


def digest(secret: str, pepper: str) -> bytes:
    """What is stored of a secret: HMAC-SHA-256 under the pepper, 32 bytes."""
    return hmac.digest(pepper.encode(), secret.encode(), "sha256")


def same(one: bytes, other: bytes) -> bool:
    """Compare digests in constant time."""
    return hmac.compare_digest(one, other)


def pepper_id(pepper: str) -> str:
    """Sixteen hex digits that name a pepper and tell nothing of it."""
    return hmac.digest(pepper.encode(), b"penstock: id of an API key pepper", "sha256").hex()[:16]


def fingerprint(pepper: str) -> str:
    """Sixty-four hex digits by which a stored pepper id is held to its pepper."""
    return hmac.digest(pepper.encode(), b"penstock: fingerprint of an API key pepper", "sha256").hex()


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))
