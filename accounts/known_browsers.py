"""Browsers in which a person has signed in before: their tries are counted apart from strangers'.

A stranger who guesses at an account all day uses up the tries of strangers, not those of its owner's browser.
The mark is a signed cookie that outlives the session; it lets nobody in, and says nothing of the account.
"""

import secrets
from typing import Final

from django.conf import settings
from django.contrib.sessions.backends.base import SessionBase
from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare, salted_hmac

LIFETIME_S: Final = 365 * 86_400
SALT: Final = "penstock.known_browser"
RESET: Final = "password_reset_for"


def remember(response: HttpResponse, email: str) -> None:
    """Mark the browser that gets this answer. One mark a browser: of who signed in last."""
    response.set_cookie(
        settings.KNOWN_BROWSER_COOKIE_NAME,
        signing.dumps([_of_account(email), secrets.token_urlsafe(12)], salt=SALT),
        max_age=LIFETIME_S,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def remember_reset(session: SessionBase, email: str) -> None:
    """Whoever followed the link of a mail owns the address, so a new browser is let try as well."""
    session[RESET] = _of_account(email)


def name_of(request: HttpRequest, email: str) -> str:
    """A name for the browser, by which to count its tries at this account; empty where it is a stranger."""
    account = _of_account(email)
    if constant_time_compare(request.session.get(RESET, ""), account):
        return f"reset {request.session.session_key}"
    try:
        marked, name = signing.loads(
            request.COOKIES.get(settings.KNOWN_BROWSER_COOKIE_NAME, ""), salt=SALT, max_age=LIFETIME_S
        )
    except signing.BadSignature:
        return ""
    return str(name) if constant_time_compare(marked, account) else ""


def _of_account(email: str) -> str:
    return salted_hmac(SALT, email.strip().lower()).hexdigest()[:32]
