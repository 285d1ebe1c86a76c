from django import forms
from django.test.html import parse_html

from accounts.forms.selects import LongSelect

NAMES = [("", "Any"), (7, "nightly <b>"), (8, "O'Hara & sons")]


def rendered(widget: type[forms.Select], **data: str) -> str:
    field = forms.ChoiceField(choices=NAMES, required=False, widget=widget)
    form = type("Question", (forms.Form,), {"key": field})(data, auto_id="calls_%s")
    return str(form["key"])


def test_a_long_select_is_what_a_select_is() -> None:
    for data in ({}, {"key": "7"}, {"key": "8"}, {"key": "nobody"}):
        assert parse_html(rendered(LongSelect, **data)) == parse_html(rendered(forms.Select, **data))
    assert "<b>" not in rendered(LongSelect)
