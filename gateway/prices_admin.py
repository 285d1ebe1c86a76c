"""Operator pages for prices and exchange rates. They are history: a new one is added beside the old."""

from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import models
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from accounts.admin import NotedAdmin
from gateway import services, snapshot
from gateway.inputs import Unusable
from gateway.models import ExchangeRate, Price, Target
from gateway.price_inputs import KINDS, amount_of, nanos_of

if TYPE_CHECKING:
    PriceModelForm = forms.ModelForm[Price]
    ExchangeRateModelForm = forms.ModelForm[ExchangeRate]
else:
    PriceModelForm = ExchangeRateModelForm = forms.ModelForm

PARTS = ", ".join(each.removesuffix("_nanos").replace("_", " ") for each in KINDS)
PRICE_FIELDS = [
    *("target", "valid_from", "currency", "input", "cached_input", "output", "cache_write", "reasoning"),
    *("audio_input", "audio_output", "request", "tiers"),
]
AS_INPUT, AS_OUTPUT = "Left empty: as any input.", "Left empty: as any output."
NEVER_CHANGED = "It is never changed or removed: calls were booked by it. A wrong one is put right by another"


def money(nanos: int, currency: str = "") -> str:
    """An amount with its currency, which is the ledger's where none is named."""
    return f"{amount_of(nanos)} {currency or settings.LEDGER_CURRENCY}"


class AmountField(forms.CharField):
    """An amount of a currency, down to the nano-unit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(max_length=40, widget=UnfoldAdminTextInputWidget(), **options)

    def clean(self, value: Any) -> Any:
        """Nano-units; None where nothing is written."""
        text = super().clean(value)
        return nanos_of_field(text) if text else None


class TiersField(forms.CharField):
    """Rates for larger prompts, a tier a line: `200000: input 5, output 15`."""

    widget = UnfoldAdminTextareaWidget(attrs={"rows": 3})

    def clean(self, value: Any) -> Any:
        return [self._tier(line) for line in super().clean(value).splitlines() if line.strip()]

    def _tier(self, line: str) -> dict[str, int]:
        above, _, rest = line.partition(":")
        figures = dict(map(self._figure, rest.split(",")))
        if not above.strip().isdecimal() or not {"input_nanos", "output_nanos"} <= figures.keys():
            raise ValidationError(f"Write a tier like 200000: input 5, output 15, not: {line}")
        figures.setdefault("cached_input_nanos", figures["input_nanos"])
        return {"above_tokens": int(above), **figures}

    def _figure(self, written: str) -> tuple[str, int]:
        name, _, amount = written.strip().rpartition(" ")
        kind = f"{name.strip().replace(' ', '_')}_nanos"
        if kind not in KINDS:
            raise ValidationError(f"A tier has no '{written.strip()}'. Its parts are {PARTS}.")
        return kind, nanos_of_field(amount)


def nanos_of_field(text: str) -> int:
    """Raises ValidationError."""
    try:
        return nanos_of(text)
    except Unusable as why:
        raise ValidationError(str(why)) from None


class PriceForm(PriceModelForm):
    """A price as people write it: in a currency per million tokens."""

    currency = forms.CharField(
        max_length=3,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Three capital letters. Left empty: the ledger's own.",
    )
    input = AmountField(help_text="Of a million tokens, as are all but the last.")
    cached_input = AmountField(required=False, help_text=AS_INPUT)
    output = AmountField()
    cache_write = AmountField(required=False, help_text=AS_INPUT)
    reasoning = AmountField(required=False, help_text=AS_OUTPUT)
    audio_input = AmountField(required=False, help_text=AS_INPUT)
    audio_output = AmountField(required=False, help_text=AS_OUTPUT)
    request = AmountField(required=False, help_text="Of each request, beside its tokens.")
    tiers = TiersField(
        required=False, help_text="Rates for larger prompts, a tier a line: 200000: input 5, output 15"
    )

    class Meta:
        model = Price
        fields = ["target", "valid_from"]
        help_texts = {"valid_from": f"{NEVER_CHANGED} from the same moment, which takes its place."}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(field := self.fields.get("target"), forms.ModelChoiceField):
            field.queryset = Target.objects.select_related("provider")

    def clean(self) -> dict[str, Any] | None:
        """All together, once each field is right by itself."""
        cleaned = super().clean()
        if not self.errors:
            for name, value in self._figures().items():
                setattr(self.instance, name, value)
            try:
                services.check_new_price(self._row(), snapshot.exchange_rates())
            except Unusable as why:
                raise ValidationError(str(why)) from None
        return cleaned

    def _figures(self) -> dict[str, Any]:
        given = self.cleaned_data
        amounts = {name: given[name.removesuffix("_nanos")] for name in KINDS}
        if amounts["cached_input_nanos"] is None:
            amounts["cached_input_nanos"] = amounts["input_nanos"]
        own = {"request_nanos": given["request"] or 0, "currency": given["currency"], "tiers": given["tiers"]}
        return amounts | own

    def _row(self) -> Price:
        given = self.cleaned_data
        return Price(target=given["target"], valid_from=given["valid_from"], **self._figures())


class NeverChanged(NotedAdmin):
    """History: rows are added and looked at."""

    def has_change_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: models.Model | None = None) -> bool:
        """Only along with what they are of, which is deleted on another page."""
        match = request.resolver_match
        own = f"{self.opts.app_label}_{self.opts.model_name}_"
        return match is not None and not (match.url_name or "").startswith(own)


@admin.register(Price)
class PriceAdmin(NeverChanged):
    """Dated prices. One that was is not changed: what calls cost was worked out with it."""

    form = PriceForm
    list_display = [
        *("target_name", "valid_from", "input", "cached_input", "output", "more", "tiers_told", "source")
    ]
    list_select_related = ["target__route", "target__provider"]
    fields = PRICE_FIELDS

    def get_fields(self, request: HttpRequest, obj: Price | None = None) -> Any:
        """A row to look at has what was kept; a form has what is written."""
        if obj is None:
            return PRICE_FIELDS
        shown = ["cached_input", "output", "more", "tiers_told", "source", "created_at"]
        return ["target", "valid_from", "input", *shown]

    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: bool) -> None:
        assert isinstance(obj, Price)
        services.enter_price(obj)

    @admin.display(description="target")
    def target_name(self, price: Price) -> str:
        return f"{price.target.route.model_name} at {price.target.provider.name}"

    @admin.display(description="input")
    def input(self, price: Price) -> str:
        return money(price.input_nanos, price.currency)

    @admin.display(description="cached input")
    def cached_input(self, price: Price) -> str:
        return money(price.cached_input_nanos, price.currency)

    @admin.display(description="output")
    def output(self, price: Price) -> str:
        return money(price.output_nanos, price.currency)

    @admin.display(description="other kinds")
    def more(self, price: Price) -> str:
        names = ("cache_write", "reasoning", "audio_input", "audio_output", "request")
        found = {name: getattr(price, f"{name}_nanos") for name in names}
        return ", ".join(
            f"{name.replace('_', ' ')} {money(nanos, price.currency)}"
            for name, nanos in found.items()
            if nanos
        )

    @admin.display(description="tiers")
    def tiers_told(self, price: Price) -> str:
        return ", ".join(
            f"above {each['above_tokens']:,}: {money(each['input_nanos'], price.currency)} in, "
            f"{money(each['output_nanos'], price.currency)} out"
            for each in price.tiers
        )


class ExchangeRateForm(ExchangeRateModelForm):
    """An exchange rate as people write it: 1 base = so much quote."""

    rate = AmountField(help_text="Of one unit of the base, in the quote: 1 USD = 150 JPY is 150.")

    class Meta:
        model = ExchangeRate
        fields = ["base", "quote", "valid_from"]
        help_texts = {"valid_from": f"A day in UTC. {NEVER_CHANGED} of the same day, which takes its place."}

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if not self.errors:
            self.instance.rate_nanos = self.cleaned_data["rate"]
            try:
                row = self._row()
                services.check_new_rate(row, services.priced_in([row]))
            except Unusable as why:
                raise ValidationError(str(why)) from None
        return cleaned

    def _row(self) -> ExchangeRate:
        given = self.cleaned_data
        own = {name: given[name] for name in ("base", "quote", "valid_from")}
        return ExchangeRate(rate_nanos=given["rate"], **own)


@admin.register(ExchangeRate)
class ExchangeRateAdmin(NeverChanged):
    """Dated exchange rates. One that was is not changed: what calls cost was worked out with it."""

    form = ExchangeRateForm
    list_display = ["base", "quote", "valid_from", "rate", "source"]
    list_filter = ["base", "quote"]

    def get_fields(self, request: HttpRequest, obj: ExchangeRate | None = None) -> Any:
        shown = ["base", "quote", "valid_from", "rate"]
        return shown if obj is None else [*shown, "source", "created_at"]

    def save_model(self, request: HttpRequest, obj: models.Model, form: Any, change: bool) -> None:
        assert isinstance(obj, ExchangeRate)
        services.enter_exchange_rate(obj)

    @admin.display(description="rate")
    def rate(self, rate: ExchangeRate) -> str:
        return f"1 {rate.base} = {amount_of(rate.rate_nanos)} {rate.quote}"
