"""What an operator may write: names and addresses that cannot smuggle a line into a header, and settings.

Pure: a value in, the clean value or a sentence out. Whether an address may be connected to is
decided when it is resolved, not here.
"""

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from django.utils.translation import gettext as _

from gateway.relay.parameters import check_rules

NAME_LENGTH = 200
CERTIFICATES_LENGTH = 100_000

TARGET_RANGES: Mapping[str, tuple[float, float]] = {
    "order": (0, 32_767),
    "weight": (0, 1000),
    "max_connections": (1, 10_000),
    "max_keepalive_connections": (0, 10_000),
    "keepalive_expiry_s": (0, 3600),
    "connect_timeout_s": (0.01, 600),
    "read_timeout_s": (0.01, 3600),
    "write_timeout_s": (0.01, 3600),
    "pool_timeout_s": (0.01, 600),
    "max_concurrency": (1, 10_000),
    "max_waiting": (0, 100_000),
    "context_window": (1, 100_000_000),
    "media_tokens": (1, 100_000_000),
}
"""The least and the most of each setting of a target."""
ROUTE_RANGES: Mapping[str, tuple[float, float]] = {
    "timeout_s": (0.01, 86_400),
    "hang_up_drain_s": (0, 3600),
    "max_tokens": (1, 10_000_000),
    "usual_max_tokens": (1, 10_000_000),
    "max_choices": (1, 128),
}
RANGES = {**TARGET_RANGES, **ROUTE_RANGES}


class Unusable(ValueError):
    """A value cannot be used; the message is one sentence that says why."""


def clean_name(raw: str, what: str) -> str:
    """A model name or label without outer blanks. Raises Unusable, which begins with `what`."""
    name = raw.strip(" ")
    if not name:
        raise Unusable(_("%(what)s is empty.") % {"what": what})
    if not name.isprintable():
        raise Unusable(_("%(what)s has a line break or another control character in it.") % {"what": what})
    if len(name) > NAME_LENGTH:
        raise Unusable(
            _("%(what)s is longer than %(most)s characters.") % {"what": what, "most": NAME_LENGTH}
        )
    return name


def clean_credential(raw: str, what: str) -> str:
    """A credential fit for an HTTP header. Raises Unusable, which never repeats the credential."""
    credential = raw.strip(" ")
    if not credential:
        raise Unusable(_("%(what)s is empty.") % {"what": what})
    if not (credential.isascii() and credential.isprintable()) or " " in credential:
        raise Unusable(
            _("%(what)s has a blank, a line break or another character that a credential cannot have.")
            % {"what": what}
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
            _("%(what)s has a blank, a backslash, a query or a fragment in it; end it at the version.")
            % {"what": what}
        )
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise Unusable(_("%(what)s has no usable host and port.") % {"what": what}) from None
    if parts.scheme not in ("http", "https") or not host:
        raise Unusable(_("%(what)s must begin with http:// or https:// and a host name.") % {"what": what})
    if "@" in parts.netloc:
        raise Unusable(_("%(what)s has a user name in it; give the credential by itself.") % {"what": what})
    return url.rstrip("/")


def clean_certificates(raw: str) -> str:
    """Certificates in PEM, as OpenSSL will take them. Raises Unusable. Empty stays empty."""
    pem = raw.strip()
    if "PRIVATE KEY-----" in pem:
        raise Unusable(_("There is a private key among the certificates: give the certificates alone."))
    if len(pem) > CERTIFICATES_LENGTH:
        raise Unusable(
            _("The certificates are longer than %(most)s characters.") % {"most": CERTIFICATES_LENGTH}
        )
    if pem:
        _load(pem)
    return pem


def _load(pem: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=pem.encode("ascii").decode())
    except (ssl.SSLError, ValueError):
        raise Unusable(
            _("This is no certificate in PEM: paste all from -----BEGIN CERTIFICATE----- on.")
        ) from None


def clean_parameters(raw: Any) -> dict[str, Any]:
    """Rules by the name of their parameter, which is not looked at otherwise. Raises Unusable."""
    if not isinstance(raw, dict):
        raise Unusable(_("The parameters are an object of names and rules."))
    try:
        check_rules(raw)
    except ValueError as why:
        raise Unusable(str(why)) from None
    return raw
