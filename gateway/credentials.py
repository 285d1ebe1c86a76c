"""What we present to providers: encrypted at rest, or left in an environment variable.

Keys are passed in, newest first: the newest encrypts, all decrypt.
Nothing here prints or logs a credential; `Secret` hides it from whoever does.
"""

from collections.abc import Mapping, Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from gateway.inputs import Unusable, clean_credential
from gateway.models import Credential
from gateway.relay.catalog import Secret


class CredentialUnreadable(Exception):
    """A credential is there but cannot be had; the message says why and what would do."""


def encrypt(plain: str, keys: Sequence[str]) -> str:
    """Under the newest key. Raises Unusable for what cannot be a credential."""
    return _box(keys).encrypt(clean_credential(plain, "The credential").encode()).decode()


def decrypt(encrypted: str, keys: Sequence[str]) -> str:
    """Under any of the keys. Raises CredentialUnreadable."""
    try:
        return _box(keys).decrypt(encrypted.encode()).decode()
    except InvalidToken:
        raise CredentialUnreadable(
            "It was encrypted under a key that CREDENTIAL_KEYS does not have: "
            "put that key back, or enter the credential again."
        ) from None


def rotate(encrypted: str, keys: Sequence[str]) -> str:
    """The same credential under the newest key. Raises CredentialUnreadable."""
    return encrypt(decrypt(encrypted, keys), keys)


def reveal(credential: Credential, keys: Sequence[str], environ: Mapping[str, str]) -> Secret:
    """The credential itself, for the relay alone. Raises CredentialUnreadable."""
    if credential.encrypted:
        return Secret(decrypt(credential.encrypted, keys))
    return Secret(_from_environment(credential.env_var, environ))


def _from_environment(name: str, environ: Mapping[str, str]) -> str:
    try:
        return clean_credential(environ.get(name, "").strip(), name)
    except Unusable as why:
        if not environ.get(name, "").strip():
            raise CredentialUnreadable(
                f"{name} is not set: set it in the environment and start again."
            ) from None
        raise CredentialUnreadable(str(why)) from None


def _box(keys: Sequence[str]) -> MultiFernet:
    return MultiFernet([Fernet(key) for key in keys])
