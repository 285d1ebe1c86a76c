"""Forms of routes and targets. `gateway.services` decides what may be written."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.forms import BoundField
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from dashboard.providers_forms import PLAIN, text, usable
from gateway.inputs import clean_name, clean_parameters
from gateway.models import Provider, Route, Target

Group = tuple[Any, Any, Sequence[str]]
"""A title, what it is about, and the names of its fields."""


class NamesField(forms.CharField):
    """A list of names, one a line."""

    widget = forms.Textarea(attrs={**PLAIN, "rows": 3})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def clean(self, value: Any) -> Any:
        return [each.strip() for each in super().clean(value).splitlines() if each.strip()]


class RulesField(forms.CharField):
    """Rules by parameter, one a line: `max_tokens: translate`."""

    widget = forms.Textarea(attrs={**PLAIN, "rows": 4})

    def prepare_value(self, value: Any) -> Any:
        told = (f"{name}: {rule}" for name, rule in value.items()) if isinstance(value, dict) else ()
        return "\n".join(told) if isinstance(value, dict) else value

    def clean(self, value: Any) -> Any:
        lines = (each.strip() for each in super().clean(value).splitlines())
        return usable(clean_parameters, dict(self._rule(each) for each in lines if each))  # type: ignore[arg-type]

    def _rule(self, line: str) -> tuple[str, str]:
        name, colon, rule = line.partition(":")
        if not colon:
            raise ValidationError(gettext("Write a name, a colon and a rule, not: {line}").format(line=line))
        return name.strip(), rule.strip()


class Settings(forms.Form):
    """Fields of a table in groups, each with a label and a sentence."""

    model: type[Model]
    groups: Sequence[Group] = ()
    words: Mapping[str, tuple[Any, Any]] = {}
    own: Mapping[str, type[forms.CharField]] = {}
    """Fields whose value is a list or an object, and how it is written."""

    def __init__(self, row: Model, data: Any = None) -> None:
        names = [name for _title, _about, group in self.groups for name in group]
        super().__init__(data, initial={name: getattr(row, name) for name in names})
        for name in names:
            self.fields[name] = self._field(name)

    def _field(self, name: str) -> forms.Field:
        label, help_text = self.words[name]
        if name in self.own:
            return self.own[name](label=label, help_text=help_text, required=False)
        made = self.model._meta.get_field(name).formfield(label=label, help_text=help_text)  # type: ignore[union-attr]
        assert isinstance(made, forms.Field)
        if isinstance(made.widget, forms.NumberInput) and isinstance(made, forms.FloatField):
            made.widget.attrs["step"] = "any"
        return made

    def in_groups(self) -> Iterator[tuple[Any, Any, list[BoundField]]]:
        for title, about, names in self.groups:
            yield title, about, [self[name] for name in names]


class RouteSettings(Settings):
    """All that can be set of a route."""

    model = Route
    own = {"aliases": NamesField}
    groups = (
        (_("Names"), _("A renamed route is a new one to the API keys and limits that name it."),
         ("model_name", "aliases", "enabled")),
        (_("Prices"), "", ("unpriced",)),
        (_("Time"), "", ("timeout_s", "hang_up_drain_s")),
        (_("Size"), _("What one call may ask for."), ("max_tokens", "usual_max_tokens", "max_choices")),
        (_("Long messages"), _("Where the messages are longer than the context window of the target. "
              "System messages and the last three are always kept."), ("overflow", "overflow_route")),
    )  # fmt: skip
    words = {
        "model_name": (_("Model name"), _("What clients ask for.")),
        "aliases": (_("Other names"), _("Other model names for the same route, one a line.")),
        "enabled": (_("Switched on"), _("Calls to a route that is off are refused as unknown.")),
        "unpriced": (
            _("Targets without a price"),
            _("Refused: no call goes to them. Allowed: they go there and are flagged, never free."),
        ),
        "timeout_s": (
            _("Deadline (s)"),
            _("Of a call that brings no X-Penstock-Timeout. Empty: CALL_TIMEOUT_S."),
        ),
        "hang_up_drain_s": (
            _("Read on after a hang-up (s)"),
            _("How long an answer is still read for its usage after its client went away. "
                 "0: it is cancelled, and its usage estimated."),
        ),
        "max_tokens": (_("Most output tokens"), _("Of one choice; a call for more is refused.")),
        "usual_max_tokens": (
            _("Output tokens where none are named"),
            _("Filled in where a call names no bound and a hard quota must know its worst case."),
        ),
        "max_choices": (_("Most choices"), _("The largest n that a call may ask for.")),
        "overflow": (_("What is done"), ""),
        "overflow_route": (_("The other route"), _("The model name to go on with, if so.")),
    }  # fmt: skip


class TargetSettings(Settings):
    """All that can be set of a target; its lever is pulled, not set."""

    model = Target
    own = {"parameters": RulesField}
    groups = (
        (_("Its turn"), "", ("enabled", "order", "weight")),
        (_("Connection"), _("A change holds for calls that begin after it; running ones are not cut."),
         ("transport", "http2", "connect_timeout_s", "read_timeout_s", "write_timeout_s")),
        (_("Pool"), "", ("max_connections", "pool_timeout_s", "max_keepalive_connections",
                            "keepalive_expiry_s")),
        (_("Gate"), _("Where calls wait for a free place."), ("max_concurrency", "max_waiting")),
        (_("What it takes"), "", ("context_window", "media_tokens", "parameters")),
    )  # fmt: skip
    words = {
        "enabled": (_("Switched on"), ""),
        "order": (_("Order"), _("Lower is tried first. Targets of the same order share their calls.")),
        "weight": (
            _("Weight"),
            _("Share of the calls among targets of the same order. 0: only when the others cannot."),
        ),
        "transport": (
            _("HTTP client"), _("http1 is the lightest; httpx speaks HTTP/2."),
        ),
        "http2": ("HTTP/2", _("Where the provider speaks it. Needs httpx.")),
        "connect_timeout_s": (_("Connect timeout (s)"), _("For name, connection and TLS together.")),
        "read_timeout_s": (
            _("Read timeout (s)"),
            _("Longest silence of a stream. A whole answer may take until the deadline."),
        ),
        "write_timeout_s": (
            _("Write timeout (s)"), _("How long the provider may leave what was sent to it untaken."),
        ),
        "max_connections": (_("Most connections"), _("At once, idle ones included.")),
        "pool_timeout_s": (_("Pool timeout (s)"), _("Longest wait for a free connection.")),
        "max_keepalive_connections": (
            _("Idle connections kept"), _("How many are kept open for the next call."),
        ),
        "keepalive_expiry_s": (
            _("Idle connections kept for (s)"), _("After that, an idle connection is closed."),
        ),
        "max_concurrency": (_("Places"), _("Attempts at once; further calls wait at the gate.")),
        "max_waiting": (
            _("Most waiting"),
            _("Calls that may wait; further ones go to the next target, or are refused."),
        ),
        "context_window": (
            _("Context window (tokens)"),
            _("Prompt and answer together. Empty: not known, so the provider decides."),
        ),
        "media_tokens": (
            _("Tokens of an image or file"),
            _("The most that one counts as. Empty: not known; hard quotas refuse a call with one."),
        ),
        "parameters": (
            _("Parameters that it does not take"),
            _("One a line, with refuse, drop or translate, such as “max_tokens: translate”. "
                 "Others go up as they are."),
        ),
    }  # fmt: skip


class NewRoute(forms.Form):
    """A model name that clients may ask for."""

    model_name = text(_("Model name"), _("What clients ask for."))
    unpriced = forms.ChoiceField(
        label=_("Targets without a price"),
        choices=Route.Unpriced.choices,
        initial=Route.Unpriced.REFUSED,
        help_text=_("Refused: no call goes to them. Allowed: calls go there and are flagged."),
    )


class NewTarget(forms.Form):
    """A provider, and what it calls the model."""

    provider = forms.ModelChoiceField(label=_("Provider"), queryset=Provider.objects.all(), empty_label=None)
    upstream_model = text(_("Upstream model"), _("What the provider calls it."))

    def clean_upstream_model(self) -> Any:
        return usable(clean_name, self.cleaned_data["upstream_model"], gettext("The upstream model"))


class Lever(forms.Form):
    """What is done with a breaker by hand, and why."""

    lever = forms.ChoiceField(choices=[(each, each) for each in ("open", "automatic", "close")])
    why = text(_("Why, for the timeline"), required=False, most=200)

    def clean_why(self) -> Any:
        why = self.cleaned_data["why"]
        return usable(clean_name, why, gettext("The reason")) if why else ""
