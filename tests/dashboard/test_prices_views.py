from datetime import UTC, date, datetime, timedelta

import pytest
from django.contrib.auth.models import Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.utils import timezone

from accounts.models import User
from gateway import services
from gateway.models import ExchangeRate, Price
from gateway.relay.catalog import Rates

pytestmark = pytest.mark.django_db

HEADINGS = "route,provider,upstream_model,valid_from,currency,input,output"


@pytest.fixture
def target():
    provider = services.add_provider("acme", "Acme", "https://acme.example/v1")
    return services.add_target(services.add_route("gpt-4o"), provider, "gpt-4o-2024")


@pytest.fixture
def operator(db):
    client = Client()
    client.force_login(User.objects.create_superuser("ada@example.com"))
    return client


def a_price(target, days_ago=1, **others):
    figures = {"input_nanos": 2_500_000_000, "cached_input_nanos": 1_250_000_000, "output_nanos": 10**10}
    moment = timezone.now() - timedelta(days=days_ago)
    return services.add_price(target, moment, **(figures | others))


def sent(client, text, kind="prices", **more):
    file = SimpleUploadedFile("prices.csv", text.encode())
    return client.post("/prices/file/", {"kind": kind, "file": file} | more)


def page(answer):
    return answer.content.decode()


def test_a_target_is_shown_with_what_it_costs_now(operator, target):
    a_price(target, days_ago=3, output_nanos=77 * 10**9, source="last year's list")
    a_price(target, cache_write_nanos=3_750_000_000, request_nanos=1, source="the contract")
    a_price(target, days_ago=-1, output_nanos=99 * 10**9)

    now, _, rest = page(operator.get("/prices/")).partition('aria-labelledby="exchange-rates"')

    assert ">2.5<" in now
    assert ">10<" in now
    assert "cache write 3.75, a request 0.000000001" in now
    assert "the contract" in now
    assert ">77<" not in now
    assert ">99<" not in now
    assert ">77<" in rest
    assert "To come" in rest


def test_the_tiers_of_a_price_are_shown(operator, target):
    a_price(target, tiers=[Rates(5 * 10**9, 10**9, 15 * 10**9, above_tokens=200_000)])

    assert "above 200,000 tokens: in 5, cached 1, out 15" in page(operator.get("/prices/"))


def test_a_target_without_a_price_says_what_becomes_of_its_calls(operator, target):
    refused = page(operator.get("/prices/"))
    services.update_route(target.route, {"unpriced": "allowed"})

    assert "No call goes there until it has a price." in refused
    assert "Calls are let through and flagged as unpriced." in page(operator.get("/prices/"))


def test_a_price_in_a_currency_without_an_exchange_rate_is_marked(operator, target):
    a_price(target, currency="JPY")
    before = page(operator.get("/prices/"))
    services.add_exchange_rate("USD", "JPY", date(2026, 1, 1), 150 * 10**9)

    after = page(operator.get("/prices/"))

    assert "No exchange rate" in before
    assert "No exchange rate" not in after
    assert "1 USD = 150 JPY" in after


def test_the_page_costs_as_many_queries_for_many_targets_as_for_one(
    operator, target, django_assert_max_num_queries
):
    for number in range(8):
        a_price(services.add_target(target.route, target.provider, f"another-{number}"))

    with django_assert_max_num_queries(10):  # session, user, simulated, and the five of the page
        operator.get("/prices/")


def test_older_rows_are_on_further_pages(operator, target):
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    figures = {"input_nanos": 1, "cached_input_nanos": 1, "output_nanos": 1}
    Price.objects.bulk_create(
        Price(target=target, valid_from=moment + timedelta(hours=hour), **figures) for hour in range(120)
    )
    first = page(operator.get("/prices/"))
    link = first.partition('href="/prices/?before=')[2].partition("#")[0]

    second = page(operator.get(f"/prices/?before={link}"))

    assert "2026-01-05 23:00" in first
    assert "2026-01-01 00:00" not in first
    assert "2026-01-01 00:00" in second
    assert "2026-01-05 23:00" not in second.partition('id="dated"')[2]


@pytest.mark.parametrize("before", ["x", "-1", "9" * 400, "²"])
def test_a_page_that_nobody_was_given_is_still_a_page(operator, target, before):
    a_price(target)

    assert operator.get("/prices/", {"before": before}).status_code == 200


def test_a_file_is_looked_at_before_it_is_added(operator, target):
    looked = sent(operator, f"{HEADINGS}\ngpt-4o,acme,gpt-4o-2024,2026-01-01,JPY,2,8\n")

    assert looked.status_code == 200
    assert "2 in, 8 out, JPY" in page(looked)
    assert "1 to add, 0 there already." in page(looked)
    assert not Price.objects.exists()


def test_what_was_looked_at_is_added(operator, target):
    text = f"{HEADINGS}\ngpt-4o,acme,gpt-4o-2024,2026-01-01,JPY,2,8\n"

    added = operator.post("/prices/file/", {"kind": "prices", "text": text, "step": "add"}, follow=True)

    assert "1 added, 0 were there already." in page(added)
    assert Price.objects.get().output_nanos == 8 * 10**9


def test_a_file_that_is_there_already_adds_nothing(operator, target):
    text = f"{HEADINGS}\ngpt-4o,acme,gpt-4o-2024,2026-01-01,JPY,2,8\n"
    operator.post("/prices/file/", {"kind": "prices", "text": text, "step": "add"})

    assert "All 1 are there already: there is nothing to add." in page(sent(operator, text))


@pytest.mark.parametrize("step", ["look", "add"])
def test_what_is_wrong_is_told_line_by_line_and_nothing_is_added(operator, target, step):
    text = (
        f"{HEADINGS}\n"
        "gpt-4o,acme,gpt-4o-2024,2026-01-01,JPY,2,8\n"
        "gpt-4o,acme,gpt-4o-2024,2026-02-01,JPY,two,8\n"
        "gpt-5,acme,gpt-5,2026-01-01,,2,8\n"
    )

    answer = sent(operator, text, step=step)

    assert answer.status_code == 422
    assert "Line 3: &#x27;two&#x27; is no amount" in page(answer)
    assert "Line 4: The route gpt-5 has no target acme/gpt-5." in page(answer)
    assert "2026-02-01,JPY,two,8" in page(answer)
    assert not Price.objects.exists()


def test_exchange_rates_come_from_a_file_too(operator):
    text = "base,quote,valid_from,rate\nUSD,JPY,2026-01-01,150.25\n"

    looked = sent(operator, text, kind="rates")
    operator.post("/prices/file/", {"kind": "rates", "text": text, "step": "add"})

    assert "1 USD = 150.25 JPY" in page(looked)
    assert ExchangeRate.objects.get().rate_nanos == 150_250_000_000


def test_without_a_file_the_page_says_so(operator):
    answer = operator.post("/prices/file/", {"kind": "prices"})

    assert answer.status_code == 422
    assert "Choose a file." in page(answer)


def test_a_file_that_is_too_long_is_not_looked_at(operator):
    answer = sent(operator, "x" * 1_000_001)

    assert answer.status_code == 422
    assert "at most 1,000,000 bytes" in page(answer)


def test_what_a_file_holds_is_shown_as_text(operator, target):
    answer = sent(operator, f"{HEADINGS}\n<script>,acme,x,2026-01-01,,</textarea>,8\n")

    assert "<script>," not in page(answer)
    assert "</textarea>,8" not in page(answer)


def test_staff_who_may_only_look_are_offered_no_file(target):
    staff = User.objects.create_user("sam@example.com", is_staff=True)
    looking = Permission.objects.filter(codename__in=["view_price", "view_exchangerate"])
    staff.user_permissions.add(*looking)
    client = Client()
    client.force_login(staff)

    shown = client.get("/prices/")

    assert shown.status_code == 200
    assert "Add from a file" not in page(shown)
    assert sent(client, HEADINGS).status_code == 403
