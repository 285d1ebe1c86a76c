"""What an operator may write: names, addresses and credentials that cannot smuggle a line into a header.

Pure: a value in, the clean value or a sentence out. Whether an address may be connected to is
decided when it is resolved, not here.
"""

from urllib.parse import urlsplit

NAME_LENGTH = 200


class Unusable(ValueError):
    """A value cannot be used; the message is one sentence that says why."""


def clean_name(raw: str, what: str) -> str:
    """A model name or label without outer blanks. Raises Unusable, which begins with `what`."""
    name = raw.strip(" ")
    if not name:
        raise Unusable(f"{what} is empty.")
    if not name.isprintable():
        raise Unusable(f"{what} has a line break or another control character in it.")
    if len(name) > NAME_LENGTH:
        raise Unusable(f"{what} is longer than {NAME_LENGTH} characters.")
    return name


def clean_credential(raw: str, what: str) -> str:
    """A credential fit for an HTTP header. Raises Unusable, which never repeats the credential."""
    credential = raw.strip(" ")
    if not credential:
        raise Unusable(f"{what} is empty.")
    if not (credential.isascii() and credential.isprintable()) or " " in credential:
        raise Unusable(
            f"{what} has a blank, a line break or another character that a credential cannot have."
        )
    return credential


def origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port of a clean base URL: who is spoken to, whatever the path."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def clean_base_url(raw: str, what: str) -> str:
    """An http or https address without its closing slash. Raises Unusable, which does not repeat it."""
    url = clean_name(raw, what)
    if " " in url or "\\" in url or "?" in url or "#" in url:
        raise Unusable(
            f"{what} has a blank, a backslash, a query or a fragment in it; end it at the version."
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise Unusable(f"{what} has no usable host and port.") from None
    if parts.scheme not in ("http", "https") or not host:
        raise Unusable(f"{what} must begin with http:// or https:// and a host name.")
    if "@" in parts.netloc:
        raise Unusable(f"{what} has a user name in it; give the credential by itself.")
    return url.rstrip("/")
