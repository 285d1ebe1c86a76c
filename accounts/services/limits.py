"""Rate limits and quotas of teams and keys.

Who may change which is decided by `queries.may` and `queries.may_change_limit`.
A changed row keeps its id, and so what is counted under it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db import transaction
from django.utils.translation import gettext as _

from accounts import audit
from accounts.changes import note_change
from accounts.models import ApiKey, Quota, RateLimit, Team
from accounts.services.common import live
from accounts.services.keys import locked_for_change
from accounts.services.wishes import SetByAdministrator, WrongValue

MOST = (1 << 53) - 1
"""Of requests, tokens and calls at once: whole numbers that every client of the API can hold."""
MOST_NANOS = 10**18
MOST_RATE_LIMITS = 100
"""Of one owner: every call is held to each of them."""
WARN_AT = (50, 80, 100)
LONGEST_MODEL_NAME = 200

Owner = Team | ApiKey


def set_rate_limit(
    owner: Owner, kind: str, amount: int, model_name: str = "", *, by_administrator: bool
) -> RateLimit:
    """Make or change the owner's one limit of this kind and model name (empty: all together).

    Raises WrongValue, SetByAdministrator, AlreadyRevoked or Archived.
    """
    _one_of("kind", kind, RateLimit.Kind.values)
    _within("amount", amount, 1, MOST)
    model_name = _model_name(model_name)
    with transaction.atomic():
        team = _locked_team(owner)
        same = RateLimit.objects.select_for_update().filter(**_of(owner), kind=kind, model_name=model_name)
        limit = same.first()
        if limit is None:
            _keep_few(owner)
            limit = RateLimit(**_of(owner), kind=kind, model_name=model_name, amount=amount)
        _keep_administrators(limit, by_administrator)
        _write(limit, {"amount": amount, "by_administrator": by_administrator}, "rate_limit", team, owner)
    return limit


def remove_rate_limit(limit: RateLimit) -> None:
    """From its commit on it holds nobody back.

    Raises SetByAdministrator where it became an administrator's since it was read.
    """
    _remove(limit, "rate_limit.removed", {"kind": limit.kind, "model_name": limit.model_name})


def set_quota(
    owner: Owner,
    kind: str,
    amount: int,
    period: str = "month",
    zone: str = "UTC",
    hard: bool = False,
    warn_at: Iterable[int] = WARN_AT,
    *,
    by_administrator: bool,
) -> Quota:
    """Make or change the owner's one quota of this kind and period. Money is in whole nano-units.

    Raises WrongValue, SetByAdministrator, AlreadyRevoked or Archived.
    """
    _one_of("kind", kind, Quota.Kind.values)
    _one_of("period", period, Quota.Period.values)
    wished = {"amount": amount, "zone": zone, "hard": hard, "warn_at": warn_at}
    checked = _checked(wished, kind) | {"by_administrator": by_administrator}
    with transaction.atomic():
        team = _locked_team(owner)
        quota = Quota.objects.select_for_update().filter(**_of(owner), kind=kind, period=period).first()
        if quota is None:
            quota = Quota(**_of(owner), kind=kind, period=period, amount=0)
        _keep_administrators(quota, by_administrator)
        _write(quota, checked, "quota", team, owner)
    return quota


def change_quota(quota: Quota, changes: Mapping[str, Any], *, by_administrator: bool = False) -> Quota:
    """Change some of amount, zone, hard and warn_at. What an administrator changes becomes theirs.

    Another kind or period is another quota.
    Raises WrongValue, SetByAdministrator, AlreadyRevoked or Archived.
    """
    checked = _checked(changes, quota.kind)
    with transaction.atomic():
        owner = _owner_of(quota)
        team = _locked_team(owner)
        quota.refresh_from_db(from_queryset=Quota.objects.select_for_update())
        _keep_administrators(quota, by_administrator)
        if by_administrator:
            checked["by_administrator"] = True
        _write(quota, checked, "quota", team, owner)
    return quota


def remove_quota(quota: Quota) -> None:
    """As `remove_rate_limit`. What was spent stays on the books."""
    _remove(quota, "quota.removed", {"kind": quota.kind, "period": quota.period, "zone": quota.zone})


def _owner_of(row: RateLimit | Quota) -> Owner:
    owner = row.key or row.team
    assert owner is not None, "the database holds every limit to one owner"
    return owner


def _of(owner: Owner) -> dict[str, Any]:
    """The two columns that say whose a row is."""
    is_key = isinstance(owner, ApiKey)
    return {"key": owner if is_key else None, "team": None if is_key else owner}


def _team_of(owner: Owner) -> Team:
    return owner.team if isinstance(owner, ApiKey) else owner


def _locked_team(owner: Owner) -> Team:
    if isinstance(owner, ApiKey):
        locked_for_change(owner)
    else:
        live(owner.pk)
    return _team_of(owner)


def _keep_administrators(row: RateLimit | Quota, by_administrator: bool) -> None:
    if row.by_administrator and not by_administrator:
        raise SetByAdministrator(_("An administrator set this, so only an administrator can change it."))


def _keep_few(owner: Owner) -> None:
    if owner.rate_limits.count() >= MOST_RATE_LIMITS:
        raise WrongValue(
            "model_name",
            _("One owner has at most %(most)s rate limits: remove one that is not needed.")
            % {"most": MOST_RATE_LIMITS},
        )


def _write(row: RateLimit | Quota, wished: Mapping[str, Any], noun: str, team: Team, owner: Owner) -> None:
    """Save what differs, audited as made or as changed."""
    is_new = row.pk is None
    before, after = audit.changed(row, wished)
    if not (is_new or after):
        return
    for field, value in after.items():
        setattr(row, field, value)
    row.save()
    said = {"owner": _says(owner)} | _which(row)
    audit.record(
        f"{noun}.{'set' if is_new else 'changed'}",
        row,
        team=team,
        before={} if is_new else said | before,
        after=said | (dict(wished) if is_new else after),
    )
    note_change()


def _which(row: RateLimit | Quota) -> dict[str, Any]:
    if isinstance(row, RateLimit):
        return {"kind": row.kind, "model_name": row.model_name}
    return {"kind": row.kind, "period": row.period}


def _says(owner: Owner) -> str:
    return f"{'API key' if isinstance(owner, ApiKey) else 'team'} {owner.name}"


def _remove(row: RateLimit | Quota, action: str, which: Mapping[str, Any]) -> None:
    with transaction.atomic():
        same = type(row).objects.select_for_update().filter(pk=row.pk).first()
        if same is not None:
            _keep_administrators(same, row.by_administrator)
        gone, _ = type(row).objects.filter(pk=row.pk).delete()
        if gone:  # else somebody else removed it at this moment, and said so
            owner = _owner_of(row)
            before = {"owner": _says(owner), "amount": row.amount} | dict(which)
            audit.record(action, row, team=_team_of(owner), before=before)
            note_change()


def _checked(wished: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Each setting of a quota as it is kept. Raises WrongValue, also for an unknown one."""
    checks: dict[str, Callable[[Any], Any]] = {
        "amount": lambda amount: _within("amount", amount, 0, MOST_NANOS if kind == "money" else MOST),
        "zone": _zone,
        "hard": _flag,
        "warn_at": _percents,
    }
    if unknown := sorted(wished.keys() - checks.keys()):
        raise WrongValue(
            unknown[0],
            _("A quota has no setting called %(unknown)s that could be changed.") % {"unknown": unknown[0]},
        )
    return {field: checks[field](value) for field, value in wished.items()}


def _one_of(field: str, value: str, choices: Iterable[str]) -> None:
    known = list(choices)
    if value not in known:
        raise WrongValue(field, _("Choose one of %(known)s.") % {"known": ", ".join(known)})


def _within(field: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise WrongValue(
            field, _("A whole number from %(least)s to %(most)s is needed.") % {"least": least, "most": most}
        )
    return value


def _model_name(name: str) -> str:
    name = name.strip()
    if len(name) > LONGEST_MODEL_NAME or not name.isprintable():
        raise WrongValue(
            "model_name",
            _("A model name has at most %(longest)s printable characters.") % {"longest": LONGEST_MODEL_NAME},
        )
    return name


def _zone(name: Any) -> str:
    """Raises WrongValue unless the name is of the IANA database, such as Europe/Berlin."""
    try:
        return ZoneInfo(str(name)).key
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder of the database is an OSError
        raise WrongValue(
            "zone", _("There is no time zone called %(name)s; try Europe/Berlin or UTC.") % {"name": name}
        ) from None


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongValue("hard", _("A quota is hard or it is not."))
    return value


def _percents(wished: Iterable[Any]) -> list[int]:
    """Shares at which to tell, each once, rising."""
    return sorted({_within("warn_at", each, 1, 100) for each in wished})
