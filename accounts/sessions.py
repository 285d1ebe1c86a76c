"""Where a person is signed in: browsers, and what ends or renews their sessions.

Django's sessions do not know whose they are, so django-allauth's table beside them does.
"""

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib import import_module
from typing import Any, Final

from allauth.usersessions.models import UserSession
from django.conf import settings
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.db import DatabaseError, transaction
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from accounts import audit, services
from accounts.actor import actor
from accounts.browsers import browser_of
from accounts.models import User
from accounts.signals import rights_changed

log = logging.getLogger(__name__)

SEEN_EVERY_S: Final = 60
"""A browser that looks at many pages is noted this often."""
SIGNED_IN_S: Final = "signed_in_s"
RENEW: Final = "renew"
UNKNOWN_ADDRESS: Final = "::"
"""Of a proxy that does not say whom it speaks for."""


@dataclass(frozen=True)
class SignedIn:
    """One browser in which a person is signed in."""

    id: int
    browser: str
    """As in “Firefox on Linux”; empty where it is not known."""
    address: str
    since: datetime
    last_seen_at: datetime
    is_this: bool


def signed_in(user: User, here: str | None) -> list[SignedIn]:
    """Where this person is signed in, this browser first, then the latest seen. Two queries."""
    rows = sorted(_alive(user), key=lambda row: (row.session_key != here, -row.last_seen_at.timestamp()))
    return [
        SignedIn(
            row.pk,
            browser_of(row.user_agent),
            "" if row.ip == UNKNOWN_ADDRESS else row.ip,
            row.created_at,
            row.last_seen_at,
            row.session_key == here,
        )
        for row in rows
    ]


def end(user: User, session_id: int) -> bool:
    """End one of a person's sessions; False where there is none of this id."""
    return _end(user, UserSession.objects.filter(user=user, pk=session_id)) == 1


def end_others(user: User, here: str | None) -> int:
    """End all of a person's sessions but this one; how many there were."""
    others = [row.pk for row in _alive(user) if row.session_key != here]
    return _end(user, UserSession.objects.filter(user=user, pk__in=others))


def note(request: HttpRequest) -> None:
    """Note that a signed-in browser was here now."""
    seen = {"ip": actor().address or UNKNOWN_ADDRESS, "last_seen_at": timezone.now()}
    key = request.session.session_key
    if not UserSession.objects.filter(session_key=key).update(**seen):
        agent = request.headers.get("User-Agent", "")[:200]
        row = UserSession(session_key=key, user_id=request.user.pk, user_agent=agent, **seen)
        UserSession.objects.bulk_create([row], ignore_conflicts=True)  # of the same moment, elsewhere


def note_sometimes(request: HttpRequest) -> None:
    """As `note`, at most once in SEEN_EVERY_S. No page fails because this cannot be written."""
    if time.time() - request.session.get(SIGNED_IN_S, 0) < SEEN_EVERY_S:
        return
    if not cache.add(f"seen:{request.session.session_key}", 1, SEEN_EVERY_S):
        return
    try:
        note(request)
    except DatabaseError as why:
        log.warning("who was seen when could not be noted: %s", why)


def signed_in_now(request: HttpRequest, **_: Any) -> None:
    """A sign-in is noted by itself, so that the first minute needs nothing."""
    request.session[SIGNED_IN_S] = int(time.time())


def renew(request: HttpRequest) -> None:
    """Give the session another id; from then on the old one opens nothing."""
    old = request.session.session_key
    request.session.pop(RENEW, None)
    request.session.cycle_key()
    UserSession.objects.filter(session_key=old).update(session_key=request.session.session_key)


def renew_if_asked(request: HttpRequest) -> None:
    """At a page that is opened: what a page fetches beside it would come with the old id still."""
    mode = request.headers.get("Sec-Fetch-Mode", "navigate")
    is_page = request.method == "GET" and mode == "navigate" and "HX-Request" not in request.headers
    if is_page and request.session.get(RENEW):
        renew(request)


def renew_soon(user_id: int, **_: Any) -> None:
    """A person's rights changed: each of their sessions gets another id with the next page opened in it.

    Until a page is opened, the old id has the new rights; whoever opens it gets the new id.
    """
    user = User.objects.filter(pk=user_id).first()
    for row in _alive(user) if user is not None else ():
        _ask_to_renew(row.session_key)


def confirmed(request: HttpRequest, **how: Any) -> None:
    """Who has just confirmed that it is they may do more than a moment ago."""
    if how.get("reauthenticated"):
        renew(request)


def _ask_to_renew(session_key: str) -> None:
    """A session that ends meanwhile needs no other id, and is not brought back."""
    session = import_module(settings.SESSION_ENGINE).SessionStore(session_key)
    session[RENEW] = True
    if session.session_key is None:  # gone before it was read: saved, it would be a new one
        return
    try:
        session.save()
    except UpdateError:
        if session.exists(session_key):  # a database that could not write says the same
            raise


def _alive(user: User) -> list[UserSession]:
    """Rows whose session is there, is not over, and is of the password that the person has now."""
    rows = {row.session_key: row for row in UserSession.objects.filter(user=user)}
    found = Session.objects.filter(session_key__in=rows, expire_date__gt=timezone.now())
    return [rows[each.session_key] for each in found if _is_of(each.get_decoded(), user)]


def _is_of(said: dict[str, Any], user: User) -> bool:
    same_password = constant_time_compare(said.get(HASH_SESSION_KEY, ""), user.get_session_auth_hash())
    return said.get(SESSION_KEY) == str(user.pk) and same_password


def _end(user: User, rows: Iterable[UserSession]) -> int:
    """With them go the person's keys of the playground: nobody knows in which browser one was made."""
    rows = list(rows)
    if not rows:
        return 0
    with transaction.atomic():
        Session.objects.filter(session_key__in=[row.session_key for row in rows]).delete()
        UserSession.objects.filter(pk__in=[row.pk for row in rows]).delete()
        for row in rows:
            audit.record("session.ended", row, name=browser_of(row.user_agent) or "unknown browser")
        services.close_playground(user, why=f"{user.email} was signed out of a browser")
        transaction.on_commit(partial(rights_changed.send, sender=None, user_id=user.pk))
    return len(rows)
