import pytest

from accounts.caller import Caller
from gateway.errors import RouteNotAllowed, Unpriced
from gateway.relay.catalog import Catalog, Price, Route, Secret, Target
from gateway.relay.routing import plan

ALICE = Caller(key_id=1, team_id=1)
CHEAP = Price(1, 0, 1, 1, 1)
DEAR = Price(2, 1_000, 9, 9, 9)


def target(number: int, *prices: Price) -> Target:
    return Target(number, "openai", "https://api.example/v1", f"m{number}", Secret("sk-x"), prices=prices)


def catalog(*targets: Target, unpriced_allowed: bool = False) -> Catalog:
    return Catalog({"gpt-4o": Route("gpt-4o", targets, unpriced_allowed)})


def test_targets_come_in_order_with_the_price_in_force() -> None:
    first, second = target(1, CHEAP, DEAR), target(2, CHEAP)

    made = plan("gpt-4o", ALICE, catalog(first, second), now_us=999)

    assert [(each.target, each.price) for each in made.steps] == [(first, CHEAP), (second, CHEAP)]


def test_a_price_holds_from_its_own_moment_on() -> None:
    assert plan("gpt-4o", ALICE, catalog(target(1, CHEAP, DEAR)), now_us=1_000).steps[0].price == DEAR


def test_an_unknown_route_and_one_without_targets_look_alike() -> None:
    for name in ("nothing", "gpt-4o"):
        with pytest.raises(RouteNotAllowed) as why:
            plan(name, ALICE, catalog(), now_us=0)
        assert why.value.status == 404
        assert why.value.code == "model_not_found"


def test_a_target_without_a_price_is_refused() -> None:
    with pytest.raises(Unpriced):
        plan("gpt-4o", ALICE, catalog(target(1)), now_us=0)


def test_a_target_without_a_price_is_passed_over_for_one_that_has_one() -> None:
    made = plan("gpt-4o", ALICE, catalog(target(1), target(2, CHEAP)), now_us=0)

    assert [each.target.id for each in made.steps] == [2]


def test_a_route_may_let_unpriced_calls_through() -> None:
    made = plan("gpt-4o", ALICE, catalog(target(1), unpriced_allowed=True), now_us=0)

    assert made.steps[0].price is None


def test_a_credential_does_not_print_itself() -> None:
    assert "sk-x" not in repr(target(1)) + str(target(1).credential)
