from datetime import datetime, timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from accounts import keys, services
from accounts.models import ApiKey, KeySecret


def test_a_key_is_stored_as_a_digest_only(team, alice, heard, committing):
    with committing():
        key, text = services.create_key(team, "web", alice)

    parts = keys.take_apart(text)
    stored = KeySecret.objects.get(key=key)
    pepper = settings.KEY_PEPPERS[0]
    assert stored.public_id == parts.public_id
    assert bytes(stored.digest) == keys.digest(parts.secret, pepper)
    assert stored.pepper_id == keys.pepper_id(pepper)
    assert parts.secret not in repr(ApiKey.objects.values().get(pk=key.pk)) + repr(stored.__dict__)
    assert heard == ["changed"]


def test_a_key_cannot_expire_before_it_is_made(team, alice):
    with pytest.raises(services.ExpiryPassed):
        services.create_key(team, "web", alice, timezone.now() - timedelta(seconds=1))
    assert not ApiKey.objects.exists()


def test_a_revoked_key_says_when_and_by_whom(team, alice, heard, committing):
    key, _ = services.create_key(team, "web", alice)
    with committing():
        services.revoke_key(key, by=alice)

    key.refresh_from_db()
    assert key.revoked_at is not None
    assert key.revoked_by == alice
    assert heard == ["changed"]


def test_a_key_is_revoked_once(team, alice, bob):
    key, _ = services.create_key(team, "web", alice)
    services.revoke_key(key, by=alice)
    with pytest.raises(services.AlreadyRevoked):
        services.revoke_key(key, by=bob)
    key.refresh_from_db()
    assert key.revoked_by == alice


def test_calls_with_a_new_key_are_normal_at_most_unless_said_otherwise(team, alice):
    usual, _ = services.create_key(team, "web", alice)
    nightly, _ = services.create_key(team, "nightly", alice, priority_ceiling="batch")

    assert (usual.priority_ceiling, nightly.priority_ceiling) == ("normal", "batch")

    services.set_priority_ceiling(nightly, "urgent")
    nightly.refresh_from_db()
    assert nightly.priority_ceiling == "urgent"


def test_a_key_begins_with_the_usual_limit_which_is_the_teams_own(team, alice, usual_limits):
    key, _ = services.create_key(team, "web", alice)
    assert [(each.kind, each.amount, each.by_administrator) for each in key.rate_limits.all()] == [
        ("requests", 100, False)
    ]


def test_the_scopes_of_a_key_are_kept_as_they_will_be_used(team, alice):
    key, _ = services.create_key(
        team,
        "web",
        alice,
        routes=["small", " gpt-4o ", "small"],
        networks=["10.0.0.0/8", "192.0.2.7", "10.0.0.0/8", "2001:DB8::/32"],
        tags={"cost centre": "4711", "app": ""},
        kind="personal",
    )
    key.refresh_from_db()
    assert key.routes == ["gpt-4o", "small"]
    assert key.networks == ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]
    assert key.tags == {"app": "", "cost centre": "4711"}
    assert key.kind == "personal"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("routes", []),
        ("routes", [""]),
        ("routes", ["x" * 201]),
        ("routes", [7]),
        ("routes", [f"route {number}" for number in range(101)]),
        ("networks", ["10.0.0.1/8"]),
        ("networks", ["everywhere"]),
        ("networks", ["fe80::1%eth0"]),
        ("networks", [7]),
        ("networks", [f"10.0.0.{number}" for number in range(101)]),
        ("tags", {"": "x"}),
        ("tags", {"a,b": "x"}),
        ("tags", {"a=b": "x"}),
        ("tags", {"a": "line\nbreak"}),
        ("tags", {"a": 7}),
        ("tags", {"a": "x" * 101}),
        ("tags", {f"tag {number}": "" for number in range(11)}),
        ("priority_ceiling", "first"),
        ("kind", "shared"),
        ("expires_at", datetime(2999, 1, 1)),  # noqa: DTZ001
    ],
)
def test_what_a_key_cannot_be_is_a_sentence_that_names_the_setting(team, alice, field, value):
    key, _ = services.create_key(team, "web", alice)
    for wish in (
        lambda: services.create_key(team, "other", alice, **{field: value}),
        lambda: services.update_key(key, {field: value}),
    ):
        with pytest.raises(services.WrongValue, match=r"\.$|: .+") as refused:
            wish()
        assert refused.value.field == field
    assert ApiKey.objects.get() == key


@pytest.mark.parametrize("field", ["team", "revoked_at", "id", "created_by", "secrets"])
def test_nothing_else_of_a_key_can_be_changed(team, alice, field):
    key, _ = services.create_key(team, "web", alice)
    with pytest.raises(services.WrongValue, match="no setting called"):
        services.update_key(key, {"name": "other", field: None})
    key.refresh_from_db()
    assert key.name == "web"


@pytest.mark.parametrize("who", [None, "ada"])
def test_a_personal_key_needs_a_maker_in_the_team(request, team, who):
    maker = request.getfixturevalue(who) if who else None
    with pytest.raises(services.WrongValue, match="needs a maker who is in the team"):
        services.create_key(team, "web", maker, kind="personal")
    key, _ = services.create_key(team, "web", maker)
    with pytest.raises(services.WrongValue, match="needs a maker who is in the team"):
        services.update_key(key, {"kind": "personal"})


def test_a_changed_key_says_what_was_and_what_is(team, alice, audited, heard, committing):
    key, _ = services.create_key(team, "web", alice, tags={"app": "shop"})
    ends = timezone.now() + timedelta(days=3)
    with committing():
        services.update_key(key, {"name": "web", "expires_at": ends, "routes": ["small"], "tags": None})

    (event,) = audited("key.changed")
    assert event.team_id == team.pk
    assert event.before == {"expires_at": None, "routes": None, "tags": {"app": "shop"}}
    assert event.after == {"expires_at": ends.isoformat(), "routes": ["small"], "tags": {}}
    assert heard == ["changed"]
    with committing():
        services.update_key(key, {"name": "web"})
    assert len(audited("key.changed")) == 1
    assert heard == ["changed"]


def test_a_revoked_key_stays_as_it_was(team, alice):
    key, _ = services.create_key(team, "web", alice)
    stale = ApiKey.objects.get()
    services.revoke_key(key, by=alice)
    with pytest.raises(services.AlreadyRevoked, match="for good"):
        services.update_key(stale, {"expires_at": None, "name": "other"})
    assert ApiKey.objects.get().name == "web"


def test_no_secret_is_in_the_audit(team, alice, audited):
    key, first = services.create_key(team, "web", alice)
    _, second = services.rotate_key(key, by=alice)
    services.revoke_key(key, by=alice)
    said = repr([event.__dict__ for event in audited()])
    for text in (first, second):
        assert keys.take_apart(text).secret not in said
    stored = KeySecret.objects.values_list("digest", flat=True)
    assert not any(bytes(each).hex() in said for each in stored)
