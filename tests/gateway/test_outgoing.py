import ssl
import threading

import httpx2
import pytest
import trustme

from gateway.outgoing import CheckedTransport, NotPosted, post
from tests.gateway import receivers


@pytest.fixture
def receiver():
    with receivers.receiver() as made:
        yield made


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def secure(authority: trustme.CA, name: str):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return receivers.receiver(context)


async def posted(url: str, *, allow_private: bool = True, total_s: float = 10.0) -> int:
    return await post(url, b"{}", {"webhook-id": "msg_1"}, allow_private=allow_private, total_s=total_s)


async def posted_over_tls(url: str, authority: trustme.CA) -> int:
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    transport = CheckedTransport(trusted, allow_private=True)
    async with httpx2.AsyncClient(transport=transport, trust_env=False) as client:
        return (await client.post(url, content=b"{}")).status_code


async def test_a_body_and_its_headers_arrive(receiver):
    assert await posted(f"{receiver.url}/hook?to=us") == 204

    [heard] = receiver.heard
    assert (heard.path, heard.body) == ("/hook?to=us", b"{}")
    assert heard.headers["webhook-id"] == "msg_1"
    assert heard.headers["content-type"] == "application/json"
    assert heard.headers["host"] == receiver.url.removeprefix("http://")


async def test_the_name_stands_in_the_host_header(receiver):
    port = receiver.url.rpartition(":")[2]
    assert await posted(f"http://localhost:{port}/") == 204
    assert receiver.heard[0].headers["host"] == f"localhost:{port}"


async def test_a_redirect_is_not_followed(receiver):
    receiver.will(receivers.status(307, Location=f"{receiver.url}/elsewhere"))
    assert await posted(receiver.url) == 307
    assert len(receiver.heard) == 1


@pytest.mark.parametrize(
    "url",
    [
        "https://169.254.169.254/latest",
        "http://169.254.169.254/latest",
        "https://[fe80::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://0.0.0.0/",
    ],
)
async def test_metadata_and_link_local_addresses_are_never_connected_to(url):
    with pytest.raises(NotPosted, match="where no webhook may be"):
        await posted(url)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_private_addresses_are_for_the_operator_to_allow(receiver, host):
    url = receiver.url.replace("127.0.0.1", host)
    with pytest.raises(NotPosted, match="where no webhook may be"):
        await posted(url, allow_private=False)
    assert receiver.heard == []


async def test_whom_private_addresses_are_closed_to_learns_of_no_name_there(receiver, caplog):
    """Only the log tells them apart, and names the host alone."""
    caplog.set_level("INFO")
    said = []
    for host in ("localhost", "nobody.invalid"):
        with pytest.raises(NotPosted) as why:
            await posted(receiver.url.replace("127.0.0.1", host) + "/T0KEN", allow_private=False)
        said.append(str(why.value))

    assert said == ["its name was not found, or leads to an address where no webhook may be"] * 2
    assert "localhost: its name leads to an address" in caplog.text
    assert "nobody.invalid: its name was not found" in caplog.text
    assert "T0KEN" not in caplog.text


@pytest.mark.parametrize("host", ["8.8.8.8", "[2001:4860:4860::8888]", "[64:ff9b::808:808]"])
async def test_plain_http_stays_on_private_networks(host):
    """Refused before a connection: nothing leaves this machine."""
    with pytest.raises(NotPosted, match="begin with https://"):
        await posted(f"http://{host}/")


async def test_an_answer_that_drips_is_over_at_the_deadline(receiver):
    over = threading.Event()
    receiver.will(receivers.drip(over))
    with pytest.raises(NotPosted, match="in time"):
        await posted(receiver.url, total_s=0.3)
    over.set()


async def test_an_endless_answer_is_not_heard_out(receiver):
    receiver.will(receivers.endless)
    assert await posted(receiver.url) == 200


async def test_an_address_is_not_logged(receiver, caplog):
    caplog.set_level("INFO")
    await posted(f"{receiver.url}/T0KEN")
    assert "T0KEN" not in caplog.text


async def test_nobody_listening_is_told_in_words(receiver, unused_tcp_port):
    with pytest.raises(NotPosted, match="Connection refused") as why:
        await posted(f"http://127.0.0.1:{unused_tcp_port}/T0KEN")
    assert "T0KEN" not in str(why.value)


@pytest.mark.parametrize("url", [f"https://{'a' * 70}.example/", "https://a..example/", "https://xn--/"])
async def test_a_name_that_cannot_be_is_no_error_of_ours(url):
    with pytest.raises(NotPosted):
        await posted(url)


async def test_a_certificate_is_held_to_the_name(authority):
    with secure(authority, "localhost") as receiver:
        port = receiver.url.rpartition(":")[2]
        assert await posted_over_tls(f"https://localhost:{port}/", authority) == 204
        with pytest.raises(httpx2.ConnectError):
            await posted_over_tls(f"https://127.0.0.1:{port}/", authority)


async def test_a_certificate_of_nobody_known_is_refused(authority):
    with secure(authority, "127.0.0.1") as receiver:
        assert await posted_over_tls(receiver.url, authority) == 204
        with pytest.raises(NotPosted, match="certificate was not accepted"):
            await posted(receiver.url)
