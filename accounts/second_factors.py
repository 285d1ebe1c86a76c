"""Secrets of second factors: encrypted at rest, under the keys that credentials of providers are under too.

What was kept in clear by an older version is read as it is, until it is encrypted with the next rotation.
"""

from collections.abc import Iterable

from allauth.mfa.models import Authenticator
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db import transaction

BEGINS = "gAAAA"
"""Of everything that Fernet encrypts: its version, and a moment of this age of the world.

Secrets are Base32, seeds hexadecimal and codes digits, so none of them begins so in clear.
"""
SECRETS = ("secret", "seed")
"""Of an authenticator's data: what codes are made from."""


class Unreadable(Exception):
    """A secret was encrypted under a key that CREDENTIAL_KEYS no longer has."""


def seal(text: str) -> str:
    """Encrypted under the newest key."""
    return _box().encrypt(text.encode()).decode()


def unseal(kept: str) -> str:
    """The secret itself. Raises Unreadable."""
    if not kept.startswith(BEGINS):
        return kept
    try:
        return _box().decrypt(kept.encode()).decode()
    except InvalidToken:
        raise Unreadable(
            "The secret of a second factor was encrypted under a key that CREDENTIAL_KEYS does not have: "
            "put that key back, or remove the second factor of its owner."
        ) from None


def rotate() -> int:
    """Encrypt every secret under the newest key; all or none. Gives how many. Raises Unreadable."""
    with transaction.atomic():
        rows = list(Authenticator.objects.select_for_update().exclude(type=Authenticator.Type.WEBAUTHN))
        for each in rows:
            _reseal(each.data, SECRETS)
            each.save(update_fields=["data"])
    return len(rows)


def _reseal(data: dict[str, object], names: Iterable[str]) -> None:
    for name in names:
        if isinstance(kept := data.get(name), str):
            data[name] = seal(unseal(kept))


def _box() -> MultiFernet:
    return MultiFernet([Fernet(key) for key in settings.CREDENTIAL_KEYS])
