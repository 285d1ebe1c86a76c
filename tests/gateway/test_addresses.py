"""Where a request came from: only trusted proxies are believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gateway.addresses import MOST_HOPS, client_address, networks

PROXIES = networks(("10.0.0.0/8", "192.0.2.7", "2001:db8:1::/48"))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "client"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),  # a stranger's word
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "1.2.3.4, 198.51.100.1", "198.51.100.1"),  # what the client wrote itself is left of it
        ("10.0.0.1", "198.51.100.1, 192.0.2.7, 10.9.9.9", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),  # within the house
        ("10.0.0.1", "198.51.100.1, unknown", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, unknown, 192.0.2.7", "192.0.2.7"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::5]:4711", "2001:db8::5"),
        ("2001:db8:1::2", "2001:DB8:0:0::5", "2001:db8::5"),
        ("::ffff:10.0.0.1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("fe80::1%eth0", "198.51.100.1", "fe80::1"),
        ("", "198.51.100.1", ""),
        ("unix:", "198.51.100.1", ""),
    ],
)
def test_the_client_is_the_last_one_that_no_trusted_proxy_vouched_away(peer, forwarded_for, client):
    assert client_address(peer, forwarded_for, PROXIES) == client


def test_without_trusted_proxies_the_header_says_nothing():
    assert client_address("10.0.0.1", "198.51.100.1", ()) == "10.0.0.1"


@given(some.text(max_size=60))
def test_what_a_client_sends_itself_never_moves_it(forged):
    """Its proxy appends the address that it saw, whatever was there before."""
    assert client_address("10.0.0.1", f"{forged}, 203.0.113.9", PROXIES) == "203.0.113.9"


@given(some.text(max_size=60), some.text(max_size=20))
def test_whatever_is_written_there_an_address_or_nothing_comes_out(forwarded_for, peer):
    found = client_address(peer, forwarded_for, PROXIES)

    assert found == "" or client_address(found, "", ()) == found


def test_a_long_chain_is_followed_for_so_many_hops_and_no_further():
    """Whoever writes a header of thousands would else hold up everybody's calls."""
    for end in ("198.51.100.1", "198.51.100.1:80", "[2001:db8::5]"):
        near, far = [", ".join([end, *["10.0.0.2"] * hops]) for hops in (MOST_HOPS - 1, MOST_HOPS)]
        assert client_address("10.0.0.1", near, PROXIES) in ("198.51.100.1", "2001:db8::5")
        assert client_address("10.0.0.1", far, PROXIES) == "10.0.0.2"
