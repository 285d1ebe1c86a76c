"""What a sign-in, a sign-out, a new password and changed rights bring about."""

from typing import Any

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_in, user_logged_out
from django.http import HttpRequest


class AccountsConfig(AppConfig):
    name = "accounts"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from allauth.account.signals import (
            authentication_step_completed,
            password_changed,
            password_reset,
            password_set,
        )

        from accounts import sessions
        from accounts.models import Membership
        from accounts.signals import rights_changed

        user_logged_in.connect(sessions.signed_in_now)
        authentication_step_completed.connect(sessions.confirmed)
        rights_changed.connect(sessions.renew_soon, sender=Membership)
        password_reset.connect(_password_reset)
        for each in (password_changed, password_set, password_reset):
            each.connect(_new_password)
        user_logged_out.connect(_signed_out)


def _signed_out(user: Any, **_: Any) -> None:
    from accounts import services

    if user is not None:  # signed out already
        services.close_playground(user, why=f"{user.email} signed out")


def _new_password(user: Any, **_: Any) -> None:
    """It ends other sessions, and so what was made in them."""
    from accounts import services

    services.close_playground(user, why=f"{user.email} has a new password")


def _password_reset(request: HttpRequest, user: Any, **_: Any) -> None:
    from accounts import known_browsers

    known_browsers.remember_reset(request.session, user.email)
