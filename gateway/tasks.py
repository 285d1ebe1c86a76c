"""What nobody waits for. When each runs is in `dashboard.celery`.

They take no arguments and find their work in the database.
Each may run twice, or in two processes at a time, or be killed in the middle: the next run goes on.
"""

from datetime import datetime, timedelta

from celery import shared_task
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from accounts import reminders
from accounts.models import IdempotentAnswer, KeyUse, Outbox
from gateway import delivery, probes
from gateway.alerts import evaluating
from gateway.ledger import partitions, rebuilding, repricing, retention, rollups
from gateway.ledger.sweeper import oldest_us

ANSWERS_KEPT = timedelta(hours=24)
MESSAGES_KEPT = timedelta(days=40)
"""Longer than the longest quota period: what is forgotten would be told again."""
PROGRAMS_KEPT = timedelta(days=90)


@shared_task  # type: ignore[untyped-decorator]
def deliver_outbox() -> None:
    """Send the mail and webhook messages that are due."""
    delivery.deliver()


@shared_task  # type: ignore[untyped-decorator]
def remind() -> None:
    """Write the reminders that are due to the outbox."""
    reminders.remind(timezone.now())


@shared_task  # type: ignore[untyped-decorator]
def watch_alerts() -> None:
    """Look at every alert, and tell of those that fire or are over."""
    evaluating.evaluate(timezone.now())


@shared_task  # type: ignore[untyped-decorator]
def reprice() -> None:
    """Correct what calls cost by prices that were entered late."""
    repricing.work(timezone.now())


@shared_task  # type: ignore[untyped-decorator]
def roll_up() -> None:
    """Work out the rollups whose calls changed."""
    rollups.work(timezone.now())


@shared_task  # type: ignore[untyped-decorator]
def verify_rollups() -> None:
    """Mark what code of an older version wrote without a mark."""
    rebuilding.verify(timezone.now())


@shared_task  # type: ignore[untyped-decorator]
def retain() -> None:
    """Delete calls, minutes and explained refusals that are older than they are kept."""
    env = settings.ENV
    retention.retain(
        timezone.now(),
        entries_days=env.keep_entries_days,
        minutes_days=env.keep_minutes_days,
        journals_from_us=oldest_us(env.var_dir / "journal"),
    )


@shared_task  # type: ignore[untyped-decorator]
def probe() -> None:
    """Probe the providers that are due, where PROBE_INTERVAL_S asks for it."""
    probes.probe_due(timezone.now(), settings.ENV.probe_interval_s)


@shared_task  # type: ignore[untyped-decorator]
def make_parts() -> None:
    """Make the ledger's parts of the next months, where it is in parts."""
    partitions.make_ahead(timezone.now())


@shared_task  # type: ignore[untyped-decorator]
def tidy() -> None:
    """Delete what nobody will ask for again."""
    tidy_up(timezone.now())


def tidy_up(now: datetime) -> int:
    """Answers for repeated requests, messages that are over, and programs of secrets that ended.

    Gives the number of rows deleted.
    """
    over = Q(sent_at__lt=now - MESSAGES_KEPT) | Q(given_up_at__lt=now - MESSAGES_KEPT)
    ended = Q(secret__ends_at__lt=now - PROGRAMS_KEPT) | Q(secret__key__revoked_at__lt=now - PROGRAMS_KEPT)
    deleted = (
        IdempotentAnswer.objects.filter(created_at__lt=now - ANSWERS_KEPT).delete(),
        Outbox.objects.filter(over).delete(),
        KeyUse.objects.filter(ended).delete(),
    )
    return sum(rows for rows, _ in deleted)
