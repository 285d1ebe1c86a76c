"""News for people and programs: written to the outbox with what they tell of, delivered by a task."""

from collections.abc import Iterable, Mapping
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from accounts.models import ApiKey, Invitation, Membership, Outbox, Team, User, Webhook

LONGEST_SUBJECT = 200


def tell(
    event: str,
    *,
    team: Team | None,
    key: ApiKey | None,
    subject: str,
    text: str,
    data: Mapping[str, Any],
    dedupe: str,
) -> int:
    """Tell the team's owners by mail, and its webhooks and those of every team, in the caller's transaction.

    Without a team: the administrators, and the webhooks of every team.
    The same `dedupe` is told once to each address, whoever asks and how often.
    Gives the number of messages written now.
    """
    said = _about(team, key) | dict(data)
    mails = [
        _row(event, subject, text, said, f"{dedupe}:user:{user.pk}", channel="mail", email=user.email)
        for user in _people(team)
    ]
    hooks = [
        _row(event, subject, text, said, f"{dedupe}:webhook:{hook.pk}", channel="webhook", webhook=hook)
        for hook in _webhooks(team)
    ]
    return _write([*mails, *hooks])


def mail(email: str, subject: str, text: str, event: str, dedupe: str) -> int:
    """One mail to one address. Gives 0 where it was written before."""
    return _write([_row(event, subject, text, {}, dedupe, channel="mail", email=email)])


def invite(invitation: Invitation, token: str) -> int:
    """Mail the link of an invitation to its address."""
    team = invitation.team
    link = f"{settings.PUBLIC_URL}/invitations/{token}/"
    by = invitation.created_by.email if invitation.created_by else "An administrator"
    role = invitation.get_role_display().lower()
    text = (
        f"{by} invites you to the team {team.name} on Penstock, as {role}.\n\n"
        f"{link}\n\n"
        f"The link is good until {invitation.expires_at:%d %B %Y, %H:%M} UTC and works once.\n"
    )
    subject = f"Your invitation to {team.name}"
    return mail(invitation.email, subject, text, "invitation.made", f"invitation:{invitation.pk}")


def _about(team: Team | None, key: ApiKey | None) -> dict[str, Any]:
    """Whose news it is, as webhooks tell it."""
    return {
        "team": None if team is None else {"id": team.pk, "name": team.name},
        "key": None if key is None else {"id": key.pk, "name": key.name},
    }


def _people(team: Team | None) -> Iterable[User]:
    if team is None:
        return User.objects.filter(is_superuser=True, is_active=True).order_by("pk")
    owning = Q(memberships__team=team, memberships__role=Membership.Role.OWNER)
    return User.objects.filter(owning, is_active=True).order_by("pk")


def _webhooks(team: Team | None) -> Iterable[Webhook]:
    theirs = Q(team=None) if team is None else Q(team=None) | Q(team=team)
    return Webhook.objects.filter(theirs, enabled=True)


def _row(event: str, subject: str, text: str, data: Mapping[str, Any], dedupe: str, **to: Any) -> Outbox:
    at = timezone.now()
    subject = " ".join(subject.split())[:LONGEST_SUBJECT]  # a mail header is one line
    return Outbox(
        event=event, subject=subject, text=text, data=dict(data), dedupe=dedupe, next_try_at=at, **to
    )


def _write(rows: list[Outbox]) -> int:
    """Insert those that are new; another process may write the same at this moment."""
    known = set(
        Outbox.objects.filter(dedupe__in=[row.dedupe for row in rows]).values_list("dedupe", flat=True)
    )
    fresh = [row for row in rows if row.dedupe not in known]
    Outbox.objects.bulk_create(fresh, ignore_conflicts=True)
    return len(fresh)
