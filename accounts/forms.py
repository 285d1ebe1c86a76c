"""What people type into pages."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils import timezone

from accounts.caller import Priority
from accounts.models import ApiKey, Membership, Team, User

LIFETIMES = {"": "Never", "30": "In 30 days", "90": "In 90 days", "365": "In a year"}
PRIORITIES = [(each.value, each.label) for each in (ApiKey.Priority.NORMAL, ApiKey.Priority.BATCH)]
"""What anybody may choose who makes a key: nobody goes before other teams by their own choice."""


class NewKey(forms.Form):
    """Which team, what for, and until when."""

    team = forms.ModelChoiceField(queryset=Team.objects.none(), to_field_name="slug", empty_label=None)
    name = forms.CharField(
        max_length=100,
        help_text="What will use it, for example “billing service, production”.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    expires = forms.ChoiceField(
        choices=list(LIFETIMES.items()), required=False, help_text="It stops working then."
    )
    priority_ceiling = forms.ChoiceField(
        label="Priority of its calls",
        choices=PRIORITIES,
        initial=ApiKey.Priority.NORMAL,
        required=False,
        help_text="At most, where calls wait for a free place. An administrator may raise it to urgent.",
    )
    once = forms.CharField(widget=forms.HiddenInput)

    def __init__(self, *args: Any, teams: Iterable[Team], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        chosen = Team.objects.filter(pk__in=[team.pk for team in teams])
        self.fields["team"].queryset = chosen  # type: ignore[attr-defined]

    def expires_at(self) -> datetime | None:
        days = self.cleaned_data["expires"]
        return timezone.now() + timedelta(days=int(days)) if days else None

    def ceiling(self) -> Priority:
        return "batch" if self.cleaned_data["priority_ceiling"] == ApiKey.Priority.BATCH else "normal"


class NewMember(forms.Form):
    """Somebody who has an account here already."""

    email = forms.EmailField(label="E-mail address", widget=forms.EmailInput(attrs={"autocomplete": "off"}))
    role = forms.ChoiceField(choices=Membership.Role.choices, initial=Membership.Role.MEMBER)

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"]
        if not User.objects.filter(email__iexact=email, is_active=True).exists():
            raise forms.ValidationError(
                "There is no account with this address; an administrator can make one."
            )
        return email

    def user(self) -> User:
        return User.objects.get(email__iexact=self.cleaned_data["email"])


class NewRole(forms.Form):
    role = forms.ChoiceField(choices=Membership.Role.choices)
