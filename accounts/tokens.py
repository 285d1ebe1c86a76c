"""Access tokens: a person's right to use the management API from a program, narrowed by scopes.

Kept like API keys: an HMAC under a pepper, compared in constant time, shown once.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType

from django.conf import settings
from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts import audit, keys
from accounts.models import AccessToken, User
from accounts.services.common import named
from accounts.services.wishes import AlreadyRevoked, ExpiryPassed, WrongValue

SCOPES: Mapping[str, Promise] = MappingProxyType(
    {
        "read": gettext_lazy("See what its maker may see; every GET needs it."),
        "keys": gettext_lazy("Make, change, rotate and revoke API keys."),
        "teams": gettext_lazy("Make and change teams, their members and invitations, and their webhooks."),
        "limits": gettext_lazy("Set and remove rate limits and quotas."),
        "operate": gettext_lazy(
            "Change providers, credentials, routes, prices and breakers: administrators only."
        ),
    }
)
"""What each lets a program do. A token never may more than the person it belongs to."""

LAST_USE_EVERY = timedelta(minutes=1)
"""A write at every use would make reads of the API writes of the database."""


def make_token(
    user: User, name: str, scopes: Iterable[str], expires_at: datetime | None = None
) -> tuple[AccessToken, str]:
    """A new access token, and the token in clear: nothing can show it again.

    Raises NoName, WrongValue or ExpiryPassed.
    """
    name, scopes = named(name), _scopes(scopes)
    if expires_at is not None and expires_at <= timezone.now():
        raise ExpiryPassed(_("The access token would have expired already; choose a later moment."))
    parts = keys.mint(keys.ACCESS_PREFIX)
    pepper = settings.KEY_PEPPERS[0]
    with transaction.atomic():
        token = AccessToken.objects.create(
            user=user,
            name=name,
            scopes=scopes,
            public_id=parts.public_id,
            digest=keys.digest(parts.secret, pepper),
            pepper_id=keys.pepper_id(pepper),
            expires_at=expires_at,
        )
        after = {"name": name, "scopes": scopes, "expires_at": expires_at, "user": user.email}
        audit.record("access_token.created", token, after=after)
    return token, parts.text


def revoke_token(token: AccessToken) -> None:
    """From its commit on it opens nothing. Raises AlreadyRevoked."""
    with transaction.atomic():
        at = timezone.now()
        if not AccessToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=at):
            raise AlreadyRevoked(_("The access token %(name)s was revoked already.") % {"name": token.name})
        token.revoked_at = at
        audit.record("access_token.revoked", token, before={"revoked_at": None}, after={"revoked_at": at})


def token_owner(text: str, now: datetime, address: str = "") -> AccessToken | None:
    """The token that was presented, with its user, where it is good now; else None, whatever is wrong.

    Notes the use, at most once a minute, and moves the digest to the newest pepper.
    """
    parts = keys.take_apart(text, keys.ACCESS_PREFIX)
    if parts is None:
        return None
    token = AccessToken.objects.select_related("user").filter(public_id=parts.public_id).first()
    if token is None or not _is_secret(token, parts.secret) or not _is_good(token, now):
        return None
    _note_use(token, parts.secret, now, address)
    return token


def _scopes(wished: Iterable[str]) -> list[str]:
    """In the order of SCOPES, each once."""
    asked = set(wished)
    if unknown := sorted(asked - SCOPES.keys()):
        raise WrongValue(
            "scopes",
            _("There is no scope called %(unknown)s; choose of %(scopes)s.")
            % {"unknown": unknown[0], "scopes": ", ".join(SCOPES)},
        )
    if not asked:
        raise WrongValue("scopes", _("An access token needs at least one scope."))
    return [scope for scope in SCOPES if scope in asked]


def _is_secret(token: AccessToken, secret: str) -> bool:
    pepper = {keys.pepper_id(each): each for each in settings.KEY_PEPPERS}.get(token.pepper_id)
    return pepper is not None and keys.same(keys.digest(secret, pepper), bytes(token.digest))


def _is_good(token: AccessToken, now: datetime) -> bool:
    is_over = token.expires_at is not None and token.expires_at <= now
    return token.revoked_at is None and not is_over and token.user.is_active


def _note_use(token: AccessToken, secret: str, now: datetime, address: str) -> None:
    pepper = settings.KEY_PEPPERS[0]
    fresh = {}
    if token.pepper_id != keys.pepper_id(pepper):
        fresh = {"digest": keys.digest(secret, pepper), "pepper_id": keys.pepper_id(pepper)}
    used = Q(last_used_at=None) | Q(last_used_at__lte=now - LAST_USE_EVERY)
    if fresh or token.last_used_at is None or token.last_used_at <= now - LAST_USE_EVERY:
        AccessToken.objects.filter(Q() if fresh else used, pk=token.pk).update(
            last_used_at=now, last_used_from=address[:45], **fresh
        )
