from typing import Any

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_out


class DashboardConfig(AppConfig):
    name = "dashboard"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from accounts.signals import rights_changed

        rights_changed.connect(_rights_changed)
        user_logged_out.connect(_logged_out)


def _rights_changed(user_id: int, **_: Any) -> None:
    from dashboard import live

    live.close_sockets_of(user_id)


def _logged_out(user: Any, **_: Any) -> None:
    from dashboard import live

    if user is not None:  # signed out already
        live.close_sockets_of(user.pk)
