"""`manage.py rotate_credentials`: encrypt every kept secret of others under the newest key."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from accounts import channels
from gateway.credentials import CredentialUnreadable
from gateway.services import rotate_credentials


class Command(BaseCommand):
    help = (
        "Encrypt every provider credential and secret address of a channel under the newest of "
        "CREDENTIAL_KEYS; older keys can go after that."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            count = rotate_credentials(settings.CREDENTIAL_KEYS) + channels.rotate_addresses()
        except (CredentialUnreadable, channels.Unreadable) as why:
            raise CommandError(str(why)) from None
        self.stdout.write(f"{count} encrypted under the newest key.")
