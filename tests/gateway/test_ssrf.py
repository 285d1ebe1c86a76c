"""Nobody can talk us into a connection to this machine: a listener on loopback counts what reaches it.

Every way in which we connect to an address that somebody wrote is a door. Through each goes the same list of
spellings of loopback, with private addresses closed; the same doors reach the listener where they are open,
so that a listener which counts nothing, or a spelling that leads nowhere, does not pass for safety.
Only loopback is ever connected to: what the doors would send elsewhere is written down and refused.
"""

import asyncio
import contextlib
import ipaddress
import socket
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from gateway import probing
from gateway.outgoing import NotPosted, post
from gateway.relay.catalog import PoolConfig, Secret, Target
from gateway.relay.transports import TransportError
from gateway.relay.transports.choice import Transports

CREDENTIAL = "sk-for-its-own-origin-alone-0123456789"
PUBLIC = "93.184.216.34"
"""What a name leads to before it leads elsewhere; nothing is sent there."""
METADATA = "169.254.169.254"
REDIRECTS = (301, 302, 303, 307, 308)

LEADING_HERE = [
    "http://127.0.0.1:{port}/v1",
    "HTTP://LOCALHOST:{port}/v1",
    "http://localhost:{port}/v1/../v1",
    "http://2130706433:{port}/v1",  # decimal
    "http://017700000001:{port}/v1",  # octal
    "http://0177.0.0.1:{port}/v1",
    "http://0x7f000001:{port}/v1",  # hexadecimal
    "http://0x7f.0.0.0x1:{port}/v1",
    "http://127.1:{port}/v1",  # short
    "http://127.0.1:{port}/v1",
    "http://[::1]:{port}/v1",
    "http://[0:0:0:0:0:0:0:1]:{port}/v1",
    "http://[::ffff:127.0.0.1]:{port}/v1",  # mapped
    "http://[::ffff:7f00:1]:{port}/v1",
    "http://loopback.example:{port}/v1",  # a name
    "http://loopback.example.:{port}/v1",
    "http://both.example:{port}/v1",  # a name with a public address too
    "http://mapped.example:{port}/v1",
]
"""Each reaches the listener by one door at least where private addresses are open."""
BY_EVERY_DOOR = [*LEADING_HERE[:2], "http://[::1]:{port}/v1", "http://loopback.example:{port}/v1"]
TRICKS = [
    "http://\uff11\uff12\uff17.0.0.1:{port}/v1",  # full-width digits
    "http://\u2460\u2461\u2466.0.0.1:{port}/v1",
    "http://127\u30020\u30020\u30021:{port}/v1",  # full-width dots
    "http://\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54:{port}/v1",
    "http://127.0.0.1.:{port}/v1",
    "http://127.0.0.2:{port}/v1",
    "http://127.255.255.254:{port}/v1",
    "http://0:{port}/v1",
    "http://0.0.0.0:{port}/v1",
    "http://[::]:{port}/v1",
    "http://[::1%25lo]:{port}/v1",
    "http://[::127.0.0.1]:{port}/v1",  # IPv4 in IPv6, in every way that there is
    "http://[::ffff:0:127.0.0.1]:{port}/v1",
    "http://[64:ff9b::7f00:1]:{port}/v1",
    "http://[64:ff9b:1::7f00:1]:{port}/v1",
    "http://[2002:7f00:1::1]:{port}/v1",
    "http://[2001:0:0:0:0:0:80ff:fffe]:{port}/v1",
    "http://provider.invalid@127.0.0.1:{port}/v1",  # somebody else before the sign
    "http://provider.invalid:80@127.0.0.1:{port}/v1",
    "http://127.0.0.1:{port}@provider.invalid/v1",
    "http://127.0.0.1:{port}#@provider.invalid/v1",
    "http://127.0.0.1:{port}?@provider.invalid/v1",
    "http://provider.invalid#@127.0.0.1:{port}/v1",
    "http://provider.invalid\\@127.0.0.1:{port}/v1",
    "http://127.0.0.1:{port}\\@provider.invalid/v1",
    "http:\\\\127.0.0.1:{port}/v1",
    "http:///127.0.0.1:{port}/v1",
    "http:127.0.0.1:{port}/v1",
    "//127.0.0.1:{port}/v1",
    "http://127.0.0.1\t:{port}/v1",
    "http://127.0.0.1%00.provider.invalid:{port}/v1",
    "http://%31%32%37.0.0.1:{port}/v1",
    "https://127.0.0.1:{port}/v1",
    "https://[::1]:{port}/v1",
    "ftp://127.0.0.1:{port}/v1",
    "gopher://127.0.0.1:{port}/_GET",
    "file:///etc/hostname",
    "dict://127.0.0.1:{port}/",
    "unix:///run/docker.sock",
]
"""Whatever they are to whoever reads them, they must not reach the listener."""
NEVER = [
    f"http://{METADATA}/latest/meta-data",
    "http://2852039166/latest/meta-data",
    "http://0xa9fea9fe/latest/meta-data",
    "http://0251.0376.0251.0376/latest",
    f"http://[::ffff:{METADATA}]/latest",
    "http://[64:ff9b::a9fe:a9fe]/latest",
    "http://[fe80::1]/v1",
    "http://[fd00:ec2::254]/latest",
    "http://100.100.100.200/latest",
    "http://metadata.example/latest",
]
"""Closed to everybody, whatever the operator allows."""

NAMES = {
    "loopback.example": ["127.0.0.1"],
    "loopback.example.": ["127.0.0.1"],
    "both.example": [PUBLIC, "127.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "metadata.example": [METADATA],
}
NUMERIC = frozenset("0123456789abcdefx.:")
"""What a spelling of an address is made of, once it is in ASCII."""


class Listener:
    """Counts connections, and answers each request with nothing of interest."""

    def __init__(self) -> None:
        self.hits = 0
        self.heard: list[bytes] = []
        self.port = 0
        self.status = b"204 No Content"
        self.location = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.hits += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            self.heard.append(await reader.readuntil(b"\r\n\r\n"))
            led = b"Location: %s\r\nRefresh: 0; url=%s\r\n" % (self.location, self.location)
            head = b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n" % self.status
            writer.write(head + (led if self.location else b"") + b"\r\n")
            await writer.drain()
        writer.close()


@asynccontextmanager
async def listening() -> AsyncIterator[Listener]:
    """On 127.0.0.1 and ::1, at the same port."""
    made = Listener()
    first = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = first.sockets[0].getsockname()[1]
    second = await asyncio.start_server(made.serve, "::1", made.port)
    async with first, second:
        yield made


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    async with listening() as made:
        yield made


@dataclass
class Network:
    """Names of our own, and nobody behind any address but this machine's."""

    names: dict[str, list[list[str]]] = field(default_factory=dict)
    """The answers to each name, one after the other; the last one stays."""
    asked: list[str] = field(default_factory=list)
    towards: list[str] = field(default_factory=list)
    """Addresses that somebody wanted to connect to."""

    def lead(self, name: str, *answers: list[str]) -> None:
        self.names[name] = list(answers)

    def addresses(self, name: str) -> list[str]:
        self.asked.append(name)
        answers = self.names[name]
        return answers.pop(0) if len(answers) > 1 else answers[0]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    """Underneath everything: where the system is asked for names, and where a socket connects."""
    made = Network({name: [addresses] for name, addresses in NAMES.items()})
    ask, connect = socket.getaddrinfo, BaseSelectorEventLoop.sock_connect

    def getaddrinfo(host, port, *more, **named):
        name = host.decode() if isinstance(host, bytes) else host
        if name in made.names:
            return [found for each in made.addresses(name) for found in ask(each, port, *more, **named)]
        if name in ("localhost", "LOCALHOST") or _is_spelt_in_numbers(name):
            return ask(host, port, *more, **named)
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    async def sock_connect(self, sock, address):
        made.towards.append(address[0])
        if not _is_here(address[0]):
            raise ConnectionRefusedError("this network ends here")
        return await connect(self, sock, address)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", sock_connect)
    return made


def _is_spelt_in_numbers(name: str) -> bool:
    """Of such a name nobody else is asked: the system reads it itself."""
    with contextlib.suppress(UnicodeError):
        return set(name.encode("idna").decode().lower()) <= NUMERIC
    return False


def _is_here(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return (getattr(ip, "ipv4_mapped", None) or ip).is_loopback


def target(url: str, **more) -> Target:
    pool = PoolConfig(http2=more.pop("http2", False), connect_timeout_s=5)
    return Target(1, "acme", url, "gpt-4o", Secret(CREDENTIAL), pool=pool, **more)


def by_transport(**more) -> Callable[[str, bool], Awaitable[None]]:
    async def knock(url: str, allow_private: bool) -> None:
        transport = Transports(allow_private=allow_private)
        try:
            place = await transport.acquire(target(url, **more))
            answer = await place.send("call-id", b"{}")
            answer.close()
        except TransportError:
            return
        finally:
            await transport.close()

    return knock


async def by_list_of_models(url: str, allow_private: bool) -> None:
    await probing.models_of(target(url), allow_private=allow_private)


async def by_probe(url: str, allow_private: bool) -> None:
    transport = Transports(allow_private=allow_private)
    try:
        await probing.call_once(transport, target(url))
    finally:
        await transport.close()


async def by_webhook(url: str, allow_private: bool) -> None:
    with contextlib.suppress(NotPosted):
        await post(url, b"{}", {"webhook-signature": CREDENTIAL}, allow_private=allow_private, total_s=5)


DOORS = {
    "aiohttp": by_transport(transport="aiohttp"),
    "httpx": by_transport(transport="httpx"),
    "http2": by_transport(transport="httpx", http2=True),
    "models": by_list_of_models,
    "probe": by_probe,
    "webhook": by_webhook,
}


@pytest.fixture(params=DOORS)
def door(request: pytest.FixtureRequest) -> Callable[[str, bool], Awaitable[None]]:
    return DOORS[request.param]


@pytest.mark.parametrize("url", [*LEADING_HERE, *TRICKS], ids=ascii)
async def test_the_listener_is_never_reached(door, network, listener, url):
    await door(url.format(port=listener.port), False)

    assert listener.hits == 0
    assert [each for each in network.towards if _is_here(each)] == []


@pytest.mark.parametrize("url", BY_EVERY_DOOR)
async def test_it_is_reached_where_the_operator_allows_it(door, network, listener, url):
    await door(url.format(port=listener.port), True)

    assert listener.hits == 1


@pytest.mark.parametrize("url", LEADING_HERE)
async def test_every_spelling_does_lead_to_the_listener(network, listener, url):
    """Some libraries refuse some of them by themselves, but not all do."""
    for door in DOORS.values():
        await door(url.format(port=listener.port), True)

    assert listener.hits > 0


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize("url", NEVER)
async def test_metadata_is_never_connected_to(door, network, url, allow_private):
    await door(url, allow_private)

    assert network.towards == []


async def test_a_name_that_is_public_first_and_loopback_then_leads_nowhere(door, network, listener):
    """The address that was checked is the one that is connected to, each time."""
    network.lead("rebinding.example", [PUBLIC], ["127.0.0.1"])
    for _ in range(3):
        await door(f"https://rebinding.example:{listener.port}/v1", False)

    assert set(network.towards) == {PUBLIC}, "it was public once, and would have been connected to"
    assert network.asked.count("rebinding.example") == 3
    assert listener.hits == 0


@pytest.mark.parametrize("status", REDIRECTS)
@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:{port}/v1", "//127.0.0.1:{port}/v1", "http://[::1]:{port}/"]
)
async def test_a_redirect_leads_nobody_to_another_port(door, network, listener, status, location):
    """Neither a call nor a credential; not even where private addresses are open."""
    async with listening() as first:
        first.status, first.location = b"%d Elsewhere" % status, location.format(port=listener.port).encode()
        await door(f"http://127.0.0.1:{first.port}/v1", True)

        assert first.hits == 1
        assert CREDENTIAL.encode() in first.heard[0]
    assert listener.hits == 0


async def test_a_proxy_of_the_environment_is_not_asked(door, network, listener, monkeypatch):
    """It would connect for us, wherever the name leads, and see the credential."""
    proxy = f"http://127.0.0.1:{listener.port}"
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    network.lead("public.example", [PUBLIC])
    await door("https://public.example/v1", False)

    assert network.towards == [PUBLIC]
    assert listener.hits == 0
