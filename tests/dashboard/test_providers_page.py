"""The pages of providers: what an operator sees, adds, tests and picks."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import AuditEvent
from dashboard import discovered_views
from gateway import services
from gateway.models import Credential, Entry, Probe, Provider, Route, Target
from gateway.presets import CHOICES
from tests.dashboard.conftest import session_of, signed_in
from tests.gateway.listening import provider_on_a_thread
from tests.upstreams.upstream import whole

SECRET = "sk-live-0123456789abcdef"
NAMES = [f"vendor/model-{number:03d}" for number in range(320)]
LIST = whole(json.dumps({"data": [{"id": each} for each in [*NAMES, "gpt-4o-mini"]]}).encode())


@pytest.fixture
def upstream():
    with provider_on_a_thread() as listening:
        yield listening


@pytest.fixture
def provider(transactional_db, upstream) -> Provider:
    cache.clear()
    return services.add_provider("acme", "Acme", upstream.base_url)


@pytest.fixture
def client(administrator) -> Client:
    client = Client()
    client.force_login(administrator)
    return client


def page(client, address: str, status: int = 200, **headers) -> str:
    answer = client.get(address, headers=headers or None)
    assert answer.status_code == status
    return answer.content.decode()


def added(client, preset: str, **given):
    return client.post(f"/providers/new/?preset={preset}", given)


def test_a_member_is_told_that_this_is_not_theirs(alice, provider):
    client = Client()
    client.force_login(alice)

    for address in ("/providers/", f"/providers/{provider.pk}/", "/routes/"):
        assert "for administrators" in page(client, address, 403)
    assert "/providers/" not in page(client, "/keys/")


def test_without_providers_the_page_says_what_to_do(client):
    assert "There are no providers yet" in page(client, "/providers/")


def test_the_list_tells_of_each_in_few_queries(client, provider):
    other = services.add_provider("sim", "Pretender", "http://10.1.2.3:8000/v1", simulated=True)
    for number in range(20):
        route = services.add_route(f"model-{number}")
        services.add_target(route, other, f"model-{number}")
    Probe.objects.create(
        provider=provider,
        at=timezone.now(),
        cause="test",
        upstream_model="m",
        calls=1,
        answered=1,
        avg_us=45_000,
    )
    client.get("/providers/")

    with CaptureQueriesContext(connection) as queries:
        told = page(client, "/providers/")

    assert len(queries) <= 12
    assert "10.1.2.3:8000" in told
    assert "Simulated" in told
    assert "20 not known here" in told
    assert "45 ms" in told


@pytest.mark.parametrize("choice", CHOICES, ids=lambda each: each.slug)
def test_every_preset_has_a_form(client, choice):
    told = page(client, f"/providers/new/?preset={choice.slug}")

    assert choice.name in page(client, "/providers/new/")
    assert ('name="resource"' in told) == (choice.slug == "azure")


def test_a_preset_with_its_usual_models_can_be_called_at_once(client):
    answer = added(
        client, "openai", name="OpenAI", slug="openai", base_url="https://api.openai.com/v1",
        place="kept", secret=SECRET, usual="on",
    )  # fmt: skip

    provider = Provider.objects.get()
    assert answer["Location"] == f"/providers/{provider.pk}/"
    assert Credential.objects.get().encrypted
    assert Route.objects.filter(model_name="gpt-4o-mini").exists()
    assert Target.objects.get(upstream_model="gpt-5").parameters == {"max_tokens": "translate"}


def test_azure_asks_for_the_resource_alone(client):
    added(client, "azure", name="Azure", slug="azure", resource="acme-east", place="environment",
          env_var="AZURE_OPENAI_API_KEY")  # fmt: skip

    assert Provider.objects.get().base_url == "https://acme-east.openai.azure.com/openai/v1"
    assert Credential.objects.get().env_var == "AZURE_OPENAI_API_KEY"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"slug": "acme"}, "There is a provider acme already."),
        ({"slug": "a b"}, "Only letters, digits"),
        ({"base_url": "ftp://x"}, "must begin with http:// or https://"),
        ({"base_url": "http://me:secret@x/v1"}, "has a user name in it"),
        ({"place": "kept", "secret": ""}, "The credential is empty."),
        ({"place": "environment", "env_var": "SECRET_KEY"}, "ends in _API_KEY"),
    ],
)
def test_what_cannot_be_is_said_beside_its_field_and_nothing_is_added(client, provider, changes, told):
    given = {"name": "New", "slug": "new", "base_url": "http://localhost:1/v1", "place": "none"}

    answer = added(client, "openai-compatible", **given | changes)

    assert answer.status_code == 422
    assert told in answer.content.decode()
    assert Provider.objects.count() == 1


def test_the_credential_goes_in_and_never_comes_out(client, provider, settings):
    answer = client.post(f"/providers/{provider.pk}/credential/", {"place": "kept", "secret": SECRET})
    assert answer.status_code == 302

    for address in ("", "credential/", "settings/", "models/"):
        assert SECRET not in page(client, f"/providers/{provider.pk}/{address}")
    refused = client.post(f"/providers/{provider.pk}/credential/", {"place": "kept", "secret": f"{SECRET} x"})
    assert refused.status_code == 422
    assert SECRET not in refused.content.decode()
    assert SECRET not in json.dumps(list(AuditEvent.objects.values("before", "after")))


def test_it_is_left_to_the_environment_or_taken_away(client, provider):
    client.post(f"/providers/{provider.pk}/credential/", {"place": "environment", "env_var": "NO_API_KEY"})
    assert "NO_API_KEY is not set" in page(client, f"/providers/{provider.pk}/")

    client.post(f"/providers/{provider.pk}/credential/", {"place": "none"})
    assert not Credential.objects.exists()


def test_a_refused_credential_is_said_with_its_moment(client, provider):
    services.refer_to_credential(provider, "PATH_API_KEY")
    Credential.objects.update(refused_at=timezone.now(), refused_status=401)

    assert "PATH_API_KEY" in page(client, "/providers/")


def test_a_provider_is_renamed_and_switched_off(client, provider):
    settings = {"name": "Acme East", "base_url": provider.base_url, "ca_pem": ""}
    client.post(f"/providers/{provider.pk}/settings/", settings)
    client.post(f"/providers/{provider.pk}/switch/", {"to": "off"})

    provider.refresh_from_db()
    assert (provider.name, provider.enabled) == ("Acme East", False)


def test_a_test_makes_a_real_call_that_is_on_no_books(client, provider, upstream):
    answer = client.post(
        f"/providers/{provider.pk}/test/",
        {"what": "call", "model_name": "gpt-4o-mini"},
        headers={"HX-Request": "true"},
    )

    told = answer.content.decode()
    assert "It answered." in told
    assert "9 tokens in, 2 out" in told
    assert "<html" not in told
    assert upstream.exchanges[0].json["messages"] == [{"role": "user", "content": "Hi"}]
    assert Probe.objects.get().cause == "test"
    assert not Entry.objects.exists()


def test_without_javascript_the_whole_page_has_the_result(client, provider, upstream):
    upstream.will(whole(json.dumps({"error": {"message": f"{SECRET} is wrong"}}).encode(), 401))
    client.post(f"/providers/{provider.pk}/credential/", {"place": "kept", "secret": SECRET})

    answer = client.post(f"/providers/{provider.pk}/test/", {"what": "call", "model_name": "gpt-4o-mini"})

    told = answer.content.decode()
    assert "<html" in told
    assert "It does not accept the credential (401 Unauthorized). *** is wrong" in told
    assert SECRET not in told
    assert "refused by the provider with 401" in page(client, "/providers/")


def test_a_test_names_its_model(client, provider, upstream):
    answer = client.post(f"/providers/{provider.pk}/test/", {"what": "call", "model_name": " "})

    assert answer.status_code == 422
    assert upstream.exchanges == []


def test_the_list_of_models_is_enough_for_a_test(client, provider, upstream):
    upstream.will(LIST)

    answer = client.post(
        f"/providers/{provider.pk}/test/", {"what": "models"}, headers={"HX-Request": "true"}
    )

    assert "It lists 321 models." in answer.content.decode()
    assert not Probe.objects.exists()
    assert "321 models" in page(client, f"/providers/{provider.pk}/models/")


def test_models_are_asked_for_by_a_press_and_then_searched_here(client, provider, upstream):
    address = f"/providers/{provider.pk}/models/"
    assert "It was not asked yet" in page(client, address)
    upstream.will(LIST)

    assert client.post(address)["Location"] == address

    whole_list = page(client, address)
    assert "321 models" in whole_list
    assert "100 shown" in whole_list
    found = page(client, f"{address}?q=MODEL 07&pick=vendor/model-300")
    assert "15 models" in found
    assert "vendor/model-079" in found
    assert 'value="vendor/model-300" checked' in found
    assert len(upstream.exchanges) == 1


def test_a_provider_without_a_list_says_so_and_lets_one_be_typed_in(client, provider, upstream):
    upstream.will(whole(b"{}", 404))
    client.post(f"/providers/{provider.pk}/models/")

    assert "It gave no list of models" in page(client, f"/providers/{provider.pk}/models/")
    client.post(
        f"/providers/{provider.pk}/models/pick/", {"upstream_model": "deployment-7", "model_name": "gpt-4o"}
    )
    target = Target.objects.get()
    assert (target.route.model_name, target.upstream_model) == ("gpt-4o", "deployment-7")


def test_picks_become_routes_and_targets_and_are_told(client, provider):
    answer = client.post(
        f"/providers/{provider.pk}/models/pick/", {"pick": ["a-model", "another"]}, follow=True
    )

    told = answer.content.decode()
    assert "2 targets are added: a-model, another." in told
    assert "No price is known for a-model, another" in told
    assert Target.objects.count() == 2
    again = client.post(f"/providers/{provider.pk}/models/pick/", {"pick": ["a-model"]}, follow=True)
    assert "1 target was there already." in again.content.decode()


def test_a_pick_that_is_refused_was_not_there_already(client, provider):
    too_long = "m" * 300

    told = client.post(f"/providers/{provider.pk}/models/pick/", {"pick": [too_long]}, follow=True)

    assert f"{too_long[:100]}: " in told.content.decode()
    assert "there already" not in told.content.decode()


def test_nothing_picked_is_said(client, provider):
    answer = client.post(f"/providers/{provider.pk}/models/pick/", {}, follow=True)

    assert "Nothing was picked" in answer.content.decode()


def test_a_search_wants_every_word():
    names = ["gpt-4o", "gpt-4o-mini", "o3-mini"]

    assert discovered_views.matches(names, "mini gpt", []) == ["gpt-4o-mini"]
    assert discovered_views.matches(names, "mini", ["gpt-4o"]) == ["gpt-4o", "gpt-4o-mini", "o3-mini"]


def test_a_providers_page_draws_its_probes_in_few_queries(client, provider):
    for number in range(120):
        Probe.objects.create(
            provider=provider, at=timezone.now() - timedelta(minutes=number), cause="schedule",
            upstream_model="gpt-4o-mini", calls=10, answered=9, avg_us=45_000, min_us=32_000, max_us=68_000,
            failures=[{"code": "timeout", "status": None, "words": "", "times": 1}],
        )  # fmt: skip
    client.get(f"/providers/{provider.pk}/")

    with CaptureQueriesContext(connection) as queries:
        told = page(client, f"/providers/{provider.pk}/")

    assert len(queries) <= 12
    figures = json.loads(told.partition('id="probe-figures" type="application/json">')[2].partition("<")[0])
    assert len(figures["avg"]) == 100
    assert figures["avg"][0] == 45.0
    assert "No whole answer came within 10 seconds." in told
    assert "Probes are not made on a schedule" in told


async def test_probes_are_in_the_readers_zone_in_the_table_and_on_the_chart(
    site, browser, administrator, provider
):
    administrator.zone = "Asia/Tokyo"
    await administrator.asave()
    await Probe.objects.acreate(
        provider=provider, at=datetime(2026, 1, 1, 20, 30, 5, tzinfo=UTC), cause="schedule",
        upstream_model="gpt-4o-mini", calls=1, answered=1, avg_us=1, min_us=1, max_us=1,
    )  # fmt: skip
    page, complaints = await signed_in(browser, site.origin, await sync_to_async(session_of)(administrator))

    await page.goto(f"{site.origin}/providers/{provider.pk}/")
    await page.get_by_text("Shortest").first.wait_for()

    labels = await page.evaluate("Chart.getChart('probe-chart').data.labels")
    assert labels == ["Jan 2, 05:30"]
    assert await page.get_by_role("cell", name="2026-01-02 05:30:05").is_visible()
    assert await page.get_by_role("columnheader", name="When (JST)").is_visible()
    assert complaints == []


async def test_a_provider_is_added_tested_and_a_model_of_it_offered(site, browser, administrator, upstream):
    upstream.will(LIST)
    session = await sync_to_async(session_of)(administrator)
    page, complaints = await signed_in(browser, site.origin, session)
    await page.goto(f"{site.origin}/providers/")
    await page.get_by_role("link", name="Add a provider").first.click()
    await page.get_by_role("link", name="Any compatible server").click()
    await page.get_by_label("Name", exact=True).fill("House server")
    await page.get_by_label("Short name").fill("house")
    await page.get_by_label("Base URL").fill(upstream.base_url)
    assert not await page.get_by_label("The credential itself").is_visible()
    await page.get_by_label("Keep it here, encrypted").check()
    await page.get_by_label("The credential itself").fill(SECRET)
    await page.get_by_role("button", name="Add the provider").click()

    await page.get_by_role("link", name="Pick models").first.click()
    await page.get_by_role("button", name="Ask the provider").click()
    await page.get_by_label("vendor/model-001").check()
    await page.get_by_label("Search").press_sequentially("model-077")
    await page.get_by_label("vendor/model-078").wait_for(state="detached")
    await page.get_by_label("vendor/model-077").check()
    assert await page.get_by_label("vendor/model-001").is_checked()
    await page.get_by_role("button", name="Offer what is ticked").click()
    await page.get_by_text("2 targets are added").wait_for()

    await page.get_by_role("button", name="Make a call").click()
    await page.get_by_text("It answered.").wait_for()

    assert upstream.exchanges[-1].json["model"] == "vendor/model-001"
    assert upstream.exchanges[-1].headers["authorization"] == f"Bearer {SECRET}"
    assert SECRET not in await page.content()
    assert complaints == []
