"""How secrets of second factors are kept."""

import json

import pyotp
import pytest
from allauth.mfa.models import Authenticator
from allauth.mfa.recovery_codes.internal.auth import RecoveryCodes
from allauth.mfa.totp.internal.auth import TOTP, generate_totp_secret
from cryptography.fernet import Fernet
from django.core.management import call_command

from accounts import second_factors

pytestmark = pytest.mark.django_db


@pytest.fixture
def secret():
    return generate_totp_secret()


def kept(authenticator):
    authenticator.refresh_from_db()
    return json.dumps(authenticator.data)


def is_right(authenticator, secret):
    authenticator.refresh_from_db()
    return TOTP(authenticator).validate_code(pyotp.TOTP(secret).now())


def test_a_secret_is_kept_encrypted_and_its_codes_are_right(alice, secret):
    made = TOTP.activate(alice, secret).instance

    assert secret not in kept(made)
    assert is_right(made, secret)


def test_recovery_codes_are_made_from_a_seed_that_is_kept_encrypted(alice):
    made = RecoveryCodes.activate(alice)
    codes = made.get_unused_codes()

    assert second_factors.unseal(made.instance.data["seed"]) not in kept(made.instance)
    assert RecoveryCodes(Authenticator.objects.get()).get_unused_codes() == codes
    assert made.validate_code(codes[0])
    assert not made.validate_code(codes[0])


def test_what_an_older_version_kept_in_clear_is_read_and_encrypted_with_the_next_rotation(alice, secret):
    made = Authenticator.objects.create(user=alice, type="totp", data={"secret": secret})
    assert second_factors.unseal(secret) == secret

    call_command("rotate_credentials")

    assert secret not in kept(made)
    assert is_right(made, secret)


def test_an_older_key_can_go_once_secrets_are_encrypted_anew(alice, secret, settings):
    made, codes = TOTP.activate(alice, secret).instance, RecoveryCodes.activate(alice).get_unused_codes()
    older, newer = settings.CREDENTIAL_KEYS[0], Fernet.generate_key().decode()
    settings.CREDENTIAL_KEYS = [newer, older]

    call_command("rotate_credentials")

    settings.CREDENTIAL_KEYS = [newer]
    assert is_right(made, secret)
    assert RecoveryCodes(Authenticator.objects.get(type="recovery_codes")).get_unused_codes() == codes


def test_a_secret_under_a_key_that_is_gone_lets_nobody_in(alice, secret, settings):
    made = TOTP.activate(alice, secret).instance
    settings.CREDENTIAL_KEYS = [Fernet.generate_key().decode()]

    with pytest.raises(second_factors.Unreadable, match="put that key back"):
        is_right(made, secret)
