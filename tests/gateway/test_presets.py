import pytest

from gateway.inputs import Unusable
from gateway.presets import API_KEYS, SIMULATED_ROUTES, registrations, simulator, usual_routes
from gateway.relay.parameters import check_rules


def slugs(environ):
    return [each.slug for each in registrations(environ)[0]]


def test_an_empty_environment_registers_nothing_and_says_nothing():
    assert registrations({}) == ([], [])


@pytest.mark.parametrize("env_var", API_KEYS)
def test_a_provider_key_registers_its_provider_by_reference(env_var):
    [found], sentences = registrations({env_var: "sk-secret"})

    assert found.env_var == env_var
    assert found.base_url.startswith("https://")
    assert "sk-secret" not in repr(found)
    assert sentences == []


def test_providers_come_in_preset_order_whatever_the_order_of_the_environment():
    environ = dict.fromkeys(reversed(API_KEYS), "sk")
    found = registrations(environ)[0]

    assert [each.env_var for each in found] == list(API_KEYS)
    assert [each.order for each in found] == sorted(each.order for each in found)


def test_a_vendors_usual_routes_are_found_by_its_slug():
    [found], _ = registrations({"OPENAI_API_KEY": "sk"})

    assert usual_routes("openai") == found.routes
    assert usual_routes("acme") == ()


def test_holysheep_has_its_six_usual_routes_and_two_aliases():
    [found], _ = registrations({"HOLYSHEEP_API_KEY": "sk"})

    assert found.base_url == "https://api.holysheep.ai/v1"
    assert [each.model_name for each in found.routes] == [each.model_name for each in SIMULATED_ROUTES]
    assert {each.model_name: each.aliases for each in found.routes if each.aliases} == {
        "gemini-2.5-flash": ("gemini-2-5-flash",),
        "deepseek-v3.2": ("deepseek-v3-2",),
    }


@pytest.mark.parametrize("blank", ["", "   ", "\n"])
def test_a_blank_variable_counts_as_absent_and_a_sentence_says_so(blank):
    found, sentences = registrations({"OPENAI_API_KEY": blank, "DEEPSEEK_API_KEY": "sk"})

    assert [each.slug for each in found] == ["deepseek"]
    assert sentences == ["OPENAI_API_KEY is set but blank, so it counts as absent."]


def test_a_key_with_a_line_break_inside_is_refused_without_being_repeated():
    with pytest.raises(Unusable, match="OPENAI_API_KEY has a blank, a line break") as refused:
        registrations({"OPENAI_API_KEY": "sk-one\nsk-two"})

    assert "sk-one" not in str(refused.value)


def test_a_compatible_provider_has_a_route_for_each_model_name():
    environ = {
        "OPENAI_COMPATIBLE_BASE_URL": "http://127.0.0.1:11434/v1/",
        "OPENAI_COMPATIBLE_API_KEY": "sk",
        "OPENAI_COMPATIBLE_MODELS": " llama3.1:8b, qwen3 ,,llama3.1:8b",
    }
    [found], sentences = registrations(environ)

    assert found.base_url == "http://127.0.0.1:11434/v1"
    assert [each.model_name for each in found.routes] == ["llama3.1:8b", "qwen3"]
    assert found.env_var == "OPENAI_COMPATIBLE_API_KEY"
    assert sentences == []


def test_a_compatible_provider_needs_no_key():
    environ = {"OPENAI_COMPATIBLE_BASE_URL": "http://llm:8000/v1", "OPENAI_COMPATIBLE_MODELS": "m"}
    [found], _ = registrations(environ)

    assert found.env_var == ""


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"OPENAI_COMPATIBLE_BASE_URL": "http://llm/v1"},
            "OPENAI_COMPATIBLE_BASE_URL is set without OPENAI_COMPATIBLE_MODELS",
        ),
        (
            {"OPENAI_COMPATIBLE_API_KEY": "sk", "OPENAI_COMPATIBLE_MODELS": "m"},
            "OPENAI_COMPATIBLE_API_KEY is set without OPENAI_COMPATIBLE_BASE_URL",
        ),
        (
            {"OPENAI_COMPATIBLE_BASE_URL": "http://llm/v1", "OPENAI_COMPATIBLE_MODELS": " , "},
            "has no model name in it",
        ),
        (
            {"OPENAI_COMPATIBLE_BASE_URL": "ftp://llm/v1", "OPENAI_COMPATIBLE_MODELS": "m"},
            "OPENAI_COMPATIBLE_BASE_URL must begin with http:// or https://",
        ),
        (
            {"OPENAI_COMPATIBLE_BASE_URL": "http://me:pw@llm/v1", "OPENAI_COMPATIBLE_MODELS": "m"},
            "OPENAI_COMPATIBLE_BASE_URL has a user name in it",
        ),
        (
            {"OPENAI_COMPATIBLE_BASE_URL": "http://llm/v1", "OPENAI_COMPATIBLE_MODELS": "a\r\nHost: b"},
            "A model name in OPENAI_COMPATIBLE_MODELS has a line break",
        ),
    ],
)
def test_a_half_given_or_unusable_compatible_provider_is_refused_with_help(environ, sentence):
    with pytest.raises(Unusable, match=sentence):
        registrations(environ)


def test_the_simulator_serves_the_routes_a_newcomer_tries():
    found = simulator("http://127.0.0.1:9/v1")

    assert found.simulated
    assert [each.model_name for each in found.routes] == [
        "gpt-4.1",
        "gpt-4o",
        "gpt-4o-mini",
        "claude-sonnet-4-5",
        "gemini-2.5-flash",
        "deepseek-v3.2",
    ]


def test_openais_reasoning_models_get_the_parameter_that_they_take():
    [found], _ = registrations({"OPENAI_API_KEY": "sk"})

    assert {each.model_name: dict(each.parameters) for each in found.routes if each.parameters} == {
        "gpt-5": {"max_tokens": "translate"},
        "gpt-5-mini": {"max_tokens": "translate"},
    }


def test_deepseek_is_spoken_to_in_its_older_dialect():
    [found], _ = registrations({"DEEPSEEK_API_KEY": "sk"})

    for each in found.routes:
        check_rules(each.parameters)
        assert dict(each.parameters) == dict.fromkeys(
            ("max_completion_tokens", "response_format", "developer"), "translate"
        )
