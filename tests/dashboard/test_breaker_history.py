"""What the live page is told of breakers, and who may read why."""

from datetime import UTC, datetime, timedelta

import pytest

from accounts.models import User
from dashboard.breaker_history import calm, told
from dashboard.standing import MOST_TARGETS
from gateway.models import BreakerChange, Provider, Route, Target

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def target() -> Target:
    provider = Provider.objects.create(slug="openai", name="OpenAI", base_url="https://api.openai.com/v1")
    route = Route.objects.create(model_name="gpt-4o")
    return Target.objects.create(route=route, provider=provider, upstream_model="gpt-4o")


def changed(target: Target, minutes_ago: float, before: str, after: str, **more: object) -> BreakerChange:
    return BreakerChange.objects.create(
        target_id=target.pk,
        provider="openai",
        upstream_model="gpt-4o",
        at=NOW - timedelta(minutes=minutes_ago),
        before=before,
        after=after,
        cause="5 failures in a row",
        **more,
    )


def test_each_change_of_the_window_is_told_and_the_last_one_before_it(target: Target) -> None:
    changed(target, 60, "closed", "open")
    changed(target, 40, "open", "closed")
    changed(target, 3, "closed", "open", until=NOW - timedelta(minutes=2))
    changed(target, 1, "half_open", "closed")

    targets, story = told(NOW, sees_all=False)

    assert [(each.route, each.name) for each in targets] == [("gpt-4o", "openai/gpt-4o")]
    assert [each["after"] for each in story[target.pk]] == ["closed", "open", "closed"]
    assert [each["cause"] for each in story[target.pk]] == ["5 failures in a row"] * 3
    first, opened, _ = story[target.pk]
    assert opened["until_us"] - opened["at_us"] == 60_000_000
    assert first["at_us"] == int((NOW - timedelta(minutes=40)).timestamp()) * 1_000_000


def test_what_a_person_wrote_is_for_administrators(target: Target) -> None:
    changed(target, 1, "closed", "open", by_user=User.objects.create_superuser("root@example.com"))

    assert told(NOW, sees_all=True)[1][target.pk][0]["cause"] == "5 failures in a row"
    for_team = told(NOW, sees_all=False)[1][target.pk][0]
    assert (for_team["cause"], for_team["by_hand"]) == ("", True)


@pytest.mark.parametrize(
    ("changes", "is_calm"),
    [
        ([], True),
        ([(40, "open", "closed")], True),
        ([(40, "closed", "open")], False),
        ([(3, "open", "closed")], False),
        ([(40, "open", "closed"), (3, "closed", "open")], False),
    ],
)
def test_calm_is_what_was_closed_for_the_whole_window(target: Target, changes, is_calm) -> None:
    for each in changes:
        changed(target, *each)

    targets, story = told(NOW, sees_all=False)

    assert calm(story, targets, NOW) == ({target.pk} if is_calm else set())


def test_a_target_that_is_switched_off_is_not_told_of(target: Target) -> None:
    changed(target, 1, "closed", "open")
    target.enabled = False
    target.save()
    assert told(NOW, sees_all=True) == ([], {})


def test_of_too_many_targets_one_that_is_not_closed_is_told_of_whatever_its_name(target: Target) -> None:
    Target.objects.bulk_create(
        Target(route=target.route, provider=target.provider, upstream_model=f"z-{number:03}")
        for number in range(MOST_TARGETS + 2)
    )
    last, calm_again = Target.objects.order_by("-upstream_model")[:2]
    changed(last, 1, "closed", "open")
    changed(calm_again, 2, "open", "closed")

    targets, story = told(NOW, sees_all=True)

    assert len(targets) == MOST_TARGETS
    assert targets[0].id == target.pk
    assert targets[-1].id == last.pk
    assert list(story) == [last.pk]


def test_it_takes_three_queries_however_many_targets(target: Target, django_assert_num_queries) -> None:
    for number in range(5):
        other = Target.objects.create(
            route=target.route, provider=target.provider, upstream_model=f"gpt-{number}"
        )
        changed(other, 60, "closed", "open")
        changed(other, 1, "open", "closed")
    with django_assert_num_queries(3):
        assert len(told(NOW, sees_all=True)[1]) == 5
