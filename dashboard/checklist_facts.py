"""What the checklist goes by, from rows and rollups. Reads only; never looks through the ledger itself."""

from datetime import datetime, timedelta
from functools import reduce
from operator import or_
from typing import Final

from django.conf import settings
from django.db.models import Exists, F, Q, QuerySet

from accounts.models import ApiKey, KeySecret, Membership, Milestone, Quota, RateLimit, Team, User
from accounts.queries import rights, teams_of
from dashboard.checklist import Facts
from gateway.ledger.spans import minute_of
from gateway.models import Rollup

LOOKED_BACK: Final = {
    Rollup.Size.DAY: timedelta(days=92),
    Rollup.Size.QUARTER: timedelta(days=2),
    Rollup.Size.MINUTE: timedelta(hours=2),
}
"""Whoever begins did it lately, so years of rollups are not read. A day has no bucket until it is over."""
ERRORS: Final = ("failed", "truncated", "rejected")


def facts_of(user: User, now: datetime) -> Facts:
    """In seven queries at most: roles, milestones, teams, keys with limits, and three of rollups."""
    roles = list(Membership.objects.filter(user=user).values_list("role", flat=True))
    allowed = [rights(user, role) for role in ([None] if user.is_superuser else roles)]
    reached = set(Milestone.objects.filter(user=user).values_list("name", flat=True))
    teams = teams_of(user)
    calls = _calls(teams, user, now)
    route = calls.values_list("route", flat=True).first()
    return Facts(
        **_rows(teams),
        has_entry=route is not None,
        **(_of_calls(calls, route) if route is not None else {}),
        cost_seen=Milestone.Name.COST_SEEN in reached,
        savings_seen=Milestone.Name.SAVINGS_SEEN in reached,
        alert_tested=Milestone.Name.ALERT_TESTED in reached,
        makes_keys=any("make_keys" in each for each in allowed),
        sets_limits=any("manage_limits" in each for each in allowed),
    )


def _rows(teams: QuerySet[Team]) -> dict[str, bool]:
    """Of keys and limits, each looked for until the first is found; one query."""
    keys = ApiKey.objects.filter(team__in=teams).exclude(kind=ApiKey.Kind.PLAYGROUND)
    used = KeySecret.objects.filter(key__in=keys, last_used_at__isnull=False)
    of_teams = Q(team__in=teams) | Q(key__team__in=teams)
    limits = RateLimit.objects.filter(of_teams).exclude(_usual())
    quotas = Quota.objects.filter(of_teams)
    found = (
        User.objects.order_by()
        .annotate(
            has_key=Exists(keys.filter(revoked_at=None)),
            key_used=Exists(used),
            rate_limited=Exists(limits),
            quota_set=Exists(quotas),
        )
        .values("has_key", "key_used", "rate_limited", "quota_set")[:1][0]
    )
    return {
        "has_key": found["has_key"],
        "key_used": found["key_used"],
        "has_limit": found["rate_limited"] or found["quota_set"],
    }


def _usual() -> Q:
    """The rate limits that every team and key is given; nobody set them."""
    env, kinds = settings.ENV, RateLimit.Kind
    return Q(model_name="") & (
        Q(key__isnull=False, kind=kinds.REQUESTS, amount=env.key_requests_per_minute)
        | Q(team__isnull=False, kind=kinds.REQUESTS, amount=env.team_requests_per_minute)
        | Q(team__isnull=False, kind=kinds.TOKENS, amount=env.team_tokens_per_minute)
    )


def _calls(teams: QuerySet[Team], user: User, now: datetime) -> QuerySet[Rollup]:
    """Buckets with calls that were let in, in no order; some calls are in several of them."""
    lately = reduce(
        or_, (Q(size=size, start__gte=minute_of(now - back)) for size, back in LOOKED_BACK.items())
    )
    found = Rollup.objects.filter(lately).exclude(outcome="refused")
    return found if user.is_superuser else found.filter(team_id__in=list(teams.values_list("pk", flat=True)))


def _of_calls(calls: QuerySet[Rollup], route: str) -> dict[str, bool]:
    other = calls.exclude(route=route)
    handled = calls.filter(Q(attempts__gt=F("calls")) | Q(outcome__in=ERRORS))
    return {"second_route": other.exists(), "handled": handled.exists()}
