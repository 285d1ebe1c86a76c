"""The upstream side of `/api/`: operators see and set what the relay goes by."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission
from django.test import Client

from accounts.changes import change_number
from accounts.models import AuditEvent, User
from gateway import services, upstreams
from gateway.credentials import reveal
from gateway.models import BreakerChange, Credential, Price, Provider, Route, Target
from gateway.relay.catalog import PoolConfig
from gateway.relay.gate import Gate
from gateway.relay.targets import TargetState
from gateway.snapshot import read

pytestmark = pytest.mark.django_db


@pytest.fixture
def ada():
    """The administrator."""
    return User.objects.create_superuser("ada@example.com")


@pytest.fixture
def api(ada):
    client = Client()
    client.force_login(ada)
    return client


@pytest.fixture
def provider():
    made = services.add_provider("acme", "Acme", "https://acme.example/v1")
    services.keep_credential(made, "sk-kept", settings.CREDENTIAL_KEYS)
    return made


@pytest.fixture
def target(provider):
    return services.add_target(services.add_route("gpt-4o", ["gpt4o"]), provider, "gpt-4o-2024")


def patch(client, path, changes, **headers):
    return client.patch(f"/api{path}", json.dumps(changes), content_type="application/json", headers=headers)


def pull(client, target, **what):
    path = f"/api/targets/{target.pk}/breaker"
    return client.post(path, json.dumps(what), content_type="application/json")


def post(client, path, what):
    return client.post(f"/api{path}", json.dumps(what), content_type="application/json")


def put(client, path, what):
    return client.put(f"/api{path}", json.dumps(what), content_type="application/json")


def audited():
    """Actions, the latest last."""
    return list(AuditEvent.objects.order_by("id").values_list("action", flat=True))


def sentences(answer):
    """What was wrong, by field, of an answer that refuses."""
    assert answer["Content-Type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == answer.status_code
    return {each["field"]: each["message"] for each in told.get("errors", [])} or told["detail"]


def test_a_target_is_shown_with_the_names_of_the_catalog(api, target):
    shown = api.get(f"/api/targets/{target.pk}").json()

    assert shown == {
        "id": target.pk,
        "route": "gpt-4o",
        "provider": "acme",
        "upstream_model": "gpt-4o-2024",
        "enabled": True,
        "order": 0,
        "weight": 1,
        "transport": "http1",
        "pool": {
            "max_connections": 100,
            "max_keepalive_connections": 20,
            "keepalive_expiry_s": 30.0,
            "connect_timeout_s": 10.0,
            "read_timeout_s": 60.0,
            "write_timeout_s": 10.0,
            "pool_timeout_s": 5.0,
            "http2": False,
        },
        "max_concurrency": 50,
        "max_waiting": 1000,
        "context_window": None,
        "media_tokens": None,
        "parameters": {},
        "lever": "automatic",
        "closed_at": None,
    }


def test_every_setting_of_a_target_reaches_the_catalog(api, target):
    pool = PoolConfig(7, 3, 1.5, 2.5, 3.5, 4.5, 5.5, http2=True)
    names = PoolConfig.__dataclass_fields__
    settings_ = {
        **{"order": 2, "weight": 0, "transport": "httpx", "max_concurrency": 8, "max_waiting": 0},
        **{"context_window": 8192, "parameters": {"logprobs": "drop"}},
        "pool": {name: getattr(pool, name) for name in names},
    }
    before = change_number()

    answer = patch(api, f"/targets/{target.pk}", settings_)

    assert answer.status_code == 200
    assert {name: answer.json()[name] for name in settings_} == settings_
    assert change_number() > before
    [found] = read().routes["gpt-4o"].targets
    assert (found.pool, found.order, found.weight, found.transport) == (pool, 2, 0, "httpx")
    assert (found.max_concurrency, found.max_waiting, found.context_window) == (8, 0, 8192)
    assert found.parameters == {"logprobs": "drop"}


def test_what_is_not_named_stays_as_it_is(api, target):
    patch(api, f"/targets/{target.pk}", {"pool": {"max_connections": 7}, "context_window": 100})
    patch(api, f"/targets/{target.pk}", {"context_window": None, "enabled": False})

    target.refresh_from_db()
    assert (target.max_connections, target.max_keepalive_connections) == (7, 20)
    assert (target.context_window, target.enabled) == (None, False)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"weight": 1001}, "weight"),
        ({"weight": -1}, "weight"),
        ({"weight": 10**30}, "weight"),
        ({"weight": "5"}, "weight"),
        ({"weight": True}, "weight"),
        ({"weight": None}, "weight"),
        ({"order": 40_000}, "order"),
        ({"transport": "carrier pigeon"}, "transport"),
        ({"max_concurrency": 0}, "max_concurrency"),
        ({"context_window": 0}, "context_window"),
        ({"pool": {"max_connections": 0}}, "pool.max_connections"),
        ({"pool": {"max_connections": 1.5}}, "pool.max_connections"),
        ({"pool": {"read_timeout_s": 0}}, "pool.read_timeout_s"),
        ({"pool": {"read_timeout_s": float("nan")}}, "pool.read_timeout_s"),
        ({"pool": {"pool_timeout_s": float("inf")}}, "pool.pool_timeout_s"),
        ({"pool": {"http2": True}}, "pool.http2"),
        ({"pool": {"max_conections": 5}}, "pool.max_conections"),
        ({"parameters": {"logprobs": "forget"}}, "parameters"),
        ({"parameters": {"messages": "drop"}}, "parameters"),
        ({"parameters": ["logprobs"]}, "parameters"),
        ({"lever": "open"}, "lever"),
        ({"upstream_model": "other"}, "upstream_model"),
    ],
)
def test_a_value_that_a_target_cannot_have_is_refused_with_a_sentence(api, target, wrong, field):
    before = Target.objects.values().get()

    answer = patch(api, f"/targets/{target.pk}", {"max_waiting": 5} | wrong)

    assert answer.status_code == 422
    assert field in sentences(answer)
    assert len(sentences(answer)[field]) > 10
    assert Target.objects.values().get() == before


def test_several_wrong_values_are_told_at_once(api, target):
    answer = patch(api, f"/targets/{target.pk}", {"weight": 5000, "pool": {"connect_timeout_s": 0}})

    assert set(sentences(answer)) == {"weight", "pool.connect_timeout_s"}


@pytest.mark.parametrize("body", ["{", "[]", "", '"x"'])
def test_a_body_that_is_no_object_is_refused(api, target, body):
    answer = api.patch(f"/api/targets/{target.pk}", body, content_type="application/json")

    assert answer.status_code in (400, 422)
    assert answer["Content-Type"] == "application/problem+json"


def test_a_route_is_shown_and_changed(api, target):
    services.add_route("long")
    changes = {"timeout_s": 20.0, "overflow": "reroute", "overflow_route": "long", "hang_up_drain_s": 3.0}
    before = change_number()

    answer = patch(api, f"/routes/{target.route_id}", changes)

    assert answer.status_code == 200
    shown = api.get(f"/api/routes/{target.route_id}").json()
    assert {name: shown[name] for name in changes} == changes
    assert (shown["model_name"], shown["aliases"], shown["unpriced"]) == ("gpt-4o", ["gpt4o"], "refused")
    assert [each["id"] for each in shown["targets"]] == [target.pk]
    assert change_number() > before
    found = read().routes["gpt-4o"]
    assert (found.timeout_s, found.overflow, found.overflow_route) == (20.0, "reroute", "long")
    assert found.hang_up_drain_s == 3.0


@pytest.mark.parametrize(
    ("wrong", "field", "sentence"),
    [
        ({"overflow": "reroute"}, "overflow_route", "Say with which model name to go on."),
        ({"overflow_route": "gpt-4o"}, "overflow_route", "A route cannot go on with itself."),
        ({"overflow_route": "gpt4o"}, "overflow_route", "A route cannot go on with itself."),
        ({"overflow_route": "nobody"}, "overflow_route", "No route answers to nobody."),
        ({"timeout_s": 0}, "timeout_s", "greater than or equal to 0.01"),
        ({"hang_up_drain_s": 3601}, "hang_up_drain_s", "less than or equal to 3600"),
        ({"overflow": "pour"}, "overflow", "'refuse', 'trim' or 'reroute'"),
    ],
)
def test_a_value_that_a_route_cannot_have_is_refused_with_a_sentence(api, target, wrong, field, sentence):
    answer = patch(api, f"/routes/{target.route_id}", wrong)

    assert answer.status_code == 422
    assert sentence in sentences(answer)[field]
    assert Route.objects.get().overflow == "refuse"


def test_a_breaker_is_held_open_let_go_and_closed_by_hand(api, ada, target):
    assert pull(api, target, lever="open", why="The provider moves house.").json()["lever"] == "open"
    assert read().routes["gpt-4o"].targets[0].lever == "open"
    assert pull(api, target, lever="automatic").json()["lever"] == "automatic"
    pull(api, target, lever="open")
    shown = pull(api, target, lever="close").json()

    assert shown["lever"] == "automatic"
    assert datetime.now(UTC) - datetime.fromisoformat(shown["closed_at"]) < timedelta(minutes=1)
    timeline = api.get(f"/api/targets/{target.pk}/breaker/timeline").json()["items"]
    assert [(each["before"], each["after"], each["cause"]) for each in timeline] == [
        ("open", "closed", "Closed by hand."),
        ("closed", "open", "Held open by hand."),
        ("open", "closed", "Let go by hand."),
        ("closed", "open", "The provider moves house."),
    ]
    assert {each["by_user"] for each in timeline} == {ada.email}


def test_pulling_the_lever_to_where_it_is_changes_nothing(api, target):
    pull(api, target, lever="open")
    before = change_number()

    assert pull(api, target, lever="open").status_code == 200
    assert BreakerChange.objects.count() == 1
    assert change_number() == before


@pytest.mark.parametrize(
    "wrong", [{"lever": "ajar"}, {}, {"lever": "open", "why": "a\nb"}, {"lever": "open", "who": "me"}]
)
def test_a_lever_that_does_not_exist_is_refused(api, target, wrong):
    assert pull(api, target, **wrong).status_code == 422
    assert not BreakerChange.objects.exists()


def test_the_timeline_comes_in_pages(api, target):
    for minute in range(5):
        a_change(target, minute)
    path = f"/api/targets/{target.pk}/breaker/timeline"

    first = api.get(f"{path}?limit=2").json()
    second = api.get(f"{path}?limit=3&after={first['next']}").json()

    assert [each["cause"] for each in first["items"]] == ["minute 4", "minute 3"]
    assert [each["cause"] for each in second["items"]] == ["minute 2", "minute 1", "minute 0"]
    assert (first["items"][0]["until"], second["next"]) == (None, None)
    assert api.get(f"{path}?limit=101").status_code == 422


def a_change(target, minute, **others):
    fields = {"provider": "acme", "upstream_model": "gpt-4o", "before": "closed", "after": "open"}
    moment = datetime(2026, 1, 1, 0, minute, tzinfo=UTC)
    return BreakerChange.objects.create(
        target_id=target.pk, at=moment, cause=f"minute {minute}", **fields | others
    )


@pytest.fixture
def relay():
    """What a running relay would tell of its targets."""
    told = []
    upstreams.install(lambda: told)
    yield told
    upstreams.install(None)


def test_the_live_figures_of_a_target_are_those_of_this_process(api, target, relay):
    relay.append(
        TargetState(
            target_id=target.pk,
            route="gpt-4o",
            provider="acme",
            upstream_model="gpt-4o-2024",
            breaker="open",
            held=True,
            ready_in_s=float("inf"),
            retries=3,
            gate=Gate(50, 1000, lambda: 0.0).figures(),
            pool=None,
        )
    )

    shown = api.get(f"/api/targets/{target.pk}/state").json()

    assert (shown["breaker"], shown["held"], shown["retries"]) == ("open", True, 3)
    assert (shown["ready_in_s"], shown["pool"]) == (None, None)  # no end is known, and no pool
    assert isinstance(shown["gate"], dict)


def test_a_process_without_a_relay_has_no_live_figures(api, target):
    answer = api.get(f"/api/targets/{target.pk}/state")

    assert answer.status_code == 503
    assert "serves no calls" in sentences(answer)


def test_a_relay_that_is_too_busy_to_say_is_not_waited_for(api, target, relay):
    def busy():
        raise TimeoutError

    upstreams.install(busy)

    answer = api.get(f"/api/targets/{target.pk}/state")

    assert answer.status_code == 503
    assert "did not answer in time" in sentences(answer)


def test_a_target_that_is_not_in_use_has_no_live_figures(api, target, relay):
    answer = api.get(f"/api/targets/{target.pk}/state")

    assert answer.status_code == 404
    assert "not in use" in sentences(answer)


def test_providers_are_listed_without_what_is_secret(api, provider):
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    Credential.objects.update(refused_at=moment, refused_status=402)
    other = services.add_provider("other", "Other", "https://other.example/v1")
    services.refer_to_credential(other, "OTHER_API_KEY")
    services.add_provider("plain", "Plain", "http://plain.example/v1")

    answer = api.get("/api/providers")

    assert Credential.objects.get(provider=provider).encrypted not in answer.content.decode()
    assert [(each["slug"], each["credential"]) for each in answer.json()["items"]] == [
        (
            "acme",
            {
                "kept": "encrypted",
                "env_var": "",
                "refused_at": "2026-01-01T00:00:00Z",
                "refused_status": 402,
            },
        ),
        (
            "other",
            {
                "kept": "environment",
                "env_var": "OTHER_API_KEY",
                "refused_at": None,
                "refused_status": None,
            },
        ),
        ("plain", {"kept": "none", "env_var": "", "refused_at": None, "refused_status": None}),
    ]


LISTS = {
    "/api/providers": 3,  # session, user, providers with credentials
    "/api/routes": 4,  # session, user, routes, targets
    "/api/routes/{route}": 4,  # the same
    "/api/targets/{target}": 3,  # session, user, the target with provider and route
    "/api/targets/{target}/breaker/timeline": 4,  # session, user, target, changes with people
}


@pytest.mark.parametrize("path", LISTS)
def test_lists_take_the_same_few_queries_for_many_rows(api, ada, target, path, django_assert_num_queries):
    for number in range(5):
        provider = services.add_provider(f"p{number}", "P", "https://p.example/v1")
        services.add_target(target.route, provider, "gpt-4o")
        services.add_target(services.add_route(f"route {number}"), provider, "gpt-4o")
        a_change(target, number, by_user=ada)

    with django_assert_num_queries(LISTS[path]):
        answer = api.get(path.format(route=target.route_id, target=target.pk))

    assert answer.status_code == 200


@pytest.mark.parametrize("path", [*LISTS, "/api/targets/{target}/state"])
def test_there_is_nothing_with_another_id(api, path):
    answer = api.get(path.format(route=10**30, target=404))

    assert answer.status_code == (200 if path in ("/api/providers", "/api/routes") else 404)
    assert answer.status_code == 200 or sentences(answer) == "There is nothing with this id."


def every_way(client, target):
    """One request to each endpoint."""
    own = f"/api/targets/{target.pk}"
    return [
        *(client.get(each.format(route=target.route_id, target=target.pk)) for each in LISTS),
        client.get(f"{own}/state"),
        patch(client, f"/targets/{target.pk}", {"weight": 9}),
        patch(client, f"/routes/{target.route_id}", {"timeout_s": 9}),
        pull(client, target, lever="open"),
    ]


def unchanged(target):
    target.refresh_from_db()
    return (target.weight, target.lever, target.route.timeout_s) == (1, "automatic", None)


def test_strangers_are_asked_to_sign_in(target):
    answers = every_way(Client(), target)

    assert [each.status_code for each in answers] == [401] * 9
    assert {sentences(each) for each in answers} == {"Sign in first."}
    assert unchanged(target)


def test_it_is_for_administrators(target):
    bob = User.objects.create_user("bob@example.com")
    client = Client()
    client.force_login(bob)

    answers = every_way(client, target)

    assert [each.status_code for each in answers] == [403] * 9
    assert {sentences(each) for each in answers} == {"This is for administrators."}
    assert unchanged(target)


def test_staff_may_do_what_the_operator_pages_let_them(target):
    bob = User.objects.create_user("bob@example.com", is_staff=True)
    bob.user_permissions.add(Permission.objects.get(codename="view_target"))
    client = Client()
    client.force_login(bob)

    assert client.get(f"/api/targets/{target.pk}").status_code == 200
    refused = [each.status_code for each in every_way(client, target)]
    assert refused == [403, 403, 403, 200, 403, 503, 403, 403, 403]
    assert unchanged(target)


def test_a_change_must_come_from_a_page_of_ours(ada, target):
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)

    assert client.get(f"/api/targets/{target.pk}").status_code == 200
    answer = patch(client, f"/targets/{target.pk}", {"weight": 9})
    assert answer.status_code == 403
    assert "CSRF" in sentences(answer)
    assert unchanged(target)

    token = csrf_token(client)
    assert patch(client, f"/targets/{target.pk}", {"weight": 9}, x_csrftoken=token).status_code == 200


def csrf_token(client):
    client.get("/api/docs")
    return client.cookies[settings.CSRF_COOKIE_NAME].value


def test_an_account_that_was_switched_off_is_a_stranger(api, ada, target):
    User.objects.filter(pk=ada.pk).update(is_active=False)

    assert api.get("/api/providers").status_code == 401


def test_every_provider_is_listed_by_its_slug(api):
    for slug in ("b", "a"):
        services.add_provider(slug, slug, "https://x.example/v1")

    assert [each["slug"] for each in api.get("/api/providers").json()["items"]] == ["a", "b"]
    assert Provider.objects.count() == 2


def test_from_nothing_to_a_priced_target(api, ada):
    """Everything that a call needs, by the API alone."""
    provider = post(api, "/providers", {"slug": "acme", "name": "Acme", "base_url": "https://a.example/v1"})
    where = f"/providers/{provider.json()['id']}"
    kept = put(api, f"{where}/credential", {"credential": "sk-kept"})
    route = post(api, "/routes", {"model_name": "gpt-4o", "aliases": ["gpt4o"]}).json()
    what = {"provider": "acme", "upstream_model": "gpt-4o-2024"}
    target = post(api, f"/routes/{route['id']}/targets", what).json()
    price = {"valid_from": "2024-01-01T00:00:00+01:00", "input_nanos": 2500, "output_nanos": 10_000}
    priced = post(api, f"/targets/{target['id']}/prices", price)

    assert (provider.status_code, kept.status_code, priced.status_code) == (201, 200, 201)
    assert "sk-kept" not in kept.content.decode()
    secret = reveal(Credential.objects.get(), settings.CREDENTIAL_KEYS, {})
    assert secret.value == "sk-kept"
    [found] = read().routes["gpt4o"].targets
    assert (found.upstream_model, found.id) == ("gpt-4o-2024", target["id"])
    assert (Price.objects.get().cached_input_nanos, priced.json()["valid_from"]) == (
        2500,
        "2023-12-31T23:00:00Z",
    )
    assert audited() == [
        *("provider.added", "credential.replaced", "route.added", "route.changed", "target.added"),
        "price.added",
    ]
    assert set(AuditEvent.objects.values_list("actor_name", "address")) == {(ada.email, "127.0.0.1")}
    assert "sk-kept" not in str(list(AuditEvent.objects.values()))


@pytest.mark.parametrize(
    ("path", "what"),
    [
        ("/providers", {"slug": "acme", "name": "Other", "base_url": "https://o.example"}),
        ("/routes", {"model_name": "gpt4o"}),  # an alias of another
        ("/routes", {"model_name": "new", "aliases": ["gpt-4o"]}),
        ("/routes/{route}/targets", {"provider": "acme", "upstream_model": "gpt-4o-2024"}),
    ],
)
def test_what_is_there_already_is_a_conflict(api, target, path, what):
    before = (Provider.objects.count(), Route.objects.count(), Target.objects.count())

    answer = post(api, path.format(route=target.route_id, target=target.pk), what)

    assert answer.status_code == 409
    assert "already" in sentences(answer)
    after = (Provider.objects.count(), Route.objects.count(), Target.objects.count())
    assert after == before


def test_a_credential_does_not_go_along_to_another_address(api, provider):
    """Whoever may move a provider could else have its credential sent to themselves."""
    answer = patch(api, f"/providers/{provider.pk}", {"base_url": "https://evil.example/v1"})

    assert "Take the credential away first" in sentences(answer)["base_url"]
    assert Provider.objects.get().base_url == "https://acme.example/v1"
    assert patch(api, f"/providers/{provider.pk}", {"base_url": "https://acme.example/v2"}).status_code == 200
    assert api.delete(f"/api/providers/{provider.pk}/credential").status_code == 204
    moved = patch(api, f"/providers/{provider.pk}", {"base_url": "https://other.example/v1"})
    assert moved.json()["credential"]["kept"] == "none"


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"credential": "sk-1", "env_var": "OPENAI_API_KEY"},
        {"credential": "sk 1"},
        {"env_var": "SECRET_KEY"},
    ],
)
def test_a_credential_that_cannot_be_is_refused_and_never_repeated(api, provider, wrong):
    answer = put(api, f"/providers/{provider.pk}/credential", wrong)

    assert answer.status_code == 422
    assert "sk" not in answer.content.decode().replace("ask", "")
    assert Credential.objects.get().encrypted


def test_a_change_is_audited_with_what_was_and_what_is(api, target):
    patch(api, f"/targets/{target.pk}", {"weight": 5, "max_waiting": 1000})
    patch(api, f"/routes/{target.route_id}", {"aliases": ["four"], "model_name": "gpt-4o"})
    patch(api, f"/targets/{target.pk}", {"weight": 5})  # nothing new
    pull(api, target, lever="open", why="They move house.")

    told = [
        (each.action, each.before, each.after)
        for each in AuditEvent.objects.exclude(actor_kind="system").order_by("id")
    ]
    assert told == [
        ("target.changed", {"weight": 1}, {"weight": 5}),
        ("route.changed", {"aliases": ["gpt4o"]}, {"aliases": ["four"]}),
        ("breaker.held_open", {}, {"why": "They move house."}),
    ]


def test_a_name_of_another_route_cannot_be_taken(api, target):
    other = services.add_route("other")

    answer = patch(api, f"/routes/{other.pk}", {"aliases": ["fine", "gpt4o"]})

    assert sentences(answer) == {"aliases": "The route gpt-4o answers to gpt4o already."}
    assert Route.objects.get(pk=other.pk).aliases == []


def test_a_target_is_removed_with_its_prices(api, target):
    moment = datetime(2024, 1, 1, tzinfo=UTC)
    services.add_price(target, moment, input_nanos=1, cached_input_nanos=1, output_nanos=1)

    assert api.delete(f"/api/targets/{target.pk}").status_code == 204
    assert not Target.objects.exists()
    assert not Price.objects.exists()
    assert audited()[-1] == "target.removed"
