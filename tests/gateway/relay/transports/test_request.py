import pytest

from gateway.relay.catalog import Secret, Target
from gateway.relay.transports import CannotConnect
from gateway.relay.transports.request import endpoint, headers_to


def target_at(base_url: str) -> Target:
    return Target(1, "provider", base_url, "upstream-model", Secret("sk-1"))


@pytest.mark.parametrize("base_url", ["https://api.example/v1", "https://api.example/v1/"])
def test_calls_go_below_the_base_url(base_url: str) -> None:
    url = endpoint(target_at(base_url), allow_private=False)
    assert str(url) == "https://api.example/v1/chat/completions"


@pytest.mark.parametrize(
    ("base_url", "reason"),
    [
        ("ftp://api.example/v1", "not an http or https one"),
        ("api.example/v1", "not an http or https one"),
        ("https://", "not an http or https one"),
        ("https://api.example:port/v1", "not an http or https one"),
        ("https://user:secret@api.example/v1", "holds a user or a password"),
        ("https://169.254.169.254/v1", "where no provider may be"),
        ("https://[fe80::1]/v1", "where no provider may be"),
        ("https://10.0.0.1/v1", "where no provider may be"),
    ],
)
def test_a_base_url_that_cannot_be_used_says_why_and_keeps_its_secret(base_url: str, reason: str) -> None:
    with pytest.raises(CannotConnect, match=reason) as caught:
        endpoint(target_at(base_url), allow_private=False)
    assert "secret" not in str(caught.value)


def test_a_private_address_may_be_allowed() -> None:
    assert endpoint(target_at("http://10.0.0.1/v1"), allow_private=True).host == "10.0.0.1"


def test_a_credential_is_a_bearer() -> None:
    assert headers_to(target_at("https://api.example/v1"))["Authorization"] == "Bearer sk-1"
