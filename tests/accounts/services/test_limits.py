import pytest
from django.db import IntegrityError, transaction

from accounts import services
from accounts.models import ApiKey, Quota, RateLimit


@pytest.fixture
def key(team, alice) -> ApiKey:
    return services.create_key(team, "web", alice)[0]


@pytest.fixture(params=["team", "key"])
def owner(request):
    return request.getfixturevalue(request.param)


def test_a_rate_limit_is_set_and_set_again_under_the_same_id(owner, audited, heard, committing):
    with committing():
        first = services.set_rate_limit(owner, "requests", 100, by_administrator=False)
    again = services.set_rate_limit(owner, "requests", 50, by_administrator=False)
    small = services.set_rate_limit(owner, "requests", 10, " small ", by_administrator=False)

    assert heard == ["changed"]
    assert again.pk == first.pk != small.pk
    assert [(each.amount, each.model_name) for each in owner.rate_limits.all()] == [(50, ""), (10, "small")]
    made, _ = audited("rate_limit.set")
    (changed,) = audited("rate_limit.changed")
    assert made.after["amount"] == 100
    assert (changed.before["amount"], changed.after["amount"]) == (100, 50)


def test_what_is_set_as_it_was_is_no_change(owner, audited):
    for _ in range(2):
        services.set_quota(owner, "money", 5, by_administrator=False)
        services.set_rate_limit(owner, "tokens", 5, by_administrator=False)
    assert [event.action for event in audited() if event.action[:4] in ("quot", "rate")] == [
        "quota.set",
        "rate_limit.set",
    ]


@pytest.mark.parametrize("amount", [0, -1, 1 << 53, 1.5, True, "7", None])
def test_a_rate_limit_is_a_whole_number_that_lets_something_through(owner, amount):
    with pytest.raises(services.WrongValue, match="A whole number from 1 to 9007199254740991") as refused:
        services.set_rate_limit(owner, "requests", amount, by_administrator=True)
    assert refused.value.field == "amount"
    assert not RateLimit.objects.exists()


@pytest.mark.parametrize(
    ("kind", "model_name", "field"),
    [
        ("pages", "", "kind"),
        ("money", "", "kind"),
        ("requests", "x" * 201, "model_name"),
        ("tokens", "a\nb", "model_name"),
    ],
)
def test_a_rate_limit_is_of_a_known_kind_and_a_possible_model_name(owner, kind, model_name, field):
    with pytest.raises(services.WrongValue) as refused:
        services.set_rate_limit(owner, kind, 7, model_name, by_administrator=True)
    assert refused.value.field == field


def test_a_quota_is_set_and_set_again_under_the_same_id(owner):
    month = services.set_quota(owner, "money", 10**18, by_administrator=False)
    day = services.set_quota(
        owner, "money", 0, "day", "Europe/Berlin", True, [100, 50, 50], by_administrator=False
    )
    again = services.set_quota(owner, "money", 7, "month", "Asia/Tokyo", by_administrator=False)

    assert again.pk == month.pk != day.pk
    assert (day.warn_at, day.hard, day.zone) == ([50, 100], True, "Europe/Berlin")
    month.refresh_from_db()
    assert (month.amount, month.zone, month.hard, month.warn_at) == (7, "Asia/Tokyo", False, [50, 80, 100])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"kind": "pages"}, "kind"),
        ({"period": "week"}, "period"),
        ({"amount": -1}, "amount"),
        ({"amount": 1 << 53}, "amount"),
        ({"kind": "money", "amount": 10**18 + 1}, "amount"),
        ({"zone": "Mars/Base"}, "zone"),
        ({"zone": "../../etc/passwd"}, "zone"),
        ({"zone": ""}, "zone"),
        ({"zone": "Europe"}, "zone"),
        ({"zone": "a\0b"}, "zone"),
        ({"zone": "x" * 10_000}, "zone"),
        ({"hard": "yes"}, "hard"),
        ({"warn_at": [0]}, "warn_at"),
        ({"warn_at": [101]}, "warn_at"),
        ({"warn_at": [50.5]}, "warn_at"),
    ],
)
def test_what_a_quota_cannot_be_is_a_sentence_that_names_the_setting(owner, wrong, field):
    wished = {"kind": "tokens", "amount": 5} | wrong
    with pytest.raises(services.WrongValue) as refused:
        services.set_quota(owner, **wished, by_administrator=True)
    assert refused.value.field == field
    assert not Quota.objects.exists()


def test_a_quota_is_changed_in_part(owner, audited):
    quota = services.set_quota(owner, "tokens", 100, by_administrator=False)
    services.change_quota(quota, {"amount": 50, "hard": True})
    quota.refresh_from_db()
    assert (quota.amount, quota.hard, quota.zone, quota.by_administrator) == (50, True, "UTC", False)
    (event,) = audited("quota.changed")
    assert (event.before["amount"], event.after["amount"]) == (100, 50)
    with pytest.raises(services.WrongValue, match="no setting called"):
        services.change_quota(quota, {"kind": "money"})


def test_what_an_administrator_changed_is_an_administrators(owner):
    quota = services.set_quota(owner, "tokens", 100, by_administrator=False)
    services.change_quota(quota, {"amount": 50}, by_administrator=True)
    with pytest.raises(services.SetByAdministrator):
        services.set_quota(owner, "tokens", 1000, by_administrator=False)
    services.set_rate_limit(owner, "tokens", 5, by_administrator=True)
    with pytest.raises(services.SetByAdministrator):
        services.set_rate_limit(owner, "tokens", 500, by_administrator=False)
    services.set_rate_limit(owner, "tokens", 500, "small", by_administrator=False)
    assert [each.amount for each in owner.rate_limits.all()] == [5, 500]


def test_what_became_an_administrators_a_moment_ago_stays_so(owner):
    services.set_quota(owner, "tokens", 100, by_administrator=False)
    limit = services.set_rate_limit(owner, "tokens", 100, by_administrator=False)
    quota, same_quota = owner.quotas.get(), owner.quotas.get()
    services.set_quota(owner, "tokens", 50, by_administrator=True)
    services.set_rate_limit(owner, "tokens", 50, by_administrator=True)

    for late in (
        lambda: services.change_quota(quota, {"amount": 1000}),
        lambda: services.remove_quota(same_quota),
        lambda: services.remove_rate_limit(limit),
    ):
        with pytest.raises(services.SetByAdministrator):
            late()
    assert [each.amount for each in (*owner.quotas.all(), *owner.rate_limits.all())] == [50, 50]


def test_rate_limits_are_so_few_that_every_call_can_be_held_to_each(owner):
    names = [f"m{number}" for number in range(services.MOST_RATE_LIMITS)]
    rows = [RateLimit(**_owned(owner), kind="tokens", amount=1, model_name=name) for name in names]
    RateLimit.objects.bulk_create(rows[owner.rate_limits.count() :])

    with pytest.raises(services.WrongValue, match="at most 100 rate limits") as refused:
        services.set_rate_limit(owner, "concurrent", 5, by_administrator=False)
    changed = services.set_rate_limit(owner, "tokens", 7, names[-1], by_administrator=False)

    assert refused.value.field == "model_name"
    assert changed.amount == 7


def _owned(owner):
    return {"key": owner} if isinstance(owner, ApiKey) else {"team": owner}


def test_a_removed_limit_is_gone_and_audited(owner, team, audited, heard, committing):
    limit = services.set_rate_limit(owner, "tokens", 5, by_administrator=True)
    quota = services.set_quota(owner, "tokens", 5, by_administrator=True)
    with committing():
        services.remove_rate_limit(limit)
        services.remove_quota(quota)
        services.remove_quota(quota)  # as another person did at the same moment
    assert not owner.rate_limits.exists()
    assert not owner.quotas.exists()
    assert heard == ["changed", "changed"]
    events = audited("rate_limit.removed") + audited("quota.removed")
    assert [(event.team_id, event.before["amount"], event.subject_id != "None") for event in events] == [
        (team.pk, 5, True)
    ] * 2


def test_a_revoked_key_gets_no_limits(key, alice):
    services.revoke_key(key, by=alice)
    with pytest.raises(services.AlreadyRevoked):
        services.set_quota(key, "tokens", 5, by_administrator=True)


def test_the_database_holds_every_limit_to_one_owner(team, key):
    for wrong in ({"team": team, "key": key}, {}):
        with pytest.raises(IntegrityError), transaction.atomic():
            RateLimit.objects.create(kind="requests", amount=1, **wrong)
        with pytest.raises(IntegrityError), transaction.atomic():
            Quota.objects.create(kind="requests", amount=1, **wrong)
