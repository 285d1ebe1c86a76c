import re
import ssl
from datetime import UTC, datetime

import pytest
import trustme
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission

from accounts.changes import change_number
from accounts.models import ApiKey, AuditEvent, Team, User
from gateway import services, upstreams
from gateway.credentials import reveal
from gateway.models import (
    Attempt,
    BreakerChange,
    Credential,
    Entry,
    ExchangeRate,
    Price,
    Provider,
    Route,
    Target,
)
from gateway.relay.catalog import PoolConfig
from gateway.relay.gate import Gate
from gateway.relay.targets import TargetState
from gateway.snapshot import price_of, read

pytestmark = pytest.mark.django_db

PROVIDERS = "/admin/gateway/provider/"
ROUTES = "/admin/gateway/route/"
TARGETS = "/admin/gateway/target/"
CHANGES = "/admin/gateway/breakerchange/"
PRICES = "/admin/gateway/price/"
ENTRIES = "/admin/gateway/entry/"


@pytest.fixture
def operator(client):
    client.force_login(User.objects.create_superuser("ops@example.com"))
    return client


@pytest.fixture
def provider():
    return services.add_provider("acme", "Acme", "https://acme.example/v1")


@pytest.fixture
def target(provider):
    return services.add_target(services.add_route("gpt-4o"), provider, "gpt-4o")


def a_provider(**others):
    return {"name": "Acme", "slug": "acme", "base_url": "https://acme.example/v1", "enabled": "on"} | others


def a_route(*targets, **others):
    form = {"model_name": "gpt-4o", "aliases": "", "unpriced": "refused", "enabled": "on"}
    form |= {"overflow": "refuse", "overflow_route": "", "timeout_s": "", "hang_up_drain_s": "0"}
    form |= {"max_tokens": 100_000, "usual_max_tokens": 1000, "max_choices": 8}
    form |= {"targets-TOTAL_FORMS": len(targets), "targets-INITIAL_FORMS": 0}
    for number, each in enumerate(targets):
        form |= {f"targets-{number}-{name}": value for name, value in each.items()}
    return form | others


def a_target(provider, **others):
    return {
        "provider": provider.pk,
        "upstream_model": "gpt-4o",
        "order": 0,
        "weight": 1,
        "enabled": "on",
    } | others


def credential():
    return reveal(Credential.objects.get(), settings.CREDENTIAL_KEYS, {"ACME_API_KEY": "sk-env"}).value


def refusal(page):
    """The sentences beside the fields of a form that was refused."""
    assert page.status_code == 200
    return page.content.decode()


def test_a_credential_goes_in_encrypted_and_never_comes_out(operator):
    before = change_number()
    assert operator.post(f"{PROVIDERS}add/", a_provider(secret="sk-typed-in")).status_code == 302

    kept = Credential.objects.get()
    assert "sk-typed-in" not in kept.encrypted
    assert credential() == "sk-typed-in"
    assert change_number() > before
    for path in (PROVIDERS, f"{PROVIDERS}{kept.provider_id}/change/"):
        page = operator.get(path).content.decode()
        assert "encrypted, set" in page
        assert "sk-typed-in" not in page
        assert kept.encrypted not in page


def test_a_form_left_empty_keeps_the_credential(operator, provider):
    services.keep_credential(provider, "sk-kept", settings.CREDENTIAL_KEYS)
    operator.post(f"{PROVIDERS}{provider.pk}/change/", a_provider(name="Another name"))

    assert Provider.objects.get().name == "Another name"
    assert credential() == "sk-kept"


def test_a_credential_may_be_left_in_the_environment_or_forgotten(operator, provider):
    url = f"{PROVIDERS}{provider.pk}/change/"
    operator.post(url, a_provider(env_var="ACME_API_KEY"))
    assert credential() == "sk-env"

    operator.post(url, a_provider(env_var="ACME_API_KEY", secret="sk-typed-in"))
    assert credential() == "sk-typed-in"

    services.refer_to_credential(provider, "ACME_API_KEY")
    operator.post(url, a_provider(env_var=""))
    assert not Credential.objects.exists()


@pytest.mark.parametrize(
    "address", ["https://other.example/v1", "http://acme.example/v1", "https://acme.example:8443/v1"]
)
def test_a_kept_credential_does_not_go_along_to_another_address(operator, provider, address):
    services.keep_credential(provider, "sk-kept", settings.CREDENTIAL_KEYS)
    url = f"{PROVIDERS}{provider.pk}/change/"

    page = operator.post(url, a_provider(base_url=address))

    assert "The address changed: enter the credential again." in refusal(page)
    assert Provider.objects.get().base_url == "https://acme.example/v1"

    assert operator.post(url, a_provider(base_url=address, secret="sk-new")).status_code == 302
    assert Provider.objects.get().base_url == address
    assert credential() == "sk-new"


def test_a_kept_credential_goes_along_to_another_path_of_the_same_address(operator, provider):
    services.keep_credential(provider, "sk-kept", settings.CREDENTIAL_KEYS)
    page = operator.post(
        f"{PROVIDERS}{provider.pk}/change/", a_provider(base_url="https://ACME.example:443/v2")
    )

    assert page.status_code == 302
    assert credential() == "sk-kept"


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"base_url": "ftp://acme.example/v1"}, "must begin with http:// or https://"),
        ({"base_url": "https://me:pw@acme.example/v1"}, "has a user name in it"),
        ({"base_url": "https://acme.example/v1\r\nX: y"}, "control character"),
        ({"secret": "sk-one\r\nX-Evil: 1"}, "that a credential cannot have"),
        ({"env_var": "NOT A NAME"}, "only letters, digits and underscores"),
        ({"env_var": "SECRET_KEY"}, "ends in _API_KEY"),
        ({"env_var": "ACME_API_KEY", "secret": "sk"}, "not both"),
    ],
)
def test_what_a_provider_cannot_have_is_refused_with_a_sentence(operator, wrong, sentence):
    assert sentence in refusal(operator.post(f"{PROVIDERS}add/", a_provider(**wrong)))
    assert not Provider.objects.exists()


def test_a_provider_without_a_dot_in_its_name_may_be_used(operator):
    operator.post(f"{PROVIDERS}add/", a_provider(base_url="http://ollama:11434/v1/"))

    assert Provider.objects.get().base_url == "http://ollama:11434/v1"


def test_a_route_is_made_with_its_targets_and_noted(operator, provider):
    before = change_number()
    page = operator.post(f"{ROUTES}add/", a_route(a_target(provider), aliases="gpt4o, four-o"))

    assert page.status_code == 302
    assert Route.objects.get().aliases == ["gpt4o", "four-o"]
    assert Target.objects.get().provider == provider
    assert change_number() > before
    assert "acme/gpt-4o" in operator.get(ROUTES).content.decode()
    assert "gpt4o, four-o" in operator.get(f"{ROUTES}{Route.objects.get().pk}/change/").content.decode()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"model_name": "other"}, "The route other answers to other already."),
        ({"aliases": "other"}, "The route other answers to other already."),
        ({"model_name": "a\x1bb"}, "control character"),
        ({"aliases": "a\x1bb"}, "control character"),
        ({"targets-0-upstream_model": "a\x1bb"}, "control character"),
        ({"targets-0-weight": "1001"}, "less than or equal to 1000"),
        ({"overflow": "reroute"}, "Say with which model name to go on."),
        ({"overflow": "reroute", "overflow_route": "gpt-4o"}, "A route cannot go on with itself."),
        ({"overflow": "reroute", "aliases": "b", "overflow_route": "b"}, "A route cannot go on with itself."),
        ({"overflow_route": "nobody"}, "No route answers to nobody."),
        ({"timeout_s": "0"}, "greater than or equal to 0.01"),
        ({"hang_up_drain_s": "nan"}, "Enter a number."),
    ],
)
def test_what_a_route_cannot_have_is_refused_with_a_sentence(operator, provider, wrong, sentence):
    services.add_route("other")

    assert sentence in refusal(operator.post(f"{ROUTES}add/", a_route(a_target(provider), **wrong)))
    assert Route.objects.count() == 1


def test_a_change_to_a_target_alone_is_noted(operator, target):
    form = a_route(a_target(target.provider, upstream_model="newer", id=target.pk, route=target.route_id))
    form["targets-INITIAL_FORMS"] = 1
    before = change_number()
    operator.post(f"{ROUTES}{target.route_id}/change/", form)

    assert Target.objects.get().upstream_model == "newer"
    assert change_number() > before


def test_a_price_is_written_in_money_and_kept_in_nano_units(operator, target):
    form = {"target": target.pk, "valid_from_0": "2026-01-01", "valid_from_1": "00:00:00"}
    page = operator.post(
        f"{PRICES}add/", form | {"input": "2.5", "cached_input": "", "output": "0.000000001"}
    )

    price = Price.objects.get()
    assert page.status_code == 302
    assert (price.input_nanos, price.cached_input_nanos, price.output_nanos) == (
        2_500_000_000,
        2_500_000_000,
        1,
    )
    assert price.source == "operator"
    listed = operator.get(PRICES).content.decode()
    assert "2.5 USD" in listed
    assert "0.000000001 USD" in listed


@pytest.mark.parametrize("field", ["input", "cached_input", "output"])
def test_a_price_that_no_ledger_could_hold_is_refused_with_a_sentence(operator, target, field):
    form = {"target": target.pk, "valid_from_0": "2026-01-01", "valid_from_1": "00:00:00"}
    form |= {"input": "1000000", "cached_input": "1000000", "output": "1000000"}

    page = operator.post(f"{PRICES}add/", form | {field: "1000000.000000001"})

    assert "A price is at most 1,000,000 for a million tokens or for one request." in refusal(page)
    assert operator.post(f"{PRICES}add/", form).status_code == 302


def test_a_price_that_was_is_looked_at_and_not_changed(operator, target):
    figures = {"input_nanos": 1, "cached_input_nanos": 1, "output_nanos": 1}
    price = services.add_price(target, datetime(2026, 1, 1, tzinfo=UTC), **figures)
    url = f"{PRICES}{price.pk}/change/"

    assert operator.get(url).status_code == 200
    assert operator.post(url, {"input": "9"}).status_code == 403


def test_deleting_is_noted(operator, target):
    before = change_number()
    operator.post(f"{ROUTES}{target.route_id}/delete/", {"post": "yes"})

    assert not Route.objects.exists()
    assert change_number() > before


def test_the_books_are_only_to_look_at(operator, entry):
    assert "acme" in operator.get(f"{ENTRIES}{entry.pk}/change/").content.decode()
    assert operator.get(f"{ENTRIES}add/").status_code == 403
    assert operator.post(f"{ENTRIES}{entry.pk}/change/", {"cost_nanos": 0}).status_code == 403
    assert operator.post(f"{ENTRIES}{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Entry.objects.get().cost_nanos == 7


def test_the_list_of_the_books_is_the_page_of_calls(operator, entry):
    assert operator.get(ENTRIES).headers["Location"] == "/calls/"


def test_the_operator_pages_are_labelled_while_a_simulated_provider_is_on(operator, provider):
    assert "Simulated</span>" not in re.sub(r"\s+", "", operator.get("/admin/").content.decode())

    Provider.objects.update(simulated=True)

    assert "Simulated</span>" in re.sub(r"\s+", "", operator.get("/admin/").content.decode())


def test_the_operator_pages_lead_back_to_the_live_page_and_to_every_table(operator):
    page = re.sub(r"\s+", " ", operator.get("/admin/").content.decode())

    assert re.search(r'<a href="/" [^>]*>(?: <span[^>]*> \w+ </span>)? <span>Live</span>', page)
    for path in (PROVIDERS, ROUTES, TARGETS, CHANGES, PRICES, ENTRIES, "/admin/accounts/user/"):
        assert f'href="{path}"' in page


@pytest.fixture
def entry():
    team = Team.objects.create(name="Blue", slug="blue")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    figures = {"latency_us": 5, "input_tokens": 1, "cached_tokens": 0, "output_tokens": 1, "cost_nanos": 7}
    figures |= {"outcome": "answered", "status": 200, "usage_basis": "reported", "started_at": moment}
    entry = Entry.objects.create(
        call_id="019a0000-0000-7000-8000-000000000001",
        team=team,
        key=ApiKey.objects.create(team=team, name="k"),
        route="gpt-4o",
        streamed=False,
        simulated=False,
        ended_at=moment,
        unpriced=False,
        code="",
        **figures,
    )
    Attempt.objects.create(
        entry=entry, attempt_no=1, target_id=1, provider="acme", upstream_model="gpt-4o", **figures
    )
    return entry


@pytest.mark.parametrize("path", [PROVIDERS, ROUTES, TARGETS, CHANGES, PRICES, ENTRIES])
def test_operator_pages_are_for_administrators(client, path):
    client.force_login(User.objects.create_user("bob@example.com"))

    assert client.get(path).status_code in (302, 403)


def a_whole_target(target, **others):
    """What a target's own page sends."""
    form = {"route": target.route_id, "provider": target.provider_id, "upstream_model": target.upstream_model}
    form |= {name: getattr(target, name) for name in services.TARGET_SETTINGS} | {"enabled": "on"}
    form |= {"parameters": "", "context_window": "", "media_tokens": "", "http2": ""}
    return form | others


def test_all_of_a_target_is_set_on_its_own_page(operator, target):
    pool = PoolConfig(7, 3, 1.5, 2.5, 3.5, 4.5, 5.5, http2=True)
    given = {name: getattr(pool, name) for name in PoolConfig.__dataclass_fields__} | {"http2": "on"}
    given |= {"transport": "httpx", "weight": 4, "max_concurrency": 8, "max_waiting": 9}
    given |= {"context_window": "8192", "parameters": "max_tokens: translate\n\n n : drop "}
    before = change_number()

    page = operator.post(f"{TARGETS}{target.pk}/change/", a_whole_target(target, **given))

    assert page.status_code == 302
    assert change_number() > before
    [found] = read().routes["gpt-4o"].targets
    assert (found.pool, found.transport, found.weight) == (pool, "httpx", 4)
    assert (found.max_concurrency, found.max_waiting, found.context_window) == (8, 9, 8192)
    assert found.parameters == {"max_tokens": "translate", "n": "drop"}
    shown = operator.get(f"{TARGETS}{target.pk}/change/").content.decode()
    assert "max_tokens: translate\nn: drop" in shown
    for fieldset in ("Where", "Pool", "Gate", "Parameters", "Breaker"):
        assert fieldset in shown
    assert "acme/gpt-4o" in operator.get(TARGETS).content.decode()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"weight": "1001"}, "less than or equal to 1000"),
        ({"order": "-1"}, "greater than or equal to 0"),
        ({"connect_timeout_s": "0"}, "greater than or equal to 0.01"),
        ({"http2": "on"}, "HTTP/2 needs the transport httpx."),
        ({"upstream_model": "a\x1bb"}, "control character"),
        ({"parameters": "n"}, "Write a name, a colon and a rule, not: n"),
        ({"parameters": "n: translate"}, "cannot be translated"),
        ({"parameters": "messages: drop"}, "is the gateway"),
    ],
)
def test_what_a_target_cannot_have_is_refused_with_a_sentence(operator, target, wrong, sentence):
    page = operator.post(f"{TARGETS}{target.pk}/change/", a_whole_target(target, **wrong))

    assert sentence in refusal(page)
    assert Target.objects.get().weight == 1


def test_a_target_may_be_added_on_a_page_of_its_own(operator, target):
    form = a_whole_target(target, upstream_model="second")

    assert operator.get(f"{TARGETS}add/").status_code == 200
    assert operator.post(f"{TARGETS}add/", form).status_code == 302
    assert Target.objects.count() == 2


def test_a_route_leads_to_the_page_of_each_of_its_targets(operator, target):
    page = operator.get(f"{ROUTES}{target.route_id}/change/").content.decode()

    assert f'href="{TARGETS}{target.pk}/change/"' in page


def test_the_levers_of_selected_targets_are_pulled_and_noted(operator, target):
    other = services.add_target(services.add_route("other"), target.provider, "other")
    form = {"_selected_action": [target.pk, other.pk]}
    before = change_number()

    page = operator.post(TARGETS, form | {"action": "hold_open"}, follow=True).content.decode()

    assert set(Target.objects.values_list("lever", flat=True)) == {"open"}
    assert "The breaker of acme/gpt-4o is held open: no call goes there." in page
    assert change_number() > before
    assert BreakerChange.objects.filter(by_user__email="ops@example.com").count() == 2
    assert LogEntry.objects.filter(change_message__contains="is held open").count() == 2

    operator.post(TARGETS, form | {"action": "let_go"})
    assert set(Target.objects.values_list("lever", flat=True)) == {"automatic"}
    operator.post(TARGETS, form | {"action": "close"})
    assert None not in Target.objects.values_list("closed_at", flat=True)
    assert BreakerChange.objects.count() == 6


def test_a_lever_that_is_there_already_is_said_and_not_noted(operator, target):
    form = {"_selected_action": [target.pk], "action": "let_go"}

    page = operator.post(TARGETS, form, follow=True).content.decode()

    assert "The breaker of acme/gpt-4o decided by itself already." in page
    assert not BreakerChange.objects.exists()
    assert not LogEntry.objects.exists()


@pytest.mark.parametrize(
    ("button", "lever", "pulled"),
    [
        ("hold_this_open", "automatic", ("open", False)),
        ("let_this_go", "open", ("automatic", False)),
        ("close_this", "open", ("automatic", True)),
    ],
)
def test_a_target_s_page_has_the_levers_that_can_be_pulled(operator, target, button, lever, pulled):
    Target.objects.update(lever=lever)
    url = f"{TARGETS}{target.pk}/change/"
    other = "let_this_go" if lever == "automatic" else "hold_this_open"

    page = operator.get(url).content.decode()
    assert f'name="gateway_target_{button}"' in page
    assert f'name="gateway_target_{other}"' not in page

    operator.post(url, a_whole_target(target, **{f"gateway_target_{button}": "1"}))

    kept = Target.objects.get()
    assert (kept.lever, kept.closed_at is not None) == pulled
    assert BreakerChange.objects.count() == 1


def test_a_lever_pressed_on_a_page_that_is_no_longer_true_says_what_is(operator, target):
    Target.objects.update(lever="open")
    url = f"{TARGETS}{target.pk}/change/"

    page = operator.post(url, a_whole_target(target, gateway_target_hold_this_open="1"), follow=True)

    assert "The breaker of acme/gpt-4o was held open already." in page.content.decode()


def test_saving_a_target_pulls_no_lever(operator, target):
    Target.objects.update(lever="open")

    operator.post(f"{TARGETS}{target.pk}/change/", a_whole_target(target, weight=2))

    assert (Target.objects.get().lever, Target.objects.get().weight) == ("open", 2)
    assert not BreakerChange.objects.exists()


def test_levers_are_for_those_who_may_change_targets(client, target):
    bob = User.objects.create_user("bob@example.com", is_staff=True)
    bob.user_permissions.add(Permission.objects.get(codename="view_target"))
    client.force_login(bob)

    client.post(TARGETS, {"_selected_action": [target.pk], "action": "hold_open"})
    client.post(f"{TARGETS}{target.pk}/change/", a_whole_target(target, gateway_target_hold_this_open="1"))

    assert client.get(TARGETS).status_code == 200
    assert Target.objects.get().lever == "automatic"


def test_the_timeline_is_only_to_look_at(operator, target):
    services.hold_breaker_open(target, User.objects.get(), "It <moves> house.")
    line = BreakerChange.objects.get()

    for page in (CHANGES, f"{CHANGES}?target_id={target.pk}", f"{TARGETS}{target.pk}/change/"):
        shown = operator.get(page).content.decode()
        assert "It &lt;moves&gt; house." in shown
        assert "ops@example.com" in shown
    assert "It &lt;moves" not in operator.get(f"{CHANGES}?target_id={target.pk + 1}").content.decode()
    assert operator.get(f"{CHANGES}{line.pk}/change/").status_code == 200
    assert operator.get(f"{CHANGES}add/").status_code == 403
    assert operator.post(f"{CHANGES}{line.pk}/change/", {"cause": "x"}).status_code == 403
    assert operator.post(f"{CHANGES}{line.pk}/delete/", {"post": "yes"}).status_code == 403


def test_a_refused_credential_is_flagged_in_the_list(operator, provider):
    services.keep_credential(provider, "sk-kept", settings.CREDENTIAL_KEYS)
    assert "with 401" not in operator.get(PROVIDERS).content.decode()

    Credential.objects.update(refused_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), refused_status=401)

    for page in (PROVIDERS, f"{PROVIDERS}{provider.pk}/change/"):
        assert "with 401 at 2026-01-02 03:04:05 UTC" in operator.get(page).content.decode()


def test_a_provider_may_have_certificates_of_its_own(operator, provider):
    certificate = trustme.CA().cert_pem.bytes().decode()
    url = f"{PROVIDERS}{provider.pk}/change/"

    assert "This is no certificate in PEM" in refusal(operator.post(url, a_provider(ca_pem="me")))
    assert operator.post(url, a_provider(ca_pem=certificate)).status_code == 302
    kept = Provider.objects.get().ca_pem
    assert kept.split() == certificate.split()
    ssl.create_default_context(cadata=kept)


def test_an_entry_shows_what_each_attempt_waited_for(operator, entry):
    Attempt.objects.update(code="timeout", queued_us=1_500, backoff_us=2_500_000, probe=True, trimmed=3)

    page = operator.get(f"{ENTRIES}{entry.pk}/change/").content.decode()

    for text in ("timeout", "1.5 ms", "2500.0 ms"):
        assert text in page


@pytest.mark.parametrize("path", [TARGETS, CHANGES])
def test_lists_take_the_same_few_queries_for_many_rows(operator, target, path, django_assert_num_queries):
    ada = User.objects.get()
    for number in range(10):
        row = services.add_target(services.add_route(f"route {number}"), target.provider, "gpt-4o")
        services.hold_breaker_open(row, ada)
    with django_assert_num_queries(6):  # session, user, providers to filter by, a count, simulated?, rows
        operator.get(path)


@pytest.fixture
def relay():
    """What a running relay would tell of its targets."""
    told = []
    upstreams.install(lambda: told)
    yield told
    upstreams.install(None)


@pytest.mark.parametrize(
    ("breaker", "held", "said"),
    [
        ("closed", False, "Closed; 0 of 50 places, 0 waiting"),
        ("half_open", False, "Half-open; 0 of 50 places"),
        ("open", False, "Open, a probe in 41 s; 0 of 50 places"),
        ("open", True, "Held open; 0 of 50 places"),
    ],
)
def test_a_target_shows_what_the_relay_knows_of_it(operator, target, relay, breaker, held, said):
    gate = Gate(50, 1000, lambda: 0.0).figures()
    relay.append(TargetState(target.pk, "gpt-4o", "acme", "gpt-4o", breaker, held, 41.2, 0, gate, None))

    assert said in operator.get(TARGETS).content.decode()
    assert said in operator.get(f"{TARGETS}{target.pk}/change/").content.decode()


def test_without_a_relay_nothing_is_made_up_about_a_target(operator, target):
    assert "Not known in this process" in operator.get(TARGETS).content.decode()
    assert "Closed;" not in operator.get(f"{TARGETS}{target.pk}/change/").content.decode()


# Prices and exchange rates

EXCHANGE_RATES = "/admin/gateway/exchangerate/"


def price_form(target, **more):
    form = {"target": target.pk, "valid_from_0": "2026-01-01", "valid_from_1": "00:00:00"}
    return form | {"input": "2.5", "output": "10"} | more


def test_a_price_has_a_currency_kinds_of_tokens_and_tiers(operator, target):
    more = {"currency": "JPY", "cache_write": "3.75", "reasoning": "0", "audio_output": "80"}
    more |= {"request": "0.01"}
    tiers = "200000: input 5, cached input 1, output 15\n500000: input 7, output 20, reasoning 30\n"
    page = operator.post(f"{PRICES}add/", price_form(target, tiers=tiers, **more))

    price = Price.objects.get()
    assert page.status_code == 302
    assert (price.currency, price.cache_write_nanos, price.reasoning_nanos) == ("JPY", 3_750_000_000, 0)
    assert (price.audio_input_nanos, price.request_nanos) == (None, 10_000_000)
    first, second = price_of(price).tiers
    assert (first.above_tokens, first.cached_input_nanos, first.output_nanos) == (200_000, 10**9, 15 * 10**9)
    assert (second.cached_input_nanos, second.reasoning_nanos) == (7 * 10**9, 30 * 10**9)
    shown = operator.get(f"{PRICES}{price.pk}/change/").content.decode()
    assert "80 JPY" in shown
    assert "above 200,000: 5 JPY in, 15 JPY out" in shown


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"currency": "yen"}, "is no currency"),
        ({"reasoning": "-1"}, "is no amount"),
        ({"tiers": "lots: input 1, output 2"}, "Write a tier like 200000: input 5, output 15"),
        ({"tiers": "5: input 1"}, "Write a tier like 200000: input 5, output 15"),
        ({"tiers": "5: input 1, output 2, tea 3"}, "A tier has no"),
        ({"tiers": "5: input 1, output x"}, "is no amount"),
        ({"tiers": "9: input 1, output 2\n5: input 1, output 2"}, "Tiers go up"),
    ],
)
def test_a_price_that_cannot_be_is_refused_with_a_sentence(operator, target, wrong, why):
    page = operator.post(f"{PRICES}add/", price_form(target, **wrong))

    assert why in refusal(page)
    assert not Price.objects.exists()


def test_a_price_is_audited_once_and_heard_of(operator, target):
    before = change_number()
    operator.post(f"{PRICES}add/", price_form(target))

    assert AuditEvent.objects.filter(action="price.added").count() == 1
    assert change_number() > before


def test_a_price_that_was_is_not_removed(operator, target):
    operator.post(f"{PRICES}add/", price_form(target))
    price = Price.objects.get()

    alone = operator.post(f"{PRICES}{price.pk}/delete/", {"post": "yes"})
    chosen = {"action": "delete_selected", "_selected_action": price.pk, "post": "yes"}
    operator.post(PRICES, chosen)

    assert alone.status_code == 403
    assert Price.objects.exists()


def test_a_target_goes_with_its_prices(operator, target):
    operator.post(f"{PRICES}add/", price_form(target))

    page = operator.post(f"/admin/gateway/target/{target.pk}/delete/", {"post": "yes"})

    assert page.status_code == 302
    assert not Price.objects.exists()


def test_the_form_of_a_price_says_how_to_put_a_wrong_one_right(operator, target):
    assert "never changed or removed" in operator.get(f"{PRICES}add/").content.decode()


def test_an_exchange_rate_is_written_as_people_say_it(operator):
    form = {"base": "USD", "quote": "JPY", "valid_from": "2026-01-01", "rate": "150.25"}
    page = operator.post(f"{EXCHANGE_RATES}add/", form)

    rate = ExchangeRate.objects.get()
    assert (page.status_code, rate.rate_nanos) == (302, 150_250_000_000)
    assert "1 USD = 150.25 JPY" in operator.get(EXCHANGE_RATES).content.decode()
    assert AuditEvent.objects.filter(action="exchange_rate.added").count() == 1
    assert operator.post(f"{EXCHANGE_RATES}{rate.pk}/change/", form).status_code == 403
    assert operator.post(f"{EXCHANGE_RATES}{rate.pk}/delete/", {"post": "yes"}).status_code == 403


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"quote": "USD"}, "between two currencies"),
        ({"rate": "0"}, "is from"),
        ({"base": "usd"}, "no currency"),
    ],
)
def test_an_exchange_rate_that_cannot_be_is_refused_with_a_sentence(operator, wrong, why):
    form = {"base": "USD", "quote": "JPY", "valid_from": "2026-01-01", "rate": "150.25"}

    assert why in refusal(operator.post(f"{EXCHANGE_RATES}add/", form | wrong))
    assert not ExchangeRate.objects.exists()
