"""Forms of one's own account."""

from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.forms import ResetPasswordForm
from django import forms
from django.conf import settings
from django.http import HttpRequest
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts import zones
from accounts.afterwards import afterwards
from accounts.forms.common import LIFETIMES, Once, after_days, name_field
from accounts.tokens import SCOPES


def _languages() -> list[tuple[str, str]]:
    return [("", gettext("As the browser asks")), *settings.LANGUAGES]


class ForgottenPassword(ResetPasswordForm):  # type: ignore[misc]
    """Looks for the account, and mails it, when the answer is sent: its time does not tell who has one."""

    def clean_email(self) -> str:
        email: str = get_adapter().clean_email(self.cleaned_data["email"].lower())
        return email

    def save(self, request: HttpRequest, **more: Any) -> str:
        afterwards(request, lambda: self._send(request, **more))
        email: str = self.cleaned_data["email"]
        return email

    def _send(self, request: HttpRequest, **more: Any) -> None:
        super().clean_email()
        super().save(request, **more)


class Profile(forms.Form):
    """How a person is called, and how pages speak to them."""

    name = forms.CharField(
        label=_("Name"),
        max_length=150,
        required=False,
        widget=forms.TextInput(attrs={"autocomplete": "name"}),
        help_text=_("As administrators see you. It may be left empty."),
    )
    language = forms.ChoiceField(label=_("Language"), required=False, choices=_languages)
    zone = forms.CharField(
        label=_("Time zone"),
        max_length=64,
        required=False,
        widget=forms.TextInput(attrs={"list": "zones", "autocomplete": "off", "spellcheck": "false"}),
        help_text=_(
            "Type a part of it, such as “Tokyo”. Files and the API have UTC, whatever is chosen here."
        ),
    )

    def clean_name(self) -> str:
        return " ".join(self.cleaned_data["name"].split())

    def clean_zone(self) -> str:
        """The name as the table of zones writes it; empty for UTC, which is what nobody chose."""
        found = zones.found(self.cleaned_data["zone"] or zones.UTC)
        if found is None:
            raise forms.ValidationError(gettext("There is no such time zone. Choose one from the list."))
        return "" if found == zones.UTC else found


class NewToken(Once):
    """What a program may do on one's own behalf."""

    name = name_field(_("What will use it, for example “nightly report”."))
    scopes = forms.MultipleChoiceField(
        label=_("It may"),
        choices=list(SCOPES.items()),
        widget=forms.CheckboxSelectMultiple,
        initial=["read"],
        help_text=_("Never more than you may do yourself."),
    )
    expires = forms.ChoiceField(
        label=_("Expires"),
        choices=list(LIFETIMES.items()),
        required=False,
        initial="90",
        help_text=_("It stops working then."),
    )

    def wish(self) -> dict[str, Any]:
        said = self.cleaned_data
        return {"name": said["name"], "scopes": said["scopes"], "expires_at": after_days(said["expires"])}
