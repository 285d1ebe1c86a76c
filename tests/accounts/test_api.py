"""The management API of people, teams, API keys, webhooks and the audit, as programs and pages use it."""

import json
from datetime import timedelta

import pytest
from django.conf import settings
from django.test import AsyncClient, Client
from django.utils import timezone

from accounts import services, tokens, webhooks
from accounts.models import (
    AccessToken,
    ApiKey,
    AuditEvent,
    IdempotentAnswer,
    KeySecret,
    KeyUse,
    Membership,
    Quota,
    RateLimit,
    Team,
    User,
    Webhook,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    """The administrator."""
    return User.objects.create_superuser("ada@example.com")


@pytest.fixture
def alice():
    return User.objects.create_user("alice@example.com")


@pytest.fixture
def bob():
    return User.objects.create_user("bob@example.com")


@pytest.fixture
def team(alice, bob):
    """Alice's, with Bob on it."""
    team = services.create_team("Hydro", alice)
    services.add_member(team, bob, "member")
    return team


@pytest.fixture
def key(team, alice):
    return services.create_key(team, "nightly", alice)[0]


class Program:
    """Whoever asks, with an access token of a person's."""

    def __init__(self, person, scopes=tuple(tokens.SCOPES), **headers):
        self.token, self.text = tokens.make_token(person, "program", scopes)
        self.client = Client(headers={"Authorization": f"Bearer {self.text}"} | headers)

    def get(self, path):
        return self.client.get(f"/api{path}")

    def send(self, method, path, body=None, **headers):
        ask = getattr(self.client, method)
        what = "" if body is None else json.dumps(body)
        return ask(f"/api{path}", what, content_type="application/json", headers=headers)

    def post(self, path, body=None, **headers):
        return self.send("post", path, body, **headers)

    def patch(self, path, body):
        return self.send("patch", path, body)

    def put(self, path, body):
        return self.send("put", path, body)

    def delete(self, path):
        return self.send("delete", path)


def detail(answer):
    assert answer["Content-Type"] == "application/problem+json"
    return answer.json()["detail"]


def walked(program, path, limit=2):
    """Every item of a list, page by page."""
    items, after, join = [], "", "&" if "?" in path else "?"
    while after is not None:
        page = program.get(f"{path}{join}limit={limit}&after={after}").json()
        assert len(page["items"]) <= limit
        items += page["items"]
        after = page["next"]
    return items


# Who gets in


def test_a_program_is_who_its_access_token_belongs_to(alice, team):
    program = Program(alice, ["read", "teams"])

    me = program.get("/me").json()

    assert (me["email"], me["administrator"]) == ("alice@example.com", False)
    assert me["teams"] == [{"id": team.pk, "slug": "hydro", "name": "Hydro", "role": "owner"}]
    assert me["access_token"]["scopes"] == ["read", "teams"]
    assert program.text not in json.dumps(me)


@pytest.mark.parametrize("text", ["", "pat_nothing", "pst_other", "x" * 5000])
def test_an_access_token_that_is_none_opens_nothing(text):
    answer = Client(headers={"Authorization": f"Bearer {text}"}).get("/api/me")

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"].startswith("Bearer")
    assert detail(answer) == "The access token is wrong, expired or revoked."


def test_an_access_token_ends_when_it_expires_is_revoked_or_its_person_is_gone(alice):
    expired, revoked, gone = Program(alice), Program(alice), Program(alice)
    AccessToken.objects.filter(pk=expired.token.pk).update(expires_at=timezone.now())
    tokens.revoke_token(revoked.token)
    assert gone.get("/me").status_code == 200
    assert [each.get("/me").status_code for each in (expired, revoked)] == [401, 401]

    User.objects.filter(pk=alice.pk).update(is_active=False)

    assert gone.get("/me").status_code == 401


def test_a_wrong_access_token_is_not_mended_by_a_session(alice):
    """A program that sends one means to be that, also where a browser has a cookie too."""
    client = Client(headers={"Authorization": "Bearer pat_nothing"})
    client.force_login(alice)

    assert client.get("/api/me").status_code == 401


@pytest.mark.parametrize(
    ("scopes", "method", "path", "needs"),
    [
        (["keys", "teams", "limits", "operate"], "get", "/teams", "read"),
        (["read", "keys"], "patch", "/teams/{team}", "teams"),
        (["read", "teams"], "post", "/teams/{team}/keys", "keys"),
        (["read", "keys", "teams"], "put", "/teams/{team}/quotas", "limits"),
        (["read", "limits"], "post", "/webhooks", "teams"),
        (["read", "keys"], "post", "/providers", "operate"),
    ],
)
def test_an_access_token_needs_the_scope_and_is_told_which(alice, team, scopes, method, path, needs):
    answer = Program(alice, scopes).client.generic(method.upper(), f"/api{path.format(team=team.pk)}")

    assert answer.status_code == 403
    assert f"'{needs}'" in detail(answer)


def test_an_access_token_never_makes_or_revokes_one(alice):
    program = Program(alice)

    made = program.post("/access-tokens", {"name": "another", "scopes": ["operate"]})
    revoked = program.post(f"/access-tokens/{program.token.pk}/revoke")

    assert (made.status_code, revoked.status_code) == (403, 403)
    assert "A person has to do this" in detail(made)
    assert AccessToken.objects.get().revoked_at is None


def test_a_person_makes_an_access_token_and_sees_it_once(alice):
    client = Client()
    client.force_login(alice)

    made = client.post(
        "/api/access-tokens", {"name": "ci", "scopes": ["read"]}, content_type="application/json"
    )

    text = made.json()["access_token"]
    assert made.status_code == 201
    assert Client(headers={"Authorization": f"Bearer {text}"}).get("/api/me").status_code == 200
    assert text not in client.get("/api/access-tokens").content.decode()
    assert text not in str(list(AuditEvent.objects.values()))


def test_a_session_changes_something_with_a_csrf_token_alone(alice, team):
    client = Client(enforce_csrf_checks=True)
    client.force_login(alice)
    client.get("/api/docs")
    token = client.cookies[settings.CSRF_COOKIE_NAME].value
    path = f"/api/teams/{team.pk}"

    without = client.patch(path, {"name": "Taken over"}, content_type="application/json")
    with_it = client.patch(
        path, {"name": "Water"}, content_type="application/json", headers={"x-csrftoken": token}
    )

    assert (without.status_code, with_it.status_code) == (403, 200)
    assert Team.objects.get().name == "Water"


def test_the_audit_says_who_from_where_and_with_what(alice, team):
    AuditEvent.objects.all()._raw_delete("default")
    program = Program(alice, **{"User-Agent": "terraform/1.9"})

    program.patch(f"/teams/{team.pk}", {"name": "Water"})

    event = AuditEvent.objects.get(action="team.renamed")
    assert (event.actor_kind, event.actor_id, event.actor_name) == ("token", alice.pk, alice.email)
    assert (event.address, event.user_agent) == ("127.0.0.1", "terraform/1.9")
    assert (event.before, event.after) == ({"name": "Hydro"}, {"name": "Water"})


# Lists


@pytest.mark.parametrize(
    "after", ["x", "é", "W10", "bnVsbA", "WyItaWQiLCAibm9uZSJd", "WyJpZCIsICIxIl0", "%00"]
)
def test_a_cursor_that_was_not_given_out_is_refused(alice, key, after):
    answer = Program(alice).get(f"/keys?after={after}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "after"


def test_pages_show_every_row_once_also_while_rows_come_and_go(alice, team):
    made = [services.create_key(team, f"key {number}", alice)[0].pk for number in range(5)]
    program = Program(alice)

    first = program.get("/keys?limit=2").json()
    services.create_key(team, "new", alice)  # before where we are
    KeySecret.objects.filter(key=made[4]).delete()
    ApiKey.objects.filter(pk=made[4]).delete()  # seen already
    rest = program.get(f"/keys?limit=10&after={first['next']}").json()

    assert [each["id"] for each in first["items"] + rest["items"]] == made[::-1]
    assert rest["next"] is None


def test_teams_are_listed_by_name(ada, alice):
    for name in ("Solar", "Wind", "Hydro", "Tide", "Coal"):
        services.create_team(name, alice)

    found = walked(Program(ada), "/teams")

    assert [each["name"] for each in found] == ["Coal", "Hydro", "Solar", "Tide", "Wind"]


def test_keys_are_found_by_team_state_and_name(ada, alice, team):
    other = services.create_team("Solar", alice)
    fine = services.create_key(team, "fine one", alice)[0]
    expired = services.create_key(team, "expired one", alice)[0]
    ApiKey.objects.filter(pk=expired.pk).update(expires_at=timezone.now())
    revoked = services.create_key(other, "revoked one", alice)[0]
    services.revoke_key(revoked, alice)
    program = Program(ada)

    def found(query):
        return [each["id"] for each in program.get(f"/keys?{query}").json()["items"]]

    assert found("state=active") == [fine.pk]
    assert found("state=expired") == [expired.pk]
    assert found("state=revoked") == [revoked.pk]
    assert found(f"team={team.pk}") == [expired.pk, fine.pk]
    assert found("name=FINE") == [fine.pk]
    assert found("name=%25") == []  # a sign, not a pattern
    assert program.get("/keys?state=lost").status_code == 422


LISTS = {  # beside the access token with its person
    "/access-tokens": 1,  # the tokens
    "/teams": 2,  # teams with their counts, roles
    "/teams/{team}/members": 2,  # team, people
    "/teams/{team}/invitations": 3,  # team, role, invitations with people
    "/keys": 2,  # keys with team and maker, secrets
    "/keys/{key}/secrets": 4,  # key, its secrets; secrets, programs
    "/teams/{team}/rate-limits": 2,  # team, limits
    "/keys/{key}/rate-limits": 3,  # key, its secrets, limits
    "/teams/{team}/quotas": 2,  # team, quotas
    "/webhooks": 1,  # webhooks with team and maker
    "/audit": 1,  # events
    "/audit?team={team}": 3,  # team, role, events
}


@pytest.mark.parametrize("path", LISTS)
def test_a_list_takes_the_same_few_queries_for_many_rows(
    alice, bob, team, key, path, django_assert_num_queries
):
    program = Program(alice)
    for number in range(4):
        tokens.make_token(alice, f"token {number}", ["read"])
        services.create_team(f"Team {number}", alice)
        services.add_member(team, User.objects.create_user(f"p{number}@example.com"), "viewer")
        services.invite(team, alice, "member")
        services.create_key(team, f"key {number}", bob)
        services.rotate_key(key, alice)
        services.set_rate_limit(team, "requests", 5, f"model {number}", by_administrator=False)
        services.set_rate_limit(key, "requests", 5, f"model {number}", by_administrator=False)
        webhooks.add_webhook(team, f"https://{number}.example/", alice)
    for kind in ("requests", "tokens", "money"):
        services.set_quota(team, kind, 5, by_administrator=False)
    for secret in KeySecret.objects.all():
        moments = {"first_used_at": timezone.now(), "last_used_at": timezone.now()}
        KeyUse.objects.create(secret=secret, address="::1", **moments)
    program.get("/me")  # notes the use of the token, once a minute

    with django_assert_num_queries(LISTS[path] + 1):
        answer = program.get(path.format(team=team.pk, key=key.pk))

    assert len(answer.json()["items"]) > 2


# API keys


def test_a_key_is_made_shown_once_changed_and_revoked(bob, team):
    program = Program(bob)
    what = {"name": "mine", "routes": ["gpt-4o"], "networks": ["10.0.0.0/8"], "tags": {"project": "x"}}

    made = program.post(f"/teams/{team.pk}/keys", what).json()
    path = f"/keys/{made['id']}"
    shown = program.get(path)
    changed = program.patch(
        path, {"name": "renamed", "routes": None, "expires_at": "2100-01-01T00:00:00+02:00"}
    )
    revoked = program.post(f"{path}/revoke")

    assert made["api_key"].startswith(made["prefix"])
    assert made["api_key"] not in shown.content.decode()
    assert {name: shown.json()[name] for name in what} == what
    assert (changed.json()["name"], changed.json()["routes"]) == ("renamed", None)
    assert changed.json()["expires_at"] == "2099-12-31T22:00:00Z"
    assert revoked.json()["state"] == "revoked"
    assert "already" in detail(program.post(f"{path}/revoke"))
    assert made["api_key"] not in str(list(AuditEvent.objects.values()))


def test_a_member_changes_the_keys_they_made_alone(bob, team, key):
    own = services.create_key(team, "own", bob)[0]
    program = Program(bob)

    assert program.patch(f"/keys/{own.pk}", {"name": "still own"}).status_code == 200
    refused = program.patch(f"/keys/{key.pk}", {"name": "taken"})
    assert (refused.status_code, ApiKey.objects.get(pk=key.pk).name) == (403, "nightly")


def test_only_an_administrator_makes_calls_urgent(ada, alice, team, key):
    owner, administrator = Program(alice), Program(ada)

    assert owner.patch(f"/keys/{key.pk}", {"priority_ceiling": "urgent"}).status_code == 403
    made = owner.post(f"/teams/{team.pk}/keys", {"name": "x", "priority_ceiling": "urgent"})
    assert (made.status_code, ApiKey.objects.count()) == (403, 1)
    assert administrator.patch(f"/keys/{key.pk}", {"priority_ceiling": "urgent"}).status_code == 200
    assert owner.patch(f"/keys/{key.pk}", {"priority_ceiling": "urgent", "name": "y"}).status_code == 200
    assert owner.patch(f"/keys/{key.pk}", {"priority_ceiling": "batch"}).json()["priority_ceiling"] == "batch"


def test_rotating_leaves_the_old_secret_until_its_overlap_ends(alice, key):
    program, path = Program(alice), f"/keys/{key.pk}"

    rotated = program.post(f"{path}/rotate", {"overlap_s": 3600}).json()
    new, old = program.get(f"{path}/secrets").json()["items"]
    until = (timezone.now() + timedelta(days=2)).isoformat()
    moved = program.patch(f"{path}/secrets/{old['id']}", {"ends_at": until}).json()
    ended = program.post(f"{path}/secrets/{old['id']}/end").json()

    assert rotated["api_key"].startswith(new["prefix"])
    assert [each["state"] for each in (new, old, moved, ended)] == [
        *("current", "overlapping", "overlapping", "ended"),
    ]
    assert moved["ends_at"][:16] == until[:16]
    assert program.get(path).json()["overlapping"] == 0
    assert program.post(f"{path}/secrets/{new['id']}/end").status_code == 409


def test_who_still_uses_the_old_secret_is_shown(alice, key):
    secret = key.secrets.get()
    now = timezone.now()
    for agent, hours in (("old", 25), ("curl/8", 2), ("openai-python/2", 1)):
        at = now - timedelta(hours=hours)
        KeyUse.objects.create(
            secret=secret, address="10.0.0.7", user_agent=agent, first_used_at=at, last_used_at=at, uses=3
        )

    [shown] = Program(alice).get(f"/keys/{key.pk}/secrets").json()["items"]

    assert [(each["user_agent"], each["uses"]) for each in shown["programs"]] == [
        ("openai-python/2", 3),
        ("curl/8", 3),
    ]


# Once


def test_a_rotation_that_is_asked_for_twice_is_done_once(alice, key):
    program, path = Program(alice), f"/keys/{key.pk}/rotate"

    first = program.post(path, {"overlap_s": 60}, idempotency_key="rotate 1")
    again = program.post(path, {"overlap_s": 60}, idempotency_key="rotate 1")
    another = program.post(path, {"overlap_s": 60}, idempotency_key="rotate 2")

    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert again["Idempotent-Replayed"] == "true"
    assert another.json()["api_key"] != first.json()["api_key"]
    assert KeySecret.objects.count() == 3


def test_an_idempotency_key_is_for_one_request_of_one_person(alice, bob, team):
    path = f"/teams/{team.pk}/keys"
    program = Program(alice)
    made = program.post(path, {"name": "one"}, idempotency_key="same")

    other_body = program.post(path, {"name": "two"}, idempotency_key="same")
    other_path = program.post("/webhooks", {"name": "one"}, idempotency_key="same")
    other_token = Program(alice, ["read", "teams"]).post(path, {"name": "one"}, idempotency_key="same")
    other_person = Program(bob).post(path, {"name": "one"}, idempotency_key="same")

    assert [each.status_code for each in (other_body, other_path, other_token)] == [422, 422, 422]
    assert made.json()["api_key"] not in other_token.content.decode()
    assert other_person.status_code == 201
    assert ApiKey.objects.count() == 2


def test_what_changed_nothing_may_be_asked_again_as_it_was_meant(alice, team):
    program, path = Program(alice), f"/teams/{team.pk}/keys"

    wrong = program.post(path, {"name": "  "}, idempotency_key="k")
    right = program.post(path, {"name": "fine"}, idempotency_key="k")

    assert (wrong.status_code, right.status_code) == (422, 201)
    assert IdempotentAnswer.objects.count() == 1


def test_a_kept_answer_shows_no_key_to_who_reads_the_database(alice, team):
    made = Program(alice).post(f"/teams/{team.pk}/keys", {"name": "x"}, idempotency_key="k")

    assert made.json()["api_key"] not in str(list(IdempotentAnswer.objects.values()))


# Teams


def test_people_come_by_invitation_and_go(alice, bob, team):
    owner, charlie = Program(alice), User.objects.create_user("charlie@example.com")
    made = owner.post(f"/teams/{team.pk}/invitations", {"role": "viewer"}).json()
    secret = made["link"].rstrip("/").rpartition("/")[2]

    joined = Program(charlie).post("/invitations/accept", {"invitation": secret})
    again = Program(bob).post("/invitations/accept", {"invitation": secret})
    owner.patch(f"/teams/{team.pk}/members/{charlie.pk}", {"role": "member"})
    members = owner.get(f"/teams/{team.pk}/members").json()["items"]
    left = Program(charlie).post(f"/teams/{team.pk}/leave")

    assert (joined.status_code, joined.json()["role"]) == (200, "viewer")
    assert again.status_code == 404
    assert {each["email"]: each["role"] for each in members}["charlie@example.com"] == "member"
    assert left.status_code == 204
    assert Program(charlie).get(f"/teams/{team.pk}").status_code == 404
    [shown] = owner.get(f"/teams/{team.pk}/invitations").json()["items"]
    assert (shown["state"], shown["accepted_by"]) == ("accepted", "charlie@example.com")
    assert secret not in json.dumps(shown)


def test_only_the_mail_shows_the_link_that_proves_an_address(alice, team):
    """Else whoever invites could make the account of somebody else, and know its password."""
    made = Program(alice).post(f"/teams/{team.pk}/invitations", {"email": "charlie@example.com"})

    assert made.status_code == 201
    assert made.json()["link"] is None


def test_a_team_is_never_without_an_owner(alice, bob, team):
    owner = Program(alice)

    assert owner.post(f"/teams/{team.pk}/leave").status_code == 409
    assert owner.patch(f"/teams/{team.pk}/members/{alice.pk}", {"role": "member"}).status_code == 409
    assert owner.post(f"/teams/{team.pk}/hand-over", {"user_id": bob.pk}).status_code == 200
    assert dict(Membership.objects.values_list("user", "role")) == {alice.pk: "member", bob.pk: "owner"}


def test_in_an_archived_team_nothing_is_made(alice, team):
    owner = Program(alice)
    owner.post(f"/teams/{team.pk}/archive")

    made = owner.post(f"/teams/{team.pk}/keys", {"name": "x"})

    assert made.status_code == 409
    assert "archived" in detail(made)
    assert owner.post(f"/teams/{team.pk}/restore").json()["archived_at"] is None
    assert owner.post(f"/teams/{team.pk}/keys", {"name": "x"}).status_code == 201


def test_an_administrator_makes_a_team_for_somebody(ada, alice):
    program = Program(ada)

    made = program.post("/teams", {"name": "Wind", "owner": "Alice@Example.com"})
    nobody = program.post("/teams", {"name": "Tide", "owner": "nobody@example.com"})
    twice = program.post("/teams", {"name": "wind"})

    assert made.status_code == 201
    assert Membership.objects.get().user == alice
    assert nobody.json()["errors"][0]["field"] == "owner"
    assert twice.status_code == 409


# Limits


def test_what_an_administrator_set_an_owner_cannot_lift(ada, alice, team):
    administrator, owner = Program(ada), Program(alice)
    limit = administrator.put(f"/teams/{team.pk}/rate-limits", {"kind": "requests", "amount": 10}).json()
    quota = administrator.put(f"/teams/{team.pk}/quotas", {"kind": "money", "amount": 10}).json()

    refused = [
        owner.put(f"/teams/{team.pk}/rate-limits", {"kind": "requests", "amount": 99}),
        owner.delete(f"/rate-limits/{limit['id']}"),
        owner.put(f"/teams/{team.pk}/quotas", {"kind": "money", "amount": 99}),
        owner.patch(f"/quotas/{quota['id']}", {"amount": 99}),
        owner.delete(f"/quotas/{quota['id']}"),
    ]

    assert [each.status_code for each in refused] == [403] * 5
    assert "administrator" in detail(refused[0])
    assert (RateLimit.objects.get().amount, Quota.objects.get().amount) == (10, 10)
    beside = owner.put(f"/teams/{team.pk}/rate-limits", {"kind": "requests", "amount": 5, "model_name": "m"})
    assert (beside.status_code, beside.json()["by_administrator"]) == (200, False)


# Webhooks


def test_a_webhook_has_a_secret_of_its_own_that_stays(alice, team):
    owner = Program(alice)
    made = [
        owner.post("/webhooks", {"team_id": team.pk, "url": f"https://{n}.example/"}).json() for n in "ab"
    ]

    moved = owner.patch(f"/webhooks/{made[0]['id']}", {"url": "https://c.example/", "enabled": False}).json()

    assert (moved["url"], moved["enabled"], moved["secret"]) == (
        "https://c.example/",
        False,
        made[0]["secret"],
    )
    assert made[0]["secret"] != made[1]["secret"]
    assert made[0]["secret"] not in str(list(Webhook.objects.values()))
    assert owner.delete(f"/webhooks/{made[0]['id']}").status_code == 204
    assert Webhook.objects.count() == 1


def test_an_access_token_that_may_only_look_is_not_shown_what_messages_are_signed_with(alice, team):
    made = Program(alice).post("/webhooks", {"team_id": team.pk, "url": "https://a.example/"}).json()

    looks, changes = Program(alice, ["read"]), Program(alice, ["read", "teams"])

    assert looks.get(f"/webhooks/{made['id']}").json() == made | {"secret": None}
    assert looks.get("/webhooks").json()["items"] == [made | {"secret": None}]
    assert changes.get(f"/webhooks/{made['id']}").json() == made


@pytest.mark.parametrize(
    "url", ["ftp://x.example/", "https://", "https://user@x.example/", "https://x.example/#a", "//x.example"]
)
def test_a_webhook_needs_an_address(alice, team, url):
    answer = Program(alice).post("/webhooks", {"team_id": team.pk, "url": url})

    assert answer.status_code == 422
    assert not Webhook.objects.exists()


def test_a_webhook_for_every_team_is_an_administrators(ada, alice, team):
    everyone = {"team_id": None, "url": "https://all.example/"}

    assert Program(alice).post("/webhooks", everyone).status_code == 403
    made = Program(ada).post("/webhooks", everyone).json()
    assert Program(alice).get(f"/webhooks/{made['id']}").status_code == 404
    assert Program(alice).get("/webhooks").json()["items"] == []


def test_a_webhook_for_every_team_takes_a_token_that_may_operate(ada):
    """It may lead into this network, where a team's may not."""
    everyone = {"team_id": None, "url": "https://all.example/"}
    looks_after_teams = Program(ada, ["read", "teams"])

    refused = looks_after_teams.post("/webhooks", everyone)
    assert (refused.status_code, "'operate'" in refused.json()["detail"]) == (403, True)
    made = Program(ada, ["read", "teams", "operate"]).post("/webhooks", everyone).json()

    address = f"/webhooks/{made['id']}"
    assert looks_after_teams.patch(address, {"url": "http://10.0.0.1/"}).status_code == 403
    assert looks_after_teams.delete(address).status_code == 403
    assert looks_after_teams.get(address).json() == made | {"secret": None}


# The audit


def test_owners_see_what_happened_in_their_teams_alone(ada, alice, bob, team):
    other = services.create_team("Solar", bob)
    services.create_key(other, "secret plan", bob)

    seen = walked(Program(alice), "/audit")

    assert {each["team_id"] for each in seen} == {team.pk}
    assert "secret plan" in json.dumps(walked(Program(ada), "/audit"))
    assert walked(Program(User.objects.create_user("v@example.com")), "/audit") == []


def test_the_audit_is_found_by_who_what_and_when(ada, alice, team, key):
    services.rotate_key(key, alice)
    Program(alice).patch(f"/teams/{team.pk}", {"name": "Water"})
    program = Program(ada)

    def actions(query):
        return [each["action"] for each in program.get(f"/audit?{query}").json()["items"]]

    assert actions("actor=alice@example.com") == ["team.renamed"]
    assert actions("action=key") == ["key.rotated", "key.created"]
    assert actions("action=key.rotated") == ["key.rotated"]
    assert actions(f"subject_kind=apikey&subject_id={key.pk}") == ["key.rotated", "key.created"]
    assert actions("until=2020-01-01T00:00:00Z") == []
    assert len(actions("since=2020-01-01T00:00:00Z")) > 3
    assert program.get("/audit?since=yesterday").status_code == 422


def test_the_audit_is_exported_whole_and_without_formulas(alice, team):
    services.create_key(team, "=HYPERLINK(1)", alice)

    answer = Program(alice).get("/audit.csv")
    lines = b"".join(answer).decode().splitlines()

    assert answer["Content-Type"] == "text/csv"
    assert lines[0].startswith("id,at,actor_kind")
    assert len(lines) == 1 + AuditEvent.objects.filter(team_id=team.pk).count()
    assert ", =HYPERLINK(1)," in lines[1]


@pytest.mark.django_db(transaction=True)
async def test_the_export_comes_in_parts_under_asgi(alice, team):
    client = AsyncClient()
    await client.aforce_login(alice)

    answer = await client.get("/api/audit.csv")

    assert answer.is_async
    parts = [part async for part in answer]
    assert len(parts) == 2
    assert b"team.created" in parts[1]
