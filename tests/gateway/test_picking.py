"""A model of a provider becomes a target."""

import pytest

from gateway import picking, presets, services
from gateway.models import Provider, Route

pytestmark = pytest.mark.django_db


@pytest.fixture
def openai() -> Provider:
    return services.add_provider("openai", "OpenAI", "https://api.openai.com/v1")


def picked(provider, upstream_model, model_name=""):
    return picking.pick(provider, picking.preset_of(provider, upstream_model, model_name))


def test_a_model_whose_price_is_known_gets_a_route_a_target_and_the_price(openai):
    done = picked(openai, "gpt-4o-mini")

    assert done.is_new_route
    assert done.has_price
    assert done.target.route.model_name == "gpt-4o-mini"
    assert done.target.route.unpriced == Route.Unpriced.REFUSED
    assert done.target.prices.exists()


def test_one_without_a_price_lets_calls_through_and_flags_them(openai):
    done = picked(openai, "ft:house-of-cards", "cards")

    assert not done.has_price
    assert done.target.route.model_name == "cards"
    assert done.target.route.unpriced == Route.Unpriced.ALLOWED


def test_it_comes_last_behind_a_route_that_is_there(openai):
    other = services.add_provider("other", "Other", "https://other.example/v1")
    route = services.add_route("gpt-4o-mini")
    services.add_target(route, other, "gpt-4o-mini", order=4)

    done = picked(openai, "gpt-4o-mini")

    assert not done.is_new_route
    assert done.target.route == route
    assert done.target.order == 5


def test_what_is_there_already_is_not_added_again(openai):
    picked(openai, "gpt-4o-mini")

    assert picked(openai, "gpt-4o-mini") is None


def test_what_a_vendor_is_known_not_to_take_is_known_of_the_pick(openai):
    assert picked(openai, "gpt-5").target.parameters == {"max_tokens": "translate"}
    assert picked(openai, "gpt-5", "thinker").target.parameters == {"max_tokens": "translate"}


@pytest.mark.parametrize(
    ("base_url", "price_list"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "google"),
        ("https://acme-east.openai.azure.com/openai/v1", "azure"),
        ("https://api.openai.com.evil.example/v1", presets.BY_ADDRESS),
        ("http://localhost:8000/v1", presets.BY_ADDRESS),
        ("", presets.BY_ADDRESS),
    ],
)
def test_the_address_says_whose_prices_hold(base_url, price_list):
    assert presets.price_list_of(base_url, simulated=False) == price_list


def test_a_simulator_asks_for_what_the_model_name_costs():
    assert presets.price_list_of("http://localhost:1/v1", simulated=True) == presets.BY_MODEL_NAME


@pytest.mark.parametrize(
    ("before", "moving", "step", "after"),
    [
        ([(1, 0), (2, 1), (3, 2)], 3, -1, {1: 0, 3: 1, 2: 2}),
        ([(1, 0), (2, 1), (3, 2)], 1, 1, {2: 0, 1: 1, 3: 2}),
        ([(1, 0), (2, 1)], 1, -1, {1: 0, 2: 1}),
        ([(1, 0), (2, 0)], 2, -1, {2: 0, 1: 1}),
        ([(1, 0), (2, 0)], 2, 1, {1: 0, 2: 1}),
        ([(1, 3), (2, 3), (3, 7)], 3, -1, {3: 0, 1: 1, 2: 1}),
        ([(1, 5)], 1, 1, {1: 5}),
    ],
)
def test_a_target_moves_by_one_turn(before, moving, step, after):
    assert services.moved(before, moving, step) == after
