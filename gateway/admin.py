"""Operator pages: providers, routes, prices, and the books to look at.

A credential goes in and never comes out. Prices are history: a new one is added beside the old.
"""

from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget

from accounts.admin import NotedAdmin
from gateway import services
from gateway.inputs import Unusable, clean_base_url, clean_credential, clean_name, origin
from gateway.models import Attempt, Credential, Entry, Price, Provider, Route, Target

NANOS = 10**9

if TYPE_CHECKING:
    ProviderModelForm = forms.ModelForm[Provider]
    RouteModelForm = forms.ModelForm[Route]
    TargetModelForm = forms.ModelForm[Target]
    PriceModelForm = forms.ModelForm[Price]
else:
    ProviderModelForm = RouteModelForm = TargetModelForm = PriceModelForm = forms.ModelForm


class ProviderForm(ProviderModelForm):
    """A provider and its credential, which is typed in or left in the environment."""

    secret = forms.CharField(
        label="New credential",
        required=False,
        strip=False,
        widget=UnfoldAdminPasswordWidget(attrs={"autocomplete": "off"}),
        help_text="Kept encrypted and never shown again. Leave it empty to keep what there is.",
    )
    env_var = forms.CharField(
        label="Or an environment variable",
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Its name, such as OPENAI_API_KEY; its value is read by the serving process.",
    )

    class Meta:
        model = Provider
        fields = ["name", "slug", "base_url", "enabled", "simulated"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["env_var"].initial = _credential_of(self.instance).env_var

    def clean_name(self) -> str:
        return _usable(clean_name, self.cleaned_data["name"], "The name")

    def clean_base_url(self) -> str:
        return _usable(clean_base_url, self.cleaned_data["base_url"], "The base URL")

    def clean_secret(self) -> str:
        secret: str = self.cleaned_data["secret"]
        return _usable(clean_credential, secret, "The credential") if secret else ""

    def clean_env_var(self) -> str:
        name: str = self.cleaned_data["env_var"]
        return _usable(lambda raw, _: services.clean_variable(raw), name, "") if name else ""

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if (
            self.cleaned_data.get("secret")
            and "env_var" in self.changed_data
            and self.cleaned_data.get("env_var")
        ):
            raise ValidationError("Give a credential or the name of a variable, not both.")
        if self._would_take_the_credential_along():
            raise ValidationError("The address changed: enter the credential again.")
        return cleaned

    def _would_take_the_credential_along(self) -> bool:
        """To whoever answers at a new address: what was never to be shown would be sent there."""
        replaced = self.cleaned_data.get("secret") or "env_var" in self.changed_data
        base_url = self.cleaned_data.get("base_url")
        if replaced or not base_url or not _credential_of(self.instance).encrypted:
            return False
        return origin(base_url) != origin(self.instance.base_url)


@admin.register(Provider)
class ProviderAdmin(NotedAdmin):
    """Accounts at vendors."""

    form = ProviderForm
    list_display = ["name", "slug", "base_url", "enabled", "simulated", "credential_kept"]
    list_select_related = ["credential"]
    prepopulated_fields = {"slug": ["name"]}
    fields = ["name", "slug", "base_url", "enabled", "simulated", "credential_kept", "secret", "env_var"]
    readonly_fields = ["credential_kept"]

    @admin.display(description="credential")
    def credential_kept(self, provider: Provider) -> str:
        credential = _credential_of(provider)
        if credential.encrypted:
            return f"encrypted, set {credential.updated_at:%Y-%m-%d}"
        return f"in {credential.env_var}" if credential.env_var else "none"

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        if form.cleaned_data["secret"]:
            services.keep_credential(obj, form.cleaned_data["secret"], settings.CREDENTIAL_KEYS)
        elif "env_var" in form.changed_data:
            _refer(obj, form.cleaned_data["env_var"])


def _refer(provider: Provider, env_var: str) -> None:
    if env_var:
        services.refer_to_credential(provider, env_var)
    else:
        services.forget_credential(provider)


def _credential_of(provider: Provider) -> Credential:
    """Its credential, or an empty one."""
    return getattr(provider, "credential", None) or Credential()


class AliasesField(forms.CharField):
    """A list of names, written with commas between them."""

    widget = UnfoldAdminTextInputWidget

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        names = [each for each in super().clean(value).split(",") if each.strip()]
        return [_usable(clean_name, each, "An alias") for each in names]

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)


class RouteForm(RouteModelForm):
    """A route; each of its names belongs to it alone."""

    aliases = AliasesField(required=False, help_text="Other model names for this route, separated by commas.")

    class Meta:
        model = Route
        fields = ["model_name", "aliases", "unpriced", "enabled"]

    def clean_model_name(self) -> str:
        name = _usable(clean_name, self.cleaned_data["model_name"], "The model name")
        return self._own(name)

    def clean_aliases(self) -> list[str]:
        names = dict.fromkeys(self.cleaned_data["aliases"])
        return [self._own(each) for each in names if each != self.cleaned_data.get("model_name")]

    def _own(self, name: str) -> str:
        taken = services.route_called(name)
        if taken and taken.pk != self.instance.pk:
            raise ValidationError(f"The route {taken} answers to {name} already.")
        return name


class TargetForm(TargetModelForm):
    class Meta:
        model = Target
        fields = ["provider", "upstream_model", "order", "enabled"]

    def clean_upstream_model(self) -> str:
        return _usable(clean_name, self.cleaned_data["upstream_model"], "The upstream model")


class TargetInline(TabularInline):  # type: ignore[misc]
    model = Target
    form = TargetForm
    extra = 0


@admin.register(Route)
class RouteAdmin(NotedAdmin):
    """Model names that clients ask for, and the targets behind them."""

    form = RouteForm
    list_display = ["model_name", "enabled", "unpriced", "target_names"]
    search_fields = ["model_name"]
    inlines = [TargetInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Route]:
        routes: QuerySet[Route] = super().get_queryset(request).prefetch_related("targets__provider")
        return routes

    @admin.display(description="targets")
    def target_names(self, route: Route) -> str:
        return ", ".join(f"{each.provider.slug}/{each.upstream_model}" for each in route.targets.all())


class AmountField(forms.DecimalField):
    """An amount of the ledger currency, down to the nano-unit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            min_value=0,
            max_value=Decimal(services.MAX_PRICE_NANOS) / NANOS,
            decimal_places=9,
            widget=UnfoldAdminTextInputWidget(),
            error_messages={"max_value": services.PRICE_TOO_HIGH},
            **options,
        )


class PriceForm(PriceModelForm):
    """A price as people write it: in the ledger currency per million tokens."""

    input = AmountField()
    cached_input = AmountField(required=False, help_text="Left empty: as any input.")
    output = AmountField()

    class Meta:
        model = Price
        fields = ["target", "valid_from"]

    def save(self, commit: bool = True) -> Price:
        price, given = self.instance, self.cleaned_data
        price.input_nanos = _nanos(given["input"])
        price.output_nanos = _nanos(given["output"])
        cached = given["cached_input"]
        price.cached_input_nanos = price.input_nanos if cached is None else _nanos(cached)
        return super().save(commit)


@admin.register(Price)
class PriceAdmin(NotedAdmin):
    """Dated prices. One that was is not changed: what calls cost was worked out with it."""

    form = PriceForm
    list_display = ["target_name", "valid_from", "input", "cached_input", "output", "source"]
    list_select_related = ["target__route", "target__provider"]
    fields = ["target", "valid_from", "input", "cached_input", "output"]

    def has_change_permission(self, request: HttpRequest, obj: Price | None = None) -> bool:
        return False

    @admin.display(description="target")
    def target_name(self, price: Price) -> str:
        return f"{price.target.route.model_name} at {price.target.provider.name}"

    @admin.display(description="input")
    def input(self, price: Price) -> str:
        return _money(price.input_nanos)

    @admin.display(description="cached input")
    def cached_input(self, price: Price) -> str:
        return _money(price.cached_input_nanos)

    @admin.display(description="output")
    def output(self, price: Price) -> str:
        return _money(price.output_nanos)


class OnlyToLookAt:
    """The books are append only, for operators too."""

    def has_add_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False


class AttemptInline(OnlyToLookAt, TabularInline):  # type: ignore[misc]
    model = Attempt
    extra = 0
    fields = ["attempt_no", "provider", "upstream_model", "outcome", "status", "latency", "cost"]
    readonly_fields = ["latency", "cost"]

    @admin.display(description="latency")
    def latency(self, attempt: Attempt) -> str:
        return _milliseconds(attempt.latency_us)

    @admin.display(description="cost")
    def cost(self, attempt: Attempt) -> str:
        return _money(attempt.cost_nanos)


@admin.register(Entry)
class EntryAdmin(OnlyToLookAt, ModelAdmin):  # type: ignore[misc]
    """Calls on the books, the latest first."""

    list_display = [
        *("call_id", "ended_at", "team", "route", "outcome", "status", "latency", "cost", "simulated")
    ]
    list_filter = ["simulated"]
    list_select_related = ["team"]
    list_per_page = 50
    show_full_result_count = False  # a count reads every entry
    inlines = [AttemptInline]

    @admin.display(description="latency", ordering="latency_us")
    def latency(self, entry: Entry) -> str:
        return _milliseconds(entry.latency_us)

    @admin.display(description="cost", ordering="cost_nanos")
    def cost(self, entry: Entry) -> str:
        return _money(entry.cost_nanos)


def _usable(clean: Any, raw: str, what: str) -> str:
    """The clean value, with our sentence as the form's."""
    try:
        value: str = clean(raw, what)
    except Unusable as why:
        raise ValidationError(str(why)) from None
    return value


def _nanos(amount: Decimal) -> int:
    return int((amount * NANOS).to_integral_value(ROUND_HALF_UP))


def _milliseconds(microseconds: int) -> str:
    return f"{microseconds / 1000:.1f} ms"


def _money(nanos: int) -> str:
    return f"{(Decimal(nanos) / NANOS).normalize():f} {settings.LEDGER_CURRENCY}"
