"""What makes an open socket close: rights that changed, a sign-out, a changed password.
And what pages of the room below show of what is served."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from django.apps import AppConfig
from django.contrib.auth.signals import user_logged_out
from django.db import transaction
from django.db.models.signals import post_save

SIGNED_IN = {"last_login", "language", "first_name", "last_name", "zone"}
"""Fields of a user whose change means nothing to sockets."""


class DashboardConfig(AppConfig):
    name = "dashboard"

    def ready(self) -> None:
        from accounts.signals import rights_changed

        rights_changed.connect(_rights_changed)
        user_logged_out.connect(_logged_out)
        post_save.connect(_user_saved, sender="accounts.User")
        _tell_pages_what_is_served()


def _tell_pages_what_is_served() -> None:
    from accounts import served
    from dashboard import sparklines
    from gateway import queries

    served.install(queries.model_names, _used_of, _period_of, sparklines.weeks_of)


def _used_of(quota_ids: Sequence[int]) -> Mapping[int, Any]:
    """As far as it can be known here and now."""
    from gateway import standing

    try:
        return standing.figures(quota_ids)
    except standing.NotKnown:
        return {}


def _period_of(period: Any, zone: str, now: datetime) -> tuple[datetime, datetime]:
    """As the relay counts it."""
    from gateway.relay.limits import period_of

    begins_us, ends_us = period_of(period, zone, int(now.timestamp() * 1_000_000))
    return datetime.fromtimestamp(begins_us / 1e6, UTC), datetime.fromtimestamp(ends_us / 1e6, UTC)


def _rights_changed(user_id: int, **_: Any) -> None:
    from dashboard import live

    live.close_sockets_of(user_id)


def _logged_out(user: Any, **_: Any) -> None:
    if user is not None:  # signed out already
        _say_so(user.pk)


def _say_so(user_id: int) -> None:
    """To this process and, where Redis is shared, to the others."""
    from accounts.signals import rights_changed

    rights_changed.send(sender=None, user_id=user_id)


def _user_saved(instance: Any, created: bool, update_fields: Collection[str] | None = None, **_: Any) -> None:
    """A new password or a switched-off account throws out whoever is in, also a thief."""
    if not created and (update_fields is None or not SIGNED_IN.issuperset(update_fields)):
        transaction.on_commit(partial(_say_so, instance.pk))
