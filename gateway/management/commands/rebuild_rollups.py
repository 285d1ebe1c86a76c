"""`manage.py rebuild_rollups`: work out the sums anew from the calls that are kept."""

from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from accounts.models import Team
from gateway.ledger import rebuilding, rollups

AT_ONCE_S = 5.0
"""Between two lines on how far it is."""


class Command(BaseCommand):
    help = (
        "Work out rollups anew, from the oldest call that is kept; older rollups stay as they are. "
        "Calls may go on meanwhile. What is left when it is stopped, the worker does."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--since", help="The first day, in UTC: 2026-07-01. Where absent, all that is kept."
        )
        parser.add_argument("--team", help="The slug of one team; where absent, all of them.")

    def handle(self, *args: Any, since: str | None, team: str | None, **options: Any) -> None:
        days = rebuilding.again(None if team is None else [_id_of(team)], _day_of(since))
        self.stdout.write(f"{days} days are worked out anew.")
        while not rollups.work(timezone.now(), budget_s=AT_ONCE_S):
            self.stdout.write(f"{rebuilding.days_left()} days left.")
        self.stdout.write("Done.")


def _id_of(slug: str) -> int:
    """Raises CommandError."""
    try:
        return Team.objects.get(slug=slug).pk
    except Team.DoesNotExist:
        raise CommandError(f"There is no team {slug!r}.") from None


def _day_of(text: str | None) -> datetime | None:
    """Raises CommandError."""
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise CommandError(f"--since must be a day such as 2026-07-01, not {text!r}.") from None
