"""What is asked of the lists of calls, as their forms send it and their addresses hold it."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from django import forms
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext_lazy

from accounts.forms.selects import LongSelect
from accounts.models import Team
from gateway.ledger import seeking
from gateway.ledger.calls import EPOCH, Asked
from gateway.ledger.seeking import Unreadable

ANY: Final = ("", gettext_lazy("Any"))
OUTCOMES: Final = (
    ("answered", gettext_lazy("Answered")),
    ("rejected", gettext_lazy("Rejected")),
    ("failed", gettext_lazy("Failed")),
    ("truncated", gettext_lazy("Truncated")),
    ("hung_up", gettext_lazy("Hung up")),
    ("abandoned", gettext_lazy("Abandoned")),
)
PRIORITIES: Final = (
    ("urgent", gettext_lazy("Urgent")),
    ("normal", gettext_lazy("Normal")),
    ("batch", gettext_lazy("Batch")),
)
STREAMED: Final = (
    ("yes", pgettext_lazy("an answer", "Streamed")),
    ("no", pgettext_lazy("an answer", "Whole")),
)
LAST_YEAR: Final = 9000
"""After it nothing more comes, and a moment before it can be added to."""
FORMAT: Final = "%Y-%m-%dT%H:%M:%S"


class MomentField(forms.Field):
    """A moment in UTC: what the browser's own field sends, an ISO moment with its offset, or a day.

    A day is its beginning, or where `is_end` its end.
    """

    widget = forms.TextInput(attrs={"type": "datetime-local", "step": "1"})

    def __init__(self, *, is_end: bool = False, **more: Any) -> None:
        super().__init__(required=False, **more)
        self.is_end = is_end

    def to_python(self, value: Any) -> datetime | None:
        text = (value or "").strip()
        if not text:
            return None
        try:
            found = self._read(text)
        except (ValueError, OverflowError):
            raise forms.ValidationError(_("Write a moment such as 2030-01-31T09:30:00, in UTC.")) from None
        return max(found, EPOCH) if found.year < LAST_YEAR else None

    def _read(self, text: str) -> datetime:
        if len(text) == len("2030-01-31"):
            day = date.fromisoformat(text) + timedelta(days=1 if self.is_end else 0)
            return datetime(day.year, day.month, day.day, tzinfo=UTC)
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)

    def bound_data(self, data: Any, initial: Any) -> Any:
        """As the browser's field can show it; what cannot be read is shown as it came."""
        try:
            found = self.to_python(data)
        except forms.ValidationError:
            return data
        return found.strftime(FORMAT) if found else ""


class RefusalQuestion(forms.Form):
    """What is asked of refused calls; whatever is empty asks for anything."""

    q = forms.CharField(
        label=gettext_lazy("Search"),
        required=False,
        max_length=seeking.LONGEST,
        widget=forms.TextInput(
            attrs={
                "type": "search",
                "placeholder": gettext_lazy("Call id, API key, model name, code"),
                "autocomplete": "off",
                "spellcheck": "false",
            }
        ),
    )
    team = forms.ChoiceField(label=gettext_lazy("Team"), required=False)
    key = forms.TypedChoiceField(
        label=gettext_lazy("API key"), required=False, coerce=int, empty_value=None, widget=LongSelect
    )
    route = forms.CharField(label=gettext_lazy("Model name"), required=False, max_length=200)
    code = forms.CharField(label=gettext_lazy("Code"), required=False, max_length=60)
    priority = forms.ChoiceField(label=gettext_lazy("Priority"), required=False, choices=[ANY, *PRIORITIES])
    since = MomentField(label=gettext_lazy("From, UTC"))
    until = MomentField(label=gettext_lazy("Before, UTC"), is_end=True)

    def __init__(
        self,
        data: Any,
        *,
        teams: Iterable[Team],
        team: Team | None,
        may_see_all: bool,
        keys: Mapping[int, str],
    ) -> None:
        super().__init__(data, auto_id="calls_%s", label_suffix="")
        self._offer_teams(list(teams), team, may_see_all=may_see_all)
        if keys:
            self.fields["key"].choices = [ANY, *keys.items()]  # type: ignore[attr-defined]
        else:
            del self.fields["key"]
        self._name_fields()
        self.full_clean()

    def _name_fields(self) -> None:
        """Before anything is read, because what is shown of a field is made then."""

    def _offer_teams(self, teams: list[Team], team: Team | None, *, may_see_all: bool) -> None:
        """One team to see is no choice."""
        if not may_see_all and len(teams) < 2:
            del self.fields["team"]
            return
        field = self.fields["team"]
        every = [("", _("All teams"))] if may_see_all else []
        field.choices = [*every, *((each.slug, each.name) for each in teams)]  # type: ignore[attr-defined]
        if team is not None:  # which may be the first, where none is named
            self.data = {**{name: self.data.get(name) for name in self.data}, "team": team.slug}

    def asked(self, team_ids: tuple[int, ...] | None, names: Mapping[int, str] | None) -> Asked:
        """Fields that cannot be read ask for anything; the page says which they are. Two queries at most."""
        found = self._asked(team_ids)
        try:
            return seeking.sought(found, self.said("q"), names)
        except Unreadable as why:
            self.add_error("q", str(why))
            return found

    def _asked(self, team_ids: tuple[int, ...] | None) -> Asked:
        return Asked(
            team_ids=team_ids,
            key_id=self.cleaned_data.get("key"),
            route=self.said("route"),
            code=self.said("code"),
            priority=self.said("priority"),
            since=self.cleaned_data.get("since"),
            until=self.cleaned_data.get("until"),
        )

    def said(self, name: str) -> str:
        """Text of a field; empty where there is none, or it cannot be read."""
        return (self.cleaned_data.get(name) or "").strip()

    @property
    def narrowing(self) -> list[forms.BoundField]:
        """Fields that something is asked with, but for the team and the search."""
        return [each for each in self.others if self.cleaned_data.get(each.name)]

    @property
    def others(self) -> list[forms.BoundField]:
        return [each for each in self.visible_fields() if each.name not in ("q", "team")]

    @property
    def is_asking(self) -> bool:
        return bool(self.said("q") or self.narrowing)


class CallQuestion(RefusalQuestion):
    """What is asked of calls."""

    target = forms.CharField(
        label=gettext_lazy("Target"),
        required=False,
        max_length=251,
        widget=forms.TextInput(attrs={"placeholder": "openai/gpt-4o"}),
    )
    outcome = forms.ChoiceField(label=gettext_lazy("Outcome"), required=False, choices=[ANY, *OUTCOMES])
    tag = forms.CharField(
        label=gettext_lazy("Tag"),
        required=False,
        max_length=321,
        widget=forms.TextInput(attrs={"placeholder": "project=apollo"}),
    )
    streamed = forms.ChoiceField(
        label=pgettext_lazy("of a call", "Answer"), required=False, choices=[ANY, *STREAMED]
    )
    slower = forms.DecimalField(
        label=gettext_lazy("Latency at least, s"),
        required=False,
        min_value=0,
        max_value=10**6,
        decimal_places=6,
    )
    dearer = forms.DecimalField(
        label=gettext_lazy("Cost at least"), required=False, min_value=0, max_value=10**9, decimal_places=9
    )
    unpriced = forms.BooleanField(label=gettext_lazy("Without a price"), required=False)
    field_order = (
        *("q", "team", "key", "route", "target", "outcome", "code", "priority", "streamed"),
        *("slower", "dearer", "tag", "since", "until", "unpriced"),
    )

    def __init__(self, data: Any, *, currency: str, **more: Any) -> None:
        self.currency = currency
        super().__init__(data, **more)

    def _name_fields(self) -> None:
        self.fields["dearer"].label = _("Cost at least, %(currency)s") % {"currency": self.currency}
        self.fields["q"].widget.attrs["placeholder"] = _("Call id, API key, model name, code, tag=value")

    def _asked(self, team_ids: tuple[int, ...] | None) -> Asked:
        streamed = self.said("streamed")
        return replace(
            super()._asked(team_ids),
            target=self.said("target"),
            outcome=self.said("outcome"),
            tag=self.cleaned_data.get("tag") or None,
            unpriced=self.cleaned_data.get("unpriced", False),
            streamed=streamed == "yes" if streamed else None,
            min_latency_us=_times(self.cleaned_data.get("slower"), 10**6),
            min_cost_nanos=_times(self.cleaned_data.get("dearer"), 10**9),
        )

    def clean_tag(self) -> tuple[str, str] | None:
        name, equals, value = self.cleaned_data["tag"].strip().partition("=")
        if name and not equals:
            raise forms.ValidationError(_("Write a tag as name=value."))
        return (name, value) if name else None


def _times(amount: Decimal | None, unit: int) -> int:
    return int((amount or 0) * unit)
