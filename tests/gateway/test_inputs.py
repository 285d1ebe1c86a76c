import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from gateway.inputs import (
    Unusable,
    clean_base_url,
    clean_certificates,
    clean_credential,
    clean_name,
    clean_parameters,
)

CONTROL = "\r\n\0\t\x7f\x1b\u2028\u0085"


@pytest.mark.parametrize("control", CONTROL)
@pytest.mark.parametrize("clean", [clean_name, clean_credential, clean_base_url])
def test_a_control_character_is_refused_everywhere(clean, control):
    with pytest.raises(Unusable, match=r"^The value has"):
        clean(f"http://host{control}/v1", "The value")


@given(st.text())
def test_a_clean_name_is_one_printable_line(raw):
    try:
        name = clean_name(raw, "It")
    except Unusable:
        return
    assert name
    assert name.isprintable()
    assert name == name.strip(" ")


@given(st.text())
def test_a_clean_credential_fits_into_a_header(raw):
    try:
        credential = clean_credential(raw, "It")
    except Unusable:
        return
    assert credential.isascii()
    assert not any(each.isspace() for each in credential)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "http://ollama:11434/v1",
        "http://127.0.0.1:8001/v1",
        "http://[::1]:8001/v1",
        "https://llm.example.com",
    ],
)
def test_a_usable_address_stays_as_it_is(url):
    assert clean_base_url(url, "It") == url
    assert clean_base_url(f" {url}/ ", "It") == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com/v1",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://",
        "https:///v1",
        "https://user@host/v1",
        "https://user:password@host/v1",
        "https://host:99999/v1",
        "https://host:port/v1",
        "https://host/v1?key=1",
        "https://host/v1#part",
        "https://host\\@other/v1",
        "https://ho st/v1",
        "https://[::1/v1",
    ],
)
def test_an_unusable_address_is_refused(url):
    with pytest.raises(Unusable, match=r"^The base URL "):
        clean_base_url(url, "The base URL")


@pytest.fixture(scope="module")
def certificate() -> str:
    return trustme.CA().cert_pem.bytes().decode()


def test_certificates_are_kept_as_they_are_but_for_outer_blanks(certificate):
    assert clean_certificates(f"\n{certificate}\n\n") == certificate.strip()
    assert clean_certificates(certificate * 2) == (certificate * 2).strip()
    assert clean_certificates("  ") == ""


@pytest.mark.parametrize("raw", ["me", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", "ä"])
def test_what_is_no_certificate_is_refused(raw):
    with pytest.raises(Unusable):
        clean_certificates(raw)


def test_certificates_are_of_bearable_length(certificate):
    with pytest.raises(Unusable, match="longer than 100000 characters"):
        clean_certificates(certificate * (100_000 // len(certificate) + 1))


def test_half_a_certificate_is_refused(certificate):
    with pytest.raises(Unusable):
        clean_certificates(certificate[: len(certificate) // 2])


def test_a_private_key_among_certificates_is_refused_without_being_repeated(certificate):
    pair = trustme.CA().issue_cert("acme.example")
    key = pair.private_key_pem.bytes().decode()

    with pytest.raises(Unusable, match="There is a private key among the certificates") as refused:
        clean_certificates(certificate + key)
    assert key.splitlines()[1] not in str(refused.value)


@pytest.mark.parametrize("raw", [None, [], "n: drop", {"n": "forget"}, {"messages": "drop"}, {"": "drop"}])
def test_rules_for_parameters_that_cannot_be_are_refused_with_a_sentence(raw):
    with pytest.raises(Unusable, match=r"\.$"):
        clean_parameters(raw)


def test_rules_for_parameters_stay_as_they_are():
    assert clean_parameters({"n": "drop", "max_tokens": "translate"}) == {
        "n": "drop",
        "max_tokens": "translate",
    }
