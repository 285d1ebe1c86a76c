"""A gateway's database filled with many of one thing."""

import json
from datetime import UTC, datetime

import pytest
from django.conf import settings

from accounts import keys
from accounts.authentication import read_key
from accounts.models import ApiKey, KeySecret, RateLimit, Team, User
from benchmarks import bulk
from benchmarks.wire import MODEL_NAME
from gateway import services, snapshot
from gateway.ledger import spending
from gateway.models import Attempt, Entry, Stale

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.sqlite]
PEPPERS = {keys.pepper_id(each): each for each in settings.KEY_PEPPERS}


@pytest.fixture(autouse=True)
def administrator():
    return User.objects.create_superuser("alice@example.com", "a-long-enough-passphrase")


@pytest.fixture
def route():
    made = services.add_route(MODEL_NAME)
    provider = services.add_provider("bench", "Bench", "http://localhost:9/v1")
    target = services.add_target(made, provider, MODEL_NAME)
    moment = datetime(2020, 1, 1, tzinfo=UTC)
    services.add_price(target, moment, input_nanos=2, cached_input_nanos=1, output_nanos=3)
    return made


@pytest.fixture
def told(capsys):
    """What was printed for whoever began it, read once."""
    return lambda: json.loads(capsys.readouterr().out.splitlines()[-1])


def caller_of(secret):
    known = read_key(keys.take_apart(secret).public_id, PEPPERS)
    assert known is not None
    assert known.is_secret(keys.take_apart(secret).secret)
    return known.caller


def test_keys_are_as_many_as_were_asked_for_and_callers_have_every_limit(told):
    bulk.keys(200)
    callers = [caller_of(each) for each in told()["keys"]]

    assert ApiKey.objects.count() == KeySecret.objects.count() == 200
    assert len({each.key_id for each in callers}) == bulk.CALLERS
    assert {(len(each.rate_limits), len(each.quotas)) for each in callers} == {(4, 2)}
    assert set(RateLimit.objects.filter(key__name="further").values_list("key__rate_limits")) != {(None,)}


def test_a_few_keys_are_all_callers(told):
    bulk.keys(10)

    assert len(told()["keys"]) == ApiKey.objects.count() == 10


def test_every_further_key_has_a_secret_and_a_rate_limit_of_its_own():
    bulk.keys(100)
    further = ApiKey.objects.filter(name="further")

    assert further.count() == 36
    assert KeySecret.objects.filter(key__in=further).values("key").distinct().count() == 36
    assert RateLimit.objects.filter(key__in=further).values("key").distinct().count() == 36


@pytest.mark.parametrize(("count", "called"), [(1, 1), (100, 64)])
def test_callers_are_spread_over_teams(count, called, told):
    bulk.teams(count)
    callers = [caller_of(each) for each in told()["keys"]]

    assert Team.objects.count() == count
    assert len(callers) == bulk.CALLERS
    assert len({each.team_id for each in callers}) == called


@pytest.mark.parametrize(("count", "called"), [(1, 1), (100, 64)])
def test_every_route_has_a_target_with_a_price(count, called, route, told):
    bulk.routes(count)
    names = told()["model_names"]
    catalog = snapshot.read()

    assert len(catalog.routes) == count
    assert all(len(each.targets) == 1 and each.targets[0].prices for each in catalog.routes.values())
    assert len(set(names)) == called
    assert set(names) <= set(catalog.routes)


def test_a_key_has_as_many_limits_as_were_asked_for(told):
    bulk.limits((0, 1, 4, 16, 64))
    callers = [caller_of(each) for each in told()["keys"]]

    assert [len(each.rate_limits) + len(each.quotas) for each in callers] == [0, 1, 4, 16, 64]
    meet = [each for each in callers[-1].rate_limits if each.model_name in ("", MODEL_NAME)]
    assert len(meet) + len(callers[-1].quotas) == 24


def test_the_ledger_has_its_calls_rolled_up_and_spent(told):
    bulk.entries(1000)
    team, moments = Team.objects.get(name="Callers"), Entry.objects.values_list("started_at", flat=True)
    first, last = (int(each.timestamp() // 60) for each in (min(moments), max(moments)))

    assert Entry.objects.count() == Attempt.objects.count() == 1000
    assert Entry.objects.filter(attempts__isnull=True).count() == 0
    assert not Stale.objects.filter(size=1).exists()
    assert spending.used(team.pk, None, first, last + 1).requests == 1000
    assert caller_of(told()["keys"][0]).team_id == team.pk


def test_an_empty_ledger_stays_empty():
    bulk.entries(0)

    assert not Entry.objects.exists()
