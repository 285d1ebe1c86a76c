"""Vendors we know: an API key in the environment becomes a provider with its usual routes.

Pure: the environment in, registrations and sentences out. Nothing is written here,
and no credential is copied: a registration names the variable that holds it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gateway.inputs import Unusable, clean_base_url, clean_credential, clean_name
from gateway.relay.catalog import Rule

BY_MODEL_NAME = "by model name"
"""Price list: that of the vendor who made what the model name says."""
BY_ADDRESS = "by address"
"""Price list: that of the vendor whose address this is, if any."""
HOLYSHEEP = "holysheep"
"""Price list: HolySheep's own book, `gateway/price_books.py`."""

SIMULATOR = "simulator"
COMPATIBLE = "openai-compatible"
COMPATIBLE_BASE_URL = "OPENAI_COMPATIBLE_BASE_URL"
COMPATIBLE_API_KEY = "OPENAI_COMPATIBLE_API_KEY"
COMPATIBLE_MODELS = "OPENAI_COMPATIBLE_MODELS"


@dataclass(frozen=True, slots=True)
class RoutePreset:
    """A model name that clients ask for, and what the provider calls it."""

    model_name: str
    upstream_model: str
    aliases: tuple[str, ...] = ()
    parameters: Mapping[str, Rule] = field(default_factory=dict)
    """What is done with parameters that the upstream model does not take."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A provider to be known, with its usual routes.

    `order` places its targets among those of other providers of the same route, lower first.
    `env_var` names the variable with the credential; empty: calls carry none.
    """

    slug: str
    name: str
    base_url: str
    routes: tuple[RoutePreset, ...]
    order: int
    price_list: str
    env_var: str = ""
    simulated: bool = False


def _same(*model_names: str, parameters: Mapping[str, Rule] | None = None) -> tuple[RoutePreset, ...]:
    return tuple(RoutePreset(each, each, parameters=parameters or {}) for each in model_names)


REASONS: Mapping[str, Rule] = {"max_tokens": "translate"}
"""OpenAI's upstream models that reason take max_completion_tokens in its place, and refuse the old name."""
OLDER: Mapping[str, Rule] = {
    "max_completion_tokens": "translate",
    "response_format": "translate",
    "developer": "translate",
}
"""DeepSeek speaks an older dialect: it passes over the new name of the bound of tokens, so that no bound
would hold, and takes neither schemas nor developer messages."""


VENDORS = (
    Registration(
        slug=HOLYSHEEP,
        name="HolySheep",
        base_url="https://api.holysheep.ai/v1",
        routes=(
            *_same("gpt-4.1", "gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5"),
            RoutePreset("gemini-2.5-flash", "gemini-2.5-flash", ("gemini-2-5-flash",)),
            RoutePreset("deepseek-v3.2", "deepseek-v3.2", ("deepseek-v3-2",)),
        ),
        order=0,
        price_list=HOLYSHEEP,
        env_var="HOLYSHEEP_API_KEY",
    ),
    Registration(
        slug="openai",
        name="OpenAI",
        base_url="https://api.openai.com/v1",
        routes=(
            *_same("gpt-4.1", "gpt-4.1-mini", "gpt-4o", "gpt-4o-mini"),
            *_same("gpt-5", "gpt-5-mini", parameters=REASONS),
        ),
        order=1,
        price_list="openai",
        env_var="OPENAI_API_KEY",
    ),
    Registration(
        slug="deepseek",
        name="DeepSeek",
        base_url="https://api.deepseek.com/v1",
        routes=_same("deepseek-chat", "deepseek-reasoner", parameters=OLDER),
        order=2,
        price_list="deepseek",
        env_var="DEEPSEEK_API_KEY",
    ),
    Registration(
        slug="gemini",
        name="Gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta/openai",
        routes=_same("gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5-pro"),
        order=3,
        price_list="google",
        env_var="GEMINI_API_KEY",
    ),
    Registration(
        slug="openrouter",
        name="OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        routes=(
            RoutePreset("gpt-4.1", "openai/gpt-4.1", ("openai/gpt-4.1",)),
            RoutePreset("gpt-4o", "openai/gpt-4o", ("openai/gpt-4o",)),
            RoutePreset("gpt-4o-mini", "openai/gpt-4o-mini", ("openai/gpt-4o-mini",)),
            RoutePreset("claude-sonnet-4-5", "anthropic/claude-sonnet-4.5", ("anthropic/claude-sonnet-4.5",)),
            RoutePreset("gemini-2.5-flash", "google/gemini-2.5-flash", ("google/gemini-2.5-flash",)),
            RoutePreset("deepseek-v3.2", "deepseek/deepseek-v3.2", ("deepseek/deepseek-v3.2",)),
        ),
        order=4,
        price_list="openrouter",
        env_var="OPENROUTER_API_KEY",
    ),
)
COMPATIBLE_ORDER = len(VENDORS)
SIMULATED_ROUTES = _same(
    "gpt-4.1", "gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "gemini-2.5-flash", "deepseek-v3.2"
)

RESOURCE = "{resource}"
"""Stands in an address for a name that the operator has to give."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A vendor, or a kind of server, to begin with where a provider is added by hand."""

    slug: str
    name: str
    base_url: str
    """Empty: the operator gives it. With RESOURCE in it: they give that name."""
    env_var: str
    """What the variable with the credential is usually called."""
    price_list: str = BY_ADDRESS
    routes: tuple[RoutePreset, ...] = ()
    order: int = COMPATIBLE_ORDER
    needs_credential: bool = True


CHOICES = (
    *(
        Choice(each.slug, each.name, each.base_url, each.env_var, each.price_list, each.routes, each.order)
        for each in VENDORS
    ),
    Choice(
        "azure",
        "Azure OpenAI",
        f"https://{RESOURCE}.openai.azure.com/openai/v1",
        "AZURE_OPENAI_API_KEY",
        "azure",
    ),
    Choice("vllm", "vLLM", "http://localhost:8000/v1", "VLLM_API_KEY", needs_credential=False),
    Choice("ollama", "Ollama", "http://localhost:11434/v1", "OLLAMA_API_KEY", needs_credential=False),
    Choice(COMPATIBLE, "Any compatible server", "", COMPATIBLE_API_KEY, needs_credential=False),
)


def usual_routes(slug: str) -> tuple[RoutePreset, ...]:
    """Of the vendor of that slug; none where it is nobody that we know."""
    return next((each.routes for each in VENDORS if each.slug == slug), ())


def price_list_of(base_url: str, *, simulated: bool) -> str:
    """The list with the prices of whoever is at this address."""
    if simulated:
        return BY_MODEL_NAME
    host = urlsplit(base_url).hostname or ""
    for each in CHOICES:
        own = urlsplit(each.base_url.replace(RESOURCE, "resource")).hostname or ""
        suffix = own.removeprefix("resource")
        if each.price_list != BY_ADDRESS and (host == own or (suffix != own and host.endswith(suffix))):
            return each.price_list
    return BY_ADDRESS


API_KEYS = tuple(each.env_var for each in VENDORS)
VARIABLES = (*API_KEYS, COMPATIBLE_BASE_URL, COMPATIBLE_API_KEY, COMPATIBLE_MODELS)
"""Every variable that is read here."""


def registrations(environ: Mapping[str, str]) -> tuple[list[Registration], list[str]]:
    """Providers that the environment has keys for, in preset order, and sentences for the operator.

    Raises Unusable where a variable has a value that cannot work, or one is missing beside another.
    """
    given = {name: environ[name].strip() for name in VARIABLES if name in environ}
    sentences = [f"{name} is set but blank, so it counts as absent." for name in given if not given[name]]
    found = [each for each in VENDORS if _has_credential(given, each.env_var)]
    compatible = _compatible(given)
    return ([*found, compatible] if compatible else found), sentences


def simulator(base_url: str) -> Registration:
    """The stand-in provider for an environment without any key."""
    return Registration(
        slug=SIMULATOR,
        name="Simulator",
        base_url=base_url,
        routes=SIMULATED_ROUTES,
        order=COMPATIBLE_ORDER + 1,
        price_list=BY_MODEL_NAME,
        simulated=True,
    )


def _has_credential(given: Mapping[str, str], env_var: str) -> bool:
    if not given.get(env_var):
        return False
    clean_credential(given[env_var], env_var)
    return True


_NEEDS = {
    COMPATIBLE_BASE_URL: "set it to the provider's address, such as https://llm.example.com/v1",
    COMPATIBLE_MODELS: "set it to the model names to offer, separated by commas",
}


def _compatible(given: Mapping[str, str]) -> Registration | None:
    """The OPENAI_COMPATIBLE_* provider. Its API key may be absent: many local servers ask for none."""
    asked = [name for name in (COMPATIBLE_BASE_URL, COMPATIBLE_API_KEY, COMPATIBLE_MODELS) if given.get(name)]
    if not asked:
        return None
    for needed in (COMPATIBLE_BASE_URL, COMPATIBLE_MODELS):
        if needed not in asked:
            raise Unusable(f"{asked[0]} is set without {needed}: {_NEEDS[needed]}, or unset {asked[0]}.")
    base_url = clean_base_url(given[COMPATIBLE_BASE_URL], COMPATIBLE_BASE_URL)
    has_key = _has_credential(given, COMPATIBLE_API_KEY)
    return Registration(
        slug=COMPATIBLE,
        name=f"OpenAI-compatible ({urlsplit(base_url).hostname})",
        base_url=base_url,
        routes=_same(*_model_names(given[COMPATIBLE_MODELS])),
        order=COMPATIBLE_ORDER,
        price_list=BY_ADDRESS,
        env_var=COMPATIBLE_API_KEY if has_key else "",
    )


def _model_names(raw: str) -> list[str]:
    given = [each for each in raw.split(",") if each.strip()]
    if not given:
        raise Unusable(f"{COMPATIBLE_MODELS} has no model name in it: {_NEEDS[COMPATIBLE_MODELS]}.")
    return list(dict.fromkeys(clean_name(each, f"A model name in {COMPATIBLE_MODELS}") for each in given))
