"""The pages of routes and targets: turns, settings, and the lever of a breaker."""

from datetime import UTC, datetime

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from gateway import services, upstreams
from gateway.models import BreakerChange, Route, Target
from gateway.relay.catalog import Catalog
from gateway.relay.catalog import Route as CatalogRoute
from gateway.relay.catalog import Target as CatalogTarget
from gateway.relay.targets import Targets
from gateway.relay.transports.choice import Transports
from tests.dashboard.conftest import session_of, signed_in


@pytest.fixture
def route(transactional_db) -> Route:
    return services.add_route("gpt-4o", ["gpt4o"])


@pytest.fixture
def targets(route) -> list[Target]:
    found = []
    for order, slug in enumerate(("first", "second", "third")):
        provider = services.add_provider(slug, slug.title(), f"https://{slug}.example/v1")
        found.append(services.add_target(route, provider, "gpt-4o", order=order))
    return found


@pytest.fixture
def client(administrator) -> Client:
    client = Client()
    client.force_login(administrator)
    return client


@pytest.fixture
def relay(targets):
    """What a relay of this process would say of the targets."""
    known = tuple(
        CatalogTarget(each.pk, each.provider.slug, each.provider.base_url, "gpt-4o", None) for each in targets
    )
    live, transports = Targets(Unheard(), lambda: 0.0), Transports()
    upstreams.install(lambda: live.states(Catalog({"gpt-4o": CatalogRoute("gpt-4o", known)}), transports))
    yield live
    upstreams.install(None)


class Unheard:
    """News that nobody reads."""

    def breaker_changed(self, target, change) -> None: ...

    def credential_refused(self, target, status) -> None: ...

    def credential_accepted(self, target) -> None: ...


def page(client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    return answer.content.decode()


def turns() -> list[str]:
    return [each.provider.slug for each in Target.objects.order_by("order", "id")]


def settings_of(client, address: str, **changes) -> dict[str, str]:
    """What a browser would send back from the form, with some of it changed."""
    form = client.get(address).context["form"]
    sent = {each.name: each.value() for each in form}
    kept = {name: value for name, value in sent.items() if value is not None and value is not False}
    return {**{name: "on" if value is True else value for name, value in kept.items()}, **changes}


def test_without_routes_the_page_says_what_to_do(client):
    assert "There are no routes yet" in page(client, "/routes/")


def test_the_list_has_each_route_with_its_targets_in_few_queries(client, targets):
    services.add_route("lonely")
    client.get("/routes/")

    with CaptureQueriesContext(connection) as queries:
        told = page(client, "/routes/")

    assert len(queries) <= 12
    assert told.index("first/gpt-4o") < told.index("second/gpt-4o")
    assert "3 without" in told
    assert "None: its calls are refused" in told
    assert "lonely" not in page(client, "/routes/?q=4o")
    assert "No route is called so" in page(client, "/routes/?q=nothing")


def test_a_route_is_added_and_gets_a_target(client, targets):
    answer = client.post("/routes/new/", {"model_name": "gpt-5", "unpriced": "allowed"})
    made = Route.objects.get(model_name="gpt-5")
    assert answer["Location"] == f"/routes/{made.pk}/"

    given = {"provider": targets[0].provider_id, "upstream_model": "gpt-5-mini"}
    client.post(f"/routes/{made.pk}/targets/", given)
    again = client.post(f"/routes/{made.pk}/targets/", given)

    assert made.targets.get().upstream_model == "gpt-5-mini"
    assert again.status_code == 422
    assert "The route has this target already." in again.content.decode()


def test_a_name_that_is_taken_is_said(client, route):
    answer = client.post("/routes/new/", {"model_name": "gpt4o", "unpriced": "allowed"})

    assert answer.status_code == 422
    assert "answers to gpt4o already" in answer.content.decode()


def test_targets_change_their_turns(client, targets):
    client.post(f"/targets/{targets[2].pk}/move/", {"to": "earlier"})
    assert turns() == ["first", "third", "second"]

    client.post(f"/targets/{targets[0].pk}/move/", {"to": "later"})
    assert turns() == ["third", "first", "second"]


def test_a_route_shows_shares_among_targets_of_one_order(client, targets):
    for each in targets[:2]:
        services.update_target(each, {"order": 0})
    services.update_target(targets[0], {"weight": 3})

    told = page(client, f"/routes/{targets[0].route_id}/")

    assert "75.0" in told
    assert "25.0" in told


def test_a_target_is_switched_off_and_removed(client, targets):
    client.post(f"/targets/{targets[0].pk}/switch/", {"to": "off"})
    targets[0].refresh_from_db()
    assert not targets[0].enabled

    assert "Remove first/gpt-4o?" in page(client, f"/targets/{targets[0].pk}/remove/")
    client.post(f"/targets/{targets[0].pk}/remove/")
    assert turns() == ["second", "third"]


def test_every_setting_of_a_route_and_of_a_target_is_in_its_form(client, targets):
    route_form = client.get(f"/routes/{targets[0].route_id}/settings/").context["form"]
    target_form = client.get(f"/targets/{targets[0].pk}/settings/").context["form"]

    assert set(route_form.fields) == services.ROUTE_SETTINGS | services.ROUTE_NAMES
    assert set(target_form.fields) == services.TARGET_SETTINGS


def test_settings_of_a_route_are_saved(client, route):
    address = f"/routes/{route.pk}/settings/"
    sent = settings_of(client, address, aliases="gpt4o\n gpt-4-o ", timeout_s="30.5", overflow="trim")

    assert client.post(address, sent).status_code == 302

    route.refresh_from_db()
    assert (route.aliases, route.timeout_s, route.overflow) == (["gpt4o", "gpt-4-o"], 30.5, "trim")
    assert route.enabled


def test_settings_of_a_target_are_saved(client, targets):
    address = f"/targets/{targets[0].pk}/settings/"
    sent = settings_of(client, address, weight="3", parameters="logprobs: drop", media_tokens="800")

    assert client.post(address, sent).status_code == 302

    targets[0].refresh_from_db()
    assert (targets[0].weight, targets[0].media_tokens) == (3, 800)
    assert targets[0].parameters == {"logprobs": "drop"}
    assert targets[0].context_window is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"weight": "1001"}, "less than or equal to 1000"),
        ({"http2": "on"}, "HTTP/2 needs the transport httpx."),
        ({"parameters": "logprobs drop"}, "Write a name, a colon and a rule"),
        ({"parameters": "logprobs: translate"}, "cannot be translated"),
    ],
)
def test_a_wrong_setting_of_a_target_is_said_and_nothing_is_saved(client, targets, changes, told):
    address = f"/targets/{targets[0].pk}/settings/"

    answer = client.post(address, settings_of(client, address, order="7", **changes))

    assert answer.status_code == 422
    assert told in answer.content.decode().replace("&#x27;", "'")
    targets[0].refresh_from_db()
    assert targets[0].order == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"overflow": "reroute"}, "Say with which model name to go on."),
        ({"overflow": "reroute", "overflow_route": "gpt4o"}, "A route cannot go on with itself."),
        ({"timeout_s": "0"}, "greater than or equal to 0.01"),
        ({"model_name": ""}, "This field is required."),
    ],
)
def test_a_wrong_setting_of_a_route_is_said_and_nothing_is_saved(client, route, changes, told):
    address = f"/routes/{route.pk}/settings/"

    answer = client.post(address, settings_of(client, address, max_choices="3", **changes))

    assert answer.status_code == 422
    assert told in answer.content.decode()
    route.refresh_from_db()
    assert route.max_choices == 16


def test_a_breaker_is_held_open_let_go_and_closed(client, targets, administrator):
    address = f"/targets/{targets[0].pk}/breaker/"

    client.post(address, {"lever": "open", "why": "It moves house."})
    told = page(client, f"/targets/{targets[0].pk}/")
    assert "Held open" in told
    assert "It moves house." in told
    assert "root@example.com" in told
    assert Target.objects.get(pk=targets[0].pk).lever == "open"

    client.post(address, {"lever": "automatic"})
    client.post(address, {"lever": "close"})
    assert Target.objects.get(pk=targets[0].pk).lever == "automatic"
    assert BreakerChange.objects.count() == 3
    assert client.post(address, {"lever": "weld"}).status_code == 422


def test_where_no_relay_is_that_is_said_and_the_timeline_tells(client, targets):
    BreakerChange.objects.create(
        target_id=targets[0].pk, provider="first", upstream_model="gpt-4o", at=timezone.now(),
        before="closed", after="open", cause="5 failures in a row.",
    )  # fmt: skip

    told = page(client, f"/routes/{targets[0].route_id}/now/")

    assert "This process serves no calls" in told
    assert "Open" in told
    assert "Not known here" in told


def test_what_a_breaker_did_is_in_the_readers_zone(client, administrator, targets):
    administrator.zone = "Asia/Tokyo"
    administrator.save()
    BreakerChange.objects.create(
        target_id=targets[0].pk, provider="first", upstream_model="gpt-4o", before="closed", after="open",
        at=datetime(2026, 1, 1, 20, 30, 5, tzinfo=UTC), cause="5 failures in a row.",
    )  # fmt: skip

    told = page(client, f"/targets/{targets[0].pk}/now/")

    assert "When (JST)" in told
    assert ">2026-01-02 05:30:05</time>" in told


def test_live_figures_come_from_the_relay_of_this_process(client, targets, relay):
    told = page(client, f"/targets/{targets[0].pk}/now/")

    assert "0 / 50" in told
    assert "not called yet" in told
    assert "Closed" in told


def test_what_the_relay_left_out_is_not_called_closed(client, targets, relay):
    provider = services.add_provider("late", "Late", "https://late.example/v1")
    late = services.add_target(targets[0].route, provider, "gpt-4o", order=9)

    assert "Not in use" in page(client, f"/targets/{late.pk}/now/")


def test_pages_of_a_route_and_a_target_ask_few_queries(client, targets):
    for address in (f"/routes/{targets[0].route_id}/", f"/targets/{targets[0].pk}/"):
        client.get(address)
        with CaptureQueriesContext(connection) as queries:
            page(client, address)
        assert len(queries) <= 12


async def test_turns_are_changed_by_keyboard_and_a_held_breaker_shows_by_itself(
    site, browser, administrator, targets
):
    session = await sync_to_async(session_of)(administrator)
    page, complaints = await signed_in(browser, site.origin, session)
    await page.goto(f"{site.origin}/routes/{targets[0].route_id}/")
    await page.get_by_role("button", name="Try third/gpt-4o earlier").focus()
    await page.keyboard.press("Enter")
    await page.get_by_text("third/gpt-4o is tried earlier now.").wait_for()
    assert await sync_to_async(turns)() == ["first", "third", "second"]

    await sync_to_async(services.hold_breaker_open)(targets[1], administrator)
    await page.get_by_text("Held open").wait_for()
    assert complaints == []
