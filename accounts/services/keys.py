"""API keys: made, changed, revoked. Their secrets are minted here and shown once."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from ipaddress import ip_network
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from accounts import audit, keys
from accounts.actor import actor
from accounts.caller import Priority
from accounts.changes import note_change
from accounts.models import ApiKey, KeySecret, Membership, RateLimit, Team, User
from accounts.services.common import live, named
from accounts.services.wishes import AlreadyRevoked, ExpiryPassed, NotPossible, WrongValue

MOST_ROUTES = 100
MOST_NETWORKS = 100
MOST_TAGS = 10
LONGEST_TAG = 100
"""Characters of a tag's name or text; both as in the header that clients send tags by."""
LASTING = (ApiKey.Kind.SERVICE, ApiKey.Kind.PERSONAL)
"""Kinds that one asks for; a key of the playground comes with its page and goes by itself."""
PLAYGROUND_FOR = timedelta(hours=1)
PLAYGROUND_TAGS = {"source": "playground"}
"""On every entry of its calls, so that what trying out costs can be told from what programs do."""
MOST_PLAYGROUNDS = 20
"""Keys of a person in a team, made within PLAYGROUND_FOR: each has a rate limit of its own."""


class PlaygroundsUsedUp(NotPossible):
    """For the time being."""


def create_key(
    team: Team,
    name: str,
    created_by: User | None,
    expires_at: datetime | None = None,
    *,
    priority_ceiling: Priority = "normal",
    kind: str = "service",
    routes: Iterable[str] | None = None,
    networks: Iterable[str] = (),
    tags: Mapping[str, str] | None = None,
) -> tuple[ApiKey, str]:
    """A new API key with the house's usual rate limit, and the key in clear: nothing can show it again.

    `created_by` is None where a command made it. Raises NoName, ExpiryPassed, WrongValue or Archived.
    """
    wished = {
        "name": name,
        "expires_at": expires_at,
        "priority_ceiling": priority_ceiling,
        "kind": kind,
        "routes": routes,
        "networks": networks,
        "tags": tags,
    }
    key = ApiKey(team=team, created_by=created_by, **_checked(wished))
    with transaction.atomic():
        live(team.pk)
        return key, _insert(key)


def open_playground(team: Team, user: User) -> tuple[ApiKey, str]:
    """A person's key of the playground for the next hour, and the key in clear: it is kept nowhere.

    The ones before it are revoked, so that a person has one in a team.
    Who may make keys is decided by `queries.may`. Raises WrongValue, Archived or PlaygroundsUsedUp.
    """
    key = ApiKey(
        team=team,
        created_by=user,
        name=f"Playground of {user.email}"[:100],
        kind=ApiKey.Kind.PLAYGROUND,
        expires_at=timezone.now() + PLAYGROUND_FOR,
        tags=PLAYGROUND_TAGS,
    )
    with transaction.atomic():
        live(team.pk)
        _keep_few(team, user)
        for each in _in_playground(user).filter(team=team):
            revoke_now(each, by=user, why="the playground was opened again")
        return key, _insert(key)


def close_playground(user: User, why: str) -> None:
    """Revoke the person's keys of the playground, in every team."""
    with transaction.atomic():
        found = list(_in_playground(user))
        for each in found:
            revoke_now(each, by=user, why=why)
        if found:
            note_change()


def update_key(key: ApiKey, changes: Mapping[str, Any]) -> ApiKey:
    """Change some of name, expires_at, priority_ceiling, kind, routes, networks and tags, from its commit on.

    Who may make it urgent is decided by `queries.may`.
    Raises NoName, ExpiryPassed, WrongValue, AlreadyRevoked or Archived.
    """
    checked = _checked(changes)
    with transaction.atomic():
        locked_for_change(key)
        before, after = audit.changed(key, checked)
        for field, value in after.items():
            setattr(key, field, value)
        _keep_a_person(key)
        if after:
            key.save(update_fields=list(after))
            audit.record("key.changed", key, team=key.team, before=before, after=after)
            note_change()
    return key


def set_priority_ceiling(key: ApiKey, ceiling: Priority) -> None:
    """The most urgent that the key's calls may be, from its commit on. Raises as `update_key`."""
    update_key(key, {"priority_ceiling": ceiling})


def revoke_key(key: ApiKey, by: User | None) -> None:
    """From its commit on no call is admitted with the key, whichever secret. Raises AlreadyRevoked."""
    with transaction.atomic():
        revoke_now(key, by)
        note_change()


def revoke_now(key: ApiKey, by: User | None, why: str = "") -> None:
    """Inside a transaction that notes the change. Without `by`, whoever is acting. Raises AlreadyRevoked."""
    at = timezone.now()
    by_id = by.pk if by else actor().user_id
    revoked = ApiKey.objects.filter(pk=key.pk, revoked_at=None)
    if not revoked.update(revoked_at=at, revoked_by=by_id):
        raise AlreadyRevoked(_("The key %(name)s was revoked already.") % {"name": key.name})
    key.revoked_at, key.revoked_by_id = at, by_id
    after = {"revoked_at": at} | ({"because": why} if why else {})
    audit.record("key.revoked", key, team=key.team, before={"revoked_at": None}, after=after)


def new_secret(key: ApiKey) -> tuple[KeySecret, str]:
    """Inside a transaction: a secret under the newest pepper, and the key in clear."""
    parts = keys.mint()
    pepper = settings.KEY_PEPPERS[0]
    secret = KeySecret.objects.create(
        key=key,
        public_id=parts.public_id,
        digest=keys.digest(parts.secret, pepper),
        pepper_id=keys.pepper_id(pepper),
    )
    return secret, parts.text


def locked_for_change(key: ApiKey) -> None:
    """Inside a transaction: bring the key up to date, locked, and refuse a revoked one or an archived team.

    Raises AlreadyRevoked, Archived, or WrongValue for a key of the playground.
    """
    live(key.team_id)
    ApiKey.objects.select_for_update(no_key=True).get(pk=key.pk)
    key.refresh_from_db()
    if key.revoked_at is not None:
        raise AlreadyRevoked(_("The key %(name)s is revoked for good; make another.") % {"name": key.name})
    if key.kind == ApiKey.Kind.PLAYGROUND:
        raise WrongValue("kind", _("A key of the playground stays as it is, and ends within the hour."))


def _insert(key: ApiKey) -> str:
    """Inside a transaction: a key that was checked, and its secret in clear. Raises WrongValue."""
    _keep_a_person(key)
    key.save()
    _, text = new_secret(key)
    usual = _give_usual_limit(key)
    audit.record("key.created", key, team=key.team, after=_settings_of(key) | usual)
    note_change()
    return text


def _in_playground(user: User) -> QuerySet[ApiKey]:
    """Those that are not revoked, whether they have ended or not."""
    return ApiKey.objects.filter(created_by=user, kind=ApiKey.Kind.PLAYGROUND, revoked_at=None)


def _keep_few(team: Team, user: User) -> None:
    """With the team locked, so that pages that ask at once are counted too. Raises PlaygroundsUsedUp."""
    made = ApiKey.objects.filter(created_by=user, team=team, kind=ApiKey.Kind.PLAYGROUND)
    if made.filter(created_at__gt=timezone.now() - PLAYGROUND_FOR).count() >= MOST_PLAYGROUNDS:
        raise PlaygroundsUsedUp(
            _(
                "The playground makes at most %(most)s keys an hour for one person in a team. "
                "Close its other pages, and try again later."
            )
            % {"most": MOST_PLAYGROUNDS}
        )


def _give_usual_limit(key: ApiKey) -> dict[str, int]:
    """The rate limit that every key begins with; its team's owners may change it."""
    amount = settings.ENV.key_requests_per_minute
    if amount <= 0:
        return {}
    RateLimit.objects.create(key=key, kind=RateLimit.Kind.REQUESTS, amount=amount)
    return {"requests_per_minute": amount}


def _settings_of(key: ApiKey) -> dict[str, Any]:
    return {field: getattr(key, field) for field in _CHECKS}


def _keep_a_person(key: ApiKey) -> None:
    """A personal key ends with its maker's place in the team, so there must be one.

    An administrator has the playground of every team.
    """
    is_tried_out = key.kind == ApiKey.Kind.PLAYGROUND
    if key.kind == ApiKey.Kind.SERVICE or (is_tried_out and _administers(key.created_by)):
        return
    if not Membership.objects.filter(team=key.team_id, user=key.created_by_id).exists():
        raise WrongValue("kind", _("A personal key needs a maker who is in the team; make it a service key."))


def _administers(person: User | None) -> bool:
    return person is not None and person.is_active and person.is_superuser


def _checked(wished: Mapping[str, Any]) -> dict[str, Any]:
    """Each setting as it is kept. Raises NoName, ExpiryPassed or WrongValue, also for an unknown one."""
    if unknown := sorted(wished.keys() - _CHECKS.keys()):
        raise WrongValue(
            unknown[0],
            _("A key has no setting called %(unknown)s that could be changed.") % {"unknown": unknown[0]},
        )
    return {field: _CHECKS[field](value) for field, value in wished.items()}


def _expiry(expires_at: datetime | None) -> datetime | None:
    if expires_at is None:
        return None
    if timezone.is_naive(expires_at):
        raise WrongValue("expires_at", _("The moment of expiry needs a time zone."))
    if expires_at <= timezone.now():
        raise ExpiryPassed(_("The key would have expired already; choose a later moment."))
    return expires_at


def _one_of(field: str, choices: Iterable[str]) -> Callable[[Any], str]:
    known = list(choices)

    def check(value: Any) -> str:
        if value not in known:
            raise WrongValue(field, _("Choose one of %(known)s.") % {"known": ", ".join(known)})
        return str(value)

    return check


def _routes(wished: Iterable[str] | None) -> list[str] | None:
    """Model names, sorted, each once; None for every route."""
    if wished is None:
        return None
    names = sorted({_text("routes", name, 200, _("model name")) for name in wished})
    if not names:
        raise WrongValue("routes", _("Name at least one route, or leave it open for every route."))
    told = _("A key has at most %(most)s routes; these are %(count)s.")
    return _few("routes", names, MOST_ROUTES, told)


def _networks(wished: Iterable[str] | None) -> list[str]:
    """Ranges in their usual spelling, each once, in the order given."""
    found = list(dict.fromkeys(_network(each) for each in wished or ()))
    told = _("A key has at most %(most)s networks; these are %(count)s.")
    return _few("networks", found, MOST_NETWORKS, told)


def _network(text: str) -> str:
    try:
        network = ip_network(text.strip())
    except (ValueError, AttributeError) as why:
        raise WrongValue(
            "networks", _("An address range looks like 10.0.0.0/8 or 2001:db8::/32: %(why)s.") % {"why": why}
        ) from None
    if "%" in str(network):
        raise WrongValue("networks", _("An address range has no interface name in it."))
    return str(network)


def _tags(wished: Mapping[str, str] | None) -> dict[str, str]:
    tags = {_tag_name(name): _tag_text(text) for name, text in sorted((wished or {}).items())}
    if len(tags) > MOST_TAGS:
        raise WrongValue(
            "tags",
            _("A key has at most %(most)s tags; these are %(count)s.")
            % {"most": MOST_TAGS, "count": len(tags)},
        )
    return tags


def _tag_name(name: Any) -> str:
    kept = _text("tags", name, LONGEST_TAG, _("tag's name"))
    if set(kept) & set(",="):
        raise WrongValue("tags", _("A tag's name has neither comma nor equals sign."))
    return kept


def _tag_text(text: Any) -> str:
    if not isinstance(text, str) or not text.isprintable() or len(text) > LONGEST_TAG:
        raise WrongValue(
            "tags",
            _("A tag's text is printable and has at most %(longest)s characters.") % {"longest": LONGEST_TAG},
        )
    return text


def _text(field: str, text: Any, longest: int, what: str) -> str:
    """Printable, without blanks around it, and not empty. Raises WrongValue."""
    if not isinstance(text, str) or not text.strip() or not text.isprintable() or len(text) > longest:
        raise WrongValue(
            field,
            _("A %(what)s is printable text of 1 to %(longest)s characters.")
            % {"what": what, "longest": longest},
        )
    return text.strip()


def _few(field: str, found: list[str], most: int, told: str) -> list[str]:
    """`told` says it where there are more. Raises WrongValue."""
    if len(found) > most:
        raise WrongValue(field, told % {"most": most, "count": len(found)})
    return found


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": named,
    "expires_at": _expiry,
    "priority_ceiling": _one_of("priority_ceiling", ApiKey.Priority.values),
    "kind": _one_of("kind", LASTING),
    "routes": _routes,
    "networks": _networks,
    "tags": _tags,
}
"""Every setting of a key that may be changed, and how it is checked."""
