"""What every process does with a change that it committed: say it to the others, where Redis is shared."""

from typing import Any

from django.apps import AppConfig
from django.conf import settings


class GatewayConfig(AppConfig):
    name = "gateway"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Servers, pages, workers and commands alike."""
        if not settings.ENV.redis_url:
            return
        from accounts.signals import changed, rights_changed
        from gateway.feed import Publisher

        publisher = Publisher(settings.ENV.redis_url)

        def say_change(number: int, **_: Any) -> None:
            publisher.changed(number)

        def say_rights(user_id: int | None, **_: Any) -> None:
            publisher.rights_changed(user_id)

        changed.connect(say_change, weak=False)
        rights_changed.connect(say_rights, weak=False)
