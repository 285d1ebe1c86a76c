"""What an address asks of the list of keys."""

from collections.abc import Sequence
from typing import Any, cast
from urllib.parse import urlencode

from django import forms
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from accounts import keys
from accounts.key_list import Asked, State
from accounts.models import Team
from accounts.paging import page_number
from accounts.searching import LONGEST

STATES = [
    ("", _("Any")),
    ("active", _("Active")),
    ("rotating", _("Old secret still works")),
    ("expired", _("Expired")),
    ("revoked", _("Revoked")),
]


class KeyQuestion(forms.Form):
    """A part that cannot be read counts as empty: a link from elsewhere still shows a list."""

    q = forms.CharField(
        label=_("Search"),
        required=False,
        max_length=LONGEST,
        widget=forms.TextInput(
            attrs={"type": "search", "autocomplete": "off", "placeholder": _("Name, or pst_…")}
        ),
    )
    team = forms.ChoiceField(label=_("Team"), required=False)
    state = forms.ChoiceField(label=_("State"), required=False, choices=STATES)

    def __init__(self, data: Any, teams: Sequence[Team]) -> None:
        super().__init__(data, auto_id="keys_%s")
        self._teams = {each.slug: each for each in teams}
        self.fields["team"].choices = [  # type: ignore[attr-defined]
            ("", _("All teams")),
            *((each.slug, each.name) for each in teams),
        ]
        if len(teams) < 2:
            del self.fields["team"]
        self.full_clean()

    def clean_q(self) -> str:
        return keys.without_secret(self.cleaned_data["q"])

    @property
    def holds_secret(self) -> bool:
        """Whether a whole API key is looked for, which no page and no address keeps."""
        text: str = self.data.get("q", "").strip()
        return keys.without_secret(text) != text

    def asked(self) -> Asked:
        return Asked(
            self._said("q"),
            self._teams.get(self._said("team")),
            cast(State, self._said("state")),
            page_number(self.data.get("page", "")),
        )

    def address(self, page: int = 1) -> str:
        """Of a page of the same list, with what matters alone."""
        said = {name: self._said(name) for name in ("q", "team", "state")}
        said["page"] = str(page) if page > 1 else ""
        asked = urlencode({name: value for name, value in said.items() if value})
        return f"{reverse('keys')}?{asked}" if asked else reverse("keys")

    @property
    def narrows(self) -> bool:
        return any(self._said(name) for name in ("q", "team", "state"))

    @property
    def chosen_team(self) -> Team | None:
        return self._teams.get(self._said("team"))

    def _said(self, name: str) -> str:
        return cast(str, self.cleaned_data.get(name, ""))
