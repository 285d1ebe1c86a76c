from datetime import date

import pytest

from accounts.authentication import check_peppers
from accounts.changes import change_number
from accounts.models import ApiKey, Membership, Team, User
from gateway import services
from gateway.first_run import SetUpRefused, administrator, is_obvious, set_up
from gateway.inputs import Unusable
from gateway.models import Credential, ExchangeRate, Price, Provider, Route, Target
from gateway.services import WrongCurrency

pytestmark = pytest.mark.django_db

SIMULATOR_URL = "http://127.0.0.1:1/v1"
HOLYSHEEPS = "gpt-4.1, gpt-4o, gpt-4o-mini, claude-sonnet-4-5, gemini-2.5-flash, deepseek-v3.2"
COMPATIBLE = {"OPENAI_COMPATIBLE_BASE_URL": "http://llm:8000/v1", "OPENAI_COMPATIBLE_MODELS": "qwen3"}


def run(environ=None, currency="USD"):
    return set_up(environ or {}, currency, lambda: SIMULATOR_URL)


def everything():
    """Every row that set-up may write, to compare a run with the next."""
    tables = (User, Team, Membership, ApiKey, Provider, Credential, Route, Target, Price)
    return [list(table.objects.order_by("pk").values()) for table in tables]


def targets_of(model_name):
    return [each.provider.slug for each in Route.objects.get(model_name=model_name).targets.all()]


def test_a_first_run_makes_an_administrator_a_team_and_a_key():
    done = run()
    admin = User.objects.get()
    team = Team.objects.get()

    assert done.changed
    assert (admin.email, admin.is_superuser, admin.is_staff) == ("admin@penstock.internal", True, True)
    assert admin.check_password(done.administrator.password)
    assert done.administrator.generated
    assert Membership.objects.get(user=admin, team=team).role == Membership.Role.OWNER
    assert done.api_key.startswith("pst_")
    assert ApiKey.objects.get().team == team


def test_the_currency_of_the_first_run_is_that_of_the_books_for_good():
    run(currency="EUR")
    before = everything()

    with pytest.raises(WrongCurrency, match="the books of this VAR_DIR are in EUR, not USD"):
        run(currency="USD")
    assert everything() == before
    assert not run(currency="EUR").changed


def test_a_refused_first_run_leaves_the_currency_open():
    with pytest.raises(SetUpRefused):
        run({"PENSTOCK_ADMIN_PASSWORD": "admin"}, currency="EUR")

    assert run(currency="USD").changed


def test_without_a_provider_key_there_is_a_simulated_provider_with_priced_routes():
    done = run()
    provider = Provider.objects.get()

    assert (provider.simulated, provider.base_url) == (True, SIMULATOR_URL)
    assert not Credential.objects.exists()
    assert set(Route.objects.values_list("model_name", flat=True)) == {
        "gpt-4.1",
        "gpt-4o",
        "gpt-4o-mini",
        "claude-sonnet-4-5",
        "gemini-2.5-flash",
        "deepseek-v3.2",
    }
    assert not Target.objects.filter(prices=None).exists()
    assert "answers are simulated" in done.sentences[0]


def test_a_second_run_changes_nothing():
    run()
    before, changes = everything(), change_number()

    done = run()

    assert everything() == before
    assert change_number() == changes
    assert not done.changed
    assert done.administrator is None
    assert done.api_key is None


def test_the_administrator_of_the_environment_is_used_and_his_password_is_not_shown():
    done = run({"PENSTOCK_ADMIN_EMAIL": "ops@example.com", "PENSTOCK_ADMIN_PASSWORD": "a long stone bridge"})

    assert User.objects.get(email="ops@example.com").check_password("a long stone bridge")
    assert not done.administrator.generated
    assert "stone" not in repr(done)


@pytest.mark.parametrize(
    "password", ["admin", "password", "changeme", "Password123!", "administrator-1", "short", "123456789012"]
)
def test_an_obvious_or_short_password_is_refused_and_nothing_is_written(password):
    with pytest.raises(SetUpRefused, match=r"^PENSTOCK_ADMIN_PASSWORD is refused: .* unset it"):
        run({"PENSTOCK_ADMIN_PASSWORD": password})

    assert not User.objects.exists()
    assert not Provider.objects.exists()


def test_a_wrong_email_address_is_refused():
    with pytest.raises(SetUpRefused, match="PENSTOCK_ADMIN_EMAIL is not an e-mail address: 'admin'"):
        administrator({"PENSTOCK_ADMIN_EMAIL": "admin"})


def test_obvious_is_what_everybody_tries_first():
    assert is_obvious("Penstock-2026")
    assert is_obvious("1234 5678 9012")
    assert not is_obvious("penstocks are gated pipes")
    assert not is_obvious("水門水門水門水門水門")


def test_a_member_is_not_made_an_administrator():
    User.objects.create_user("ops@example.com", "a long stone bridge")

    with pytest.raises(SetUpRefused, match="is a user but no administrator"):
        run({"PENSTOCK_ADMIN_EMAIL": "OPS@example.com"})


def test_providers_of_the_same_route_are_its_targets_in_preset_order():
    run({"OPENAI_API_KEY": "sk", "HOLYSHEEP_API_KEY": "sk", "OPENROUTER_API_KEY": "sk"})

    assert targets_of("gpt-4o") == ["holysheep", "openai", "openrouter"]
    assert targets_of("gpt-5") == ["openai"]
    assert "deepseek-v3-2" in Route.objects.get(model_name="deepseek-v3.2").aliases


def test_targets_begin_with_the_rules_of_their_preset():
    run({"OPENAI_API_KEY": "sk"})

    rules = dict(Target.objects.values_list("upstream_model", "parameters"))
    assert rules["gpt-5"] == {"max_tokens": "translate"}
    assert rules["gpt-4o"] == {}


def test_a_key_in_the_environment_is_referred_to_and_not_copied():
    run({"OPENAI_API_KEY": "sk-very-secret"})
    credential = Credential.objects.get()

    assert (credential.env_var, credential.encrypted) == ("OPENAI_API_KEY", "")
    assert "sk-very-secret" not in repr(everything())


def test_a_provider_that_appears_later_is_added_and_the_simulated_one_switched_off():
    run()
    done = run({"HOLYSHEEP_API_KEY": "sk"})

    assert done.changed
    assert not Provider.objects.get(slug="simulator").enabled
    assert targets_of("gpt-4o") == ["holysheep", "simulator"]
    assert done.sentences[:2] == [
        "A real provider is known now, so the simulated one is switched off.",
        f"HolySheep answers to {HOLYSHEEPS}.",
    ]


def test_a_gateway_that_was_tried_out_serves_on_while_the_exchange_rate_of_its_first_provider_is_missing():
    run()
    done = run({"HOLYSHEEP_API_KEY": "sk"})

    assert set(Route.objects.values_list("unpriced", flat=True)) == {Route.Unpriced.ALLOWED}
    assert done.sentences[2:] == [
        f"The price of {HOLYSHEEPS} is in JPY, and no exchange rate to USD is known: calls are let through "
        "and flagged as unpriced. Enter one at /admin/gateway/exchangerate/, and calls are priced, "
        "also those before it."
    ]
    assert not run({"HOLYSHEEP_API_KEY": "sk"}).changed


def test_an_operator_who_switches_the_simulator_on_again_is_left_alone():
    environ = {"HOLYSHEEP_API_KEY": "sk"}
    run(environ | {"PENSTOCK_ADMIN_EMAIL": "ops@example.com"})
    services.add_provider("simulator", "Simulator", SIMULATOR_URL, simulated=True)

    done = run(environ)

    assert Provider.objects.get(slug="simulator").enabled
    assert done.sentences == [
        f"HolySheep answers to {HOLYSHEEPS}.",
        "Some answers may be simulated: a simulated provider is switched on.",
    ]


def test_a_variable_that_went_away_is_named():
    run({"OPENAI_API_KEY": "sk"})

    assert run().sentences == [
        "OPENAI_API_KEY is not set any more, so OpenAI is left out until it is.",
        "No model name is served now: set a provider key, or switch the simulator on "
        "at /admin/gateway/provider/, and start again.",
    ]


def test_every_start_says_who_answers_and_who_signs_in():
    run(COMPATIBLE | {"PENSTOCK_ADMIN_EMAIL": "ops@example.com"})
    done = run(COMPATIBLE)

    assert done.sentences == ["OpenAI-compatible (llm) answers to qwen3."]
    assert done.sign_in == "ops@example.com"


def test_every_start_on_the_simulator_says_so():
    run()

    assert run().sentences == [f"Answers are simulated and labelled so, for {HOLYSHEEPS}."]


def test_of_a_thousand_model_names_a_start_names_the_first():
    run(COMPATIBLE)
    provider = Provider.objects.get(slug="openai-compatible")
    for number in range(25):
        route = services.add_route(f"m{number}", unpriced=Route.Unpriced.ALLOWED)
        services.add_target(route, provider, f"m{number}")

    [sentence] = run(COMPATIBLE).sentences
    assert sentence.startswith("OpenAI-compatible (llm) answers to qwen3, m0, m1,")
    assert sentence.endswith(", m17, m18 and 6 others.")


@pytest.mark.parametrize("off", [Provider, Route, Target])
def test_a_start_where_everything_is_switched_off_says_that_nothing_is_served(off):
    run()
    off.objects.update(enabled=False)

    assert run().sentences[-1].startswith("No model name is served now: set a provider key")


def test_a_target_without_a_price_serves_nobody_where_its_route_refuses_it():
    run()
    Price.objects.all().delete()

    assert run().sentences[-1].startswith("No model name is served now")


def test_a_compatible_route_without_a_known_price_lets_calls_through_and_says_so():
    done = run(COMPATIBLE)
    route = Route.objects.get()

    assert route.unpriced == Route.Unpriced.ALLOWED
    assert not Price.objects.exists()
    assert done.sentences[-1].startswith(
        "No price is known for qwen3: calls are let through and flagged as unpriced."
    )


def test_a_route_that_was_there_keeps_refusing_what_has_no_price():
    run({"OPENAI_API_KEY": "sk"})
    done = run({"OPENAI_API_KEY": "sk", **COMPATIBLE, "OPENAI_COMPATIBLE_MODELS": "gpt-4o"})

    assert Route.objects.get(model_name="gpt-4o").unpriced == Route.Unpriced.REFUSED
    assert "No price is known for gpt-4o: calls are not sent there" in " ".join(done.sentences)


def test_a_model_name_added_to_the_list_becomes_a_route_at_the_next_start():
    run(COMPATIBLE)
    done = run(COMPATIBLE | {"OPENAI_COMPATIBLE_MODELS": "qwen3,llama3"})

    assert done.changed
    assert targets_of("llama3") == ["openai-compatible"]


def test_another_compatible_address_is_not_taken_over_silently():
    run(COMPATIBLE)
    done = run(COMPATIBLE | {"OPENAI_COMPATIBLE_BASE_URL": "http://other:8000/v1"})

    assert Provider.objects.get().base_url == "http://llm:8000/v1"
    assert "http://llm:8000/v1, which is kept" in done.sentences[0]


def test_a_ledger_in_another_currency_has_prices_in_dollars_that_wait_for_an_exchange_rate():
    done = run({"OPENAI_API_KEY": "sk"}, currency="JPY")

    assert set(Price.objects.values_list("currency", flat=True)) == {"USD"}
    assert set(Route.objects.values_list("unpriced", flat=True)) == {Route.Unpriced.ALLOWED}
    assert "is in USD, and no exchange rate to JPY is known: calls are let through" in done.sentences[-1]


def test_with_an_exchange_rate_list_prices_in_dollars_count_in_a_ledger_of_another_currency():
    ExchangeRate.objects.create(base="USD", quote="JPY", valid_from=date(2020, 1, 1), rate_nanos=150 * 10**9)

    done = run({"OPENAI_API_KEY": "sk"}, currency="JPY")

    assert set(Route.objects.values_list("unpriced", flat=True)) == {Route.Unpriced.REFUSED}
    assert "exchange rate" not in " ".join(done.sentences)


def test_a_route_that_refuses_unpriced_calls_is_not_served_while_its_currency_has_no_rate():
    run({"OPENAI_API_KEY": "sk"}, currency="JPY")
    Route.objects.update(unpriced=Route.Unpriced.REFUSED)

    done = run({"OPENAI_API_KEY": "sk"}, currency="JPY")

    assert done.sentences[-1].startswith("No model name is served now")


def test_holysheep_comes_with_its_book_in_yen():
    run({"HOLYSHEEP_API_KEY": "sk"}, currency="JPY")
    price = Price.objects.get(target__upstream_model="gpt-4.1")

    assert (price.currency, price.input_nanos, price.output_nanos) == ("JPY", 2 * 10**9, 8 * 10**9)
    assert price.source == "HolySheep's price book"
    assert set(Route.objects.values_list("unpriced", flat=True)) == {Route.Unpriced.REFUSED}


def test_a_list_price_keeps_its_tiers_and_its_kinds_of_tokens():
    run()
    price = Price.objects.get(target__upstream_model="claude-sonnet-4-5")

    assert (price.currency, price.cache_write_nanos) == ("USD", 3_750_000_000)
    assert [each["above_tokens"] for each in price.tiers] == [200_000]


def test_a_half_given_provider_leaves_nothing_behind():
    with pytest.raises(Unusable):
        run({"OPENAI_COMPATIBLE_BASE_URL": "http://llm/v1"})

    assert not User.objects.exists()


def test_a_set_up_that_breaks_off_in_the_middle_leaves_nothing_behind():
    def no_port_is_free():
        raise OSError("no port is free")

    with pytest.raises(OSError, match="no port is free"):
        set_up({}, "USD", no_port_is_free)

    assert not User.objects.exists()
    assert not ApiKey.objects.exists()


def test_what_a_first_run_makes_fits_the_peppers_of_the_settings(settings):
    run()

    check_peppers(settings.KEY_PEPPERS)
