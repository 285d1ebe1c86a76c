"""Operator pages: providers, routes, targets, and the books and the timeline to look at.

A credential goes in and never comes out. Prices are on pages of their own, `gateway.prices_admin`.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from unfold.admin import ModelAdmin, TabularInline
from unfold.widgets import (
    UnfoldAdminPasswordWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from accounts.admin import NotedAdmin
from accounts.admin.common import Searched
from accounts.models import User
from gateway import services, upstreams
from gateway.inputs import (
    Unusable,
    clean_base_url,
    clean_credential,
    clean_name,
    clean_parameters,
    origin,
)
from gateway.models import (
    Attempt,
    BreakerChange,
    Credential,
    Entry,
    Provider,
    Route,
    Target,
)
from gateway.prices_admin import money
from gateway.relay.targets import TargetState

LAST_CHANGES = 10
"""Of a breaker, on its target's page."""

if TYPE_CHECKING:
    ProviderModelForm = forms.ModelForm[Provider]
    RouteModelForm = forms.ModelForm[Route]
    TargetModelForm = forms.ModelForm[Target]
else:
    ProviderModelForm = RouteModelForm = TargetModelForm = forms.ModelForm


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
        fields = ["name", "slug", "base_url", "enabled", "simulated", "ca_pem"]

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
    list_display = [
        *("name", "slug", "base_url", "enabled", "simulated", "credential_kept", "credential_refused")
    ]
    list_select_related = ["credential"]
    prepopulated_fields = {"slug": ["name"]}
    fieldsets = [
        (None, {"fields": ["name", "slug", "base_url", "enabled", "simulated"]}),
        ("Credential", {"fields": ["credential_kept", "credential_refused", "secret", "env_var"]}),
        ("TLS", {"fields": ["ca_pem"]}),
    ]
    readonly_fields = ["credential_kept", "credential_refused"]

    @admin.display(description="credential")
    def credential_kept(self, provider: Provider) -> str:
        credential = _credential_of(provider)
        if credential.encrypted:
            return f"encrypted, set {credential.updated_at:%Y-%m-%d}"
        return f"in {credential.env_var}" if credential.env_var else "none"

    @admin.display(description="credential refused")
    def credential_refused(self, provider: Provider) -> str:
        credential = _credential_of(provider)
        if credential.refused_at is None:
            return "no"
        said = f"with {credential.refused_status} at {_moment(credential.refused_at)}"
        return format_html('<strong class="text-red-700 dark:text-red-500">{}</strong>', said)

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


def _live() -> dict[int, TargetState]:
    """Every target as this process's relay has it, by id; empty where there is none or it is too busy."""
    try:
        return {each.target_id: each for each in upstreams.states()}
    except (upstreams.NoRelayHere, TimeoutError):
        return {}


def _in_words(state: TargetState) -> str:
    breaker = state.breaker.replace("_", "-").capitalize()
    if state.held:
        breaker = "Held open"
    elif state.breaker == "open":
        breaker = f"Open, a probe in {state.ready_in_s:.0f} s"
    waiting = sum(state.gate.waiting.values())
    return f"{breaker}; {state.gate.in_use} of {state.gate.places} places, {waiting} waiting"


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
        fields = [
            *("model_name", "aliases", "unpriced", "enabled"),
            *("timeout_s", "overflow", "overflow_route", "hang_up_drain_s"),
            *("max_tokens", "usual_max_tokens", "max_choices"),
        ]

    def clean_model_name(self) -> str:
        name = _usable(clean_name, self.cleaned_data["model_name"], "The model name")
        return self._own(name)

    def clean_aliases(self) -> list[str]:
        names = dict.fromkeys(self.cleaned_data["aliases"])
        return [self._own(each) for each in names if each != self.cleaned_data.get("model_name")]

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        given = self.cleaned_data
        if {"model_name", "aliases", "overflow", "overflow_route"} <= given.keys():
            own_names = {given["model_name"], *given["aliases"]}
            services.check_overflow(given["overflow"], given["overflow_route"], own_names)
        return cleaned

    def _own(self, name: str) -> str:
        taken = services.route_called(name)
        if taken and taken.pk != self.instance.pk:
            raise ValidationError(f"The route {taken} answers to {name} already.")
        return name


class TargetSummaryForm(TargetModelForm):
    """Where a target is and when it is tried; all else is on its own page."""

    class Meta:
        model = Target
        fields = ["provider", "upstream_model", "order", "weight", "enabled"]

    def clean_upstream_model(self) -> str:
        return _usable(clean_name, self.cleaned_data["upstream_model"], "The upstream model")


class TargetInline(TabularInline):  # type: ignore[misc]
    model = Target
    form = TargetSummaryForm
    extra = 0
    hide_title = True
    fields = ["provider", "upstream_model", "order", "weight", "enabled", "more"]
    readonly_fields = ["more"]

    @admin.display(description="more")
    def more(self, target: Target) -> str:
        """The way to its own page, with all that can be set."""
        if target._state.adding:
            return ""
        url = reverse("admin:gateway_target_change", args=[target.pk])
        return format_html('<a class="text-primary-600 underline" href="{}">Settings</a>', url)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Target]:
        targets: QuerySet[Target] = super().get_queryset(request).select_related("provider")
        return targets


@admin.register(Route)
class RouteAdmin(NotedAdmin):
    """Model names that clients ask for, and the targets behind them."""

    form = RouteForm
    list_display = ["model_name", "enabled", "unpriced", "overflow", "target_names"]
    search_fields = ["model_name"]
    fieldsets = [
        (None, {"fields": ["model_name", "aliases", "unpriced", "enabled"]}),
        ("Time", {"fields": ["timeout_s", "hang_up_drain_s"]}),
        ("Size", {"fields": ["max_tokens", "usual_max_tokens", "max_choices"]}),
        ("Long messages", {"fields": ["overflow", "overflow_route"]}),
    ]
    inlines = [TargetInline]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Route]:
        routes: QuerySet[Route] = super().get_queryset(request).prefetch_related("targets__provider")
        return routes

    @admin.display(description="targets")
    def target_names(self, route: Route) -> str:
        return ", ".join(f"{each.provider.slug}/{each.upstream_model}" for each in route.targets.all())


class RulesField(forms.CharField):
    """Rules by parameter, one a line: `max_tokens: translate`."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 4})

    def prepare_value(self, value: Any) -> Any:
        return (
            "\n".join(f"{name}: {rule}" for name, rule in value.items()) if isinstance(value, dict) else value
        )

    def clean(self, value: Any) -> Any:
        rules = dict(map(self._rule, filter(None, map(str.strip, super().clean(value).splitlines()))))
        try:
            return clean_parameters(rules)
        except Unusable as why:
            raise ValidationError(str(why)) from None

    def _rule(self, line: str) -> tuple[str, str]:
        name, colon, rule = line.partition(":")
        if not colon:
            raise ValidationError(f"Write a name, a colon and a rule, not: {line}")
        return name.strip(), rule.strip()

    def has_changed(self, initial: Any, data: Any) -> bool:
        return super().has_changed(self.prepare_value(initial), data)


class TargetForm(TargetSummaryForm):
    """All that can be set of a target; its lever is pulled, not set."""

    parameters = RulesField(
        required=False,
        help_text="What is done with a parameter that this target does not take, one a line: "
        "refuse, drop or translate, such as “max_tokens: translate”. Others go up as they are.",
    )

    class Meta:
        model = Target
        fields = ["route", "provider", "upstream_model", *sorted(services.TARGET_SETTINGS)]


@admin.register(Target)
class TargetAdmin(NotedAdmin):
    """Where calls go: how each target is reached, how much it is given, and whether it may be."""

    form = TargetForm
    list_display = [*("name", "route", "enabled", "order", "weight", "transport", "now")]
    list_filter = ["lever", "enabled", "provider", "transport"]
    list_select_related = ["route", "provider"]
    ordering = ["route__model_name", "order", "id"]
    search_fields = ["route__model_name", "upstream_model"]
    fieldsets = [
        (
            "Where",
            {"fields": ["route", "provider", "upstream_model", "enabled", "order", "weight"]},
        ),
        (
            "Pool",
            {
                "fields": [
                    *(("transport", "http2"), ("max_connections", "pool_timeout_s")),
                    *(("max_keepalive_connections", "keepalive_expiry_s"), "connect_timeout_s"),
                    ("read_timeout_s", "write_timeout_s"),
                ],
                "description": "A change holds for calls that begin after it; running ones are not cut.",
            },
        ),
        ("Gate", {"fields": [("max_concurrency", "max_waiting")]}),
        ("Parameters", {"fields": ["parameters", "context_window", "media_tokens"]}),
        ("Breaker", {"fields": ["now", "lever", "closed_at", "timeline"]}),
    ]
    add_fieldsets = fieldsets[:-1]
    readonly_fields = ["now", "lever", "closed_at", "timeline"]
    actions = ["hold_open", "let_go", "close"]
    actions_submit_line = ["hold_this_open", "let_this_go", "close_this"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Target]:
        targets: QuerySet[Target] = super().get_queryset(request).select_related("provider", "route")
        return targets

    @admin.display(description="target", ordering="upstream_model")
    def name(self, target: Target) -> str:
        return str(target)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """The list, each target with what the relay knows of it at this moment, asked for once."""
        changes = super().get_changelist_instance(request)
        live = _live()
        for target in changes.result_list:
            target.live = live.get(target.pk)
        return changes

    @admin.display(description="now")
    def now(self, target: Target) -> str:
        state = target.live if hasattr(target, "live") else _live().get(target.pk)
        return "Not known in this process" if state is None else _in_words(state)

    @admin.display(description="timeline")
    def timeline(self, target: Target) -> str:
        """The last changes, and the way to all of them."""
        changes = BreakerChange.objects.filter(target_id=target.pk).select_related("by_user")[:LAST_CHANGES]
        lines = format_html_join(
            "", "<li>{}: {}. {}</li>", ((_moment(each.at), _shift(each), each.cause) for each in changes)
        )
        url = f"{reverse('admin:gateway_breakerchange_changelist')}?target_id={target.pk}"
        link = format_html('<a class="text-primary-600 underline" href="{}">All changes</a>', url)
        return format_html("<ul>{}</ul>{}", lines, link)

    def get_actions_submit_line(self, request: HttpRequest, object_id: int) -> list[Any]:
        """The levers that can be pulled; a press on a page that is no longer true still says what is."""
        found: list[Any] = super().get_actions_submit_line(request, object_id)
        if request.method == "POST" or not str(object_id).isdigit():
            return found
        held = Target.objects.filter(pk=object_id, lever=Target.Lever.OPEN).exists()
        pulled = "hold_this_open" if held else "let_this_go"
        return [each for each in found if not each.action_name.endswith(pulled)]

    @admin.action(description="Hold the breaker open", permissions=["change"])
    def hold_open(self, request: HttpRequest, queryset: QuerySet[Target]) -> None:
        for target in queryset:
            self._hold(request, target)

    @admin.action(description="Let the breaker decide again", permissions=["change"])
    def let_go(self, request: HttpRequest, queryset: QuerySet[Target]) -> None:
        for target in queryset:
            self._let_go(request, target)

    @admin.action(description="Close the breaker", permissions=["change"])
    def close(self, request: HttpRequest, queryset: QuerySet[Target]) -> None:
        for target in queryset:
            self._close(request, target)

    @admin.action(description="Hold breaker open", permissions=["change"])
    def hold_this_open(self, request: HttpRequest, obj: Target) -> None:
        self._hold(request, obj)

    @admin.action(description="Let breaker decide", permissions=["change"])
    def let_this_go(self, request: HttpRequest, obj: Target) -> None:
        self._let_go(request, obj)

    @admin.action(description="Close breaker", permissions=["change"])
    def close_this(self, request: HttpRequest, obj: Target) -> None:
        self._close(request, obj)

    def _hold(self, request: HttpRequest, target: Target) -> None:
        if services.hold_breaker_open(target, _me(request)):
            self._say(request, target, "is held open: no call goes there")
        else:
            self.message_user(request, f"The breaker of {target} was held open already.")

    def _let_go(self, request: HttpRequest, target: Target) -> None:
        if services.let_breaker_go(target, _me(request)):
            self._say(request, target, "decides by itself again")
        else:
            self.message_user(request, f"The breaker of {target} decided by itself already.")

    def _close(self, request: HttpRequest, target: Target) -> None:
        services.close_breaker(target, _me(request))
        self._say(request, target, "is closed: calls go there")

    def _say(self, request: HttpRequest, target: Target, what: str) -> None:
        self.log_change(request, target, f"Breaker: {what}.")
        self.message_user(request, f"The breaker of {target} {what}.", messages.SUCCESS)


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
    fields = [
        *("attempt_no", "provider", "upstream_model", "outcome", "status", "code"),
        *("queued", "backoff", "latency", "probe", "trimmed", "cost"),
    ]
    readonly_fields = ["queued", "backoff", "latency", "cost"]

    @admin.display(description="queued")
    def queued(self, attempt: Attempt) -> str:
        return _milliseconds(attempt.queued_us)

    @admin.display(description="backoff")
    def backoff(self, attempt: Attempt) -> str:
        return _milliseconds(attempt.backoff_us)

    @admin.display(description="latency")
    def latency(self, attempt: Attempt) -> str:
        return _milliseconds(attempt.latency_us)

    @admin.display(description="cost")
    def cost(self, attempt: Attempt) -> str:
        return money(attempt.cost_nanos)


@admin.register(Entry)
class EntryAdmin(OnlyToLookAt, ModelAdmin):  # type: ignore[misc]
    """One call as it is on the books. Their list is the page of calls: Django's would count every entry."""

    inlines = [AttemptInline]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        """Leads to the page of calls."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return redirect("calls")


@admin.register(BreakerChange)
class BreakerChangeAdmin(OnlyToLookAt, Searched):
    """What every breaker did and why, the latest first."""

    list_display = ["moment", "target", "before", "after", "cause", "probes_at", "by_user"]
    list_filter = ["after", "provider"]
    list_select_related = ["by_user"]
    list_per_page = 50
    search_fields = ["upstream_model", "cause"]

    @admin.display(description="at", ordering="at")
    def moment(self, change: BreakerChange) -> str:
        return _moment(change.at)

    @admin.display(description="lets a probe through at", empty_value="")
    def probes_at(self, change: BreakerChange) -> str | None:
        return _moment(change.until) if change.until else None

    @admin.display(description="target", ordering="upstream_model")
    def target(self, change: BreakerChange) -> str:
        return f"{change.provider}/{change.upstream_model}"


def _me(request: HttpRequest) -> User:
    assert isinstance(request.user, User)
    return request.user


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _shift(change: BreakerChange) -> str:
    """From what to what, and by whom."""
    told = f"{change.get_before_display()} → {change.get_after_display()}"
    return f"{told}, by {change.by_user}" if change.by_user else told


def _usable(clean: Any, raw: str, what: str) -> str:
    """The clean value, with our sentence as the form's."""
    try:
        value: str = clean(raw, what)
    except Unusable as why:
        raise ValidationError(str(why)) from None
    return value


def _milliseconds(microseconds: int) -> str:
    return f"{microseconds / 1000:.1f} ms"
