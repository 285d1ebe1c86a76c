"""One connection to Redis that carries the scripts: a few commands out, their answers back, in order.

The general client costs several times what the scripts' own work does (figures in docs/limits.md),
so the part that every call pays for is this one. Knows no limits, and never tries again.
The protocol is RESP2: https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Any, cast

from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url

Reply = bytes | int | None | Exception | list[Any]
Command = Sequence[bytes]


class LinkLost(Exception):
    """The connection is gone, or was never made. The message says why."""


class RedisRefused(Exception):
    """Redis answered a command with an error, in its own words."""


class Incomplete(Exception):
    """The rest of an answer has not come yet."""


def packed(command: Command) -> bytes:
    """A command as an array of bulk strings."""
    parts = [b"*%d\r\n" % len(command)]
    for each in command:
        parts.append(b"$%d\r\n" % len(each))
        parts.append(each)
        parts.append(b"\r\n")
    return b"".join(parts)


def read(data: bytes | bytearray, at: int) -> tuple[Reply, int]:
    """The reply that begins there, and where the next one does. Raises Incomplete, LinkLost."""
    end = data.find(b"\r\n", at)
    if end < 0:
        raise Incomplete
    kind, rest, after = data[at : at + 1], bytes(data[at + 1 : end]), end + 2
    if kind == b"$":
        return _bulk(data, int(rest), after)
    if kind == b":":
        return int(rest), after
    if kind == b"+":
        return rest, after
    if kind == b"-":
        return RedisRefused(rest.decode("utf-8", "replace")), after
    if kind == b"*":
        return _array(data, int(rest), after)
    raise LinkLost("what answers does not speak Redis's protocol")


def _bulk(data: bytes | bytearray, length: int, at: int) -> tuple[bytes | None, int]:
    if length < 0:
        return None, at
    if len(data) < at + length + 2:
        raise Incomplete
    return bytes(data[at : at + length]), at + length + 2


def _array(data: bytes | bytearray, length: int, at: int) -> tuple[list[Reply] | None, int]:
    if length < 0:
        return None, at
    found = []
    for _ in range(length):
        each, at = read(data, at)
        found.append(each)
    return found, at


class Link(asyncio.Protocol):
    """One round trip at a time: `send`, and then `answered` or, once and for all, `lost` is called."""

    def __init__(self, answered: Callable[[list[Reply]], None], lost: Callable[[str], None]) -> None:
        self._answered, self._lost = answered, lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._expected = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def send(self, commands: Sequence[Command]) -> None:
        """Their answers come together."""
        assert self._transport is not None
        assert not self._expected, "one round trip at a time"
        self._expected = len(commands)
        self._transport.write(b"".join([packed(each) for each in commands]))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            replies = self._replies()
        except Incomplete:
            return
        except (LinkLost, ValueError) as wrong:
            self._give_up(f"its answer cannot be read: {wrong}")
            return
        self._buffer.clear()
        self._expected = 0
        self._answered(replies)

    def _replies(self) -> list[Reply]:
        found, at = [], 0
        for _ in range(self._expected):
            each, at = read(self._buffer, at)
            found.append(each)
        return found

    def connection_lost(self, exc: Exception | None) -> None:
        self._give_up(f"the connection ended: {exc}" if exc else "the connection ended")

    def _give_up(self, why: str) -> None:
        lost, self._lost = self._lost, _nobody
        self.close()
        lost(why)

    def close(self) -> None:
        """At once, whatever is still to be sent. Nobody is told."""
        self._lost, self._answered = _nobody, _nothing
        if self._transport is not None:
            self._transport.abort()


def _nobody(why: str) -> None:
    """Nobody is told any more."""


def _nothing(replies: list[Reply]) -> None:
    """Nobody waits any more."""


class Talk:
    """A link on which one asks and waits; used before it is handed on to carry calls."""

    def __init__(self) -> None:
        self.link = Link(self._answered, self._ended)
        self._waiting: asyncio.Future[list[Reply]] | None = None

    async def ask(self, *commands: Command) -> list[Reply]:
        """Raises LinkLost, RedisRefused."""
        self._waiting = asyncio.get_running_loop().create_future()
        self.link.send(commands)
        replies = await self._waiting
        for each in replies:
            if isinstance(each, Exception):
                raise each
        return replies

    def hand_on(self, answered: Callable[[list[Reply]], None], lost: Callable[[str], None]) -> Link:
        """From now on somebody else hears."""
        self.link._answered, self.link._lost = answered, lost
        return self.link

    def _answered(self, replies: list[Reply]) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(replies)

    def _ended(self, why: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(LinkLost(why))


async def connected(url: str) -> Talk:
    """A connection to `redis://`, `rediss://` or `unix://`, signed in, at its database.

    Raises LinkLost, RedisRefused, OSError.
    """
    settings = parse_url(url)
    talk = Talk()
    try:
        await _connect(talk.link, settings)
        for command in _sign_in(settings):
            await talk.ask(command)
    except BaseException:
        talk.link.close()
        raise
    return talk


async def _connect(link: Link, settings: Any) -> None:
    loop = asyncio.get_running_loop()
    if settings.get("connection_class") is UnixDomainSocketConnection:
        await loop.create_unix_connection(lambda: link, settings["path"])
        return
    host, port = settings.get("host", "localhost"), settings.get("port", 6379)
    await loop.create_connection(lambda: link, host, port, ssl=_secured(settings))


def _secured(settings: Any) -> ssl.SSLContext | None:
    """As the general client reads these parts of the address."""
    if settings.get("connection_class") is not SSLConnection:
        return None
    context = ssl.create_default_context(cafile=settings.get("ssl_ca_certs"))
    if settings.get("ssl_cert_reqs") == "none":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _sign_in(settings: Any) -> list[Command]:
    found: list[Command] = []
    if settings.get("password"):
        names = [settings["username"].encode()] if settings.get("username") else []
        found.append([b"AUTH", *names, settings["password"].encode()])
    if settings.get("db"):
        found.append([b"SELECT", b"%d" % int(settings["db"])])
    return found
