"""What is asked of the audit."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.models import Team
from accounts.queries import AuditFilter

TEXTS = ("actor", "action", "subject_kind", "subject_id")
SUBJECTS = {
    "": _("Anything"),
    "apikey": _("API key"),
    "team": _("Team"),
    "user": _("Person"),
    "invitation": _("Invitation"),
    "ratelimit": _("Rate limit"),
    "quota": _("Quota"),
    "webhook": _("Webhook"),
    "alert": _("Alert"),
    "channel": _("Channel"),
    "accesstoken": _("Access token"),
    "provider": _("Provider"),
    "credential": _("Credential"),
    "route": _("Route"),
    "target": _("Target"),
    "price": _("Price"),
    "exchangerate": _("Exchange rate"),
}


class AuditQuestion(forms.Form):
    """What is asked of the audit; whatever is empty asks for anything."""

    team = forms.ModelChoiceField(
        label=_("Team"),
        queryset=Team.objects.none(),
        to_field_name="slug",
        required=False,
        empty_label=_("All teams"),
    )
    actor = forms.CharField(label=_("Who"), required=False, max_length=254)
    action = forms.CharField(
        label=_("What"),
        required=False,
        max_length=50,
        widget=forms.TextInput(attrs={"placeholder": "key.rotated"}),
    )
    subject_kind = forms.ChoiceField(label=_("Subject"), choices=list(SUBJECTS.items()), required=False)
    subject_id = forms.CharField(label=_("Number"), required=False, max_length=50)
    since = forms.DateField(label=_("From"), required=False, widget=forms.DateInput(attrs={"type": "date"}))
    until = forms.DateField(
        label=_("To the end of"), required=False, widget=forms.DateInput(attrs={"type": "date"})
    )

    def __init__(self, data: Any, *, teams: Iterable[Team]) -> None:
        super().__init__(data, auto_id="audit_%s")
        chosen = Team.objects.filter(pk__in=[team.pk for team in teams])
        self.fields["team"].queryset = chosen  # type: ignore[attr-defined]
        self.full_clean()

    def chosen_team(self) -> Team | None:
        return self.cleaned_data.get("team")

    def asked(self) -> AuditFilter:
        """Fields that cannot be read ask for anything; the page says which they are."""
        said = self.cleaned_data
        texts = {
            name: said.get(name, "").strip() for name in ("actor", "action", "subject_kind", "subject_id")
        }
        return AuditFilter(
            **texts, since=_midnight(said.get("since")), until=_next_midnight(said.get("until"))
        )

    def for_export(self) -> Mapping[str, str]:
        """The same question, as the API's export takes it."""
        asked, team = self.asked(), self.chosen_team()
        said: dict[str, Any] = {
            "team": team.pk if team else None,
            "actor": asked.actor,
            "action": asked.action,
            "subject_kind": asked.subject_kind,
            "subject_id": asked.subject_id,
            "since": asked.since.isoformat() if asked.since else None,
            "until": asked.until.isoformat() if asked.until else None,
        }
        return {name: str(value) for name, value in said.items() if value}

    def is_asking(self) -> bool:
        return bool(self.for_export())


def _midnight(day: Any) -> datetime | None:
    return datetime.combine(day, time.min, UTC) if day else None


def _next_midnight(day: Any) -> datetime | None:
    """After the last day that there is, nothing more comes."""
    return datetime.combine(day + timedelta(days=1), time.min, UTC) if day and day < date.max else None
