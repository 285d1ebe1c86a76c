"""Forms of API keys and their secrets."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.caller import Priority
from accounts.forms.common import DAY, HOUR, LIFETIMES, Once, after_days, name_field
from accounts.models import ApiKey, Team
from accounts.services import LONGEST_OVERLAP, USUAL_OVERLAP
from accounts.services.keys import LASTING

PRIORITIES = [(each.value, each.label) for each in (ApiKey.Priority.NORMAL, ApiKey.Priority.BATCH)]
"""What anybody may choose who makes a key: nobody goes before other teams by their own choice."""
OVERLAPS = {
    0: _("Not at all: end it now"),
    HOUR: _("1 hour"),
    DAY: _("24 hours"),
    3 * DAY: _("3 days"),
    7 * DAY: _("7 days"),
    30 * DAY: _("30 days"),
}
"""How long an old secret works on, in seconds."""
LENGTHS = [each for each in OVERLAPS.items() if each[0]]
"""To which an overlap can be extended, counted from now."""
KINDS = [each for each in ApiKey.Kind.choices if each[0] in LASTING]
MOMENT = "%Y-%m-%dT%H:%M"
"""As browsers write a moment into a form."""


class NewKey(Once):
    """Which team, what for, and until when."""

    team = forms.ModelChoiceField(
        label=_("Team"), queryset=Team.objects.none(), to_field_name="slug", empty_label=None
    )
    name = name_field(_("What will use it, for example “billing service, production”."))
    kind = forms.ChoiceField(
        label=_("Kind"),
        choices=KINDS,
        initial=ApiKey.Kind.SERVICE,
        required=False,
        help_text=_("A personal key is revoked when you leave the team; a service key stays."),
    )
    expires = forms.ChoiceField(
        label=_("Expires"),
        choices=list(LIFETIMES.items()),
        required=False,
        help_text=_("It stops working then."),
    )
    priority_ceiling = forms.ChoiceField(
        label=_("Priority of its calls"),
        choices=PRIORITIES,
        initial=ApiKey.Priority.NORMAL,
        required=False,
        help_text=_("At most, where calls wait for a free place. An administrator may raise it to urgent."),
    )

    def __init__(self, *args: Any, teams: Iterable[Team], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen = Team.objects.filter(pk__in=[team.pk for team in teams])
        self.fields["team"].queryset = chosen  # type: ignore[attr-defined]

    def expires_at(self) -> datetime | None:
        return after_days(self.cleaned_data["expires"])

    def ceiling(self) -> Priority:
        return "batch" if self.cleaned_data["priority_ceiling"] == ApiKey.Priority.BATCH else "normal"

    def kind_of_key(self) -> str:
        return self.cleaned_data["kind"] or ApiKey.Kind.SERVICE


class KeySettings(forms.Form):
    """A key's name, expiry and scopes."""

    name = name_field(_("What uses it."))
    kind = forms.ChoiceField(
        label=_("Kind"),
        choices=KINDS,
        help_text=_("A personal key is revoked when its maker leaves the team; a service key stays."),
    )
    expires_at = forms.DateTimeField(
        label=_("Expires"),
        required=False,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format=MOMENT),
        help_text=_("In UTC. Empty: never."),
    )
    priority_ceiling = forms.ChoiceField(
        label=_("Priority of its calls"), help_text=_("At most, where calls wait for a free place.")
    )
    every_route = forms.BooleanField(label=_("Every route, also those to come"), required=False)
    routes = forms.MultipleChoiceField(
        label=_("Routes that it may use"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text=_("Counts where “every route” is off. Others look to it as if they were not there."),
    )
    networks = forms.CharField(
        label=_("Address ranges"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        help_text=_(
            "One a line, such as 10.0.0.0/8. Calls from elsewhere are refused. Empty: from anywhere."
        ),
    )
    tags = forms.CharField(
        label=_("Tags"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 3, "spellcheck": "false"}),
        help_text=_("One a line, as name=text. Stamped on every entry of its calls, whatever the call says."),
    )

    def __init__(
        self, data: Any = None, *, key: ApiKey, model_names: Sequence[str], may_be_urgent: bool
    ) -> None:
        super().__init__(data, initial=_settings_of(key))
        known = sorted({*model_names, *(key.routes or [])})
        self.fields["routes"].choices = [(each, each) for each in known]  # type: ignore[attr-defined]
        urgent = may_be_urgent or key.priority_ceiling == ApiKey.Priority.URGENT
        self.fields["priority_ceiling"].choices = (  # type: ignore[attr-defined]
            ApiKey.Priority.choices if urgent else PRIORITIES
        )

    def clean_networks(self) -> list[str]:
        return _lines(self.cleaned_data["networks"])

    def clean_tags(self) -> dict[str, str]:
        pairs = [each.partition("=") for each in _lines(self.cleaned_data["tags"])]
        if any(not equals for _, equals, _ in pairs):
            raise forms.ValidationError(_("Write each tag as name=text, one a line."))
        return {name.strip(): text.strip() for name, _, text in pairs}

    def clean(self) -> dict[str, Any]:
        """Ticked routes beside “every route” are a restriction that would not hold."""
        said = super().clean() or self.cleaned_data
        if said.get("every_route") and "routes" in self.changed_data:
            self.add_error("every_route", _("Switch this off to allow only the routes that are ticked."))
        return said

    def changes(self) -> dict[str, Any]:
        """What differs from what was shown; the rest stays, also where it is finer than the form."""
        said = {**self.cleaned_data, "routes": self._routes()}
        names = {"routes" if each == "every_route" else each for each in self.changed_data}
        return {name: said[name] for name in sorted(names)}

    def _routes(self) -> list[str] | None:
        return None if self.cleaned_data["every_route"] else self.cleaned_data["routes"]


def _settings_of(key: ApiKey) -> dict[str, Any]:
    expires_at = key.expires_at.replace(second=0, microsecond=0) if key.expires_at else None
    return {
        "name": key.name,
        "kind": key.kind,
        "expires_at": expires_at,
        "priority_ceiling": key.priority_ceiling,
        "every_route": key.routes is None,
        "routes": key.routes or [],
        "networks": "\n".join(key.networks),
        "tags": "\n".join(f"{name}={text}" for name, text in key.tags.items()),
    }


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


class Rotation(Once):
    """How long the secret before the new one works on."""

    overlap_s = forms.TypedChoiceField(
        label=_("The old secret works for another"),
        choices=list(OVERLAPS.items()),
        coerce=int,
        initial=int(USUAL_OVERLAP.total_seconds()),
        help_text=_("Time to give the new one to every program. You can extend it later, or end it at once."),
    )

    def overlap(self) -> timedelta:
        return timedelta(seconds=self.cleaned_data["overlap_s"])


class Extension(forms.Form):
    """How much longer an overlapping secret works, counted from now."""

    length_s = forms.TypedChoiceField(choices=LENGTHS, coerce=int, initial=DAY)

    def length(self) -> timedelta:
        """The longest a minute less, because some of it passes before the change is made."""
        longest = LONGEST_OVERLAP - timedelta(minutes=1)
        return min(timedelta(seconds=self.cleaned_data["length_s"]), longest)
