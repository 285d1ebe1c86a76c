"""The pages of savings and reconciliation: what they say, to whom, and at which price in queries."""

from datetime import UTC, date, datetime, time, timedelta

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import User
from gateway import services
from gateway.exchange import NANOS
from gateway.models import ExchangeRate, Provider, Route, Target
from tests.dashboard.conftest import session_of, signed_in
from tests.gateway.past_calls import call, keep, reads

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

# Static files are handed on as Django's own file iterators, of which it warns under ASGI.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")


@pytest.fixture
def client_of():
    def client(user):
        made = Client()
        made.force_login(user)
        return made

    return client


@pytest.fixture
def sheep(transactional_db):
    """A provider with one target: 1 a million in, 8 a million out."""
    provider = Provider.objects.create(slug="sheep", name="Sheep", base_url="https://sheep.example/v1")
    route = Route.objects.create(model_name="gpt-4o")
    target = Target.objects.create(route=route, provider=provider, upstream_model="gpt-4o")
    rates = {"input_nanos": NANOS, "cached_input_nanos": NANOS, "output_nanos": 8 * NANOS}
    services.add_price(target, LONG_AGO, **rates)
    return provider


@pytest.fixture
def days(team, api_key, sheep):
    """A million output tokens on each of the last 10 days, for 8 units each."""
    of = {"team_id": team.pk, "key_id": api_key.pk, "target": "sheep/gpt-4o"}
    noon = datetime.combine(timezone.now().date(), time(12), UTC)
    keep(*[call(noon - timedelta(days=ago), 0, 1_000_000, 8, **of) for ago in range(1, 11)])


def page(client, path="/savings/", **asked):
    answer = client.get(path, asked)
    return answer, " ".join(answer.content.decode().split())


def test_the_page_tells_what_was_saved_against_a_price_book(client_of, alice, days):
    answer, text = page(client_of(alice), other="book:openai")

    assert answer.status_code == 200
    for said in ("$80.00", "$100.00", "Saved", "20.0", "$20.00", "$663.64"):  # x 365 / 11
        assert said in text


def test_the_page_tells_the_cheapest_for_each_route(client_of, alice, days):
    _, text = page(client_of(alice))

    assert "against the cheapest for each route" in text
    assert "sheep/gpt-4o" in text
    assert "OpenAI" in text


def test_what_cannot_be_compared_is_told(client_of, alice, days):
    _, text = page(client_of(alice), other="book:holysheep")

    assert "There is nothing to compare" in text
    assert "gpt-4o, 10 days, $80.00: There is no exchange rate from the other side" in text


def test_figures_are_shown_in_another_currency(client_of, alice, days):
    ExchangeRate.objects.create(base="USD", quote="JPY", valid_from=date(2020, 1, 1), rate_nanos=100 * NANOS)

    _, text = page(client_of(alice), currency="JPY", other="book:openai")

    assert "¥8,000" in text
    assert "¥10,000" in text


def test_a_team_of_others_is_not_there(client_of, alice, other_team):
    answer, _ = page(client_of(alice), team="solar")

    assert answer.status_code == 404


def test_a_team_without_calls_has_a_page(client_of, alice):
    answer, text = page(client_of(alice))

    assert answer.status_code == 200
    assert 'data-state="empty"' in text
    assert "There is nothing to compare" in text


def test_a_choice_that_is_not_there_is_said_and_the_page_stays(client_of, alice, days):
    answer, text = page(client_of(alice), other="book:nobody")

    assert answer.status_code == 422
    assert "book:nobody is not one of the available choices" in text


@pytest.mark.parametrize("currency", ["", "JPY"])
def test_a_page_costs_a_few_queries(client_of, alice, days, currency):
    """Session, user, whether anything is simulated, teams; exchange rates, prices; marks, largest routes
    and sums of the savings; the milestone."""
    ExchangeRate.objects.create(base="USD", quote="JPY", valid_from=date(2020, 1, 1), rate_nanos=100 * NANOS)
    client = client_of(alice)
    page(client, currency=currency)

    with CaptureQueriesContext(connection) as made:
        page(client, currency=currency)

    assert len(reads(made)) <= 12
    assert not any("gateway_entry" in sql for sql in reads(made))


def test_savings_count_as_seen(client_of, alice, team):
    client = client_of(alice)
    page(client)
    page(client)

    assert [each.name for each in alice.milestones.all()] == ["savings_seen"]


def test_who_is_on_no_team_is_told_so(client_of, transactional_db):
    charlie = User.objects.create_user("charlie@example.com")

    assert "You are on no team yet" in page(client_of(charlie))[1]
    assert not charlie.milestones.exists()


# Reconciliation


def bill(text, **more):
    file = SimpleUploadedFile("bill.csv", text.encode(), "text/csv")
    return {"provider": "sheep", "file": file, "midnight_minutes": 10, **more}


def test_a_bill_is_compared_and_a_difference_explained(client_of, administrator, team, api_key, sheep):
    noon = datetime(2026, 10, 1, 12, tzinfo=UTC)
    of = {"team_id": team.pk, "key_id": api_key.pk, "target": "sheep/gpt-4o"}
    keep(call(noon, 100, 20, 1, **of), guessed := call(noon, 50, 10, 0.5, basis="estimated", **of))
    text = "day,model,tokens,cost,project\n2026-10-01,gpt-4o,240,2.00,x\n2026-10-01,dall-e-3,0,3.00,x\n"

    answer = client_of(administrator).post("/reconciliation/", bill(text))

    told = " ".join(answer.content.decode().split())
    assert answer.status_code == 200
    for said in (
        "75.0",  # 180 of 240 tokens
        "$1.50",
        "30.0",  # 1.50 of 5.00
        "Usage was estimated by us",
        f'href="/calls/{guessed.call_id}/"',
        "Only on their side",
        "dall-e-3",
        "Columns that are not known were not read: project.",
    ):
        assert said in told


def test_a_file_that_cannot_be_read_is_refused_with_its_lines(client_of, administrator, sheep):
    answer = client_of(administrator).post(
        "/reconciliation/", bill("day,model,cost\nx,a,1\n2026-10-01,a,$1\n")
    )

    told = answer.content.decode()
    assert answer.status_code == 422
    assert "Line 2: “x” is no day: write it as 2026-10-31." in told
    assert "Line 3: “$1” is no cost" in told


def test_a_file_that_is_too_large_is_refused(client_of, administrator, sheep):
    answer = client_of(administrator).post("/reconciliation/", bill("x" * 1_000_001))

    assert answer.status_code == 422
    assert "at most 1,000,000 bytes" in answer.content.decode()


def test_a_bill_is_for_administrators(client_of, alice, sheep):
    assert client_of(alice).get("/reconciliation/").status_code == 403


DRAWN = "() => Object.values(Chart.instances).flatMap(each => each.data.datasets.map(one => one.label))"


async def test_the_pages_work_in_a_browser_without_complaint(site, browser, administrator, days):
    page, complaints = await signed_in(browser, site.origin, await _session(administrator))
    await page.goto(f"{site.origin}/savings/?other=book:openai")
    await page.get_by_label("Compared with").select_option("")
    await page.get_by_role("heading", name="against the cheapest for each route").wait_for()
    assert page.url.startswith(f"{site.origin}/savings/?")
    await page.goto(f"{site.origin}/forecast/")
    assert await page.evaluate(DRAWN) == ["running cost", "expected", "at least", "at most"]
    await page.emulate_media(color_scheme="dark")
    await page.goto(f"{site.origin}/reconciliation/")
    first = (timezone.now() - timedelta(days=1)).date()
    text = f"day,model,output_tokens,cost\n{first},gpt-4o,1000000,7.00\n"
    await page.set_input_files(
        "#bill_file", {"name": "bill.csv", "mimeType": "text/csv", "buffer": text.encode()}
    )
    await page.get_by_role("button", name="Compare").click()
    await page.get_by_role("heading", name="Days that differ").wait_for()
    assert await page.get_by_role("cell", name="$1.00", exact=True).count() == 2
    assert complaints == []


async def _session(user):
    from asgiref.sync import sync_to_async

    return await sync_to_async(session_of)(user)
