"""What makes an open socket close: rights that changed, a sign-out, a changed password."""

from collections.abc import Collection
from functools import partial
from typing import Any

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.db.models.signals import post_save

SIGNED_IN = {"last_login"}
"""Fields of a user whose change means nothing to sockets."""


class DashboardConfig(AppConfig):
    name = "dashboard"

    def ready(self) -> None:
        from accounts.signals import rights_changed

        rights_changed.connect(_rights_changed)
        user_logged_out.connect(_logged_out)
        post_save.connect(_user_saved, sender="accounts.User")


def _rights_changed(user_id: int, **_: Any) -> None:
    from dashboard import live

    live.close_sockets_of(user_id)


def _logged_out(user: Any, **_: Any) -> None:
    if user is not None:  # signed out already
        _rights_changed(user.pk)


def _user_saved(instance: Any, created: bool, update_fields: Collection[str] | None = None, **_: Any) -> None:
    """A new password or a switched-off account throws out whoever is in, also a thief."""
    if not created and (update_fields is None or not SIGNED_IN.issuperset(update_fields)):
        transaction.on_commit(partial(_rights_changed, instance.pk))
