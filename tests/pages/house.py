"""A house with people, teams, keys, providers and a month of calls, so that pages look as they do in use.

Everything is made by the gateway's own services and booked by its own ledger.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.test import Client
from django.utils import timezone

from accounts import channels, services, tokens, webhooks
from accounts.models import ApiKey, Membership, Team, User
from gateway import services as upstream
from gateway.alerts import services as alerts
from gateway.models import BreakerChange, Entry, Provider, Refusal, Route, Target
from gateway.relay.call import new_call_id
from gateway.relay.records import Settled
from gateway.tag_names import declare
from tests.dashboard.scale import ENDS, Crowd, fill

CALLS = 4000
DAYS = 30
OF_LATE = 0.06
"""The share of the calls that fell into the last quarter of an hour, which the live page shows."""
FAILED = next(each for each in ENDS if each[0] == "failed")
ROLES = {"owner": "owner", "member": "member", "viewer": "viewer"}
NAMES = {
    "owner": "mika.tanaka@riverside.example",
    "member": "jonas.weber@riverside.example",
    "viewer": "amara.okafor@riverside.example",
    "other": "otto.lind@riverside.example",
    "newcomer": "noa.levi@riverside.example",
    "administrator": "ada.byrne@riverside.example",
}
PROVIDERS = (("openai", "OpenAI"), ("holysheep", "HolySheep AI"), ("deepseek", "DeepSeek"))
ROUTES = (
    # model name, weight, providers in order, dollars per million tokens in and out
    ("gpt-4o-mini", 6, ("openai", "holysheep"), (0.15, 0.60)),
    ("gpt-4o", 3, ("openai",), (2.50, 10.00)),
    ("deepseek-chat", 3, ("deepseek", "holysheep"), (0.27, 1.10)),
    ("gpt-5-mini", 1, ("openai",), None),
)
KEYS = {
    "Support": ("support-bot production", "support-bot staging", "nightly summaries"),
    "Hydrology": ("forecast notebook", "river gauge reader"),
    "Data platform": ("ingest", "document search"),
}


class Days(Crowd):
    """As `Crowd`, with days and nights, weekends, and a busy last quarter of an hour."""

    def calls(self, count: int) -> Iterator[Settled]:
        picks = random.Random(self.seed)
        yield self._a_failed_one(picks)
        for at in sorted(self._moments(picks, count)):
            call = self._call(picks, int(at.timestamp() * 1e6))
            if call.ended_at_us <= int(self.until.timestamp() * 1e6):
                yield call

    def _a_failed_one(self, picks: random.Random) -> Settled:
        """The first team's: of few calls it may have no other."""
        at = self.until - timedelta(days=self.days)
        return self._ended(picks, int(at.timestamp() * 1e6), 0, FAILED)

    def _moments(self, picks: random.Random, count: int) -> Iterator[datetime]:
        for number in range(count):
            if number < count * OF_LATE:
                yield self.until - timedelta(seconds=picks.uniform(5, 890))
            else:
                yield self._in_working_hours(picks)

    def _in_working_hours(self, picks: random.Random) -> datetime:
        while True:
            at = self.until - timedelta(days=picks.uniform(0, self.days))
            likely = 0.55 + 0.45 * math.sin((at.hour - 8) / 24 * 2 * math.pi)
            if picks.random() < likely * (0.4 if at.weekday() >= 5 else 1):
                return at


@dataclass
class House:
    people: Mapping[str, User]
    names: Mapping[str, Any]
    """What addresses name, by the names of their parameters; of the first team."""
    api_key: str
    """One of the first team's, as programs present it."""

    def sessions(self) -> dict[str, str]:
        """Cookies of signed-in sessions, by who it is."""
        made = {}
        for who, person in self.people.items():
            client = Client()
            client.force_login(person)
            made[who] = client.cookies[settings.SESSION_COOKIE_NAME].value
        return made


def build(upstream_url: str = "http://127.0.0.1:9/v1", calls: int = CALLS, days: int = DAYS) -> House:
    """Everything, beside what a first run made. `upstream_url` is where its providers are said to be."""
    people = _people()
    teams = _teams(people)
    targets = _upstream_side(upstream_url)
    keys, api_key = _keys(teams, people["owner"])
    now = datetime.now(UTC)
    declare(teams[0], ["app"])
    weighted = [each for each, weight in targets for _ in range(weight)]
    crowd = Days([each.pk for each in teams], [[key.pk for key in of] for of in keys], weighted, now, days)
    fill(crowd, calls, refusals=24)
    return House(people, _names(teams[0], keys[0], people, targets[0][0]), api_key)


def _people() -> dict[str, User]:
    made = {who: User.objects.create_user(email) for who, email in NAMES.items() if who != "administrator"}
    return made | {"administrator": User.objects.create_superuser(NAMES["administrator"])}


def _teams(people: Mapping[str, User]) -> Sequence[Team]:
    made = [services.create_team(name, people["administrator"]) for name in KEYS]
    Membership.objects.filter(user=people["administrator"]).delete()
    for who, role in ROLES.items():
        Membership.objects.create(team=made[0], user=people[who], role=role)
    Membership.objects.create(team=made[1], user=people["other"], role="owner")
    return made


def _upstream_side(url: str) -> Sequence[tuple[Target, int]]:
    """Targets with how often each is called."""
    providers = {slug: upstream.add_provider(slug, name, url) for slug, name in PROVIDERS}
    found = []
    for model_name, weight, slugs, dollars in ROUTES:
        route = Route.objects.filter(model_name=model_name).first() or upstream.add_route(model_name)
        for order, slug in enumerate(slugs):
            target = upstream.add_target(route, providers[slug], model_name, order=order)
            if dollars:
                _price(target, *dollars)
            found.append((target, weight if order == 0 else 1))
    _breaker_opened(found[0][0], providers["openai"])
    return found


def _price(target: Target, input_usd: float, output_usd: float) -> None:
    upstream.add_price(
        target,
        timezone.now() - timedelta(days=2 * DAYS),
        input_nanos=round(input_usd * 1e9),
        cached_input_nanos=round(input_usd * 5e8),
        output_nanos=round(output_usd * 1e9),
    )


def _breaker_opened(target: Target, provider: Provider) -> None:
    at = timezone.now() - timedelta(hours=5)
    steps = (
        ("closed", "open", "5 of the last 8 attempts failed."),
        ("open", "half_open", "30 s have passed."),
    )
    for number, (before, after, cause) in enumerate(
        (*steps, ("half_open", "closed", "A probe was answered."))
    ):
        BreakerChange.objects.create(
            target_id=target.pk,
            provider=provider.slug,
            upstream_model=target.upstream_model,
            before=before,
            after=after,
            cause=cause,
            at=at + timedelta(seconds=30 * number),
        )


def _keys(teams: Sequence[Team], owner: User) -> tuple[Sequence[Sequence[ApiKey]], str]:
    """Those of each team, and the first in clear."""
    texts: dict[int, str] = {}
    made: list[list[ApiKey]] = []
    for team in teams:
        made.append([])
        for name in KEYS[team.name]:
            key, text = services.create_key(team, name, owner, tags={"app": name.split()[0]})
            texts[key.pk] = text
            made[-1].append(key)
    first, second, third = made[0]
    services.rotate_key(first, owner)
    services.revoke_key(third, owner)
    services.set_rate_limit(teams[0], "tokens", 200_000, by_administrator=True)
    services.set_rate_limit(second, "requests", 60, "gpt-4o", by_administrator=False)
    services.set_quota(teams[0], "money", 40 * 10**9, by_administrator=False, hard=True)
    services.set_quota(first, "tokens", 5_000_000, by_administrator=False)
    return made, texts[first.pk]


def _watched(team: Team, owner: User) -> dict[str, Any]:
    """A channel, and an alert that tells it."""
    channel = channels.add_channel(team, "mail", "On call", "oncall@riverside.example", owner)
    values = {"name": "Spend of a day", "threshold": 50 * 10**9, "window_minutes": 1440}
    alert = alerts.add_alert(team, "spend", values, [channel], owner)
    return {"alert_id": alert.pk, "channel_id": channel.pk}


def _names(team: Team, keys: Sequence[ApiKey], people: Mapping[str, User], target: Target) -> dict[str, Any]:
    owner = people["owner"]
    invitation, secret = services.invite(team, owner, "member", "sam.ito@riverside.example")
    return {
        "team_id": team.pk,
        "slug": team.slug,
        "user_id": people["member"].pk,
        "invitation_id": invitation.pk,
        "token": secret,
        "key_id": keys[0].pk,
        "secret_id": keys[0].secrets.exclude(ends_at=None).get().pk,
        "token_id": tokens.make_token(owner, "terraform", ["read"])[0].pk,
        "webhook_id": webhooks.add_webhook(team, "https://hooks.riverside.example/penstock", owner).pk,
        **_watched(team, owner),
        "limit_id": team.rate_limits.get().pk,
        "quota_id": team.quotas.get().pk,
        "provider_id": target.provider_id,
        "route_id": target.route_id,
        "target_id": target.pk,
        "call_id": Entry.objects.filter(team_id=team.pk, outcome="answered").latest("started_at").pk,
        "failed_id": Entry.objects.filter(team_id=team.pk, outcome="failed").latest("started_at").pk,
        "refusal_id": Refusal.objects.filter(team_id=team.pk).latest("at").pk,
        "nobody_id": new_call_id(0),
    }
