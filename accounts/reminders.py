"""Reminders of what ends: API keys, overlaps of their secrets, access tokens.

Looking again, at any time and in any process, tells nothing again: each is told once to each address,
unless the end was moved meanwhile.
What was revoked is not told of: somebody did it, and the audit says who.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db.models import OuterRef, Q, Subquery

from accounts import notices
from accounts.models import AccessToken, ApiKey, KeySecret, KeyUse
from accounts.notices import link, moment

DAYS = (1, 3, 14)
"""Before an end, at which it is told of."""
LONGEST_NOTICE = timedelta(days=max(DAYS))
OVERLAP_SOON = timedelta(hours=24)
LATE = timedelta(days=3)
"""An end is told of for so long after it: long enough for a weekend without tasks."""
SHORT = timedelta(days=1)
PROGRAMS_NAMED = 10
LONGEST_NAME = 80
"""Characters of what a program calls itself."""


class Overlap(NamedTuple):
    """A secret that was replaced, and works or worked until its end."""

    secret: KeySecret
    replaced_at: datetime
    ends_at: datetime

    @property
    def key(self) -> ApiKey:
        return self.secret.key


def remind(now: datetime) -> int:
    """Write every reminder that is due. Gives the number of messages written."""
    told = sum(_tell_of_key(each, now) for each in _ending_keys(now))
    told += sum(_tell_of_overlap(each, now) for each in _ending_overlaps(now))
    return told + sum(_tell_of_token(each, now) for each in _ending_tokens(now))


def days_reached(began_at: datetime, ends_at: datetime, now: datetime) -> int | None:
    """The tightest of DAYS that was reached before the end; None where none was.

    What lasts three days from its beginning is no news three days before its end.
    """
    reached = (days for days in DAYS if began_at < ends_at - timedelta(days=days) <= now < ends_at)
    return next(reached, None)


def is_news(began_at: datetime, ends_at: datetime) -> bool:
    """Whether an end is told of at all: what is made for a day or less is meant to end."""
    return ends_at - began_at > SHORT


def is_nearly_over(began_at: datetime, ends_at: datetime, now: datetime) -> bool:
    """Whether an overlap is in its second half and ends within a day: before that nobody is late."""
    return timedelta(0) < ends_at - now <= min(OVERLAP_SOON, (ends_at - began_at) / 2)


def _ending_keys(now: datetime) -> Iterable[ApiKey]:
    rows = ApiKey.objects.filter(_ends_around(now), team__archived_at=None)
    return rows.select_related("team", "created_by").order_by("pk")


def _ending_tokens(now: datetime) -> Iterable[AccessToken]:
    rows = AccessToken.objects.filter(_ends_around(now), user__is_active=True)
    return rows.select_related("user").order_by("pk")


def _ends_around(now: datetime) -> Q:
    return Q(revoked_at=None, expires_at__gt=now - LATE, expires_at__lte=now + LONGEST_NOTICE)


def _ending_overlaps(now: datetime) -> Iterable[Overlap]:
    """Of keys that can still be used."""
    lasting = Q(key__expires_at=None) | Q(key__expires_at__gt=now)
    live = Q(key__revoked_at=None, key__team__archived_at=None)
    later = KeySecret.objects.filter(key=OuterRef("key"), pk__gt=OuterRef("pk")).order_by("pk")
    rows = (
        KeySecret.objects.filter(lasting, live, ends_at__gt=now - LATE, ends_at__lte=now + OVERLAP_SOON)
        .annotate(replaced_at=Subquery(later.values("created_at")[:1]))
        .exclude(replaced_at=None)
        .select_related("key__team", "key__created_by")
        .order_by("pk")
    )
    return [Overlap(each, each.replaced_at, each.ends_at) for each in rows if each.ends_at]


def _tell_of_key(key: ApiKey, now: datetime) -> int:
    ends_at = key.expires_at
    assert ends_at is not None
    if not is_news(key.created_at, ends_at):
        return 0
    data = {"expires_at": ends_at.isoformat()}
    whose = f"The API key {key.name} of {key.team.name}"
    if ends_at <= now:
        text = f"{whose} expired on {moment(ends_at)}. Calls with it are refused since."
        dedupe = f"key:{key.pk}:expired:{_stamp(ends_at)}"
        return _tell("key.expired", key, f"{whose} has expired", text, data, dedupe)
    days = days_reached(key.created_at, ends_at, now)
    if days is None:
        return 0
    text = (
        f"{whose} expires on {moment(ends_at)}. From then on calls with it are refused.\n"
        "Where it is still needed, let it last longer, or make another, before that."
    )
    dedupe = f"key:{key.pk}:expires:{_stamp(ends_at)}:{days}"
    subject = f"{whose} expires within {_days(days)}"
    return _tell("key.expires_soon", key, subject, text, data | {"days": days}, dedupe)


def _tell_of_overlap(overlap: Overlap, now: datetime) -> int:
    if overlap.ends_at <= now:
        return _tell_of_ended_overlap(overlap)
    if not is_nearly_over(overlap.replaced_at, overlap.ends_at, now):
        return 0
    since = max(overlap.replaced_at, now - OVERLAP_SOON)
    late = KeyUse.objects.filter(secret=overlap.secret, last_used_at__gt=since)
    programs = list(late.order_by("-last_used_at", "pk"))
    return _tell_of_late_programs(overlap, programs) if programs else 0


def _tell_of_late_programs(overlap: Overlap, programs: Sequence[KeyUse]) -> int:
    key, ends_at = overlap.key, overlap.ends_at
    still = f"{len(programs)} programs still use" if len(programs) > 1 else "1 program still uses"
    text = (
        f"The API key {key.name} of {key.team.name} was rotated on {moment(overlap.replaced_at)}.\n"
        f"Its old secret {overlap.secret} ends on {moment(ends_at)}, and {still} it:\n\n"
        f"{_listed(programs)}\n\n"
        "Give them the new secret before that, or let the overlap last longer."
    )
    data = {
        "secret": str(overlap.secret),
        "ends_at": ends_at.isoformat(),
        "programs": [_program(each) for each in programs[:PROGRAMS_NAMED]],
    }
    dedupe = f"secret:{overlap.secret.pk}:ends:{_stamp(ends_at)}"
    subject = f"{still} the old secret of {key.name}, which ends soon"
    return _tell("key.overlap_ends_soon", key, subject, text, data, dedupe)


def _tell_of_ended_overlap(overlap: Overlap) -> int:
    key, secret = overlap.key, overlap.secret
    text = (
        f"The old secret {secret} of the API key {key.name} of {key.team.name} "
        f"ended on {moment(overlap.ends_at)}. Calls with it are refused since.\n{_last_use(overlap)}"
    )
    data = {
        "secret": str(secret),
        "ends_at": overlap.ends_at.isoformat(),
        "last_used_at": secret.last_used_at.isoformat() if secret.last_used_at else None,
    }
    dedupe = f"secret:{secret.pk}:ended:{_stamp(overlap.ends_at)}"
    return _tell("key.overlap_ended", key, f"The old secret of {key.name} has ended", text, data, dedupe)


def _last_use(overlap: Overlap) -> str:
    last = overlap.secret.last_used_at
    if last is None or last <= overlap.replaced_at:
        return "No program used it after the key was rotated."
    return f"It was last used on {moment(last)}: whatever used it then needs the new one."


def _tell_of_token(token: AccessToken, now: datetime) -> int:
    ends_at = token.expires_at
    assert ends_at is not None
    if not is_news(token.created_at, ends_at):
        return 0
    if ends_at <= now:
        text = f"It expired on {moment(ends_at)}. The management API refuses it since."
        return _mail_about(token, "expired", "has expired", text, f"expired:{_stamp(ends_at)}")
    days = days_reached(token.created_at, ends_at, now)
    if days is None:
        return 0
    text = f"It expires on {moment(ends_at)}. Where it is still needed, make another before that."
    said = f"expires within {_days(days)}"
    return _mail_about(token, "expires_soon", said, text, f"expires:{_stamp(ends_at)}:{days}")


def _mail_about(token: AccessToken, event: str, said: str, text: str, dedupe: str) -> int:
    """To its owner alone: it is nobody else's business."""
    return notices.mail(
        token.user.email,
        f"Your access token {token.name} {said}",
        f"{text}\n\n{link('account')}\n",
        f"access_token.{event}",
        f"access_token:{token.pk}:{dedupe}",
    )


def _tell(event: str, key: ApiKey, subject: str, text: str, data: Mapping[str, Any], dedupe: str) -> int:
    """Owners, whoever made the key, and webhooks."""
    also = [key.created_by] if key.created_by else []
    return notices.tell(
        event, team=key.team, key=key, subject=subject, text=text, data=data, dedupe=dedupe, also=also
    )


def _listed(programs: Sequence[KeyUse]) -> str:
    lines = [
        f"- {_name(each)} at {each.address}, last on {moment(each.last_used_at)}"
        for each in programs[:PROGRAMS_NAMED]
    ]
    more = len(programs) - PROGRAMS_NAMED
    return "\n".join([*lines, f"- and {more} more"] if more > 0 else lines)


def _name(program: KeyUse) -> str:
    """What it calls itself, which anybody may have chosen: one line, and no longer than bearable."""
    readable = "".join(each if each.isprintable() else " " for each in program.user_agent)
    return " ".join(readable.split())[:LONGEST_NAME] or "a program without a name"


def _program(program: KeyUse) -> dict[str, str]:
    return {
        "address": program.address,
        "user_agent": program.user_agent,
        "last_used_at": program.last_used_at.isoformat(),
    }


def _days(days: int) -> str:
    return "a day" if days == 1 else f"{days} days"


def _stamp(at: datetime) -> int:
    """Whole Unix seconds: moving an end makes its reminders new ones."""
    return int(at.timestamp())
