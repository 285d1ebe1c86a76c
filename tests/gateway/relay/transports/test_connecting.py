import errno
import socket
import ssl

import pytest
import trustme

from gateway.relay.transports import CannotConnect, ConnectTimedOut
from gateway.relay.transports.addresses import ForbiddenAddress
from gateway.relay.transports.connecting import no_connection, trust, tune


@pytest.mark.parametrize(
    ("why", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('10.0.0.1', 1)"), "was refused"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "its name was not found"),
        (ForbiddenAddress("a.example leads to 10.0.0.1, where no provider may be"), "a.example leads to"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (OSError(), "OSError"),
        (ssl.SSLError(1, "wrong version number"), "no TLS connection could be made"),
    ],
)
def test_why_there_is_no_connection_is_said_in_words(why: OSError, words: str) -> None:
    error = no_connection(why)
    assert isinstance(error, CannotConnect)
    assert words in str(error)


@pytest.mark.parametrize("why", [TimeoutError(), OSError(errno.ETIMEDOUT, "Connection timed out")])
def test_a_connection_that_took_too_long_is_a_timeout(why: OSError) -> None:
    assert isinstance(no_connection(why), ConnectTimedOut)


async def test_the_systems_certificates_are_trusted_beside_the_given_ones() -> None:
    system = len((await trust("")).get_ca_certs())
    ca_pem = trustme.CA().cert_pem.bytes().decode()

    both = await trust(f"# Größe: Wurzelzertifikat\n{ca_pem}")

    assert len(both.get_ca_certs()) == system + 1
    assert (both.verify_mode, both.check_hostname) == (ssl.CERT_REQUIRED, True)


async def test_trust_is_made_once() -> None:
    assert await trust("") is await trust("")


def test_the_kernel_is_told_how_long_nothing_may_be_taken() -> None:
    with socket.socket() as sock:
        tune(sock, write_timeout_s=2.5)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
