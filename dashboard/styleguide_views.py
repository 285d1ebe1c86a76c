"""The style guide: every token and part of the design system as pages use them, with contrasts worked out."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

THEMES = (("light", _("Light"), ":root"), ("dark", _("Dark"), ':root[data-theme="dark"]'))
PAIRS = (
    ("ink", "surface"),
    ("ink", "surface-raised"),
    ("ink-soft", "surface-raised"),
    ("ink-faint", "surface-raised"),
    ("ink-faint", "surface-sunken"),
    ("accent", "surface-raised"),
    ("accent", "accent-tint"),
    ("accent-ink", "accent"),
    ("good", "good-tint"),
    ("warn", "warn-tint"),
    ("bad", "bad-tint"),
    ("bad-ink", "bad"),
)
"""Words and what they stand on: at least 4.5 to 1."""
SERIES = tuple((f"series-{number}", "surface-raised") for number in range(1, 9))
SHAPES = (*SERIES, ("line-strong", "surface-raised"))
"""Lines, bars and borders of fields: at least 3 to 1."""
SPACES = tuple(f"space-{number}" for number in range(1, 7))
TYPE = (
    ("type-title", _("Titles of pages, h1")),
    ("type-figure", _("Figures of tiles")),
    ("type-heading", _("Headings of panels, h2")),
    ("type-body", _("Sentences and fields")),
    ("type-table", _("Tables, buttons, tabs")),
    ("type-small", _("Help, second lines, badges")),
    ("type-tiny", _("Heads of tables, axes")),
)


class Pair(NamedTuple):
    """A colour on another. `contrast` is the WCAG ratio; `least` what it has to be."""

    ink: str
    surface: str
    contrast: float
    least: float


class Theme(NamedTuple):
    name: str
    title: str | Promise
    words: tuple[Pair, ...]
    shapes: tuple[Pair, ...]


@login_required
@require_safe
def styleguide(request: HttpRequest) -> HttpResponse:
    context = {
        "themes": themes(),
        "spaces": SPACES,
        "type": TYPE,
        "series": [name for name, _on in SERIES],
    }
    return render(request, "dashboard/styleguide.html", context)


@cache
def themes() -> tuple[Theme, ...]:
    """Read from the style sheet itself, so the page cannot tell of colours that are not used."""
    css = (settings.BASE_DIR / "static" / "penstock.css").read_text(encoding="utf-8")
    return tuple(
        Theme(name, title, tuple(_pairs(PAIRS, tokens, 4.5)), tuple(_pairs(SHAPES, tokens, 3)))
        for name, title, selector in THEMES
        for tokens in (tokens_of(css, selector),)
    )


def tokens_of(css: str, selector: str) -> dict[str, str]:
    """The custom properties of the first block of this selector, without their dashes."""
    block = re.search(re.escape(selector) + r"\s*\{(.*?)\}", css, re.DOTALL)
    return dict(re.findall(r"--([\w-]+):\s*([^;]+);", block[1])) if block else {}


def _pairs(wanted: tuple[tuple[str, str], ...], tokens: Mapping[str, str], least: float) -> Iterator[Pair]:
    for ink, surface in wanted:
        yield Pair(ink, surface, contrast(tokens[ink], tokens[surface]), least)


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two colours written as `#rrggbb`: from 1, the same, to 21, black on white."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(int(colour[place : place + 2], 16) / 255) for place in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else float(((channel + 0.055) / 1.055) ** 2.4)
