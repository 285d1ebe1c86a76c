"""Forms of teams: people, invitations, webhooks."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.utils.translation import gettext_lazy as _

from accounts.forms.common import Once
from accounts.models import Membership, Team, User
from accounts.services.invitations import USUAL_DAYS

if TYPE_CHECKING:
    _Member = forms.ModelChoiceField[User]
else:
    _Member = forms.ModelChoiceField
INVITATION_DAYS = {1: _("1 day"), 7: _("7 days"), 30: _("30 days")}


class NewMember(forms.Form):
    """Somebody who has an account here already."""

    email = forms.EmailField(
        label=_("E-mail address"), widget=forms.EmailInput(attrs={"autocomplete": "off"})
    )
    role = forms.ChoiceField(label=_("Role"), choices=Membership.Role.choices, initial=Membership.Role.MEMBER)

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"]
        if not User.objects.filter(email__iexact=email, is_active=True).exists():
            raise forms.ValidationError(_("There is no account with this address; invite them instead."))
        return email

    def user(self) -> User:
        return User.objects.get(email__iexact=self.cleaned_data["email"])


class NewRole(forms.Form):
    role = forms.ChoiceField(choices=Membership.Role.choices)


class NewName(forms.Form):
    name = forms.CharField(max_length=100)


class Member(_Member):
    """People by their address."""

    def label_from_instance(self, obj: Any) -> str:
        return str(obj.email)


class HandOver(forms.Form):
    """Who owns the team from now on."""

    to = Member(label=_("New owner"), queryset=User.objects.none(), empty_label=None)

    def __init__(self, data: Any = None, *, team: Team, giver: User) -> None:
        super().__init__(data)
        others = User.objects.filter(memberships__team=team, is_active=True).exclude(pk=giver.pk)
        self.fields["to"].queryset = others.order_by("email")  # type: ignore[attr-defined]


class NewInvitation(Once):
    """To whom, as what, and for how long."""

    email = forms.EmailField(
        label=_("E-mail address"),
        required=False,
        widget=forms.EmailInput(attrs={"autocomplete": "off"}),
        help_text=_("They get a mail. Empty: you get a link to hand on, for somebody who has an account."),
    )
    role = forms.ChoiceField(label=_("Role"), choices=Membership.Role.choices, initial=Membership.Role.MEMBER)
    days = forms.TypedChoiceField(
        label=_("Good for"), choices=list(INVITATION_DAYS.items()), coerce=int, initial=USUAL_DAYS
    )

    def wish(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in ("role", "email", "days")}


class ChoosePassword(forms.Form):
    """For a new account."""

    password = forms.CharField(
        label=_("Password"),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        strip=False,
        max_length=1000,
        help_text=_("At least 10 characters, and not one that many others use."),
    )
    again = forms.CharField(
        label=_("The same again"),
        widget=forms.PasswordInput(attrs={"autocomplete": "new-password"}),
        strip=False,
        max_length=1000,
    )

    def clean(self) -> dict[str, Any]:
        said = super().clean() or {}
        if "password" in said and "again" in said and said["password"] != said["again"]:
            self.add_error("again", _("The two passwords differ."))
        return said


class NewWebhook(forms.Form):
    url = forms.CharField(
        label=_("Address"),
        max_length=500,
        widget=forms.URLInput(attrs={"placeholder": "https://", "autocomplete": "off"}),
        help_text=_(
            "It gets a signed POST for every notice: reached quotas, expiring keys, ending overlaps."
        ),
    )


class WebhookSwitch(forms.Form):
    enabled = forms.ChoiceField(choices=[("on", "On"), ("off", "Off")])
