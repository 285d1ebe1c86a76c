from datetime import UTC, datetime

import pytest
from cryptography.fernet import Fernet
from django.db import IntegrityError

from accounts.changes import change_number
from gateway import services
from gateway.credentials import CredentialUnreadable, reveal
from gateway.inputs import Unusable
from gateway.models import Credential, Route

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
}


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


def test_a_price_is_not_negative(target):
    with pytest.raises(IntegrityError):
        a_price(target, output_nanos=-1)


@pytest.mark.parametrize("figure", ["input_nanos", "cached_input_nanos", "output_nanos"])
def test_a_price_is_one_that_a_billion_tokens_cost_within_the_ledger(target, figure):
    with pytest.raises(Unusable, match="A price is at most 1,000,000 for a million tokens"):
        a_price(target, **{figure: services.MAX_PRICE_NANOS + 1})

    assert a_price(target, **{figure: services.MAX_PRICE_NANOS})
    assert services.MAX_PRICE_NANOS * 10**9 // 10**6 < 2**63
