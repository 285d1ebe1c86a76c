"""Rate limits and quotas on the pages of teams and keys.

What is set here, only an administrator may change.
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from django import forms
from django.http import HttpRequest
from unfold.admin import TabularInline
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts import services
from accounts.admin.common import refused
from accounts.amounts import units
from accounts.forms.limits import Shares, whole, zones
from accounts.models import ApiKey, Quota, RateLimit, Team
from accounts.services.limits import MOST, WARN_AT

if TYPE_CHECKING:
    _RateLimitForm = forms.ModelForm[RateLimit]
    _QuotaForm = forms.ModelForm[Quota]
else:
    _RateLimitForm = _QuotaForm = forms.ModelForm

Owner = Team | ApiKey
RATE_LIMIT = ("kind", "model_name")
QUOTA = ("kind", "period")
"""What says which of its owner's a row is: the same again is a change of it."""


class RateLimitForm(_RateLimitForm):
    amount = forms.IntegerField(min_value=1, max_value=MOST, widget=UnfoldAdminTextInputWidget)

    class Meta:
        model = RateLimit
        fields = ["kind", "amount", "model_name"]


class QuotaForm(_QuotaForm):
    """Money in units of the ledger currency, kept in nano-units."""

    amount = forms.DecimalField(
        min_value=0,
        max_value=MOST,
        max_digits=30,
        decimal_places=9,
        widget=UnfoldAdminDecimalFieldWidget,
        help_text="Requests, tokens, or units of the ledger currency.",
    )
    zone = forms.ChoiceField(choices=zones, initial="UTC", widget=UnfoldAdminSelectWidget)
    warn_at = Shares(required=False, initial=list(WARN_AT), widget=UnfoldAdminTextInputWidget)

    class Meta:
        model = Quota
        fields = ["kind", "amount", "period", "zone", "hard", "warn_at"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["amount"] = units(self.instance.kind, self.instance.amount)

    def clean(self) -> dict[str, Any]:
        said: dict[str, Any] = super().clean() or self.cleaned_data
        if "amount" in said and "kind" in said:
            try:
                said["amount"] = whole(said["kind"], said["amount"])
            except forms.ValidationError as why:
                self.add_error("amount", why)
        return said


class RateLimitInline(TabularInline):  # type: ignore[misc]
    model = RateLimit
    form = RateLimitForm
    extra = 0
    hide_title = True


class QuotaInline(TabularInline):  # type: ignore[misc]
    model = Quota
    form = QuotaForm
    extra = 0
    hide_title = True


def save_limits(request: HttpRequest, owner: Owner, formset: Any) -> None:
    """What the rows say, through the services. A row of another kind is another limit."""
    formset.save(commit=False)
    is_quota = formset.model is Quota
    remove: Callable[[Any], None] = services.remove_quota if is_quota else services.remove_rate_limit
    service: Callable[..., object] = services.set_quota if is_quota else services.set_rate_limit
    names = QuotaForm.Meta.fields if is_quota else RateLimitForm.Meta.fields
    for row in formset.deleted_objects:
        remove(row)
    for row, changed in formset.changed_objects:
        if set(changed) & {*RATE_LIMIT, *QUOTA}:
            remove(formset.model.objects.get(pk=row.pk))
    for row in [*formset.new_objects, *(each for each, _ in formset.changed_objects)]:
        wish = {name: getattr(row, name) for name in names}
        refused(request, partial(service, owner, **wish, by_administrator=True))
