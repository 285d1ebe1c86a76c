"""Forms of alerts and channels. `gateway.alerts.services` and `accounts.channels` decide what may be."""

from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from django import forms
from django.conf import settings
from django.db.models import Q
from django.utils.html import escape
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from accounts.models import ApiKey, Channel, Team
from gateway.alerts import services, wording
from gateway.models import Alert, Route

if TYPE_CHECKING:
    _Several = forms.ModelMultipleChoiceField[Channel]
    _One = forms.ModelChoiceField[ApiKey]
else:
    _Several = forms.ModelMultipleChoiceField
    _One = forms.ModelChoiceField

PLAIN: Final = {"autocomplete": "off", "spellcheck": "false"}
NANOS: Final = Decimal(10**9)
UNITS: Final[Mapping[str, tuple[Any, Decimal, Any]]] = {
    Alert.Kind.SPEND: (gettext_lazy("More than"), NANOS, ""),
    Alert.Kind.ERROR_RATE: (
        gettext_lazy("More than, in percent"),
        Decimal(100),
        gettext_lazy("Of the calls that ended."),
    ),
    Alert.Kind.LATENCY: (
        gettext_lazy("Above, in milliseconds"),
        Decimal(1),
        gettext_lazy("The latency that 19 of 20 calls stay within."),
    ),
    Alert.Kind.BREAKER: (gettext_lazy("Open for longer than, in seconds"), Decimal(1), ""),
    Alert.Kind.QUOTA: (
        gettext_lazy("More than, in percent"),
        Decimal(1),
        gettext_lazy("Of any quota of the team or the API key, in its present period."),
    ),
}
"""What the threshold is called, how many of its kept units one is, and what else there is to say."""
USUAL: Final[Mapping[str, Mapping[str, Any]]] = {
    Alert.Kind.SPEND: {"threshold": 50, "window_minutes": 1440},
    Alert.Kind.ERROR_RATE: {"threshold": 5, "window_minutes": 15, "least_calls": 20},
    Alert.Kind.LATENCY: {"threshold": 10_000, "window_minutes": 15, "least_calls": 20},
    Alert.Kind.BREAKER: {"threshold": 120},
    Alert.Kind.QUOTA: {"threshold": 90},
}
PAUSES: Final = (0, 15, 60, 360, 1440)
HOLDS: Final = (0, 5, 15, 60)
WHERE: Final[Mapping[str, tuple[Any, Any]]] = {
    Channel.Kind.MAIL: (
        gettext_lazy("E-mail addresses"),
        gettext_lazy("Up to ten. Each gets a mail of its own."),
    ),
    Channel.Kind.WEBHOOK: (
        gettext_lazy("Address"),
        gettext_lazy("It gets a POST with JSON, signed as the Standard Webhooks specification says."),
    ),
    Channel.Kind.SLACK: (
        gettext_lazy("Address of the incoming webhook"),
        gettext_lazy(
            "Slack, Mattermost and others give you one. It is a secret: it is encrypted, never shown again."
        ),
    ),
}


class AlertForm(forms.Form):
    """Of one kind of alert: it has the fields that this kind has.

    What the alert has now can always be chosen, also where nobody would choose it anew: a browser
    that finds no such choice takes the first one, and the alert would be another without a word.
    """

    name = forms.CharField(label=gettext_lazy("Name"), max_length=100, widget=forms.TextInput(attrs=PLAIN))

    def __init__(self, kind: str, team: Team | None, data: Any = None, alert: Alert | None = None) -> None:
        super().__init__(data, initial=_initial(kind, alert))
        self.kind, self.team = kind, team
        label, _scale, help_text = UNITS[kind]
        if kind == Alert.Kind.SPEND:
            label = _("More than, in %(currency)s") % {"currency": settings.LEDGER_CURRENCY}
        self.fields["threshold"] = _number(label, help_text)
        if windows := services.WINDOWS.get(kind):
            self.fields["window_minutes"] = _choice(gettext_lazy("Within the last"), windows)
        if kind in services.OF_CALLS:
            help_text = gettext_lazy("With fewer calls in that time it does not fire.")
            self.fields["least_calls"] = forms.IntegerField(
                label=gettext_lazy("At least so many calls"),
                min_value=0,
                max_value=10**6,
                help_text=help_text,
            )
        self._add_scope(alert)
        self._add_pace(alert)

    def _add_scope(self, alert: Alert | None) -> None:
        if self.kind in services.OF_ROUTES:
            there = Route.objects.values_list("model_name", flat=True)
            names = sorted({*there, alert.route} - {""} if alert else there)
            self.fields["route"] = forms.ChoiceField(
                label=gettext_lazy("Model name"),
                required=False,
                choices=[("", _("Every one")), *((each, each) for each in names)],
            )
        if self.team is not None:
            present = Q(revoked_at=None) | Q(pk=alert.key_id if alert else None)
            keys = ApiKey.objects.filter(present, team=self.team).order_by("name")
            self.fields["key"] = Keys(
                keys, label=gettext_lazy("API key"), required=False, empty_label=_("Every one")
            )

    def _add_pace(self, alert: Alert | None) -> None:
        self.fields["hold_minutes"] = _choice(
            gettext_lazy("Only after"),
            sorted({*HOLDS, alert.hold_minutes} if alert else HOLDS),
            {0: gettext_lazy("At once")},
            gettext_lazy(
                "How long the figure has to be beyond the threshold, and within it for the alert to be over."
            ),
        )
        self.fields["pause_minutes"] = _choice(
            gettext_lazy("Pause between messages"),
            sorted({*PAUSES, alert.pause_minutes} if alert else PAUSES),
            {0: gettext_lazy("None: each time that it fires")},
        )
        told = (
            gettext_lazy("Mail the administrators")
            if self.team is None
            else gettext_lazy("Mail the owners of the team")
        )
        self.fields["tell_owners"] = forms.BooleanField(label=told, required=False)
        channels = Channel.objects.filter(team=self.team).order_by("name")
        self.fields["channels"] = Channels(
            channels, label=gettext_lazy("Channels"), required=False, widget=forms.CheckboxSelectMultiple
        )

    def wish(self) -> dict[str, Any]:
        """As `services` takes it, without the channels."""
        said = {name: value for name, value in self.cleaned_data.items() if name != "channels"}
        said["threshold"] = int(said["threshold"] * UNITS[self.kind][1])
        return said | {"least_calls": said.get("least_calls", 0)}


class Keys(_One):
    def label_from_instance(self, obj: Any) -> str:
        revoked = "" if obj.revoked_at is None else _(" (revoked)")
        return f"{obj.name}{revoked}"


class Channels(_Several):
    def label_from_instance(self, obj: Any) -> str:
        off = "" if obj.enabled else _(" (switched off)")
        return f"{obj.name} · {obj.get_kind_display()}{off}"


class ChannelForm(forms.Form):
    """Of one kind of channel. The address of a Slack-compatible one is entered, and never shown."""

    name = forms.CharField(label=gettext_lazy("Name"), max_length=100, widget=forms.TextInput(attrs=PLAIN))
    address = forms.CharField(max_length=2000)

    def __init__(self, kind: str, data: Any = None, channel: Channel | None = None) -> None:
        is_secret = kind == Channel.Kind.SLACK
        first = {} if channel is None else {"name": channel.name, "address": channel.address}
        if is_secret:
            first.pop("address", None)
        super().__init__(data, initial=first)
        field = self.fields["address"]
        field.label, field.help_text = WHERE[kind]
        if is_secret and channel is not None:
            field.required = False
            # A help text is shown as HTML.
            field.help_text = _("Leave it empty to keep %(shown)s") % {"shown": escape(channel.address)}
        field.widget = forms.TextInput(
            attrs=PLAIN | {"placeholder": "ops@example.com" if kind == Channel.Kind.MAIL else "https://"}
        )
        field.widget.is_required = field.required

    def wish(self) -> dict[str, str]:
        """As `channels.change_channel` takes it: an address that is left empty stays."""
        return {name: value for name, value in self.cleaned_data.items() if value}


def _number(label: Any, help_text: Any) -> forms.DecimalField:
    return forms.DecimalField(
        label=label,
        help_text=help_text,
        min_value=Decimal(0),
        max_digits=18,
        decimal_places=4,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )


def _choice(
    label: Any, minutes: Any, named: Mapping[int, Any] | None = None, help_text: Any = ""
) -> forms.TypedChoiceField:
    choices = [(each, (named or {}).get(each) or wording.minutes(each)) for each in minutes]
    return forms.TypedChoiceField(label=label, choices=choices, coerce=int, help_text=help_text)


def _initial(kind: str, alert: Alert | None) -> dict[str, Any]:
    if alert is None:
        return {"pause_minutes": 60, "hold_minutes": 0, "tell_owners": True, **USUAL[kind]}
    first: dict[str, Any] = {name: getattr(alert, name) for name in services.FIELDS}
    first["threshold"] = f"{(Decimal(alert.threshold) / UNITS[kind][1]).normalize():f}"
    return first | {"channels": [each.pk for each in alert.channels.all()], "key": alert.key_id}
