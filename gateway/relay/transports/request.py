"""What goes upstream beside the body: where to, and under which headers."""

import ipaddress

from yarl import URL

from gateway.relay.catalog import Target
from gateway.relay.transports import CannotConnect
from gateway.relay.transports.addresses import ForbiddenAddress, check
from gateway.relay.transports.connecting import no_connection

USER_AGENT = "penstock"


def endpoint(target: Target, *, allow_private: bool) -> URL:
    """Where a target's calls go. Raises CannotConnect.

    An address that is written in the URL meets no resolver, so it is checked here.
    """
    try:
        url = URL(f"{target.base_url.rstrip('/')}/chat/completions")
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        raise CannotConnect("the provider cannot be reached: its base URL is not an http or https one")
    if url.raw_user or url.raw_password:
        raise CannotConnect("the provider cannot be reached: its base URL holds a user or a password")
    if _is_address(url.host):
        try:
            check(url.host, url.host, allow_private=allow_private)
        except ForbiddenAddress as why:
            raise no_connection(why) from None
    return url


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def headers_to(target: Target) -> dict[str, str]:
    """All that goes upstream beside the call id; nothing of the client's own headers does."""
    headers = {
        "Accept": "application/json, text/event-stream",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
        "User-Agent": USER_AGENT,
    }
    if target.credential is not None:
        headers["Authorization"] = f"Bearer {target.credential.value}"
    return headers
