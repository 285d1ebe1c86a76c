import pytest
from cryptography.fernet import Fernet

from gateway.credentials import CredentialUnreadable, decrypt, encrypt, reveal, rotate
from gateway.inputs import Unusable
from gateway.models import Credential

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def test_a_credential_comes_back_as_it_went_in_and_does_not_show_meanwhile():
    encrypted = encrypt("sk-secret", [NEW])

    assert "sk-secret" not in encrypted
    assert decrypt(encrypted, [NEW]) == "sk-secret"


def test_an_older_key_still_decrypts_and_rotation_moves_to_the_newest():
    encrypted = encrypt("sk-secret", [OLD])

    assert decrypt(encrypted, [NEW, OLD]) == "sk-secret"
    assert decrypt(rotate(encrypted, [NEW, OLD]), [NEW]) == "sk-secret"


def test_a_credential_under_a_lost_key_says_what_would_help():
    with pytest.raises(CredentialUnreadable, match="put that key back, or enter the credential again"):
        decrypt(encrypt("sk-secret", [OLD]), [NEW])


def test_an_encrypted_credential_is_revealed_as_a_secret_that_does_not_print():
    secret = reveal(Credential(encrypted=encrypt("sk-secret", [NEW])), [NEW], {})

    assert secret.value == "sk-secret"
    assert "sk-secret" not in f"{secret} {secret!r}"


def test_a_referenced_credential_is_read_from_the_environment_each_time():
    credential = Credential(env_var="OPENAI_API_KEY")

    assert reveal(credential, [NEW], {"OPENAI_API_KEY": "sk-one\n"}).value == "sk-one"
    assert reveal(credential, [NEW], {"OPENAI_API_KEY": "sk-two"}).value == "sk-two"


@pytest.mark.parametrize("environ", [{}, {"OPENAI_API_KEY": "  "}])
def test_a_missing_variable_is_named(environ):
    with pytest.raises(CredentialUnreadable, match=r"^OPENAI_API_KEY is not set"):
        reveal(Credential(env_var="OPENAI_API_KEY"), [NEW], environ)


def test_a_variable_that_would_break_a_header_is_refused_without_being_repeated():
    with pytest.raises(CredentialUnreadable, match=r"^OPENAI_API_KEY has") as refused:
        reveal(Credential(env_var="OPENAI_API_KEY"), [NEW], {"OPENAI_API_KEY": "sk-1\r\nX: y"})

    assert "sk-1" not in str(refused.value)


def test_what_cannot_be_a_credential_is_not_encrypted():
    with pytest.raises(Unusable):
        encrypt("sk\r\nX-Evil: 1", [NEW])
