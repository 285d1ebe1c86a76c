"""Alerts in words, in the language of whoever reads them."""

import pytest
from django.utils import translation

from gateway.alerts import wording


@pytest.mark.parametrize("counted", wording.QUOTAS)
def test_what_a_quota_counts_is_said_in_the_language_of_the_reader(counted):
    kept = f"Search: fast: {counted}"

    assert wording.detail("quota", kept) == kept
    with translation.override("ja"):
        assert wording.detail("quota", kept) == f"Search: fast: {translation.gettext(counted)}"
        assert wording.detail("quota", kept) != kept


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        ("quota", "Search: money a y"),
        ("quota", ""),
        ("breaker", "acme/gpt-4o"),
        ("breaker", "a: money a month"),
    ],
)
def test_a_text_of_another_form_is_shown_as_it_is(kind, kept):
    with translation.override("ja"):
        assert wording.detail(kind, kept) == kept
