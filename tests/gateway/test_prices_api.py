import json
from datetime import UTC, date, datetime

import pytest
from django.contrib.auth.models import Permission
from django.test import AsyncClient, Client

from accounts.models import User
from gateway import services
from gateway.models import ExchangeRate, Price

pytestmark = pytest.mark.django_db

HEADINGS = "route,provider,upstream_model,valid_from,currency,input,output\r\n"
LINE = "gpt-4o,acme,gpt-4o-2024,2026-01-01,JPY,2,8\r\n"


@pytest.fixture
def ada():
    return User.objects.create_superuser("ada@example.com")


@pytest.fixture
def api(ada):
    client = Client()
    client.force_login(ada)
    return client


@pytest.fixture
def target():
    provider = services.add_provider("acme", "Acme", "https://acme.example/v1")
    return services.add_target(services.add_route("gpt-4o"), provider, "gpt-4o-2024")


def send(client, path, text, content_type="text/csv", **headers):
    return client.post(f"/api/{path}", text, content_type=content_type, headers=headers)


def post(client, path, body):
    return client.post(f"/api/{path}", json.dumps(body), content_type="application/json")


def sentences(answer):
    return [each["message"] for each in answer.json()["errors"]]


def test_prices_come_in_by_a_file_and_go_out_by_one(api, target):
    added = send(api, "prices.csv", HEADINGS + LINE)
    exported = api.get("/api/prices.csv")
    text = b"".join(exported).decode()

    assert (added.status_code, added.json()) == (200, {"added": 1, "known": 0})
    assert exported["Content-Type"] == "text/csv"
    assert exported["Content-Disposition"] == 'attachment; filename="penstock-prices.csv"'
    assert text.splitlines()[1] == "gpt-4o,acme,gpt-4o-2024,2026-01-01T00:00:00Z,JPY,,2,2,8,,,,,,CSV"
    assert send(api, "prices.csv", text).json() == {"added": 0, "known": 1}


def test_exchange_rates_come_in_by_a_file_and_go_out_by_one(api):
    added = send(api, "exchange-rates.csv", "base,quote,valid_from,rate\nUSD,JPY,2026-01-01,150.25\n")

    text = b"".join(api.get("/api/exchange-rates.csv")).decode()

    assert added.json() == {"added": 1, "known": 0}
    assert text == "base,quote,valid_from,rate,source\r\nUSD,JPY,2026-01-01,150.25,CSV\r\n"


def test_a_file_with_a_wrong_line_adds_nothing_and_says_which(api, target):
    answer = send(api, "prices.csv", HEADINGS + LINE + LINE.replace("2026-01-01", "soon"))

    assert answer.status_code == 422
    assert sentences(answer) == [
        "Line 3: 'soon' is no moment: write 2026-01-31 or 2026-01-31T12:00:00Z.",
    ]
    assert not Price.objects.exists()


def test_a_file_may_carry_a_byte_order_mark(api, target):
    assert send(api, "prices.csv", (HEADINGS + LINE).encode("utf-8-sig")).json()["added"] == 1


def long_file(size):
    """No line is wrong, and there are not too many of them."""
    lines = [LINE.replace("gpt-4o", f"{number:0>180}") for number in range(size // 380)]
    return HEADINGS + "".join(lines)


@pytest.mark.parametrize("size", [1_000_000, 3_000_000])
def test_a_file_that_is_too_long_is_refused_with_a_sentence(api, size):
    answer = send(api, "prices.csv", long_file(size))

    assert answer.status_code == 422
    assert sentences(answer) == ["The file is longer than 1,000,000 bytes: send it in parts."]


def test_a_body_that_is_too_large_for_any_operation_is_told_so(api):
    answer = post(api, "exchange-rates", {"base": "x" * 3_000_000})

    assert answer.status_code == 413
    assert answer.json()["detail"] == "The body is too large: send what is in it in parts."


def test_a_file_that_is_sent_twice_with_one_idempotency_key_is_added_once(api, target):
    key = {"Idempotency-Key": "monday"}
    first = send(api, "prices.csv", HEADINGS + LINE, **key)
    again = send(api, "prices.csv", HEADINGS + LINE, **key)

    assert first.json() == again.json() == {"added": 1, "known": 0}
    assert again["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize("path", ["prices.csv", "exchange-rates.csv"])
def test_json_is_no_file(api, path):
    answer = send(api, path, "{}", content_type="application/json")

    assert answer.status_code == 415
    assert "text/csv" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["prices.csv", "exchange-rates.csv"])
def test_who_may_only_look_may_export_and_not_import(target, path):
    sam = User.objects.create_user("sam@example.com", is_staff=True)
    sam.user_permissions.add(
        *Permission.objects.filter(codename__in=["view_price", "view_exchangerate"]),
    )
    client = Client()
    client.force_login(sam)

    assert client.get(f"/api/{path}").status_code == 200
    assert send(client, path, HEADINGS + LINE).status_code == 403


@pytest.mark.parametrize("path", ["prices.csv", "exchange-rates.csv"])
def test_who_is_no_operator_has_neither(target, path):
    client = Client()
    client.force_login(User.objects.create_user("bob@example.com"))

    assert client.get(f"/api/{path}").status_code == 403
    assert send(client, path, HEADINGS + LINE).status_code == 403
    assert not Price.objects.exists()


@pytest.mark.django_db(transaction=True)
async def test_a_file_streams_out_of_the_asynchronous_application(ada, target):
    client = AsyncClient()
    await client.aforce_login(ada)
    answer = await client.get("/api/prices.csv")

    parts = [part async for part in answer]

    assert b"".join(parts).startswith(b"route,provider")


# Exchange rates, one by one


def test_an_exchange_rate_is_added_and_listed(api):
    new = {"base": "USD", "quote": "JPY", "valid_from": "2026-01-01", "rate_nanos": 150 * 10**9}
    made = post(api, "exchange-rates", new)
    services.add_exchange_rate("EUR", "USD", date(2026, 1, 1), 10**9)

    listed = api.get("/api/exchange-rates?limit=1").json()
    rest = api.get(f"/api/exchange-rates?limit=1&after={listed['next']}").json()

    assert made.status_code == 201
    assert made.json() == rest["items"][0]
    assert {name: made.json()[name] for name in new} == new
    assert (listed["items"][0]["base"], rest["next"]) == ("EUR", None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"base": "JPY"},
        {"base": "usd"},
        {"rate_nanos": 0},
        {"rate_nanos": 1.5},
        {"rate_nanos": 10**17},
        {"valid_from": "2026-02-30"},
        {"valid_from": "1999-12-31"},
        {"source": "me"},
    ],
)
def test_an_exchange_rate_that_cannot_be_is_refused(api, wrong):
    new = {"base": "USD", "quote": "JPY", "valid_from": "2026-01-01", "rate_nanos": 150 * 10**9}

    answer = post(api, "exchange-rates", new | wrong)

    assert answer.status_code == 422
    assert not ExchangeRate.objects.exists()


# Prices, one by one


def test_a_price_has_kinds_tiers_and_a_currency(api, target):
    new = {
        "valid_from": "2026-01-01T00:00:00Z",
        "currency": "JPY",
        "input_nanos": 2,
        "output_nanos": 8,
        "reasoning_nanos": 9,
        "request_nanos": 1,
        "tiers": [{"above_tokens": 200_000, "input_nanos": 4, "output_nanos": 12, "cache_write_nanos": 5}],
    }
    made = post(api, f"targets/{target.pk}/prices", new)

    [listed] = api.get(f"/api/targets/{target.pk}/prices").json()["items"]

    assert made.status_code == 201
    assert made.json() == listed
    assert (listed["currency"], listed["cached_input_nanos"], listed["reasoning_nanos"]) == ("JPY", 2, 9)
    [tier] = listed["tiers"]
    assert (tier["above_tokens"], tier["cached_input_nanos"], tier["cache_write_nanos"]) == (200_000, 4, 5)


def test_a_wrong_price_is_put_right_by_another_from_the_same_moment(api, target):
    new = {"valid_from": "2026-01-01T00:00:00Z", "input_nanos": 2, "output_nanos": 8}
    first = post(api, f"targets/{target.pk}/prices", new)
    second = post(api, f"targets/{target.pk}/prices", new | {"output_nanos": 9})

    listed = api.get(f"/api/targets/{target.pk}/prices").json()["items"]

    assert (first.status_code, second.status_code) == (201, 201)
    assert [each["output_nanos"] for each in listed] == [9, 8]


@pytest.mark.parametrize("tiers", [[5, 5], [9, 5]])
def test_tiers_that_do_not_go_up_are_refused(api, target, tiers):
    rates = {"input_nanos": 1, "output_nanos": 1}
    new = {"valid_from": "2026-01-01T00:00:00Z", "tiers": [rates | {"above_tokens": each} for each in tiers]}

    answer = post(api, f"targets/{target.pk}/prices", new | rates)

    assert answer.status_code == 422
    assert "Tiers go up" in answer.json()["detail"]


def test_every_row_is_listed_though_many_are_from_the_same_moment(api, target):
    figures = {"input_nanos": 1, "cached_input_nanos": 1, "output_nanos": 1}
    for _ in range(5):
        services.add_price(target, datetime(2026, 1, 1, tzinfo=UTC), **figures)

    found, after = [], ""
    while after is not None:
        part = api.get(f"/api/targets/{target.pk}/prices?limit=2&after={after}").json()
        found, after = found + part["items"], part["next"]

    assert len({each["id"] for each in found}) == 5


# Price books


def test_books_are_listed_without_loading_their_prices(api):
    listed = api.get("/api/price-books").json()

    assert listed[0] == {"slug": "holysheep", "name": "HolySheep", "currency": "JPY", "prices": []}
    assert {"openai", "anthropic", "google"} <= {each["slug"] for each in listed}


def test_a_model_name_is_looked_up_in_every_book(api):
    listed = {each["slug"]: each for each in api.get("/api/price-books?model_name=gpt-4.1").json()}

    [yen], [dollars, *_] = listed["holysheep"]["prices"], listed["openai"]["prices"]
    assert (yen["input_nanos"], yen["output_nanos"]) == (2_000_000_000, 8_000_000_000)
    assert (dollars["input_nanos"], dollars["output_nanos"]) == (2_000_000_000, 8_000_000_000)
    assert listed["anthropic"]["prices"] == []
