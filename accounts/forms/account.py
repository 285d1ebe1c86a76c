"""Forms of one's own account."""

from typing import Any

from django import forms

from accounts.forms.common import LIFETIMES, Once, after_days, name_field
from accounts.tokens import SCOPES


class NewToken(Once):
    """What a program may do on one's own behalf."""

    name = name_field("What will use it, for example “nightly report”.")
    scopes = forms.MultipleChoiceField(
        label="It may",
        choices=list(SCOPES.items()),
        widget=forms.CheckboxSelectMultiple,
        initial=["read"],
        help_text="Never more than you may do yourself.",
    )
    expires = forms.ChoiceField(
        choices=list(LIFETIMES.items()), required=False, initial="90", help_text="It stops working then."
    )

    def wish(self) -> dict[str, Any]:
        said = self.cleaned_data
        return {"name": said["name"], "scopes": said["scopes"], "expires_at": after_days(said["expires"])}
