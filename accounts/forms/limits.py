"""Forms of rate limits and quotas."""

from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.conf import settings
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.amounts import NANOS, units
from accounts.models import Quota, RateLimit
from accounts.services.limits import MOST, MOST_NANOS, WARN_AT


class NewRateLimit(forms.Form):
    """So many of what, for which route."""

    kind = forms.ChoiceField(label=_("Of what"), choices=RateLimit.Kind.choices)
    amount = forms.IntegerField(
        label=_("Amount"), min_value=1, max_value=MOST, help_text=_("At most so many.")
    )
    model_name = forms.ChoiceField(label=_("Route"), required=False)

    def __init__(self, data: Any = None, *, model_names: Sequence[str], row: RateLimit | None = None) -> None:
        first = {name: getattr(row, name) for name in ("kind", "amount", "model_name")} if row else None
        super().__init__(data, initial=first)
        known = sorted({*model_names, *([row.model_name] if row and row.model_name else [])})
        choices = [("", _("All routes together")), *((each, each) for each in known)]
        self.fields["model_name"].choices = choices  # type: ignore[attr-defined]
        if row:
            _keep(self, "kind", "model_name")

    def wish(self) -> dict[str, Any]:
        return self.cleaned_data


class Shares(forms.CharField):
    """Percents with commas between them, as a list of whole numbers from 1 to 100."""

    def prepare_value(self, value: Any) -> Any:
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value

    def to_python(self, value: Any) -> Any:
        try:
            found = [
                int(each.strip().removesuffix("%")) for each in str(value or "").split(",") if each.strip()
            ]
        except ValueError:
            raise forms.ValidationError(
                _("Write percents with commas between them, such as 50, 80.")
            ) from None
        if any(not 1 <= each <= 100 for each in found):
            raise forms.ValidationError(_("Choose shares from 1 to 100 percent."))
        return found

    def has_changed(self, initial: Any, data: Any) -> bool:
        return bool(super().has_changed(self.prepare_value(initial), data))


class NewQuota(forms.Form):
    """So much of what, in which calendar period."""

    kind = forms.ChoiceField(label=_("Of what"), choices=Quota.Kind.choices, initial=Quota.Kind.MONEY)
    amount = forms.DecimalField(
        label=_("Amount"), min_value=0, max_value=MOST, max_digits=30, decimal_places=9
    )
    period = forms.ChoiceField(
        label=_("In a calendar"), choices=Quota.Period.choices, initial=Quota.Period.MONTH
    )
    zone = forms.ChoiceField(label=_("Time zone"), initial="UTC", help_text=_("Whose midnight counts."))
    hard = forms.BooleanField(
        label=_("Hard: never spend more"),
        required=False,
        help_text=_("Holds the worst case of every call under way. A soft one may be passed by a little."),
    )
    warn_at = Shares(
        label=_("Tell the owners at"), required=False, initial=list(WARN_AT), help_text=_("In percent of it.")
    )

    def __init__(self, data: Any = None, *, row: Quota | None = None) -> None:
        names = ("kind", "period", "zone", "hard", "warn_at")
        first = {name: getattr(row, name) for name in names} if row else {}
        if row:
            first["amount"] = units(row.kind, row.amount)
        super().__init__(data, initial=first)
        self.fields["zone"].choices = zones()  # type: ignore[attr-defined]
        self.fields["amount"].help_text = gettext("Requests, tokens, or %(currency)s.") % {
            "currency": settings.LEDGER_CURRENCY
        }
        if row:
            _keep(self, "kind", "period")

    def clean(self) -> dict[str, Any]:
        said = super().clean() or {}
        if "amount" in said and "kind" in said:
            try:
                said["amount"] = whole(said["kind"], said["amount"])
            except forms.ValidationError as why:
                self.add_error("amount", why)
        return said

    def wish(self) -> dict[str, Any]:
        return self.cleaned_data


def whole(kind: str, amount: Decimal) -> int:
    """What is kept of an amount: whole requests or tokens, or nano-units. Raises ValidationError."""
    scaled = amount * NANOS if kind == Quota.Kind.MONEY else amount
    if scaled != scaled.to_integral_value():
        raise forms.ValidationError(_("Requests and tokens are whole numbers."))
    if scaled > (MOST_NANOS if kind == Quota.Kind.MONEY else MOST):
        raise forms.ValidationError(_("That is more than can be counted."))
    return int(scaled)


@cache
def zones() -> list[tuple[str, str]]:
    """Every time zone, UTC first."""
    return [(each, each) for each in ["UTC", *sorted(available_timezones() - {"UTC", "localtime"})]]


def _keep(form: forms.Form, *names: str) -> None:
    """Fields that say which row is meant: shown, and not to be changed."""
    for name in names:
        form.fields[name].disabled = True
