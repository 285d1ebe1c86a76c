"""The management API as a whole: its documentation, and the shape of what goes wrong."""

import json

import jsonschema_rs
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import Client
from playwright.async_api import expect

from accounts import tokens
from accounts.models import User
from dashboard.access import PAGES
from dashboard.api import api
from dashboard.asgi import LARGEST_FORM, application
from dashboard.problems import Problems
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


@pytest.fixture
def schema(client_of_bob):
    return client_of_bob.get("/api/openapi.json").json()


@pytest.fixture
def operations(schema):
    return {
        operation["operationId"]: (method, path, operation)
        for path, ways in schema["paths"].items()
        for method, operation in ways.items()
    }


def test_the_schema_is_for_programs_with_an_access_token_too(bob):
    _, text = tokens.make_token(bob, "ci", ["read"])

    assert Client(headers={"Authorization": f"Bearer {text}"}).get("/api/openapi.json").status_code == 200
    assert Client(headers={"Authorization": "Bearer pat_none"}).get("/api/openapi.json").status_code == 302


def test_every_operation_has_a_name_of_its_own_a_sentence_and_both_ways_in(schema, operations):
    assert len(operations) == sum(len(ways) for ways in schema["paths"].values()) > 60
    for method, path, operation in operations.values():
        assert operation["description"].endswith("."), path
        assert operation["security"] == [{"TokenAuth": []}, {"SessionAuth": []}], (method, path)
    assert set(schema["components"]["securitySchemes"]) == {"TokenAuth", "SessionAuth"}


def test_every_operation_says_how_it_may_refuse(operations):
    for method, path, operation in operations.values():
        told = set(operation["responses"])
        assert {"401", "403"} <= told, path
        assert "{" not in path or "404" in told, path
        assert "requestBody" not in operation or {"400", "413", "415", "422"} <= told, path
        assert method == "get" or "409" in told, path
        for status, answer in operation["responses"].items():
            assert int(status) < 400 or set(answer["content"]) == {"application/problem+json"}


def test_every_post_takes_an_idempotency_key(operations):
    for method, path, operation in operations.values():
        names = {each["name"] for each in operation["parameters"]}
        assert ("Idempotency-Key" in names) == (method == "post"), path


def test_every_shape_has_an_example_that_fits_it(schema):
    """All but pages of lists, whose items have theirs."""
    whole = json.dumps(schema)
    shown = {
        name: shape
        for name, shape in schema["components"]["schemas"].items()
        if f'"#/components/schemas/{name}"' in whole
        and "properties" in shape
        and not name.startswith("Page_")
    }
    assert [name for name, shape in shown.items() if not shape.get("examples")] == []

    for name, shape in shown.items():
        whole = {**shape, "components": schema["components"]}
        for example in shape["examples"]:
            jsonschema_rs.validator_for(whole).validate(example)
        strange = {**shape["examples"][0], "strange": 1}
        if shape.get("additionalProperties") is False:
            assert not jsonschema_rs.validator_for(whole).is_valid(strange), name


def test_no_shape_that_comes_in_takes_strange_fields(schema, operations):
    for _, path, operation in operations.values():
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body is not None:
            shape = schema["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
            assert shape["additionalProperties"] is False, path


OPERATIONS = [way for ways in api.get_openapi_schema()["paths"].values() for way in ways]


async def test_the_documentation_works_in_a_browser_and_can_try_a_change(site, browser, session):
    page, complaints = await signed_in(browser, site.origin, session)
    await page.goto(f"{site.origin}/api/docs")

    await expect(page.locator(".opblock")).to_have_count(len(OPERATIONS))
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


@pytest.mark.parametrize(
    ("ask", "status"),
    [
        (lambda client: client.get("/api/nothing"), 404),
        (lambda client: client.get("/api/teams/404"), 404),
        (lambda client: client.get("/api/teams/x"), 404),
        (lambda client: client.put("/api/me"), 405),
        (lambda client: client.post("/api/invitations/accept", "{", content_type="application/json"), 400),
        (lambda client: client.post("/api/invitations/accept", "<a/>", content_type="text/xml"), 415),
        (lambda client: client.post("/api/invitations/accept", "[]", content_type="application/json"), 422),
        (lambda client: client.get("/api/keys?limit=101"), 422),
    ],
)
def test_whatever_goes_wrong_is_a_problem(client_of_bob, ask, status):
    answer = ask(client_of_bob)

    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status
    assert answer.json()["detail"].endswith(".")


def test_what_can_be_done_instead_is_still_said(client_of_bob):
    assert client_of_bob.put("/api/me")["Allow"] == "GET"


def test_a_page_that_is_not_there_is_a_page(client_of_bob):
    assert client_of_bob.get("/nothing/")["Content-Type"].startswith("text/html")


def test_an_error_of_ours_is_a_problem_that_tells_nothing():
    page = HttpResponse("<h1>secret</h1>", status=500, headers={"X-Request-Id": "7"})
    request = HttpRequest()
    request.path = "/api/teams"

    answer = Problems(lambda _: page)(request)

    assert (answer.status_code, answer["X-Request-Id"]) == (500, "7")
    assert "secret" not in answer.content.decode()


async def told_by_the_server(path, headers, body):
    """What `dashboard.asgi` answers before Django hears of it."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    await application(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])[b"content-type"], json.loads(sent[1]["body"])


@pytest.mark.parametrize(
    ("headers", "size", "status"),
    [([(b"host", b"localhost")], LARGEST_FORM + 1, 413), ([], 2, 400)],
    ids=["a body that is too large", "no host"],
)
async def test_what_is_refused_before_it_is_read_is_a_problem_too(headers, size, status):
    got = await told_by_the_server("/api/teams", headers, b" " * size)

    assert got[:2] == (status, b"application/problem+json")
    assert got[2]["status"] == status
