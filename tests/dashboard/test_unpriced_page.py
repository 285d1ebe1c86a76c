"""The page of calls without a price: who sees what, and a price that is entered there."""

from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.test import Client
from django.utils import timezone

from accounts.models import AuditEvent
from gateway.ledger.cover import DAY, QUARTER, floor
from gateway.ledger.spans import minute_of, moment_of
from gateway.models import Price, Provider, Repricing, Rollup, Route, Target
from tests.dashboard.conftest import session_of, signed_in

START = floor(minute_of(timezone.now() - timedelta(hours=2)), QUARTER)
PRICE = {"input": "0.5", "output": "2", "cached_input": "", "currency": "usd"}


@pytest.fixture
def target(transactional_db) -> Target:
    provider = Provider.objects.create(slug="acme", name="Acme", base_url="https://acme.example/v1")
    route = Route.objects.create(model_name="llama-4", unpriced="allowed")
    return Target.objects.create(route=route, provider=provider, upstream_model="llama-4-70b")


def calls(team_id: int, count: int = 3) -> None:
    for size in (QUARTER, DAY):
        Rollup.objects.create(
            **{
                "size": size,
                "start": floor(START, size),
                "team_id": team_id,
                "key_id": 1,
                "route": "llama-4",
            },
            **{"target": "acme/llama-4-70b", "outcome": "answered", "code": "", "priority": "normal"},
            **{"calls": count, "unpriced": count, "input_tokens": 400_000 * count, "output_tokens": count},
        )


def client_of(person) -> Client:
    client = Client()
    client.force_login(person)
    return client


def page_of(person) -> str:
    answer = client_of(person).get("/unpriced/")
    assert answer.status_code == 200
    return answer.content.decode()


def sent(person, target, **changes):
    return client_of(person).post("/unpriced/", {"target": target.pk, **PRICE, **changes})


def test_a_member_sees_their_teams_calls_and_no_form(alice, team, other_team, target):
    calls(team.pk, 3)
    calls(other_team.pk, 4)

    page = page_of(alice)

    assert "3 calls" in page
    assert "1,200,000 tokens" in page
    assert "acme/llama-4-70b" in page
    assert "An administrator can enter a price" in page
    assert "Enter the price" not in page


def test_an_administrator_sees_all_teams_together(administrator, team, other_team, target):
    calls(team.pk, 3)
    calls(other_team.pk, 4)

    page = page_of(administrator)

    assert "7 calls" in page
    assert "Enter the price" in page


def test_where_every_call_has_a_price_that_is_said(alice, target):
    assert "Every call has a price" in page_of(alice)


def test_a_price_is_entered_from_the_first_call_on(administrator, team, target):
    calls(team.pk)

    answer = sent(administrator, target)

    assert (answer.status_code, answer["Location"]) == (302, "/unpriced/")
    price = Price.objects.get()
    assert (price.target_id, price.valid_from, price.currency) == (target.pk, moment_of(START), "USD")
    assert (price.input_nanos, price.cached_input_nanos, price.output_nanos) == (
        500_000_000,
        500_000_000,
        2_000_000_000,
    )
    assert AuditEvent.objects.filter(action="price.added").count() == 1


def test_what_is_being_corrected_is_shown(administrator, team, target):
    calls(team.pk)
    Route.objects.update(created_at=moment_of(START - 60))
    sent(administrator, target)
    row = Repricing.objects.get()
    assert (row.target_id, row.from_at) == (target.pk, moment_of(START))

    page = page_of(administrator)
    assert "Being corrected" in page
    assert "Begins within a minute" in page

    Repricing.objects.update(place=row.from_at + timedelta(minutes=10), corrected=1_234)
    page = page_of(administrator)
    assert "1,234 attempts" in page
    whole = round((row.until_at - row.from_at).total_seconds())
    assert f'max="{whole}" value="600"' in page

    Repricing.objects.update(finished_at=timezone.now())
    page = page_of(administrator)
    assert "Done" in page
    assert "<progress" not in page


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"input": ""}, "This field is required."),
        ({"input": "-1"}, "greater than or equal to 0"),
        ({"output": "many"}, "Enter a number."),
        ({"output": "NaN"}, "Enter a number."),
        ({"output": "0.1234567891"}, "no more than 9 decimal places"),
        ({"input": "1000001"}, "less than or equal to 1000000"),
        ({"currency": "dollar"}, "at most 3 characters"),
        ({"currency": "d1r"}, "three capital letters"),
    ],
)
def test_what_cannot_be_a_price_is_told_beside_its_field(administrator, team, target, changes, sentence):
    calls(team.pk)

    answer = sent(administrator, target, **changes)

    assert answer.status_code == 422
    assert sentence in answer.content.decode()
    assert not Price.objects.exists()


def test_a_price_that_somebody_else_entered_meanwhile_is_left_alone(administrator, team, target):
    calls(team.pk)
    sent(administrator, target)

    answer = client_of(administrator).post("/unpriced/", {"target": target.pk, **PRICE}, follow=True)

    assert "That target has a price by now." in answer.content.decode()
    assert Price.objects.count() == 1


@pytest.mark.parametrize("number", ["", "x", "999999", "9" * 40])
def test_what_is_no_target_is_not_found(administrator, target, number):
    assert client_of(administrator).post("/unpriced/", {"target": number, **PRICE}).status_code == 404


def test_only_an_administrator_enters_prices(alice, team, target):
    calls(team.pk)

    assert sent(alice, target).status_code == 403
    assert not Price.objects.exists()


def test_the_page_takes_twelve_queries_at_most(administrator, team, target, django_assert_max_num_queries):
    calls(team.pk)
    Repricing.objects.create(
        target_id=target.pk, from_at=moment_of(START), until_at=timezone.now(), cause="Late."
    )
    client = client_of(administrator)
    client.get("/unpriced/")

    # session, person, whether anything is simulated; marks, sums, quarter-hours, targets, prices,
    # exchange rates, what is in work; the repricings and their targets
    with django_assert_max_num_queries(12):
        client.get("/unpriced/")


async def test_a_price_is_entered_with_the_keyboard(browser, site, administrator, team, target):
    await sync_to_async(calls)(team.pk)
    session = await sync_to_async(session_of)(administrator)
    page, complaints = await signed_in(browser, site.origin, session)
    await page.goto(f"{site.origin}/unpriced/")
    await page.get_by_label("Input", exact=True).fill("0.5")
    await page.keyboard.press("Tab")
    await page.keyboard.type("2")
    await page.keyboard.press("Enter")

    await page.get_by_text("The price of acme/llama-4-70b is entered").wait_for()

    assert await sync_to_async(Price.objects.count)() == 1
    assert complaints == []
