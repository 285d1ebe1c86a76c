"""How django-allauth behaves in this house."""

from typing import Any
from urllib.parse import urlsplit

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import context
from allauth.mfa.adapter import DefaultMFAAdapter
from allauth.mfa.models import Authenticator
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext

from accounts import known_browsers, second_factors
from accounts.actor import actor
from accounts.browsers import browser_of
from accounts.models import User


class ClosedSignup(DefaultAccountAdapter):  # type: ignore[misc]
    """Accounts are made by an administrator; nobody signs themselves up.

    Mail speaks of `PUBLIC_URL` alone: whoever asks for a mail chooses the request's Host header.
    """

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def get_password_change_redirect_url(self, request: HttpRequest) -> str:
        return reverse("account")

    def get_reset_password_from_key_url(self, key: str) -> str:
        path = urlsplit(super().get_reset_password_from_key_url(key)).path
        return f"{settings.PUBLIC_URL}{path}"

    def get_client_ip(self, request: HttpRequest) -> str:
        """As the audit sees it, through the configured proxies: else all behind one share its limits."""
        return actor().address or str(super().get_client_ip(request))

    def post_login(self, request: HttpRequest, user: User, **more: Any) -> HttpResponse:
        response: HttpResponse = super().post_login(request, user, **more)
        known_browsers.remember(response, user.email)
        return response

    def _get_login_attempts_cache_key(self, request: HttpRequest, **credentials: Any) -> str:
        """Tries at an account are counted together, but for those of each browser that it knows."""
        email = str(credentials.get("email", ""))
        key = str(super()._get_login_attempts_cache_key(request, **credentials))
        return f"{key}:{known_browsers.name_of(request, email)}"

    def get_reauthentication_methods(self, user: User) -> list[dict[str, Any]]:
        """A security key is called a passkey here, as on every other page."""
        passkey = {"description": gettext("Use a passkey")}
        methods: list[dict[str, Any]] = super().get_reauthentication_methods(user)
        return [each | passkey if each["id"] == "mfa_reauthenticate:webauthn" else each for each in methods]

    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        super().send_mail(template_prefix, email, context | {"public_url": settings.PUBLIC_URL})


class SecondFactors(DefaultMFAAdapter):  # type: ignore[misc]
    """Passkeys are called after their browser, until their owner says better; secrets are encrypted."""

    def encrypt(self, text: str) -> str:
        return second_factors.seal(text)

    def decrypt(self, encrypted_text: str) -> str:
        return second_factors.unseal(encrypted_text)

    def generate_authenticator_name(self, user: User, type: Authenticator.Type) -> str:
        return browser_of(context.request.headers.get("User-Agent", "")) or gettext("Passkey")

    def get_public_key_credential_rp_entity(self) -> dict[str, str]:
        """What the device shows beside the host name."""
        return {**super().get_public_key_credential_rp_entity(), "name": "Penstock"}
