"""What several forms have: names, lifetimes, and a mark for those whose answer shows a secret."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django_stubs_ext import StrOrPromise

LIFETIMES = {"": _("Never"), "30": _("In 30 days"), "90": _("In 90 days"), "365": _("In a year")}
HOUR, DAY = 3600, 86_400


def name_field(help_text: "StrOrPromise") -> forms.CharField:
    return forms.CharField(
        label=_("Name"),
        max_length=100,
        help_text=help_text,
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )


def after_days(days: str) -> datetime | None:
    return timezone.now() + timedelta(days=int(days)) if days else None


class Once(forms.Form):
    """A form that may be sent once, because its answer shows a secret."""

    once = forms.CharField(widget=forms.HiddenInput)

    def open_again(self, mark: str) -> None:
        """After a refusal: the form that is shown again may be sent again."""
        sent: Any = self.data  # a QueryDict, which its stubs do not say
        sent = sent.copy()
        sent["once"] = mark
        self.data = sent
