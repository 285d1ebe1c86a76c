from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError, connection, transaction

from gateway import credentials
from gateway.models import Credential, Price, Provider, Route, Target
from gateway.relay import catalog
from gateway.snapshot import Snapshot, read

pytestmark = pytest.mark.django_db

SECRET = "sk-upstream-credential-0123456789"


@pytest.fixture
def provider() -> Provider:
    made = Provider.objects.create(slug="tide", name="Tide", base_url="https://api.tide.example/v1")
    Credential.objects.create(provider=made, encrypted=credentials.encrypt(SECRET, settings.CREDENTIAL_KEYS))
    return made


@pytest.fixture
def target(provider: Provider) -> Target:
    route = Route.objects.create(model_name="gpt-4o", aliases=["gpt-4-o"])
    return Target.objects.create(route=route, provider=provider, upstream_model="gpt-4o-2024")


def price(target: Target, day: int, nanos: int) -> Price:
    return Price.objects.create(
        target=target,
        valid_from=datetime(2026, 1, day, tzinfo=UTC),
        input_nanos=nanos,
        cached_input_nanos=nanos,
        output_nanos=nanos,
    )


def test_a_route_is_found_by_each_of_its_names(target: Target) -> None:
    routes = read().routes

    assert routes["gpt-4o"] is routes["gpt-4-o"]
    [found] = routes["gpt-4o"].targets
    assert (found.provider, found.upstream_model) == ("tide", "gpt-4o-2024")
    assert found.credential is not None
    assert found.credential.value == SECRET


def test_prices_come_in_the_order_of_their_days(target: Target) -> None:
    price(target, 2, 20)
    price(target, 1, 10)

    [found] = read().routes["gpt-4o"].targets
    assert [each.rates.input_nanos for each in found.prices] == [10, 20]


def test_targets_come_in_the_order_they_are_tried(target: Target, provider: Provider) -> None:
    Target.objects.create(route=target.route, provider=provider, upstream_model="last", order=9)
    target.order = 5
    target.save()

    assert [each.upstream_model for each in read().routes["gpt-4o"].targets] == ["gpt-4o-2024", "last"]


@pytest.mark.parametrize("what", ["provider", "target", "route"])
def test_what_is_switched_off_is_left_out(target: Target, provider: Provider, what: str) -> None:
    row: Any = {"provider": provider, "target": target, "route": target.route}[what]
    row.enabled = False
    row.save()

    route = read().routes.get("gpt-4o")
    assert route is None or route.targets == ()


def test_a_provider_whose_credential_cannot_be_read_is_left_out_and_said(
    target: Target, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    Credential.objects.filter(provider=provider).update(encrypted="", env_var="TIDE_API_KEY_THAT_IS_NOT_SET")

    assert read().routes["gpt-4o"].targets == ()
    assert "TIDE_API_KEY_THAT_IS_NOT_SET" in caplog.text


def test_a_failed_refresh_keeps_the_old_catalog(target: Target) -> None:
    snapshot = Snapshot()
    snapshot.refresh()
    before = snapshot.current()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE gateway_route RENAME TO gone")
        with pytest.raises(DatabaseError), transaction.atomic():
            snapshot.refresh()
        cursor.execute("ALTER TABLE gone RENAME TO gateway_route")

    assert snapshot.current() is before


def test_defaults_are_those_of_the_catalog(target: Target) -> None:
    [found] = read().routes["gpt-4o"].targets
    route = catalog.Route("gpt-4o", (found,))
    plain = catalog.Target(found.id, found.provider, found.base_url, found.upstream_model, found.credential)

    assert found == replace(plain, provider_id=target.provider_id)
    assert read().routes["gpt-4o"] == replace(route, created_at_s=int(target.route.created_at.timestamp()))


SETTINGS = {
    **{"order": 3, "weight": 4, "transport": "httpx", "max_concurrency": 5, "max_waiting": 6},
    **{"context_window": 7, "parameters": {"n": "drop"}, "lever": "open"},
}
POOL = catalog.PoolConfig(11, 12, 13.5, 14.5, 15.5, 16.5, 17.5, http2=True)


def test_every_setting_comes_through(target: Target, provider: Provider) -> None:
    moment = datetime(2026, 1, 1, 0, 0, 0, 5, tzinfo=UTC)
    pool = {name: getattr(POOL, name) for name in catalog.PoolConfig.__dataclass_fields__}
    Target.objects.update(**SETTINGS, **pool, closed_at=moment)
    Provider.objects.update(ca_pem="PEM")
    Credential.objects.update(refused_at=moment, refused_status=401)
    Route.objects.update(timeout_s=1.5, overflow="trim", overflow_route="long", hang_up_drain_s=2.5)

    route = read().routes["gpt-4o"]
    [found] = route.targets
    assert {name: getattr(found, name) for name in SETTINGS} == SETTINGS
    assert (found.pool, found.ca_pem, found.provider_id) == (POOL, "PEM", provider.pk)
    assert found.closed_at_us == 1_767_225_600_000_005
    assert found.credential_refused
    assert (route.timeout_s, route.overflow, route.overflow_route) == (1.5, "trim", "long")
    assert route.hang_up_drain_s == 2.5


def test_a_refresh_takes_five_queries_however_many_rows(
    target: Target, provider: Provider, django_assert_num_queries: Any
) -> None:
    for number in range(5):
        Target.objects.create(route=target.route, provider=provider, upstream_model=f"m{number}")
    with django_assert_num_queries(5):  # providers with credentials, prices, exchange rates, targets, routes
        read()
