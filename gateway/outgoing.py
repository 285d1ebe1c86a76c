"""Requests of our own to addresses that somebody wrote into a form: webhooks.

Every address is checked as a provider's is, when its name is resolved and before a connection is made.
What a program under our control carries to a provider goes by `relay/transports`, not here.
"""

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx2

from gateway.relay.transports.addresses import CheckedResolver, ForbiddenAddress, check
from gateway.relay.transports.connecting import trust

log = logging.getLogger(__name__)

CONNECT_S = 5.0
TOTAL_S = 10.0
"""From the name's resolution to the answer's end."""
MOST_READ_BYTES = 64 * 1024
"""Of an answer: a receiver that says more is not listened to."""


class NotPosted(Exception):
    """No answer came, or none was asked for; says why in words that name neither the path nor a secret."""


class PlainAddress(OSError):
    """http:// would lead over the internet, where anybody on the way can read."""


class CheckedTransport(httpx2.AsyncBaseTransport):
    """httpx2's own, led to the addresses that were checked.

    The certificate is still held to the name, and the name still stands in the Host header.
    """

    def __init__(self, trusted: ssl.SSLContext, *, allow_private: bool) -> None:
        self._inner = httpx2.AsyncHTTPTransport(verify=trusted, trust_env=False)
        self._resolver = CheckedResolver(allow_private=allow_private)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Try each address until one takes the connection. Raises OSError, httpx2.HTTPError."""
        host = request.url.raw_host.decode("ascii")
        addresses = await self._addresses(request.url, host)
        for address in addresses[:-1]:
            try:
                return await self._inner.handle_async_request(_towards(request, host, address))
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_towards(request, host, addresses[-1]))

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _addresses(self, url: httpx2.URL, host: str) -> list[str]:
        port = url.port or (443 if url.scheme == "https" else 80)
        found = await self._resolver.resolve(host, port)
        addresses = list(dict.fromkeys(each["host"] for each in found))
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "no address")
        # Notices tell of names and spending, and a signature hides nothing.
        if url.scheme != "https" and not all(_is_private(host, each) for each in addresses):
            raise PlainAddress(host)
        return addresses


async def post(
    url: str, body: bytes, headers: Mapping[str, str], *, allow_private: bool, total_s: float = TOTAL_S
) -> int:
    """The status that is answered to a JSON body; redirects are not followed. Raises NotPosted."""
    transport = CheckedTransport(await trust(""), allow_private=allow_private)
    try:
        async with asyncio.timeout(total_s):
            return await _post(transport, url, body, headers)
    except (OSError, UnicodeError, httpx2.HTTPError, httpx2.InvalidURL) as why:
        raise NotPosted(_told(why, url, allow_private=allow_private)) from None


async def _post(transport: CheckedTransport, url: str, body: bytes, headers: Mapping[str, str]) -> int:
    """Without httpx2's client, which logs every address whole: a webhook's may hold a secret."""
    own = {"content-type": "application/json", "user-agent": "Penstock", "accept-encoding": "identity"}
    limits = httpx2.Timeout(None, connect=CONNECT_S)  # the rest is bounded by the deadline of all
    request = httpx2.Request(
        "POST", url, content=body, headers={**own, **headers}, extensions={"timeout": limits.as_dict()}
    )
    async with transport:
        answer = await transport.handle_async_request(request)
        try:
            await _hear_out(answer)
        finally:
            await answer.aclose()
    return answer.status_code


async def _hear_out(answer: httpx2.Response) -> None:
    """Some receivers count a connection that is closed in the middle of their answer as a failure."""
    read = 0
    async for chunk in answer.aiter_raw():
        read += len(chunk)
        if read > MOST_READ_BYTES:
            return


def _is_private(host: str, address: str) -> bool:
    try:
        check(host, address, allow_private=False)
    except ForbiddenAddress:
        return True
    return False


def _towards(request: httpx2.Request, host: str, address: str) -> httpx2.Request:
    return httpx2.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": host},
    )


def _told(why: Exception, url: str, *, allow_private: bool) -> str:
    """The log alone says which names there are on private networks to whom these are closed."""
    reason = _reason(why)
    if allow_private or not isinstance(why, ForbiddenAddress | socket.gaierror):
        return reason
    log.info("nothing was posted to %s: %s", urlsplit(url).hostname, reason)
    return "its name was not found, or leads to an address where no webhook may be"


def _reason(why: Exception) -> str:
    if isinstance(why, TimeoutError | httpx2.TimeoutException):
        return "no connection or no whole answer came in time"
    if isinstance(why, ForbiddenAddress):
        return "its name leads to an address where no webhook may be"
    if isinstance(why, PlainAddress):
        return "it is not on a private network: its address must begin with https://"
    if isinstance(why, socket.gaierror):
        return "its name was not found"
    if isinstance(why, httpx2.InvalidURL | UnicodeError):
        return "its address cannot be used"
    if isinstance(why, httpx2.ConnectError):
        return f"no connection could be made ({_cause(why)})"
    return f"the connection broke off ({type(why).__name__})"


def _cause(why: BaseException) -> str:
    """The words of the first error that has some of the system's, or of TLS."""
    each: BaseException | None = why
    while each is not None:
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate was not accepted: {each.verify_message}"
        if isinstance(each, ssl.SSLError):
            return f"no TLS: {each.reason}"
        if isinstance(each, OSError) and each.errno:
            return os.strerror(each.errno)
        each = each.__cause__ or each.__context__
    return type(why).__name__
