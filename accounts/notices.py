"""News for people and programs: written to the outbox with what they tell of, delivered by a task."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.db.models import Q
from django.urls import reverse
from django.utils import timezone, translation

from accounts.channels import emails_of
from accounts.models import ApiKey, Channel, Invitation, Membership, Outbox, Team, User, Webhook

LONGEST_SUBJECT = 200
SEALED = {"sealed": True}
"""The data of a message whose text is encrypted."""


class Words(NamedTuple):
    """A message in somebody's language."""

    subject: str
    text: str


class Unreadable(Exception):
    """A sealed text was encrypted under a key that CREDENTIAL_KEYS no longer has."""


def tell(
    event: str,
    *,
    team: Team | None,
    key: ApiKey | None,
    subject: str,
    text: str,
    data: Mapping[str, Any],
    dedupe: str,
    also: Iterable[User] = (),
) -> int:
    """Tell the team's owners by mail, and its webhooks and those of every team, in the caller's transaction.

    Without a team: the administrators, and the webhooks of every team.
    `also` are others in the team whom it concerns; who has left it or is switched off is not told.
    The text is given a link to the key's page or the team's.
    The same `dedupe`, of at most 170 characters, is told once to each address, whoever asks and how often.
    Gives the number of messages written now.
    """
    url = _page(team, key)
    said = _about(team, key) | dict(data) | {"url": url}
    text = f"{text.rstrip()}\n\n{url}\n"
    mails = [
        _row(event, subject, text, said, f"{dedupe}:user:{user.pk}", channel="mail", email=user.email)
        for user in _people(team, also)
    ]
    hooks = [
        _row(event, subject, text, said, f"{dedupe}:webhook:{hook.pk}", channel="webhook", webhook=hook)
        for hook in _webhooks(team)
    ]
    return _write([*mails, *hooks])


def mail(email: str, subject: str, text: str, event: str, dedupe: str) -> int:
    """One mail to one address. Gives 0 where it was written before."""
    return _write([_row(event, subject, text, {}, dedupe, channel="mail", email=email)])


def tell_places(
    event: str,
    *,
    people: Iterable[User],
    channels: Iterable[Channel],
    words: Callable[[], Words],
    data: Mapping[str, Any],
    about: str,
    dedupe: str,
) -> list[Outbox]:
    """Tell people by mail, each in their own language, and channels in English, in the caller's transaction.

    `words` says it in the language that is active then. `about` finds the messages again.
    The same `dedupe`, of at most 100 characters, is told once to each. Gives what was asked for, new or not.
    """
    rows = [
        _row(
            event,
            *_in(user.language, words),
            data,
            f"{dedupe}:user:{user.pk}",
            channel="mail",
            email=user.email,
        )
        for user in people
    ]
    for channel in channels:
        rows += _rows_to(channel, event, _in("", words), data, dedupe)
    for row in rows:
        row.about = about
    _write(rows)
    return list(Outbox.objects.filter(dedupe__in=[row.dedupe for row in rows]))


def _in(language: str, words: Callable[[], Words]) -> Words:
    """A person who chose no language is written to in English, as there is no browser to ask."""
    with translation.override(language or "en"):
        return words()


def _rows_to(channel: Channel, event: str, said: Words, data: Mapping[str, Any], dedupe: str) -> list[Outbox]:
    """One message, or of mail one to each address, so that none learns of the others."""
    dedupe = f"{dedupe}:channel:{channel.pk}"
    if channel.kind != Channel.Kind.MAIL:
        return [_row(event, *said, data, dedupe, channel=channel.kind, to=channel)]
    return [
        _row(event, *said, data, f"{dedupe}:{number}", channel="mail", to=channel, email=email)
        for number, email in enumerate(emails_of(channel))
    ]


def invite(invitation: Invitation, token: str) -> int:
    """Mail the link of an invitation to its address.

    The text is sealed, and forgotten once it is sent: whoever has the link has the place in the team.
    """
    subject, text = f"Your invitation to {invitation.team.name}", _invitation_text(invitation, token)
    dedupe = f"invitation:{invitation.pk}"
    to = {"channel": "mail", "email": invitation.email}
    return _write([_row("invitation.made", subject, _seal(text), SEALED, dedupe, **to)])


def text_of(message: Outbox) -> str:
    """Its text in clear. Raises Unreadable."""
    if not is_sealed(message):
        return message.text
    try:
        return _box().decrypt(message.text.encode()).decode()
    except InvalidToken:
        raise Unreadable(
            "its text was encrypted under a key that CREDENTIAL_KEYS no longer has: tell it anew"
        ) from None


def is_sealed(message: Outbox) -> bool:
    """Whether its text is encrypted, and is to be forgotten when there is no more use for it."""
    return bool(message.data == SEALED)


def moment(at: datetime) -> str:
    """As mail tells it: `22 November 2026, 14:05 UTC`."""
    return f"{at:%-d %B %Y, %H:%M} UTC"


def link(name: str, *args: object) -> str:
    """The address of a page, from outside."""
    return f"{settings.PUBLIC_URL}{reverse(name, args=args)}"


def _invitation_text(invitation: Invitation, token: str) -> str:
    by = invitation.created_by.email if invitation.created_by else "An administrator"
    role = invitation.get_role_display().lower()
    return (
        f"{by} invites you to the team {invitation.team.name} on Penstock, as {role}.\n\n"
        f"{link('invitation', token)}\n\n"
        f"The link is good until {moment(invitation.expires_at)} and works once.\n"
    )


def _seal(text: str) -> str:
    return _box().encrypt(text.encode()).decode()


def _box() -> MultiFernet:
    return MultiFernet([Fernet(each) for each in settings.CREDENTIAL_KEYS])


def _about(team: Team | None, key: ApiKey | None) -> dict[str, Any]:
    """Whose news it is, as webhooks tell it."""
    return {
        "team": None if team is None else {"id": team.pk, "name": team.name},
        "key": None if key is None else {"id": key.pk, "name": key.name},
    }


def _page(team: Team | None, key: ApiKey | None) -> str:
    if key is not None:
        return link("key", key.pk)
    return link("live") if team is None else link("team", team.slug)


def _people(team: Team | None, also: Iterable[User]) -> Iterable[User]:
    if team is None:
        return User.objects.filter(is_superuser=True, is_active=True).order_by("pk")
    concerned = Q(role=Membership.Role.OWNER) | Q(user__in=[each.pk for each in also])
    told = Membership.objects.filter(concerned, team=team)
    return User.objects.filter(pk__in=told.values("user"), is_active=True).order_by("pk")


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
    """Insert those that are new; another process may write the same at this moment, in the same order."""
    known = set(
        Outbox.objects.filter(dedupe__in=[row.dedupe for row in rows]).values_list("dedupe", flat=True)
    )
    fresh = sorted((row for row in rows if row.dedupe not in known), key=lambda row: row.dedupe)
    Outbox.objects.bulk_create(fresh, ignore_conflicts=True)
    return len(fresh)
