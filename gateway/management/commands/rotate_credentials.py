"""`manage.py rotate_credentials`: encrypt every kept secret of others under the newest key."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from accounts import channels, second_factors
from gateway.credentials import CredentialUnreadable
from gateway.services import rotate_credentials


class Command(BaseCommand):
    help = (
        "Encrypt every provider credential, secret address of a channel and secret of a second factor "
        "under the newest of CREDENTIAL_KEYS; older keys can go after that."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            count = rotate_credentials(settings.CREDENTIAL_KEYS)
            count += channels.rotate_addresses() + second_factors.rotate()
        except (CredentialUnreadable, channels.Unreadable, second_factors.Unreadable) as why:
            raise CommandError(str(why)) from None
        self.stdout.write(f"{count} encrypted under the newest key.")
