"""Rotation: a new secret for a key, while the one before works until the end of its overlap."""

from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import audit
from accounts.changes import note_change
from accounts.models import ApiKey, KeySecret, User
from accounts.services.keys import locked_for_change, new_secret
from accounts.services.wishes import NotOverlapping, WrongValue

USUAL_OVERLAP = timedelta(hours=24)
LONGEST_OVERLAP = timedelta(days=30)


def rotate_key(key: ApiKey, by: User | None, overlap: timedelta = USUAL_OVERLAP) -> tuple[KeySecret, str]:
    """A new secret and the key in clear, shown once. The secret before it ends after the overlap.

    Secrets that overlap from earlier rotations keep their own ends.
    `by` is None where a command did it. Raises WrongValue, AlreadyRevoked or Archived.
    """
    if not timedelta(0) <= overlap <= LONGEST_OVERLAP:
        raise WrongValue(
            "overlap", _("An overlap lasts from 0 to %(days)s days.") % {"days": LONGEST_OVERLAP.days}
        )
    with transaction.atomic():
        locked_for_change(key)
        ends_at = timezone.now() + overlap
        before = _give_end(key, ends_at)
        secret, text = new_secret(key)
        audit.record(
            "key.rotated",
            key,
            team=key.team,
            before={"secret": before},
            after={"secret": str(secret), "earlier_one_ends_at": ends_at, "by": by.email if by else ""},
        )
        note_change()
    return secret, text


def extend_overlap(secret: KeySecret, until: datetime) -> KeySecret:
    """Let an overlapping secret work until then, at most 30 days from now.

    Raises NotOverlapping, WrongValue, AlreadyRevoked or Archived.
    """
    with transaction.atomic():
        now = timezone.now()
        _locked_overlapping(secret, now)
        if not now < until <= now + LONGEST_OVERLAP:
            raise WrongValue(
                "until", _("Choose a moment within the next %(days)s days.") % {"days": LONGEST_OVERLAP.days}
            )
        _set_end(secret, until, "key.overlap_extended")
    return secret


def end_overlap(secret: KeySecret) -> KeySecret:
    """From its commit on no call is admitted with this secret. Raises as `extend_overlap`."""
    with transaction.atomic():
        now = timezone.now()
        _locked_overlapping(secret, now)
        _set_end(secret, now, "key.overlap_ended")
    return secret


def _give_end(key: ApiKey, ends_at: datetime) -> str:
    """End the current secret then, and say which it was."""
    current = KeySecret.objects.get(key=key, ends_at=None)
    current.ends_at = ends_at
    current.save(update_fields=["ends_at"])
    return str(current)


def _locked_overlapping(secret: KeySecret, now: datetime) -> None:
    locked_for_change(secret.key)
    secret.refresh_from_db(fields=["ends_at"])
    if secret.ends_at is None:
        raise NotOverlapping(
            _("%(secret)s is the key's current secret: rotate the key to replace it.") % {"secret": secret}
        )
    if secret.ends_at <= now:
        raise NotOverlapping(
            _("The overlap of %(secret)s is over; an ended secret stays ended.") % {"secret": secret}
        )


def _set_end(secret: KeySecret, ends_at: datetime, action: str) -> None:
    before, secret.ends_at = secret.ends_at, ends_at
    secret.save(update_fields=["ends_at"])
    named = {"secret": str(secret)}
    audit.record(
        action,
        secret.key,
        team=secret.key.team,
        before=named | {"ends_at": before},
        after=named | {"ends_at": ends_at},
    )
    note_change()
