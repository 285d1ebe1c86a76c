from datetime import UTC, date, datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ValidationError
from django.db import DataError, IntegrityError, transaction
from django.utils import timezone

from accounts.changes import change_number
from accounts.models import AuditEvent, User
from gateway import exchange, services, snapshot
from gateway.credentials import CredentialUnreadable, reveal
from gateway.inputs import TARGET_RANGES, Unusable
from gateway.models import (
    BreakerChange,
    Credential,
    ExchangeRate,
    Price,
    Provider,
    Repricing,
    Route,
    Target,
)
from gateway.price_inputs import MAX_PRICE_NANOS
from gateway.relay import catalog
from gateway.relay.catalog import Rates

pytestmark = pytest.mark.django_db

OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


@pytest.fixture
def provider():
    return services.add_provider("acme", "Acme", "https://acme.example/v1/")


@pytest.fixture
def route():
    return services.add_route("gpt-4o", ["gpt4o"])


@pytest.fixture
def target(provider, route):
    return services.add_target(route, provider, "gpt-4o-2024", order=2)


def a_price(target, **others):
    figures = {"input_nanos": 2, "cached_input_nanos": 1, "output_nanos": 3} | others
    return services.add_price(target, datetime(2026, 1, 1, tzinfo=UTC), **figures)


WRITES = {
    "add a provider": lambda p, r, t: services.add_provider("b", "B", "http://b/v1"),
    "move a provider": lambda p, r, t: services.move_provider(p, "http://c/v1"),
    "switch a provider off": lambda p, r, t: services.enable_provider(p, False),
    "keep a credential": lambda p, r, t: services.keep_credential(p, "sk", [NEW]),
    "refer to a credential": lambda p, r, t: services.refer_to_credential(p, "ACME_API_KEY"),
    "forget a credential": lambda p, r, t: services.forget_credential(p),
    "add a route": lambda p, r, t: services.add_route("other"),
    "add an alias": lambda p, r, t: services.add_aliases(r, ["another"]),
    "add a target": lambda p, r, t: services.add_target(r, p, "other"),
    "add a price": lambda p, r, t: a_price(t),
    "add an exchange rate": lambda p, r, t: services.add_exchange_rate("USD", "JPY", date(2026, 1, 1), 10**9),
    "change a route": lambda p, r, t: services.update_route(r, {"timeout_s": 5.0}),
    "change a target": lambda p, r, t: services.update_target(t, {"weight": 5}),
    "hold a breaker open": lambda p, r, t: services.hold_breaker_open(t, ada()),
    "let a breaker go": lambda p, r, t: services.let_breaker_go(held(t), ada()),
    "close a breaker": lambda p, r, t: services.close_breaker(t, ada()),
}


def ada():
    """The administrator."""
    return User.objects.filter(email="ada@example.com").first() or User.objects.create_superuser(
        "ada@example.com"
    )


def held(target):
    services.hold_breaker_open(target, ada())
    return target


@pytest.mark.parametrize("write", WRITES)
def test_every_write_is_noted_for_those_who_serve(write, provider, route, target):
    before = change_number()

    WRITES[write](provider, route, target)

    assert change_number() > before


def test_a_provider_keeps_its_address_without_the_closing_slash(provider):
    provider.refresh_from_db()

    assert provider.base_url == "https://acme.example/v1"


def test_a_moved_provider_is_at_its_new_address(provider):
    services.move_provider(provider, "http://127.0.0.1:1/v1")
    provider.refresh_from_db()

    assert provider.base_url == "http://127.0.0.1:1/v1"


def test_a_provider_has_one_credential_the_last_one_given(provider):
    services.refer_to_credential(provider, "ACME_API_KEY")
    services.keep_credential(provider, "sk-kept", [NEW])
    credential = Credential.objects.get(provider=provider)

    assert credential.env_var == ""
    assert reveal(credential, [NEW], {}).value == "sk-kept"

    services.refer_to_credential(provider, "ACME_API_KEY")
    credential.refresh_from_db()

    assert (credential.encrypted, credential.env_var) == ("", "ACME_API_KEY")


@pytest.mark.parametrize(
    "name",
    ["", "WITH SPACE", "A=B", "A\nB", "ÄPFEL_API_KEY", "X" * 93 + "_API_KEY", "SECRET_KEY", "KEY_PEPPERS"],
)
def test_the_name_of_a_variable_must_be_one(provider, name):
    with pytest.raises(Unusable):
        services.refer_to_credential(provider, name)


def test_rotation_moves_every_kept_credential_to_the_newest_key(provider):
    services.keep_credential(provider, "sk-kept", [OLD])
    services.refer_to_credential(services.add_provider("b", "B", "http://b/v1"), "B_API_KEY")

    assert services.rotate_credentials([NEW, OLD]) == 1
    assert reveal(Credential.objects.get(provider=provider), [NEW], {}).value == "sk-kept"


def test_rotation_is_all_or_nothing(provider):
    lost = Fernet.generate_key().decode()
    services.keep_credential(provider, "sk-one", [OLD])
    services.keep_credential(services.add_provider("b", "B", "http://b/v1"), "sk-two", [lost])

    with pytest.raises(CredentialUnreadable):
        services.rotate_credentials([NEW, OLD])

    assert reveal(Credential.objects.get(provider=provider), [OLD], {}).value == "sk-one"


def test_a_route_answers_to_its_model_name_and_its_aliases(route):
    assert services.route_called("gpt-4o") == route
    assert services.route_called("gpt4o") == route
    assert services.route_called("gpt") is None


@pytest.mark.parametrize("taken", ["gpt-4o", "gpt4o"])
def test_a_name_belongs_to_one_route(route, taken):
    with pytest.raises(Unusable, match=f"The route gpt-4o answers to {taken} already"):
        services.add_route(taken)

    other = services.add_route("other", [taken, "fresh"])

    assert other.aliases == ["fresh"]


def test_an_alias_is_kept_once(route):
    services.add_aliases(route, ["gpt4o", "new", "new"])

    assert Route.objects.get(pk=route.pk).aliases == ["gpt4o", "new"]


def test_a_target_is_once_in_a_route(route, provider, target):
    with pytest.raises(IntegrityError):
        services.add_target(route, provider, "gpt-4o-2024")


@pytest.mark.parametrize("figure", ["output_nanos", "cache_write_nanos", "request_nanos"])
def test_a_price_is_not_negative(target, figure):
    with pytest.raises(Unusable, match="A price is not negative"):
        a_price(target, **{figure: -1})


@pytest.mark.parametrize("figure", ["input_nanos", "cached_input_nanos", "output_nanos", "request_nanos"])
def test_a_price_is_one_that_a_billion_tokens_cost_within_the_ledger(target, figure):
    with pytest.raises(Unusable, match="A price is at most 1,000,000 for a million tokens or"):
        a_price(target, **{figure: MAX_PRICE_NANOS + 1})

    assert a_price(target, **{figure: MAX_PRICE_NANOS})
    assert MAX_PRICE_NANOS * 10**9 // 10**6 < 2**63


def test_a_price_keeps_all_that_it_names(target):
    tiers = [Rates(4, 5, 6, reasoning_nanos=7, above_tokens=100)]
    kinds = {"cache_write_nanos": 8, "reasoning_nanos": 0, "audio_input_nanos": 9, "audio_output_nanos": 10}
    a_price(target, currency="JPY", request_nanos=11, tiers=tiers, source=" the contract ", **kinds)

    price = Price.objects.get()

    assert snapshot.price_of(price).tiers == tuple(tiers)
    assert snapshot.price_of(price).rates == Rates(2, 1, 3, **kinds)
    assert (price.currency, price.request_nanos, price.source) == ("JPY", 11, "the contract")
    told = AuditEvent.objects.get(action="price.added").after
    assert (told["reasoning_nanos"], told["currency"], told["source"]) == (0, "JPY", "the contract")


@pytest.mark.parametrize("bounds", [[0], [5, 5], [9, 5]])
def test_tiers_go_up(target, bounds):
    with pytest.raises(Unusable, match="Tiers go up"):
        a_price(target, tiers=[Rates(1, 1, 1, above_tokens=each) for each in bounds])


def test_a_price_from_the_same_moment_takes_the_place_of_the_one_before(target):
    a_price(target, output_nanos=1)
    a_price(target, output_nanos=2)

    [held] = snapshot.prices_of(Price.objects.order_by("valid_from", "id"), exchange.Rates())[target.pk]

    assert (Price.objects.count(), held.rates.output_nanos) == (2, 2)


def test_a_price_that_an_exchange_rate_makes_too_dear_is_refused(target):
    services.add_exchange_rate("JPY", "USD", date(2027, 1, 1), 2 * 10**9)

    with pytest.raises(Unusable, match="above 1,000,000 USD"):
        a_price(target, currency="JPY", input_nanos=MAX_PRICE_NANOS // 2 + 1)
    a_price(target, currency="JPY", input_nanos=MAX_PRICE_NANOS // 2)


def test_an_exchange_rate_that_makes_a_price_too_dear_is_refused(target):
    a_price(target, currency="JPY", request_nanos=MAX_PRICE_NANOS // 2)

    with pytest.raises(Unusable, match="Is it turned round"):
        services.add_exchange_rate("USD", "JPY", date(2026, 1, 1), 10**9 // 2 - 1)
    services.add_exchange_rate("USD", "JPY", date(2026, 1, 1), 10**9 // 2)


@pytest.mark.parametrize(
    ("base", "quote", "day", "rate_nanos"),
    [
        ("USD", "USD", date(2026, 1, 1), 10**9),
        ("USD", "yen", date(2026, 1, 1), 10**9),
        ("USD", "JPY", date(2026, 1, 1), 0),
        ("USD", "JPY", date(1990, 1, 1), 10**9),
    ],
)
def test_an_exchange_rate_that_cannot_be_is_refused(base, quote, day, rate_nanos):
    with pytest.raises(Unusable):
        services.add_exchange_rate(base, quote, day, rate_nanos)
    assert not ExchangeRate.objects.exists()


def test_an_exchange_rate_is_audited():
    services.add_exchange_rate("USD", "JPY", date(2026, 1, 1), 150 * 10**9, "the bank")

    told = AuditEvent.objects.get(action="exchange_rate.added").after
    assert told == {
        "base": "USD",
        "quote": "JPY",
        "valid_from": "2026-01-01",
        "rate_nanos": 150 * 10**9,
        "source": "the bank",
    }


# What comes too late


def days_ago(days):
    return timezone.now() - timedelta(days=days)


@pytest.fixture
def old_target(target):
    """On a route that has been there for a year."""
    Route.objects.filter(pk=target.route_id).update(created_at=days_ago(365))
    return target


def a_dated_price(target, valid_from, **others):
    figures = {"input_nanos": 2, "cached_input_nanos": 1, "output_nanos": 3} | others
    return services.add_price(target, valid_from, **figures)


def spans():
    found = Repricing.objects.values_list("target_id", "from_at", "until_at")
    return [(target_id, from_at, until_at) for target_id, from_at, until_at in found]


def is_about_now(moment):
    return abs(moment - timezone.now()) < timedelta(minutes=1)


def test_a_price_for_the_past_prices_its_calls_again_until_now(old_target):
    begin = days_ago(3)
    a_dated_price(old_target, begin)

    [(target_id, from_at, until_at)] = spans()
    assert (target_id, from_at) == (old_target.pk, begin)
    assert is_about_now(until_at)


def test_a_price_for_the_past_prices_again_until_the_next_one(old_target):
    later = days_ago(2)
    a_dated_price(old_target, later)
    Repricing.objects.all().delete()

    a_dated_price(old_target, days_ago(3))

    assert [until_at for _, _, until_at in spans()] == [later]


def test_a_price_to_come_prices_nothing_again(old_target):
    a_dated_price(old_target, days_ago(-1))

    assert spans() == []


def test_a_price_that_begins_before_all_have_heard_of_it_prices_again(old_target):
    begin = timezone.now() + timedelta(seconds=8)
    a_dated_price(old_target, begin)

    [(_, from_at, until_at)] = spans()
    assert from_at == begin < until_at


def test_a_price_from_long_ago_prices_again_from_when_there_was_a_route(old_target):
    created_at = Route.objects.get().created_at
    a_dated_price(old_target, days_ago(2000))

    assert [from_at for _, from_at, _ in spans()] == [created_at]


def test_the_prices_of_a_target_that_was_just_added_price_nothing_again(old_target):
    row = services.price_row(old_target, catalog.Price(0, 0, Rates(1, 1, 1)), "list")

    services.fill_in_prices([row])

    assert (Price.objects.count(), spans()) == (1, [])


def test_an_exchange_rate_for_the_past_prices_again_what_has_a_price_in_its_currency(old_target, provider):
    other = services.add_target(old_target.route, provider, "in-dollars")
    a_dated_price(old_target, days_ago(-1), currency="JPY")
    a_dated_price(other, days_ago(-1), currency="USD")
    day = days_ago(5).astimezone(UTC).date()

    services.add_exchange_rate("USD", "JPY", day, 150 * 10**9)

    [(target_id, from_at, until_at)] = spans()
    assert (target_id, from_at.date()) == (old_target.pk, day)
    assert (from_at.hour, from_at.minute) == (0, 0)
    assert is_about_now(until_at)


def test_an_exchange_rate_prices_again_until_the_next_one_in_whichever_direction(old_target):
    a_dated_price(old_target, days_ago(-1), currency="JPY")
    first, second = (days_ago(days).astimezone(UTC).date() for days in (9, 4))
    services.add_exchange_rate("JPY", "USD", second, 10**7)
    Repricing.objects.all().delete()

    services.add_exchange_rate("USD", "JPY", first, 150 * 10**9)

    assert [(from_at.date(), until_at.date()) for _, from_at, until_at in spans()] == [(first, second)]


@pytest.mark.parametrize("pair", [("EUR", "JPY"), ("EUR", "USD")])
def test_an_exchange_rate_that_no_price_needs_prices_nothing_again(old_target, pair):
    a_dated_price(old_target, days_ago(-1), currency="JPY")

    services.add_exchange_rate(*pair, days_ago(5).date(), 10**9)

    assert spans() == []


def test_an_exchange_rate_to_come_prices_nothing_again(old_target):
    a_dated_price(old_target, days_ago(-1), currency="JPY")

    services.add_exchange_rate("USD", "JPY", days_ago(-2).date(), 150 * 10**9)

    assert spans() == []


def wrong_fields(write):
    with pytest.raises(ValidationError) as refused:
        write()
    return set(refused.value.message_dict)


def test_a_changed_target_keeps_what_was_not_named(target):
    services.update_target(target, {"weight": 7, "read_timeout_s": 1.5, "parameters": {"n": "refuse"}})

    kept = Target.objects.get()
    assert (kept.weight, kept.read_timeout_s, kept.parameters) == (7, 1.5, {"n": "refuse"})
    assert (kept.order, kept.max_connections) == (2, 100)


def test_a_target_is_changed_as_it_is_now_not_as_it_was_read(target):
    earlier = Target.objects.get()
    services.update_target(target, {"transport": "httpx", "http2": True})

    assert wrong_fields(lambda: services.update_target(earlier, {"transport": "aiohttp"})) == {"http2"}


def test_nothing_is_changed_where_one_value_is_wrong(target):
    before = change_number()

    assert wrong_fields(lambda: services.update_target(target, {"order": 3, "weight": -1})) == {"weight"}
    assert (Target.objects.get().order, change_number()) == (2, before)


@pytest.mark.parametrize(("name", "bounds"), TARGET_RANGES.items())
def test_a_setting_of_a_target_is_held_to_its_range_by_rule_and_by_database(target, name, bounds):
    least, most = bounds
    step = 0.001 if name.endswith("_s") else 1

    for right in (least, most):
        services.update_target(target, {name: right})
        assert getattr(Target.objects.get(), name) == right
    for wrong in (least - step, most + step):
        assert wrong_fields(lambda value=wrong: services.update_target(target, {name: value})) == {name}
        with pytest.raises((IntegrityError, DataError)), transaction.atomic():
            Target.objects.update(**{name: wrong})


@pytest.mark.parametrize(
    "wrong",
    [{"transport": "post"}, {"lever": "ajar"}, {"http2": True}],
)
def test_the_database_itself_refuses_what_no_target_can_be(target, wrong):
    with pytest.raises(IntegrityError):
        Target.objects.update(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"timeout_s": 0},
        {"hang_up_drain_s": -1},
        {"overflow": "pour"},
        {"overflow": "reroute"},
        {"overflow": "reroute", "overflow_route": "gpt-4o"},
    ],
)
def test_the_database_itself_refuses_what_no_route_can_be(route, wrong):
    with pytest.raises(IntegrityError):
        Route.objects.update(**wrong)


def test_a_route_goes_on_with_another_route_by_any_of_its_names(route):
    services.add_route("long", ["longer"])

    services.update_route(route, {"overflow": "reroute", "overflow_route": "longer"})

    assert Route.objects.get(pk=route.pk).overflow_route == "longer"


@pytest.mark.parametrize("name", ["gpt-4o", "gpt4o", "nobody", ""])
def test_a_route_does_not_go_on_with_itself_or_with_nothing(route, name):
    changes = {"overflow": "reroute", "overflow_route": name}

    assert wrong_fields(lambda: services.update_route(route, changes)) == {"overflow_route"}
    assert Route.objects.get().overflow == "refuse"


def test_what_people_do_to_a_breaker_is_on_its_timeline(target):
    assert services.hold_breaker_open(target, ada(), "It moves house.")
    assert not services.hold_breaker_open(target, ada())
    assert services.let_breaker_go(target, ada())
    assert not services.let_breaker_go(target, ada())
    services.close_breaker(target, ada(), "It is well.")

    lines = BreakerChange.objects.order_by("id")
    assert [(each.before, each.after, each.cause) for each in lines] == [
        ("closed", "open", "It moves house."),
        ("open", "closed", "Let go by hand."),
        ("closed", "closed", "It is well."),
    ]
    assert {(each.target_id, each.provider, each.upstream_model) for each in lines} == {
        (target.pk, "acme", "gpt-4o-2024")
    }
    assert {each.by_user for each in lines} == {ada()}


def test_closing_lets_a_held_breaker_go_too(target):
    services.close_breaker(held(target), ada())

    kept = Target.objects.get()
    assert kept.lever == "automatic"
    assert kept.closed_at is not None


def test_a_line_stays_when_who_pulled_the_lever_is_gone(target):
    services.hold_breaker_open(target, ada())
    ada().delete()

    assert BreakerChange.objects.get().by_user is None


@pytest.mark.parametrize("replace", ["keep", "refer"])
def test_a_new_credential_is_not_taken_for_the_one_that_was_refused(provider, replace):
    services.keep_credential(provider, "sk-old", [NEW])
    Credential.objects.update(refused_at=datetime(2026, 1, 1, tzinfo=UTC), refused_status=401)

    if replace == "keep":
        services.keep_credential(provider, "sk-new", [NEW])
    else:
        services.refer_to_credential(provider, "ACME_API_KEY")

    kept = Credential.objects.get()
    assert (kept.refused_at, kept.refused_status) == (None, None)


def test_moving_to_another_key_leaves_the_flag_of_a_credential(provider):
    services.keep_credential(provider, "sk-old", [OLD])
    Credential.objects.update(refused_at=datetime(2026, 1, 1, tzinfo=UTC), refused_status=401)

    services.rotate_credentials([NEW, OLD])

    assert Credential.objects.get().refused_status == 401


def test_a_target_says_which_it_is(target):
    assert str(target) == "acme/gpt-4o-2024"
    assert Provider.objects.get().ca_pem == ""
