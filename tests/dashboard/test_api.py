"""The management API as a whole: its documentation, and the shape of what goes wrong."""

import json

import pytest
from django.test import Client
from playwright.async_api import expect

from accounts.models import User
from dashboard.access import PAGES
from tests.dashboard.conftest import session_of, signed_in

# Static files are handed on as Django's own file iterators, of which it warns under ASGI.
pytestmark = pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")


@pytest.fixture
def bob(transactional_db):
    return User.objects.create_user("bob@example.com")


@pytest.fixture
def client_of_bob(bob):
    client = Client()
    client.force_login(bob)
    return client


@pytest.fixture
def session(administrator):
    return session_of(administrator)


@pytest.mark.parametrize("path", ["/api/docs", "/api/openapi.json"])
def test_the_documentation_is_for_people_who_are_signed_in(client_of_bob, path):
    asked = Client().get(path)

    assert (asked.status_code, asked["Location"]) == (302, f"/accounts/login/?next={path}")
    assert client_of_bob.get(path).status_code == 200


def test_the_documentation_is_under_our_strict_policy_and_loads_nothing_from_elsewhere(client_of_bob):
    page = client_of_bob.get("/api/docs")

    assert page["Content-Security-Policy"] == PAGES
    assert "//" not in page.content.decode().replace("<!DOCTYPE html>", "")


def test_the_schema_names_every_endpoint_and_what_can_be_changed(client_of_bob):
    schema = client_of_bob.get("/api/openapi.json").json()

    assert {f"{method.upper()} {path}" for path, ways in schema["paths"].items() for method in ways} == {
        "GET /api/providers",
        "GET /api/routes",
        "GET /api/routes/{route_id}",
        "PATCH /api/routes/{route_id}",
        "GET /api/targets/{target_id}",
        "PATCH /api/targets/{target_id}",
        "POST /api/targets/{target_id}/breaker",
        "GET /api/targets/{target_id}/breaker/timeline",
        "GET /api/targets/{target_id}/state",
    }
    body = schema["paths"]["/api/targets/{target_id}"]["patch"]["requestBody"]["content"]
    assert body["application/json"]["schema"]["$ref"].endswith("/TargetChanges")
    changes = schema["components"]["schemas"]["TargetChanges"]
    assert "pool" in changes["properties"]
    assert "required" not in changes


async def test_the_documentation_works_in_a_browser_and_can_try_a_change(site, browser, session):
    page, complaints = await signed_in(browser, site.origin, session)
    await page.goto(f"{site.origin}/api/docs")

    await expect(page.locator(".opblock")).to_have_count(9)
    change = page.locator(".opblock-patch", has_text="/api/targets/{target_id}")
    await change.locator(".opblock-summary-control").click()
    await change.locator(".try-out__btn").click()
    await change.locator("input[placeholder=target_id]").fill("404")
    await change.locator("textarea").fill(json.dumps({"weight": 1}))
    async with page.expect_response("**/api/targets/404") as answered:
        await change.locator(".execute").click()

    answer = await answered.value
    assert (answer.status, (await answer.json())["detail"]) == (404, "There is nothing with this id.")
    assert [each for each in complaints if "404" not in each] == []  # no policy was broken


def test_a_problem_is_told_in_one_shape(client_of_bob):
    answer = client_of_bob.get("/api/providers")

    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json() == {
        "title": "Forbidden",
        "status": 403,
        "detail": "This is for administrators.",
    }
    assert answer["Cache-Control"] == "no-store"
