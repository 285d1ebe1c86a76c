"""Rate limits and quotas by the management API, with what is used of them."""

import json

import pytest
from django.test import Client

from accounts import services
from accounts.changes import change_number
from accounts.models import AuditEvent, Quota, RateLimit, User
from gateway import standing
from gateway.relay.limits import Figures

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice():
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def team(alice):
    return services.create_team("Hydro", alice)


@pytest.fixture
def key(team, alice):
    return services.create_key(team, "nightly", alice)[0]


@pytest.fixture
def api(alice):
    client = Client()
    client.force_login(alice)
    return client


@pytest.fixture
def relay():
    """What a running relay would tell, by quota id."""
    told = {}
    standing.install(lambda quota_ids: {each: told[each] for each in quota_ids if each in told})
    yield told
    standing.install(None)


def put(client, path, **what):
    return client.put(f"/api{path}", json.dumps(what), content_type="application/json")


def patch(client, path, **what):
    return client.patch(f"/api{path}", json.dumps(what), content_type="application/json")


def test_a_rate_limit_is_set_changed_and_removed(api, team):
    before = change_number()

    made = put(api, f"/teams/{team.pk}/rate-limits", kind="requests", amount=60)
    changed = put(api, f"/teams/{team.pk}/rate-limits", kind="requests", amount=90)
    put(api, f"/teams/{team.pk}/rate-limits", kind="requests", amount=5, model_name="gpt-4o")

    assert made.json()["id"] == changed.json()["id"]  # so what is counted under it stays
    listed = api.get(f"/api/teams/{team.pk}/rate-limits").json()["items"]
    assert [(each["amount"], each["model_name"]) for each in listed] == [(90, ""), (5, "gpt-4o")]
    assert api.delete(f"/api/rate-limits/{made.json()['id']}").status_code == 204
    assert RateLimit.objects.count() == 1
    assert change_number() >= before + 4
    actions = AuditEvent.objects.filter(action__startswith="rate_limit").order_by("id")
    assert [each.action for each in actions] == [
        *("rate_limit.set", "rate_limit.changed", "rate_limit.set", "rate_limit.removed"),
    ]


def test_a_quota_shows_what_is_used_of_it(api, team, relay):
    quota = put(api, f"/teams/{team.pk}/quotas", kind="money", amount=10**9, hard=True).json()
    relay[quota["id"]] = Figures(spent=7, held=2, expired=1)

    shown = api.get(f"/api/quotas/{quota['id']}").json()
    [listed] = api.get(f"/api/teams/{team.pk}/quotas").json()["items"]

    assert shown == listed == quota | {"spent": 7, "held": 2, "expired": 1}


def busy(quota_ids):
    raise TimeoutError


@pytest.mark.parametrize(
    "ask", [None, busy, lambda quota_ids: {}], ids=["no relay", "busy", "not counted yet"]
)
def test_what_is_not_known_is_null_and_never_0(api, team, ask):
    standing.install(ask)
    try:
        quota = put(api, f"/teams/{team.pk}/quotas", kind="tokens", amount=5).json()
    finally:
        standing.install(None)

    assert (quota["spent"], quota["held"], quota["expired"]) == (None, None, None)


def test_a_quota_of_a_key_is_changed_in_part(api, key):
    quota = put(api, f"/keys/{key.pk}/quotas", kind="tokens", amount=5, zone="Europe/Berlin").json()

    changed = patch(api, f"/quotas/{quota['id']}", amount=9, warn_at=[90, 50, 50])

    assert changed.json() == quota | {"amount": 9, "warn_at": [50, 90]}
    assert (quota["team_id"], quota["key_id"], quota["zone"]) == (None, key.pk, "Europe/Berlin")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"zone": "Middle/Earth"}, "zone"),
        ({"zone": "../../etc/passwd"}, "zone"),
        ({"warn_at": [0]}, "warn_at"),
        ({"warn_at": [101]}, "warn_at"),
        ({"amount": -1}, "amount"),
        ({"amount": 10**18 + 1}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"amount": True}, "amount"),
        ({"hard": 1}, "hard"),
        ({"period": "year"}, "period"),
        ({"kind": "calls"}, "kind"),
        ({"by_administrator": True}, "by_administrator"),
        ({"spent": 0}, "spent"),
    ],
)
def test_a_quota_that_cannot_be_is_refused_with_a_sentence(api, team, wrong, field):
    answer = put(api, f"/teams/{team.pk}/quotas", **{"kind": "money", "amount": 5} | wrong)

    assert answer.status_code == 422
    assert field in {each["field"].partition(".")[0] for each in answer.json()["errors"]}
    assert not Quota.objects.exists()


def test_a_list_of_quotas_asks_for_their_figures_once(api, team, django_assert_num_queries):
    for kind in ("requests", "tokens", "money"):
        for period in ("day", "month"):
            services.set_quota(team, kind, 5, period, by_administrator=False)
    asked = []
    standing.install(lambda quota_ids: asked.append(list(quota_ids)) or {})
    try:
        with django_assert_num_queries(4):  # session, person, team, quotas
            answer = api.get(f"/api/teams/{team.pk}/quotas")
    finally:
        standing.install(None)

    assert asked == [[each["id"] for each in answer.json()["items"]]]
    assert len(asked[0]) == 6
