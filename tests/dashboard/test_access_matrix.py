"""Who gets in where: every page, operation of the API, operator page and socket, tried by everybody.

What there is comes from the URLconf; what is right is written out below, route by route.
A route without a row here fails: write one beside those that are like it.

Alice and Amy own the team, Bob is a member, Vera a viewer. Otto owns another team.
Of what is the team's, a stranger, Otto and an expired access token must not read a word.
"""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest
from allauth.mfa.models import Authenticator
from allauth.usersessions.models import UserSession
from asgiref.sync import sync_to_async
from django.db import transaction
from django.test import Client
from django.urls import get_resolver
from django.urls.resolvers import URLResolver
from django.utils import timezone

from accounts import channels, services, tokens, webhooks
from accounts.models import AccessToken, AuditEvent, Membership, Team, User
from dashboard import live
from dashboard.api import api
from dashboard.consumers import _paths
from gateway import services as upstream
from gateway.alerts import services as alerts
from gateway.ledger.writer import book
from gateway.models import BreakerChange
from gateway.relay.records import Refusals
from tests.dashboard.conftest import session_of
from tests.dashboard.test_consumers import knock
from tests.gateway.records import opened, refused, settled

CANARY = "zq7canary"
"""In every name and text of the team, so that a glimpse of any is noticed."""

# What is right. `yes`: it is done. `no`: 403. `none`: 404. `who`: they are asked who they are.
# A number: it would be theirs to do, but cannot be done just now.
EVERYBODY = ("stranger", "expired", "viewer", "member", "owner", "other", "administrator")


def row(known="", **answers):
    """`known` is for all who are signed in, before what is said of each."""
    who = {"stranger": "who", "expired": "who"}
    return who | dict.fromkeys(EVERYBODY[2:], known) | answers


KNOWN = row("yes")  # whoever is signed in, of their own things
TEAM = row("yes", other="none")
MAKERS = row("yes", other="none", viewer="no")
OWNERS = row("yes", other="none", viewer="no", member="no")
ADMINISTRATORS = row("no", administrator="yes")
NOBODY = row("none", stranger="none", expired="none")
ANYBODY = row("yes", stranger="yes", expired="yes")
OPERATORS = ADMINISTRATORS  # staff, who see nothing of teams by that alone

API = {
    "GET /api/openapi.json": row("yes", stranger="login", expired="login"),
    "GET /api/docs": row("yes", stranger="login", expired="login"),
    "GET /api/": NOBODY,
    # people
    "GET /api/me": KNOWN,
    "GET /api/access-tokens": KNOWN,
    "POST /api/access-tokens": KNOWN,
    "POST /api/access-tokens/{token_id}/revoke": row("none", owner="yes"),  # it is Alice's
    # teams
    "GET /api/teams": KNOWN,
    "GET /api/teams?name=zq7canary": KNOWN,
    "POST /api/teams": ADMINISTRATORS,
    "GET /api/teams/{team_id}": TEAM,
    "PATCH /api/teams/{team_id}": OWNERS,
    "POST /api/teams/{team_id}/archive": OWNERS,
    "POST /api/teams/{team_id}/restore": OWNERS | {"owner": 409, "administrator": 409},  # not archived
    "POST /api/teams/{team_id}/leave": TEAM | {"administrator": 404},  # not in it
    "POST /api/teams/{team_id}/hand-over": OWNERS | {"administrator": 404},  # not in it
    "GET /api/teams/{team_id}/members": TEAM,
    "POST /api/teams/{team_id}/members": OWNERS,
    "PATCH /api/teams/{team_id}/members/{user_id}": OWNERS,
    "DELETE /api/teams/{team_id}/members/{user_id}": OWNERS,
    "GET /api/teams/{team_id}/invitations": OWNERS,
    "POST /api/teams/{team_id}/invitations": OWNERS,
    "DELETE /api/teams/{team_id}/invitations/{invitation_id}": OWNERS,
    "POST /api/invitations/accept": row(409, other="yes", administrator="yes"),  # most are in it already
    # keys
    "GET /api/keys": KNOWN,
    "GET /api/keys?team={team_id}": KNOWN,
    "GET /api/keys?name=zq7canary": KNOWN,
    "POST /api/teams/{team_id}/keys": MAKERS,
    "GET /api/keys/{key_id}": TEAM,
    "PATCH /api/keys/{key_id}": OWNERS,  # Alice made it
    "POST /api/keys/{key_id}/rotate": OWNERS,
    "POST /api/keys/{key_id}/revoke": OWNERS,
    "GET /api/keys/{key_id}/secrets": TEAM,
    "PATCH /api/keys/{key_id}/secrets/{secret_id}": OWNERS,
    "POST /api/keys/{key_id}/secrets/{secret_id}/end": OWNERS,
    # limits
    "GET /api/teams/{team_id}/rate-limits": TEAM,
    "PUT /api/teams/{team_id}/rate-limits": OWNERS,
    "GET /api/teams/{team_id}/tag-names": TEAM,
    "PUT /api/teams/{team_id}/tag-names": OWNERS,
    "GET /api/keys/{key_id}/rate-limits": TEAM,
    "PUT /api/keys/{key_id}/rate-limits": OWNERS,
    "GET /api/rate-limits/{limit_id}": TEAM,
    "DELETE /api/rate-limits/{limit_id}": OWNERS,
    "GET /api/teams/{team_id}/quotas": TEAM,
    "PUT /api/teams/{team_id}/quotas": OWNERS,
    "GET /api/keys/{key_id}/quotas": TEAM,
    "PUT /api/keys/{key_id}/quotas": OWNERS,
    "GET /api/quotas/{quota_id}": TEAM,
    "PATCH /api/quotas/{quota_id}": OWNERS,
    "DELETE /api/quotas/{quota_id}": OWNERS,
    # webhooks and the audit
    "GET /api/webhooks": KNOWN,
    "GET /api/webhooks?team={team_id}": KNOWN,
    "POST /api/webhooks": OWNERS,
    "GET /api/webhooks/{webhook_id}": OWNERS,
    "PATCH /api/webhooks/{webhook_id}": OWNERS,
    "DELETE /api/webhooks/{webhook_id}": OWNERS,
    # alerts and channels
    "GET /api/alerts": KNOWN,
    "GET /api/alerts?team={team_id}": KNOWN,
    "POST /api/alerts": OWNERS,
    "GET /api/alerts/{alert_id}": TEAM,
    "PATCH /api/alerts/{alert_id}": OWNERS,
    "DELETE /api/alerts/{alert_id}": OWNERS,
    "POST /api/alerts/{alert_id}/test": OWNERS,
    "GET /api/alerts/{alert_id}/events": TEAM,
    "GET /api/channels": KNOWN,
    "GET /api/channels?team={team_id}": KNOWN,
    "POST /api/channels": OWNERS,
    "GET /api/channels/{channel_id}": OWNERS,
    "PATCH /api/channels/{channel_id}": OWNERS,
    "DELETE /api/channels/{channel_id}": OWNERS,
    "POST /api/channels/{channel_id}/test": OWNERS,
    "GET /api/audit": KNOWN,
    "GET /api/audit?team={team_id}": OWNERS,
    "GET /api/audit.csv": KNOWN,
    "GET /api/audit.csv?team={team_id}": OWNERS,
    # usage
    "GET /api/calls": KNOWN,
    "GET /api/calls?team={team_id}": TEAM,
    "GET /api/calls/{call_id}": TEAM,
    "GET /api/refusals": KNOWN,
    "GET /api/refusals?team={team_id}": TEAM,
    "GET /api/refusals/{refusal_id}": TEAM,
    "GET /api/usage": KNOWN,
    "GET /api/usage?team={team_id}": TEAM,
    "GET /api/usage/series": KNOWN,
    "GET /api/usage/series?team={team_id}&by=key": TEAM,
    "GET /api/usage/breakdown": KNOWN,
    "GET /api/usage/breakdown?team={team_id}&by=key": TEAM,
    "GET /api/usage.csv": KNOWN,
    "GET /api/usage.csv?team={team_id}&by=key": TEAM,
    "GET /api/calls.csv": KNOWN,
    "GET /api/calls.csv?team={team_id}": TEAM,
    "GET /api/teams/{team_id}/statement.csv?month=2030-01": TEAM,
    # the upstream side
    "GET /api/providers": OPERATORS,
    "POST /api/providers": OPERATORS,
    "GET /api/providers/{provider_id}": OPERATORS,
    "PATCH /api/providers/{provider_id}": OPERATORS,
    "PUT /api/providers/{provider_id}/credential": OPERATORS,
    "DELETE /api/providers/{provider_id}/credential": OPERATORS,
    "GET /api/routes": OPERATORS,
    "POST /api/routes": OPERATORS,
    "GET /api/routes/{route_id}": OPERATORS,
    "PATCH /api/routes/{route_id}": OPERATORS,
    "POST /api/routes/{route_id}/targets": OPERATORS,
    "GET /api/targets/{target_id}": OPERATORS,
    "PATCH /api/targets/{target_id}": OPERATORS,
    "DELETE /api/targets/{target_id}": OPERATORS,
    "GET /api/targets/{target_id}/prices": OPERATORS,
    "POST /api/targets/{target_id}/prices": OPERATORS,
    # savings, forecasts, bills
    "GET /api/savings": KNOWN,
    "GET /api/savings?team={team_id}": TEAM,
    "GET /api/forecast": KNOWN,
    "GET /api/forecast?team={team_id}": TEAM,
    "POST /api/reconciliation?provider={provider_id}": OPERATORS | {"administrator": 422},  # an empty file
    "GET /api/unpriced": KNOWN,
    "GET /api/unpriced?team={team_id}": TEAM,
    "GET /api/repricings": OPERATORS,
    "GET /api/prices.csv": OPERATORS,
    "POST /api/prices.csv": OPERATORS | {"administrator": 422},  # it has no headings
    "GET /api/exchange-rates.csv": OPERATORS,
    "POST /api/exchange-rates.csv": OPERATORS | {"administrator": 422},
    "GET /api/exchange-rates": OPERATORS,
    "POST /api/exchange-rates": OPERATORS,
    "GET /api/price-books": OPERATORS,
    "POST /api/targets/{target_id}/breaker": OPERATORS,
    "GET /api/targets/{target_id}/breaker/timeline": OPERATORS,
    "GET /api/targets/{target_id}/state": OPERATORS | {"administrator": 503},  # no relay runs here
}
PAGES = {
    "GET /": KNOWN,
    "GET /?team={slug}": TEAM,
    # keys
    "GET /keys/": KNOWN,
    "GET /keys/new/": row("yes", viewer="no"),
    "POST /keys/new/": row("yes", viewer="no"),
    "GET /keys/{key_id}/": TEAM,
    "GET /keys/{key_id}/settings/": OWNERS,
    "POST /keys/{key_id}/settings/": OWNERS,
    "GET /keys/{key_id}/rotate/": OWNERS,
    "POST /keys/{key_id}/rotate/": OWNERS,
    "POST /keys/{key_id}/secrets/{secret_id}/extend/": OWNERS,
    "GET /keys/{key_id}/secrets/{secret_id}/end/": OWNERS,
    "POST /keys/{key_id}/secrets/{secret_id}/end/": OWNERS,
    "GET /keys/{key_id}/rate-limit/": OWNERS,
    "POST /keys/{key_id}/rate-limit/": OWNERS,
    "GET /keys/{key_id}/quota/": OWNERS,
    "POST /keys/{key_id}/quota/": OWNERS,
    "GET /keys/{key_id}/revoke/": OWNERS,
    "POST /keys/{key_id}/revoke/": OWNERS,
    # calls and usage
    "GET /usage/": KNOWN,
    "GET /usage/?team={slug}": TEAM,
    "GET /usage/chart.csv?chart=spend": KNOWN,
    "GET /usage/chart.csv?chart=spend&team={slug}": TEAM,
    "GET /calls/": KNOWN,
    "GET /calls/?team={slug}": TEAM,
    "GET /calls/refused/": KNOWN,
    "GET /calls/refused/?team={slug}": TEAM,
    "GET /calls/{call_id}/": TEAM,
    # savings, forecasts, bills
    "GET /savings/": KNOWN,
    "GET /savings/?team={slug}": TEAM,
    "GET /forecast/": KNOWN,
    "GET /forecast/?team={slug}": TEAM,
    "GET /statement/": KNOWN,
    "GET /statement/?team={slug}": TEAM,
    "GET /reconciliation/": ADMINISTRATORS,
    "POST /reconciliation/": ADMINISTRATORS,
    # prices
    "GET /prices/": OPERATORS,
    "POST /prices/file/": OPERATORS,
    "GET /unpriced/": KNOWN,
    "POST /unpriced/": OPERATORS | {"administrator": 404},  # it names no target
    # the upstream side
    "GET /providers/": OPERATORS,
    "GET /providers/new/": OPERATORS,
    "GET /providers/new/?preset=openai": OPERATORS,
    "POST /providers/new/": OPERATORS,
    "GET /providers/{provider_id}/": OPERATORS,
    "GET /providers/{provider_id}/settings/": OPERATORS,
    "POST /providers/{provider_id}/settings/": OPERATORS,
    "POST /providers/{provider_id}/switch/": OPERATORS,
    "GET /providers/{provider_id}/credential/": OPERATORS,
    "POST /providers/{provider_id}/credential/": OPERATORS,
    "POST /providers/{provider_id}/test/": OPERATORS,  # it names no model, so nothing is sent
    "GET /providers/{provider_id}/models/": OPERATORS,
    "POST /providers/{provider_id}/models/": OPERATORS,
    "POST /providers/{provider_id}/models/pick/": OPERATORS,
    "GET /routes/": OPERATORS,
    "GET /routes/new/": OPERATORS,
    "POST /routes/new/": OPERATORS,
    "GET /routes/{route_id}/": OPERATORS,
    "GET /routes/{route_id}/now/": OPERATORS,
    "GET /routes/{route_id}/settings/": OPERATORS,
    "POST /routes/{route_id}/settings/": OPERATORS,
    "POST /routes/{route_id}/targets/": OPERATORS,
    "GET /targets/{target_id}/": OPERATORS,
    "GET /targets/{target_id}/now/": OPERATORS,
    "GET /targets/{target_id}/settings/": OPERATORS,
    "POST /targets/{target_id}/settings/": OPERATORS,
    "POST /targets/{target_id}/switch/": OPERATORS,
    "POST /targets/{target_id}/move/": OPERATORS,
    "GET /targets/{target_id}/remove/": OPERATORS,
    "POST /targets/{target_id}/remove/": OPERATORS,
    "POST /targets/{target_id}/breaker/": OPERATORS,
    # teams
    "GET /teams/": KNOWN,
    "GET /teams/{slug}/": TEAM,
    "POST /teams/{slug}/": OWNERS,
    "POST /teams/{slug}/rename/": OWNERS,
    "GET /teams/{slug}/archive/": OWNERS,
    "POST /teams/{slug}/archive/": OWNERS,
    "POST /teams/{slug}/restore/": OWNERS,
    "GET /teams/{slug}/leave/": TEAM | {"administrator": "no"},  # not in it
    "POST /teams/{slug}/leave/": TEAM | {"administrator": "no"},
    "GET /teams/{slug}/hand-over/": OWNERS | {"administrator": "no"},
    "POST /teams/{slug}/hand-over/": OWNERS | {"administrator": "no"},
    "POST /teams/{slug}/members/{user_id}/role/": OWNERS,
    "GET /teams/{slug}/members/{user_id}/remove/": OWNERS,
    "POST /teams/{slug}/members/{user_id}/remove/": OWNERS,
    "GET /teams/{slug}/invite/": OWNERS,
    "POST /teams/{slug}/invite/": OWNERS,
    "POST /teams/{slug}/invitations/{invitation_id}/withdraw/": OWNERS,
    "GET /teams/{slug}/tags/": OWNERS,
    "POST /teams/{slug}/tags/": OWNERS,
    "GET /teams/{slug}/rate-limit/": OWNERS,
    "POST /teams/{slug}/rate-limit/": OWNERS,
    "GET /teams/{slug}/quota/": OWNERS,
    "POST /teams/{slug}/quota/": OWNERS,
    "GET /teams/{slug}/webhooks/": OWNERS,
    "POST /teams/{slug}/webhooks/": OWNERS,
    "POST /teams/{slug}/webhooks/{webhook_id}/switch/": OWNERS,
    "POST /teams/{slug}/webhooks/{webhook_id}/remove/": OWNERS,
    "POST /rate-limits/{limit_id}/remove/": OWNERS,
    "POST /quotas/{quota_id}/remove/": OWNERS,
    # alerts and channels
    "GET /alerts/": KNOWN,
    "GET /alerts/?team={slug}": KNOWN,
    "GET /alerts/new/": row("yes", viewer="no", member="no"),
    "GET /alerts/new/?team={slug}&kind=latency": OWNERS,
    "POST /alerts/new/": row("yes", viewer="no", member="no"),
    "GET /alerts/{alert_id}/": TEAM,
    "GET /alerts/{alert_id}/settings/": OWNERS,
    "POST /alerts/{alert_id}/settings/": OWNERS,
    "POST /alerts/{alert_id}/switch/": OWNERS,
    "POST /alerts/{alert_id}/test/": OWNERS,
    "GET /alerts/{alert_id}/remove/": OWNERS,
    "POST /alerts/{alert_id}/remove/": OWNERS,
    "GET /channels/": row("yes", viewer="no", member="no"),
    "GET /channels/new/": row("yes", viewer="no", member="no"),
    "GET /channels/new/?team={slug}&kind=slack": OWNERS,
    "POST /channels/new/": row("yes", viewer="no", member="no"),
    "GET /channels/{channel_id}/": OWNERS,
    "POST /channels/{channel_id}/": OWNERS,
    "POST /channels/{channel_id}/switch/": OWNERS,
    "POST /channels/{channel_id}/test/": OWNERS,
    "POST /channels/{channel_id}/remove/": OWNERS,
    "GET /audit/": row("yes", viewer="no", member="no"),
    "GET /audit/?team={slug}": OWNERS,
    "GET /styleguide/": KNOWN,
    "GET /getting-started/": KNOWN,
    "POST /getting-started/": KNOWN,
    "GET /keys/?team={slug}&state=active": KNOWN,  # of another team: one's own
    "GET /playground/": KNOWN,
    "GET /playground/?team={slug}": TEAM,
    "POST /playground/{slug}/key/": MAKERS,
    # one's own account
    "GET /account/": KNOWN,
    "POST /account/": KNOWN,
    "POST /account/sessions/{session_id}/end/": row("none", owner="yes"),  # it is Alice's
    "POST /account/sessions/end-others/": KNOWN,
    "GET /account/tokens/new/": KNOWN,
    "POST /account/tokens/new/": KNOWN,
    "GET /account/tokens/{token_id}/revoke/": row("none", owner="yes"),
    "POST /account/tokens/{token_id}/revoke/": row("none", owner="yes"),
    "GET /accounts/email/": NOBODY,
    "GET /words.js": ANYBODY,
    "POST /language/": ANYBODY,
    # whoever has the link is invited, and is told to what
    "GET /invitations/{token}/": KNOWN,
    "POST /invitations/{token}/": KNOWN,
}
INVITED = ("/invitations/{token}/",)
"""Whoever has the link may read the team's name."""
OWN_ACCOUNT = (  # django-allauth's: of whoever asks, and of nobody else
    *("inactive/", "login/", "logout/", "signup/", "reauthenticate/", "email/", "confirm-email/"),
    *("password/change/", "password/set/", "password/reset/", "password/reset/done/"),
    *("password/reset/key/done/", "login/code/confirm/"),
    *(r"^confirm-email/(?P<key>[-:\w]+)/$", "^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$"),
    *("2fa/", "2fa/authenticate/", "2fa/reauthenticate/", "2fa/totp/activate/", "2fa/totp/deactivate/"),
    *("2fa/recovery-codes/", "2fa/recovery-codes/generate/", "2fa/recovery-codes/download/"),
    *("2fa/webauthn/", "2fa/webauthn/add/", "2fa/webauthn/reauthenticate/", "2fa/webauthn/login/"),
    *("2fa/webauthn/keys/<int:pk>/remove/", "2fa/webauthn/keys/<int:pk>/edit/", "sessions/"),
)
OPERATOR_PAGES = {  # Django makes a list, and pages to add, look at, change and delete, of each
    *("accounts/user", "accounts/team", "accounts/apikey", "accounts/accesstoken", "accounts/webhook"),
    *("accounts/auditevent", "accounts/outbox", "mfa/authenticator", "gateway/provider"),
    *(
        "gateway/route",
        "gateway/target",
        "gateway/price",
        "gateway/exchangerate",
        "gateway/entry",
        "gateway/breakerchange",
    ),
}
SOCKETS = {"/ws/live/?team={slug}": TEAM, "/ws/live/": row("no", administrator="yes")}

BODIES = {
    "POST /api/teams/{team_id}/hand-over": lambda world: {"user_id": world["user_id"]},
    "POST /api/teams/{team_id}/members": lambda world: {"email": "noa@example.com", "role": "viewer"},
    "POST /api/teams": lambda world: {"name": "New"},
    "POST /api/invitations/accept": lambda world: {"invitation": world["token"]},
    "PATCH /api/keys/{key_id}/secrets/{secret_id}": lambda world: {"ends_at": in_days(3)},
    "POST /api/webhooks": lambda world: {"team_id": world["team_id"], "url": "https://hooks.example/"},
    "POST /api/alerts": lambda world: {
        "team_id": world["team_id"],
        "kind": "spend",
        "name": "New",
        "threshold": 10**9,
    },
    "POST /api/channels": lambda world: {
        "team_id": world["team_id"],
        "kind": "mail",
        "name": "New",
        "address": "new@example.com",
    },
    "POST /api/providers": lambda world: {"slug": "new", "name": "New", "base_url": "https://new.example"},
    "POST /api/routes": lambda world: {"model_name": "new"},
}
"""Where the example of the schema would not do."""


def in_days(days):
    return (timezone.now() + timedelta(days=days)).isoformat()


# What there is


def patterns(found=None, before="/"):
    for each in get_resolver().url_patterns if found is None else found:
        path = before + str(each.pattern)
        if isinstance(each, URLResolver):
            yield from patterns(each.url_patterns, path)
        else:
            yield path


def plain(path):
    """`/keys/<int:key_id>/` as the table writes it."""
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", path)


def operations():
    schema = json.loads(json.dumps(api.get_openapi_schema()))
    for path, ways in schema["paths"].items():
        for method, operation in ways.items():
            yield f"{method.upper()} {path}", operation


def example(schema, operation):
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    name = content["schema"]["$ref"].rpartition("/")[2]
    return schema["components"]["schemas"][name]["examples"][0]


def without_query(name):
    return name.partition("?")[0]


ROWS = {**API, **PAGES}
SCHEMA = json.loads(json.dumps(api.get_openapi_schema()))
EXAMPLES = {name: example(SCHEMA, operation) for name, operation in operations()}


def test_every_operation_of_the_api_has_a_row():
    beside = {"GET /api/openapi.json", "GET /api/docs", "GET /api/"}

    assert {without_query(name) for name in API} - beside == set(EXAMPLES)


def test_every_page_has_a_row():
    pages = {plain(each) for each in patterns() if not each.startswith(("/api/", "/admin/", "/accounts/"))}
    rows = {without_query(name).partition(" ")[2] for name in PAGES}

    assert rows - {"/accounts/email/"} == pages


def test_every_page_of_an_account_has_a_row():
    found = {each.removeprefix("/accounts/") for each in patterns() if each.startswith("/accounts/")}

    assert found == set(OWN_ACCOUNT)


def test_every_operator_page_has_a_row():
    of_a_model = re.compile(r"^/admin/([a-z]+/[a-z]+)/")
    found = {match[1] for each in patterns() if (match := of_a_model.match(each))}

    assert found == OPERATOR_PAGES


def test_every_socket_has_a_row():
    assert {without_query(each) for each in SOCKETS} == set(_paths)


# The world


@pytest.fixture
def world(db):
    """The team with one of everything, by the names of path parameters; nothing of it is Otto's."""
    alice, amy, bob, vera, otto = (
        User.objects.create_user(f"{name}@example.com")
        for name in (f"alice.{CANARY}", f"amy.{CANARY}", f"bob.{CANARY}", f"vera.{CANARY}", "otto")
    )
    User.objects.create_user("noa@example.com")
    ada = User.objects.create_superuser("ada@example.com")
    team = Team.objects.create(name=f"Hydro {CANARY}", slug="hydro")
    roles = {alice: "owner", amy: "owner", bob: "member", vera: "viewer"}
    for person, role in roles.items():
        Membership.objects.create(team=team, user=person, role=role)
    services.create_team("Solar", otto)
    key, _ = services.create_key(team, f"nightly {CANARY}", alice, tags={"project": CANARY})
    services.rotate_key(key, alice)
    invitation, secret = services.invite(team, alice, "member")
    provider = upstream.add_provider("openai", f"Acme {CANARY}", "https://acme.example/v1")
    # Where calls may go is no secret: the live page shows the breakers of targets to every team.
    target = upstream.add_target(upstream.add_route("gpt-4o"), provider, "gpt-4o-2024")
    BreakerChange.objects.create(
        target_id=target.pk,
        provider="openai",
        upstream_model="gpt-4o",
        before="closed",
        after="open",
        cause=CANARY,
        by_user=ada,
        at=timezone.now(),
    )
    made, expired = tokens.make_token(alice, f"old {CANARY}", list(tokens.SCOPES))
    AccessToken.objects.filter(pk=made.pk).update(expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    return {
        "people": {"viewer": vera, "member": bob, "owner": alice, "other": otto, "administrator": ada},
        "expired": expired,
        "team_id": team.pk,
        "slug": "hydro",
        "user_id": bob.pk,
        "invitation_id": invitation.pk,
        "token": secret,
        "key_id": key.pk,
        "secret_id": key.secrets.exclude(ends_at=None).get().pk,
        "token_id": tokens.make_token(alice, f"ci {CANARY}", ["read"])[0].pk,
        "session_id": a_session_of(alice),
        "passkey_id": Authenticator.objects.create(
            user=alice, type="webauthn", data={"name": CANARY, "credential": {}}
        ).pk,
        "webhook_id": webhooks.add_webhook(team, f"https://{CANARY}.example/", alice).pk,
        **watched(team, alice),
        "limit_id": services.set_rate_limit(team, "tokens", 100, by_administrator=False).pk,
        "quota_id": services.set_quota(key, "tokens", 10**9, by_administrator=False).pk,
        "provider_id": provider.pk,
        "route_id": target.route_id,
        "target_id": target.pk,
        **on_the_books(team, key),
    }


def a_session_of(person):
    """Its row, of a browser that named itself."""
    row = UserSession(user=person, session_key=session_of(person), ip="192.0.2.7", user_agent=CANARY)
    row.save()
    return row.pk


def watched(team, owner):
    """A channel, and an alert that tells it."""
    channel = channels.add_channel(team, "mail", f"On call {CANARY}", f"{CANARY}@example.com", owner)
    values = {"name": f"Spend {CANARY}", "threshold": 10**9, "tell_owners": False}
    alert = alerts.add_alert(team, "spend", values, [channel], owner)
    return {"alert_id": alert.pk, "channel_id": channel.pk}


def on_the_books(team, key):
    """A call that was let in, and one that was not."""
    whose = {"team_id": team.pk, "key_id": key.pk}
    call = settled(opened(**whose, route=f"gpt {CANARY}", tags={"project": CANARY}))
    row = refused(**whose, message=f"Refused {CANARY}.")
    book([call], [Refusals(row.call_id, row.at_us, (), (row,))])
    return {"call_id": call.call_id, "refusal_id": row.call_id}


HANDLER = Client().handler
"""One for all clients: it lists every static file when it first answers."""


def a_client(**options):
    client = Client(**options)
    client.handler = HANDLER
    return client


def client_of(who, world):
    client = a_client()
    if who == "expired":
        client = a_client(headers={"Authorization": f"Bearer {world['expired']}"})
    elif who != "stranger":
        client.force_login(world["people"][who])
    return client


def tried(name, who, world):
    """The answer, and its body whole."""
    body = BODIES[name](world) if name in BODIES else EXAMPLES.get(name)
    return sent(client_of(who, world), name, world, body)


def sent(client, name, world, body):
    method, _, path = name.partition(" ")
    more = {"data": json.dumps(body) if body else "", "content_type": "application/json"}
    is_form = name in PAGES or method == "GET"
    answer = getattr(client, method.lower())(path.format(**world), **({} if is_form else more))
    return answer, b"".join(answer).decode()


def is_asked_to_sign_in(answer):
    return answer.status_code == 302 and answer["Location"].startswith("/accounts/login/")


def outcome(answer):
    """As the table writes it."""
    if is_asked_to_sign_in(answer):
        return "login"
    names = {401: "who", 403: "no", 404: "none", 405: "no such method"}
    return names.get(answer.status_code, "yes" if answer.status_code < 300 else answer.status_code)


def is_right(name, answer, expected):
    got = outcome(answer)
    if name in PAGES:  # a page asks for a sign-in by sending there, and answers a form with a page or another
        got = {"login": "who", 302: "yes", 409: "yes", 422: "yes"}.get(got, got)
    if isinstance(expected, int):
        return answer.status_code == expected
    return got == expected


@pytest.mark.parametrize("name", ROWS)
def test_everybody_gets_what_is_theirs_and_nothing_else(name, world):
    wrong, leaked, changed = {}, [], []
    for who in EVERYBODY:
        with transaction.atomic():
            before = AuditEvent.objects.count()
            answer, body = tried(name, who, world)
            if not is_right(name, answer, ROWS[name][who]):
                wrong[who] = (answer.status_code, body[:200])
            if who in ("stranger", "expired", "other") and CANARY in body:
                leaked.append(who)
            if ROWS[name][who] != "yes" and AuditEvent.objects.count() != before:
                changed.append(who)
            transaction.set_rollback(True)

    if name.partition(" ")[2] in INVITED or name in ("POST /api/invitations/accept", "GET /api/openapi.json"):
        leaked = []
    assert (wrong, leaked, changed) == ({}, [], [])


MARKERS = ("POST", "PUT", "PATCH", "DELETE")


@pytest.mark.parametrize("name", [name for name in API if name.startswith(MARKERS)])
def test_an_access_token_that_may_only_read_changes_nothing(name, world):
    _, text = tokens.make_token(world["people"]["administrator"], "reader", ["read"])
    before = AuditEvent.objects.count()
    client = a_client(headers={"Authorization": f"Bearer {text}"})

    answer, _ = sent(client, name, world, EXAMPLES.get(name))

    assert answer.status_code == 403
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize("name", [name for name in API if name.startswith(MARKERS)])
def test_a_page_of_another_site_changes_nothing(name, world):
    """A browser sends the cookie along with it, and no CSRF token."""
    client = Client(enforce_csrf_checks=True)
    client.force_login(world["people"]["administrator"])
    before = AuditEvent.objects.count()

    answer, _ = sent(client, name, world, EXAMPLES.get(name))

    assert answer.status_code == 403
    assert AuditEvent.objects.count() == before


@pytest.mark.parametrize("path", OWN_ACCOUNT)
def test_the_pages_of_an_account_show_nobody_elses(path, world):
    url = "/accounts/" + path.replace(r"^confirm-email/(?P<key>[-:\w]+)/$", "confirm-email/abc/").replace(
        "^password/reset/key/(?P<uidb36>[0-9A-Za-z]+)-(?P<key>.+)/$", "password/reset/key/1-abc/"
    ).replace("<int:pk>", str(world["passkey_id"]))
    for who in ("stranger", "expired", "other"):
        for method in ("get", "post"):
            with transaction.atomic():
                answer = getattr(client_of(who, world), method)(url)
                assert answer.status_code < 500
                assert CANARY not in b"".join(answer).decode()
                transaction.set_rollback(True)


def operator_pages(world):
    ids = {
        "accounts/user": world["people"]["owner"].pk,
        "accounts/team": world["team_id"],
        "accounts/apikey": world["key_id"],
        "accounts/accesstoken": world["token_id"],
        "accounts/webhook": world["webhook_id"],
        "accounts/auditevent": AuditEvent.objects.latest("id").pk,
        "gateway/provider": world["provider_id"],
        "gateway/route": world["route_id"],
        "gateway/target": world["target_id"],
    }
    for path in sorted({each for each in patterns() if each.startswith("/admin/")}):
        model = "/".join(path.split("/")[2:4])
        url = re.sub(r"<(?:\w+:)?(?:object_id|id|content_type_id)>", str(ids.get(model, 1)), path)
        yield re.sub(r"\^?\(\?P<(?:app_label|url)>[^)]*\)/?\$", "gateway/", url)


OPEN = ("/admin/login/", "/admin/logout/")


def test_operator_pages_are_for_operators(world):
    let_in, failed = [], []
    for url in operator_pages(world):
        for method in ("get", "post"):
            for who in EVERYBODY:
                with transaction.atomic():
                    answer = getattr(client_of(who, world), method)(url)
                    body = b"".join(answer).decode()
                    transaction.set_rollback(True)
                if answer.status_code >= 500:
                    failed.append((who, method, url))
                is_in = answer.status_code < 300 or CANARY in body
                if who != "administrator" and is_in and url not in OPEN:
                    let_in.append((who, method, url))

    assert (let_in, failed) == ([], [])


def test_operators_are_let_into_their_pages(world):
    client = client_of("administrator", world)
    refused = [url for url in operator_pages(world) if client.get(url).status_code in (401, 403)]

    assert client.get("/admin/").status_code == 200
    assert [url for url in refused if not url.endswith(("/add/", "/delete/", "/autocomplete/"))] == []


@pytest.fixture
def hub():
    hub = live.Hub()
    live.install(hub)
    yield hub
    live.install(None)


@pytest.mark.parametrize("name", SOCKETS)
@pytest.mark.parametrize("who", EVERYBODY)
async def test_a_socket_is_for_those_who_may_watch(name, who, transactional_db, hub):
    session = await sync_to_async(session_for)(who)

    visitor = knock(name.format(slug="hydro"), session)

    assert await visitor.connects() == (SOCKETS[name][who] == "yes")


def session_for(who):
    """A signed-in session of somebody like this, in a small world of their own."""
    team = Team.objects.create(name="Hydro", slug="hydro")
    if who in ("stranger", "expired"):
        return ""
    is_superuser = who == "administrator"
    person = User.objects.create_user(f"{who}@example.com", is_superuser=is_superuser)
    if who in ("viewer", "member", "owner"):
        Membership.objects.create(team=team, user=person, role=who)
    if who == "other":
        services.create_team("Solar", person)
    return session_of(person)
