"""`manage.py rotate_credentials`: encrypt every provider credential under the newest key."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gateway.credentials import CredentialUnreadable
from gateway.services import rotate_credentials


class Command(BaseCommand):
    help = (
        "Encrypt every provider credential under the newest of CREDENTIAL_KEYS; older keys can go after that."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            count = rotate_credentials(settings.CREDENTIAL_KEYS)
        except CredentialUnreadable as why:
            raise CommandError(str(why)) from None
        self.stdout.write(f"{count} encrypted under the newest key.")
