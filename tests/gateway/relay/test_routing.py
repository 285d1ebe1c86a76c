import contextlib
import json
import random
from collections import Counter
from typing import Any

import pytest
from msgspec import Raw

from accounts.caller import Caller, Owner, Quota, QuotaKind
from gateway.errors import ContextTooLong, ParameterRefused, ParameterTooLarge, RouteNotAllowed, Unpriced
from gateway.relay.admission import weigh
from gateway.relay.call import Call, understand
from gateway.relay.catalog import Catalog, Price, Rates, Route, Secret, Target
from gateway.relay.routing import Plan, plan
from tests.gateway.relay.garbage import left_to_the_collector

ALICE = Caller(key_id=1, team_id=1)
CHEAP = Price(1, 0, Rates(1, 1, 1))
DEAR = Price(2, 1_000, Rates(9, 9, 9))
LONG = "Tell me more about rivers, dams and turbines. " * 200


def target(number: int, *prices: Price, **fields: Any) -> Target:
    return Target(
        number, "openai", "https://api.example/v1", f"m{number}", Secret("sk-x"), prices=prices, **fields
    )


def catalog(*targets: Target, **fields: Any) -> Catalog:
    return Catalog({"gpt-4o": Route("gpt-4o", targets, **fields)})


def call_for(model_name: str = "gpt-4o", texts: tuple[str, ...] = ("Hello",), **fields: Any) -> Call:
    messages = [{"role": "user", "content": each} for each in texts]
    return understand(json.dumps({"model": model_name, "messages": messages, **fields}).encode(), 0.0)


def planned(catalog: Catalog, call: Call | None = None, now_us: int = 0, draw: Any = random.random) -> Plan:
    return plan(call or call_for(), ALICE, catalog, now_us, draw)


def ids(made: Plan) -> list[int]:
    return [each.target.id for each in made.steps]


def test_targets_come_in_order_with_the_price_in_force() -> None:
    first, second = target(1, CHEAP, DEAR), target(2, CHEAP, order=1)

    made = planned(catalog(second, first), now_us=999)

    assert [(each.target, each.price) for each in made.steps] == [(first, CHEAP), (second, CHEAP)]


def test_a_price_holds_from_its_own_moment_on() -> None:
    assert planned(catalog(target(1, CHEAP, DEAR)), now_us=1_000).steps[0].price == DEAR


def test_an_unknown_route_and_one_without_targets_look_alike() -> None:
    for name in ("nothing", "gpt-4o"):
        with pytest.raises(RouteNotAllowed) as why:
            planned(catalog(), call_for(name))
        assert why.value.status == 404
        assert why.value.code == "model_not_found"


def test_a_target_without_a_price_is_refused() -> None:
    with pytest.raises(Unpriced):
        planned(catalog(target(1)))


def test_a_target_without_a_price_is_passed_over_for_one_that_has_one() -> None:
    assert ids(planned(catalog(target(1), target(2, CHEAP)))) == [2]


def test_a_route_may_let_unpriced_calls_through() -> None:
    assert planned(catalog(target(1), unpriced_allowed=True)).steps[0].price is None


def test_a_credential_does_not_print_itself() -> None:
    assert "sk-x" not in repr(target(1)) + str(target(1).credential)


def test_targets_of_one_order_share_the_calls_by_weight() -> None:
    draw = random.Random(1).random
    known = catalog(target(1, CHEAP, weight=3), target(2, CHEAP, weight=1), target(3, CHEAP, order=1))

    made = [ids(planned(known, draw=draw)) for _ in range(4000)]

    first = Counter(each[0] for each in made)
    assert first[1] / 4000 == pytest.approx(0.75, abs=0.02)
    assert first[2] / 4000 == pytest.approx(0.25, abs=0.02)
    assert {each[2] for each in made} == {3}


def test_a_target_without_weight_comes_last_of_its_order() -> None:
    known = catalog(target(1, CHEAP, weight=0), target(2, CHEAP), target(3, CHEAP, order=1))

    assert all(ids(planned(known)) == [2, 1, 3] for _ in range(50))


def test_a_target_that_refuses_a_parameter_is_passed_over_for_one_that_takes_it() -> None:
    known = catalog(target(1, CHEAP, parameters={"logprobs": "refuse"}), target(2, CHEAP, order=1))

    assert ids(planned(known, call_for(logprobs=True))) == [2]
    assert ids(planned(known)) == [1, 2]


def test_a_parameter_that_no_target_takes_is_refused_by_name() -> None:
    with pytest.raises(ParameterRefused) as why:
        planned(catalog(target(1, CHEAP, parameters={"logprobs": "refuse"})), call_for(logprobs=True))

    assert (why.value.status, why.value.param) == (400, "logprobs")
    assert "gpt-4o" in why.value.message


def test_a_call_that_no_target_takes_is_forgotten_at_once() -> None:
    known = catalog(target(1, CHEAP, parameters={"logprobs": "refuse"}))

    with left_to_the_collector() as left, contextlib.suppress(ParameterRefused):
        planned(known, call_for(logprobs=True))

    assert left == []


def test_each_target_gets_its_own_version_of_the_parameters() -> None:
    known = catalog(target(1, CHEAP, parameters={"max_tokens": "translate"}), target(2, CHEAP, order=1))

    first, second = planned(known, call_for(max_tokens=5)).steps

    assert ("max_tokens" in first.fields, "max_completion_tokens" in first.fields) == (False, True)
    assert "max_tokens" in second.fields


def test_messages_that_do_not_fit_go_to_a_target_with_a_longer_window() -> None:
    known = catalog(target(1, CHEAP, context_window=500), target(2, CHEAP, context_window=50_000, order=1))

    assert ids(planned(known, call_for(texts=(LONG,), max_tokens=10))) == [2]


def test_messages_that_fit_nowhere_are_refused_before_anything_is_sent() -> None:
    with pytest.raises(ContextTooLong) as why:
        planned(catalog(target(1, CHEAP, context_window=500)), call_for(texts=(LONG,), max_tokens=10))

    assert (why.value.status, why.value.code) == (400, "context_length_exceeded")


def test_a_route_may_leave_out_the_oldest_messages() -> None:
    known = catalog(target(1, CHEAP, context_window=3000), overflow="trim")
    texts = (LONG, LONG, "one", "two", "three")

    [step] = planned(known, call_for(texts=texts, max_tokens=10)).steps

    kept = [each["content"] for each in json.loads(bytes(step.fields["messages"]))]
    assert kept == [LONG, "one", "two", "three"]
    assert step.trimmed == 1


def test_what_cannot_be_trimmed_enough_is_refused() -> None:
    known = catalog(target(1, CHEAP, context_window=500), overflow="trim")

    with pytest.raises(ContextTooLong):
        planned(known, call_for(texts=("old", "one", "two", LONG), max_tokens=10))


def test_a_route_may_name_another_for_long_messages() -> None:
    short = Route(
        "gpt-4o", (target(1, CHEAP, context_window=500),), overflow="reroute", overflow_route="long"
    )
    long = Route("long", (target(2, CHEAP, context_window=100_000),))

    made = planned(Catalog({"gpt-4o": short, "long": long}), call_for(texts=(LONG,), max_tokens=10))

    assert (made.route.model_name, ids(made), made.model_name) == ("long", [2], "gpt-4o")


def test_two_routes_that_name_each_other_do_not_go_round_in_circles() -> None:
    routes = {
        name: Route(name, (target(1, CHEAP, context_window=500),), overflow="reroute", overflow_route=other)
        for name, other in (("a", "b"), ("b", "a"))
    }
    with pytest.raises(ContextTooLong):
        planned(Catalog(routes), call_for("a", texts=(LONG,), max_tokens=10))


def test_the_other_route_is_checked_for_its_price_as_well() -> None:
    short = Route(
        "gpt-4o", (target(1, CHEAP, context_window=500),), overflow="reroute", overflow_route="long"
    )
    known = Catalog({"gpt-4o": short, "long": Route("long", (target(2),))})

    with pytest.raises(Unpriced):
        planned(known, call_for(texts=(LONG,), max_tokens=10))


# --- What a key may use, and what a quota demands

TEAM = Owner("team", 1, "Search")


def limited(kind: QuotaKind = "money", *, hard: bool = True) -> Caller:
    quota = Quota(1, TEAM, kind, 10**9, "day", "UTC", hard=hard)
    return Caller(key_id=1, team_id=1, quotas=(quota,))


def made_for(caller: Caller, known: Catalog, **fields: Any) -> Plan:
    return plan(call_for(**fields), caller, known, 0, random.random)


def test_a_route_outside_a_keys_scope_looks_like_one_that_is_not_there() -> None:
    known = catalog(target(1, CHEAP))
    elsewhere = Caller(key_id=1, team_id=1, routes=frozenset({"other"}))
    with pytest.raises(RouteNotAllowed) as forbidden:
        made_for(elsewhere, known)
    with pytest.raises(RouteNotAllowed) as unknown:
        made_for(elsewhere, Catalog())
    assert forbidden.value.body() == unknown.value.body()


def test_a_key_may_call_its_routes_by_their_aliases() -> None:
    route = Route("gpt-4o", (target(1, CHEAP),))
    known = Catalog({"gpt-4o": route, "4o": route})
    assert ids(plan(call_for("4o"), Caller(1, 1, routes=frozenset({"gpt-4o"})), known, 0, random.random)) == [
        1
    ]


def test_long_messages_do_not_carry_a_key_to_a_route_outside_its_scope() -> None:
    short = Route(
        "gpt-4o", (target(1, CHEAP, context_window=500),), overflow="reroute", overflow_route="long"
    )
    known = Catalog({"gpt-4o": short, "long": Route("long", (target(2, CHEAP),))})
    within = Caller(1, 1, routes=frozenset({"gpt-4o"}))
    with pytest.raises(ContextTooLong):
        made_for(within, known, texts=(LONG,), max_tokens=10)
    assert made_for(Caller(1, 1), known, texts=(LONG,), max_tokens=10).asked == "gpt-4o"


def test_under_a_hard_quota_a_call_without_a_bound_gets_its_routes() -> None:
    known = catalog(target(1, CHEAP), usual_max_tokens=70)
    made = made_for(limited(), known, n=2)
    assert made.max_tokens == 140
    assert made.steps[0].fields["max_tokens"] == Raw(b"70")
    assert "max_tokens" not in made_for(limited(hard=False), known).steps[0].fields
    assert "max_tokens" not in planned(known).steps[0].fields


def test_under_a_hard_quota_the_bound_is_translated_like_any_other() -> None:
    known = catalog(target(1, CHEAP, parameters={"max_tokens": "translate"}), usual_max_tokens=70)
    fields = made_for(limited(), known).steps[0].fields
    assert (fields.get("max_tokens"), fields["max_completion_tokens"]) == (None, Raw(b"70"))


def test_under_a_hard_quota_a_target_that_hears_of_no_bound_is_not_asked() -> None:
    deaf = target(1, CHEAP, parameters={"max_tokens": "drop", "max_completion_tokens": "drop"})
    assert ids(made_for(limited(), catalog(deaf, target(2, CHEAP, order=1)))) == [2]
    with pytest.raises(ParameterRefused, match="bound"):
        made_for(limited("tokens"), catalog(deaf), max_tokens=5)


def test_under_a_hard_quota_an_image_goes_only_where_it_is_known_what_it_counts_as() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    call = understand(
        json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": [image]}]}).encode(), 0.0
    )
    blind, seeing = target(1, CHEAP), target(2, CHEAP, order=1, media_tokens=1500)
    assert ids(plan(call, limited(), catalog(blind, seeing), 0, random.random)) == [2]
    assert ids(plan(call, ALICE, catalog(blind, seeing), 0, random.random)) == [1, 2]
    with pytest.raises(ParameterRefused, match="image"):
        plan(call, limited(), catalog(blind), 0, random.random)


def test_an_image_that_is_left_out_takes_nothing_off_the_worst_case_of_what_is_left() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:," + "A" * 100_000}}
    old = [{"type": "text", "text": LONG * 2}, image]
    messages = [{"role": "user", "content": each} for each in (old, LONG, "one", "two", "three")]
    call = understand(json.dumps({"model": "gpt-4o", "messages": messages, "max_tokens": 10}).encode(), 0.0)
    known = catalog(target(1, CHEAP, context_window=3000, media_tokens=200), overflow="trim")

    made = plan(call, limited("tokens"), known, 0, random.random)

    [step] = made.steps
    assert step.trimmed == 1
    assert step.media.count == 0
    assert weigh(made, step).usage.input_tokens >= len(bytes(step.fields["messages"]))


def test_under_a_money_quota_a_call_without_a_price_is_refused_though_its_route_allows_it() -> None:
    known = catalog(target(1), unpriced_allowed=True)
    for caller in (limited(), limited(hard=False)):
        with pytest.raises(Unpriced):
            made_for(caller, known)
    assert ids(made_for(limited("tokens"), known)) == [1]


def test_a_call_for_more_than_its_route_allows_is_refused() -> None:
    with pytest.raises(ParameterTooLarge):
        planned(catalog(target(1, CHEAP), max_tokens=10), call_for(max_tokens=11))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service_tier", "priority"),
        ("web_search_options", {}),
        ("models", ["openai/o1-pro"]),
        ("plugins", [{"id": "web"}]),
    ],
)
def test_under_a_hard_quota_nothing_goes_up_that_may_change_the_price(name: str, value: object) -> None:
    known = catalog(target(1, CHEAP), target(2, CHEAP, order=1, parameters={name: "drop"}))
    assert ids(made_for(limited(), known, **{name: value})) == [2]
    assert ids(plan(call_for(**{name: value}), ALICE, known, 0, random.random)) == [1, 2]
    with pytest.raises(ParameterRefused) as why:
        made_for(limited(), catalog(target(1, CHEAP)), **{name: value})
    assert why.value.param == name


def test_the_usual_service_tiers_cost_what_the_price_says() -> None:
    assert ids(made_for(limited(), catalog(target(1, CHEAP)), service_tier="auto")) == [1]
