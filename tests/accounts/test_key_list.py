from datetime import timedelta

import pytest
from django.utils import timezone

from accounts import key_list, services
from accounts.key_list import Asked
from accounts.models import ApiKey, KeySecret, KeyUse, Team


@pytest.fixture
def made(team, alice):
    """One key of each kind of state, by name, and when that is."""
    now = timezone.now()
    keys = {name: services.create_key(team, name, alice)[0] for name in ("active", "rotating", "revoked")}
    keys["expired"] = services.create_key(team, "expired", None, now + timedelta(minutes=1))[0]
    services.rotate_key(keys["rotating"], alice, timedelta(days=2))
    services.revoke_key(keys["revoked"], by=alice)
    services.open_playground(team, alice)
    return keys, now + timedelta(minutes=2)


def names(asked: Asked, now) -> list[str]:
    return [each.key.name for each in key_list.page(Team.objects.all(), asked, now).rows]


def test_active_keys_come_first_and_those_of_the_playground_not_at_all(made):
    _, now = made
    assert names(Asked(), now) == ["rotating", "active", "expired", "revoked"]


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ("active", ["rotating", "active"]),
        ("rotating", ["rotating"]),
        ("expired", ["expired"]),
        ("revoked", ["revoked"]),
    ],
)
def test_keys_are_found_by_their_state(made, state, found):
    _, now = made
    assert names(Asked(state=state), now) == found


def test_keys_are_found_by_a_secret_that_is_in_sight_or_pasted_whole(team, alice):
    _, text = services.create_key(team, "web", alice)
    services.create_key(team, "other", alice)
    now = timezone.now()
    for wanted in (text, text[:10], f"{text[:16]}…"):
        assert names(Asked(text=wanted), now) == ["web"]
    assert names(Asked(text="pst_nobodys"), now) == []


def test_a_percent_sign_is_a_letter(team, alice):
    services.create_key(team, "100 % coverage", alice)
    services.create_key(team, "web", alice)
    assert names(Asked(text="%"), timezone.now()) == ["100 % coverage"]


def test_only_keys_of_these_teams_are_found(team, alice, charlie):
    other = services.create_team("Billing", charlie)
    services.create_key(other, "theirs", charlie)
    services.create_key(team, "ours", alice)
    found = key_list.page(Team.objects.filter(pk=team.pk), Asked(), timezone.now())
    assert [each.key.name for each in found.rows] == ["ours"]
    assert names(Asked(team=other), timezone.now()) == ["theirs"]


def test_pages_say_where_they_are(team):
    ApiKey.objects.bulk_create(ApiKey(team=team, name=f"{number}") for number in range(51))
    now = timezone.now()
    places = [key_list.page(Team.objects.all(), Asked(page=number), now) for number in (1, 2, 9)]
    assert [(page.number, page.first, page.last, len(page.rows)) for page in places] == [
        (1, 1, 50, 50),
        (2, 51, 51, 1),
        (2, 51, 51, 1),
    ]
    nothing = key_list.page(Team.objects.none(), Asked(), now)
    assert (nothing.first, nothing.last, nothing.rows) == (0, 0, ())


def test_a_key_tells_its_old_secret_and_how_many_still_use_it(team, alice):
    key, _ = services.create_key(team, "web", alice)
    old = key.secrets.get()
    services.rotate_key(key, alice, timedelta(days=2))
    now = timezone.now() + timedelta(hours=1)
    for program, at in (
        ("laggard", now),
        ("also", now - timedelta(minutes=1)),
        ("moved", now - timedelta(days=1)),
    ):
        KeyUse.objects.create(
            secret=old, address="10.0.0.1", user_agent=program, first_used_at=at, last_used_at=at
        )
    KeySecret.objects.filter(pk=old.pk).update(last_used_at=now)
    [row] = key_list.page(Team.objects.all(), Asked(), now).rows

    old.refresh_from_db()
    assert (row.old.prefix, row.old.ends_at, row.old.users) == (str(old)[:-1], old.ends_at, 2)
    assert row.prefix == str(KeySecret.objects.get(ends_at=None))[:-1]
    assert row.last_used_at == now
    [later] = key_list.page(Team.objects.all(), Asked(), now + timedelta(days=3)).rows
    assert later.old is None


def test_a_page_takes_four_queries_at_most(team, alice, django_assert_num_queries):
    for number in range(4):
        key, _ = services.create_key(team, f"key {number}", alice)
        services.rotate_key(key, alice)
    with django_assert_num_queries(4):  # how many, keys, their secrets, who uses the old ones
        assert len(names(Asked(), timezone.now())) == 4
