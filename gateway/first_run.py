"""First-run set-up: an administrator, a team, an API key, and the providers of the environment.

What is there is left alone, so running it again changes nothing.
Prints nothing: what was done, and what is to be shown once, is handed back.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.utils import timezone

from accounts.models import Team, User
from accounts.services import create_key, create_team
from gateway import exchange, presets, price_books, services, snapshot
from gateway.models import Credential, Provider, Route, Target
from gateway.presets import Registration, RoutePreset
from gateway.relay import catalog

ADMIN_EMAIL = "PENSTOCK_ADMIN_EMAIL"
ADMIN_PASSWORD = "PENSTOCK_ADMIN_PASSWORD"  # noqa: S105 - the variable's name
VARIABLES = (ADMIN_EMAIL, ADMIN_PASSWORD)
DEFAULT_EMAIL = "admin@penstock.internal"  # .internal is kept for private use, so it reaches nobody else
TEAM_NAME = "Default"
KEY_NAME = "first key"
MOST_NAMED = 20

_OBVIOUS = re.compile(
    "(admin|administrator|changeme|changemenow|default|letmein|password|penstock|qwerty|root|secret|test)*"
)


class SetUpRefused(Exception):
    """Set-up cannot go on; the message is one sentence that helps."""


@dataclass(frozen=True, slots=True)
class Administrator:
    """Who signs in first."""

    email: str
    password: str = field(repr=False)
    generated: bool


@dataclass(slots=True)
class SetUp:
    """What set-up did. `administrator` and `api_key` are there only in the run that made them.

    `sign_in` is the address of an administrator who may sign in; empty where all were switched off.
    """

    administrator: Administrator | None = None
    api_key: str | None = field(default=None, repr=False)
    sentences: list[str] = field(default_factory=list)
    sign_in: str = ""
    changed: bool = False


def set_up(environ: Mapping[str, str], currency: str, simulator_url: Callable[[], str]) -> SetUp:
    """Make what is missing, all or nothing. `simulator_url` is asked for only where a simulator is needed.

    Raises SetUpRefused, Unusable, WrongCurrency.
    """
    found, sentences = presets.registrations(environ)
    done = SetUp(sentences=sentences)
    with transaction.atomic():
        services.check_currency(currency)
        if not User.objects.filter(is_superuser=True).exists():
            _make_accounts(administrator(environ), done)
        if not found and not Provider.objects.exists():
            found = [presets.simulator(simulator_url())]
        fresh = [each.slug for each in found if _register(each, currency, done)]
        _name_missing_credentials(environ, done)
        _say_who_answers(environ, fresh, currency, done)
        _remind_of_simulator(done)
        admin = User.objects.filter(is_superuser=True, is_active=True).order_by("pk").first()
        done.sign_in = admin.email if admin else ""
    return done


def administrator(environ: Mapping[str, str]) -> Administrator:
    """The administrator that the environment asks for. Raises SetUpRefused for one that is not safe."""
    email = environ.get(ADMIN_EMAIL, "").strip() or DEFAULT_EMAIL
    try:
        validate_email(email)
    except ValidationError:
        raise SetUpRefused(f"{ADMIN_EMAIL} is not an e-mail address: {email!r}.") from None
    given = environ.get(ADMIN_PASSWORD, "")
    if not given.strip():
        return Administrator(email, secrets.token_urlsafe(12), generated=True)
    _check_password(given, email)
    return Administrator(email, given, generated=False)


def _check_password(password: str, email: str) -> None:
    why = ["It is the kind that everybody tries first."] if is_obvious(password) else []
    try:
        validate_password(password, User(email=email))
    except ValidationError as refused:
        why = refused.messages
    if why:
        raise SetUpRefused(
            f"{ADMIN_PASSWORD} is refused: {why[0]} Choose another, or unset it to have one made."
        )


def is_obvious(password: str) -> bool:
    """A default password or several, also with digits or signs in it, or nothing but those."""
    return _OBVIOUS.fullmatch(re.sub(r"[\W\d_]", "", password.lower())) is not None


def _make_accounts(who: Administrator, done: SetUp) -> None:
    user = User.objects.filter(email__iexact=who.email).first()
    if user:
        raise SetUpRefused(
            f"{who.email} is a user but no administrator: set {ADMIN_EMAIL} to another address."
        )
    user = User.objects.create_superuser(who.email, who.password)
    team = Team.objects.filter(name=TEAM_NAME).first() or create_team(TEAM_NAME, user)
    _, done.api_key = create_key(team, KEY_NAME, user)
    done.administrator, done.changed = who, True


def _register(wanted: Registration, currency: str, done: SetUp) -> bool:
    """Add a provider that is not there yet; to the OPENAI_COMPATIBLE_* one also new model names.

    Whether the provider is new, and so was said to answer.
    """
    provider = Provider.objects.filter(slug=wanted.slug).first()
    is_new = provider is None
    if provider is None:
        provider = _add_provider(wanted, done)
        fresh = wanted.routes
    elif wanted.slug == presets.COMPATIBLE:
        fresh = _newly_asked_for(wanted, provider, done)
    else:
        return False
    targets = [_add_target(each, wanted, provider, currency) for each in fresh]
    if fresh:
        done.changed = True
        done.sentences.append(_registered(wanted, fresh))
        done.sentences.extend(_without_price(targets, currency))
    return is_new


def _add_provider(wanted: Registration, done: SetUp) -> Provider:
    provider = services.add_provider(wanted.slug, wanted.name, wanted.base_url, simulated=wanted.simulated)
    if wanted.env_var:
        services.refer_to_credential(provider, wanted.env_var)
    if not wanted.simulated:
        _switch_simulator_off(done)
    return provider


def _switch_simulator_off(done: SetUp) -> None:
    """Real answers and made-up ones are never mixed unless an operator switches it on again."""
    for simulated in Provider.objects.filter(simulated=True, enabled=True):
        services.enable_provider(simulated, False)
        done.sentences.append("A real provider is known now, so the simulated one is switched off.")


def _newly_asked_for(wanted: Registration, provider: Provider, done: SetUp) -> tuple[RoutePreset, ...]:
    if wanted.base_url != provider.base_url:
        done.sentences.append(
            f"{presets.COMPATIBLE_BASE_URL} is not the address that {provider.name} was set up with, "
            f"{provider.base_url}, which is kept: change it under /admin/."
        )
        return ()
    there = set(Target.objects.filter(provider=provider).values_list("upstream_model", flat=True))
    return tuple(each for each in wanted.routes if each.upstream_model not in there)


def _add_target(preset: RoutePreset, wanted: Registration, provider: Provider, currency: str) -> Target:
    """A target with its list prices, each in its own currency."""
    prices, source = price_books.list_prices(wanted, preset.upstream_model)
    route = _route_for(preset, _unpriced(prices, currency))
    services.add_aliases(route, preset.aliases)
    target = services.add_target(
        route, provider, preset.upstream_model, order=wanted.order, parameters=preset.parameters
    )
    services.fill_in_prices([services.price_row(target, each, source) for each in prices])
    return target


def _route_for(preset: RoutePreset, unpriced: str) -> Route:
    """The route of the name, which is left as it was set, or a fresh one.

    One that has only given simulated answers was set by us, and lets calls through too where the first real
    ones have no price yet: else a gateway that was tried out would stop when it gets its provider's key.
    """
    route = services.route_called(preset.model_name)
    if route is None:
        return services.add_route(preset.model_name, unpriced=unpriced)
    if unpriced == Route.Unpriced.ALLOWED and not route.targets.filter(provider__simulated=False).exists():
        services.update_route(route, {"unpriced": unpriced})
    return route


def _unpriced(prices: Iterable[catalog.Price], currency: str) -> str:
    """Refused where there is a price that can be used."""
    rates = snapshot.exchange_rates()
    is_priced = any(_is_exchanged(each.currency, currency, rates) for each in prices)
    return Route.Unpriced.REFUSED if is_priced else Route.Unpriced.ALLOWED


def _is_exchanged(own: str, currency: str, rates: exchange.Rates) -> bool:
    """Whether an amount in a price's own currency can be told in the ledger's today."""
    today = timezone.now().astimezone(UTC).date()
    return rates.exchange(own or currency, currency, today) is not None


def _registered(wanted: Registration, routes: tuple[RoutePreset, ...]) -> str:
    names = ", ".join(each.model_name for each in routes)
    if wanted.simulated:
        keys = " or ".join((", ".join(presets.API_KEYS[:-1]), presets.API_KEYS[-1]))
        return (
            f"No provider key is set, so answers are simulated and labelled so, for {names}. "
            f"For real ones set {keys}, and start again."
        )
    return f"{wanted.name} answers to {names}."


def _without_price(targets: list[Target], currency: str) -> Iterator[str]:
    """What becomes of calls to targets without a price or without its exchange rate, and what to enter."""
    unpriced = [each for each in targets if not each.prices.exists()]
    yield from _fates("No price is known for {}", unpriced, "Enter one at /admin/gateway/price/.")
    for own, priced in _foreign(targets, currency).items():
        yield from _fates(
            f"The price of {{}} is in {own}, and no exchange rate to {currency} is known",
            priced,
            "Enter one at /admin/gateway/exchangerate/, and calls are priced, also those before it.",
        )


def _foreign(targets: list[Target], currency: str) -> Mapping[str, list[Target]]:
    """Targets by the currency of their prices, where that is one without an exchange rate."""
    rates = snapshot.exchange_rates()
    found: dict[str, list[Target]] = {}
    for target in targets:
        for own in sorted(set(target.prices.values_list("currency", flat=True))):
            if not _is_exchanged(own, currency, rates):
                found.setdefault(own, []).append(target)
    return found


def _fates(what: str, targets: list[Target], remedy: str) -> Iterator[str]:
    for choice, fate in _FATES.items():
        names = ", ".join(each.route.model_name for each in targets if each.route.unpriced == choice)
        if names:
            yield f"{what.format(names)}: calls are {fate}. {remedy}"


_FATES = {
    Route.Unpriced.ALLOWED: "let through and flagged as unpriced",
    Route.Unpriced.REFUSED: "not sent there until there is one",
}


def _say_who_answers(environ: Mapping[str, str], said: list[str], currency: str, done: SetUp) -> None:
    """Each provider that calls go to now, but for those that were `said`; or that there is none."""
    rates = snapshot.exchange_rates()
    usable = [each for each in _targets() if _is_usable(each, environ, currency, rates)]
    names: dict[Provider, list[str]] = {}
    for each in usable:
        names.setdefault(each.provider, []).append(each.route.model_name)
    for provider, model_names in names.items():
        if provider.slug not in said:
            who = (
                "Answers are simulated and labelled so, for"
                if provider.simulated
                else f"{provider} answers to"
            )
            done.sentences.append(f"{who} {_listed(list(dict.fromkeys(model_names)))}.")
    if not usable:
        done.sentences.append(
            "No model name is served now: set a provider key, or switch the simulator on "
            "at /admin/gateway/provider/, and start again."
        )


def _listed(model_names: Sequence[str]) -> str:
    """As many as a terminal shows at a glance, and how many others there are."""
    if len(model_names) <= MOST_NAMED:
        return ", ".join(model_names)
    return f"{', '.join(model_names[:MOST_NAMED])} and {len(model_names) - MOST_NAMED} others"


def _targets() -> Iterable[Target]:
    """Those that are switched on, with all that it takes, in the order they were made."""
    found = Target.objects.filter(enabled=True, provider__enabled=True, route__enabled=True)
    return found.select_related("route", "provider__credential").prefetch_related("prices").order_by("pk")


def _is_usable(target: Target, environ: Mapping[str, str], currency: str, rates: exchange.Rates) -> bool:
    """Whether a call could go there: with its credential, and with a price where the route wants one."""
    credential: Credential | None = getattr(target.provider, "credential", None)
    is_priced = any(_is_exchanged(each.currency, currency, rates) for each in target.prices.all())
    may_go = is_priced or target.route.unpriced == Route.Unpriced.ALLOWED
    return may_go and (credential is None or _is_there(credential, environ))


def _is_there(credential: Credential, environ: Mapping[str, str]) -> bool:
    return bool(credential.encrypted or environ.get(credential.env_var, "").strip())


def _remind_of_simulator(done: SetUp) -> None:
    enabled = Provider.objects.filter(enabled=True)
    if enabled.filter(simulated=True).exists() and enabled.filter(simulated=False).exists():
        done.sentences.append("Some answers may be simulated: a simulated provider is switched on.")


def _name_missing_credentials(environ: Mapping[str, str], done: SetUp) -> None:
    for each in (
        Credential.objects.exclude(env_var="").filter(provider__enabled=True).select_related("provider")
    ):
        if not _is_there(each, environ):
            done.sentences.append(
                f"{each.env_var} is not set any more, so {each.provider.name} is left out until it is."
            )
