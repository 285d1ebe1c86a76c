"""`manage.py migrate`: Django's, so that calls go on meanwhile.

On PostgreSQL a change of a table waits for those who use it, and everybody after it waits too.
Here it waits for no longer than `patience.SHORT_LOCK_MS`, lets the others go first, and tries again.
SQLite's one lock has no queue, so whoever takes it again at once keeps others from it.
Here they get their turn between two migrations.
"""

import time
from typing import Any

from django.core.management.commands import migrate
from django.db import OperationalError, connection
from django.db.migrations.recorder import MigrationRecorder

from gateway.patience import LOCK_TRIES, hurried, is_lock_missing, pause_s

GIVE_WAY_S = 0.15
"""Who waits for SQLite's lock looks every 0.1 s at the latest."""


class Command(migrate.Command):
    """A migration that met a lock was taken back whole, or says of itself that it may be begun again."""

    gives_way = False

    def handle(self, *args: Any, **options: Any) -> None:
        # A database in which nothing is yet has nobody who waits.
        self.gives_way = connection.vendor == "sqlite" and bool(
            MigrationRecorder(connection).applied_migrations()
        )
        for number in range(LOCK_TRIES):
            try:
                with hurried():
                    super().handle(*args, **options)
            except OperationalError as why:
                if not is_lock_missing(why) or number == LOCK_TRIES - 1:
                    raise
                time.sleep(pause_s(number))
            else:
                return

    def migration_progress_callback(self, action: str, migration: Any = None, fake: bool = False) -> None:
        if self.gives_way and action in ("apply_start", "unapply_start"):
            time.sleep(GIVE_WAY_S)
        super().migration_progress_callback(action, migration, fake)
