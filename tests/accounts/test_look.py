"""The colours of the house can be read by everybody, in both themes."""

import re

import pytest
from django.conf import settings

CSS = (settings.BASE_DIR / "static" / "penstock.css").read_text()
SURFACES = ("surface", "surface-raised", "surface-sunken")
TEXT = [(ink, surface) for ink in ("ink", "ink-soft", "ink-faint") for surface in SURFACES] + [
    *(("accent", surface) for surface in (*SURFACES, "accent-tint")),
    *((name, surface) for name in ("good", "warn", "bad") for surface in ("surface-raised", f"{name}-tint")),
    ("ink", "warn-tint"),
    ("ink", "bad-tint"),
    ("accent-ink", "accent"),
    ("accent-ink", "accent-hover"),
    ("bad-ink", "bad"),
]
SHAPES = [
    *((f"series-{number}", "surface-raised") for number in range(1, 9)),
    ("line-strong", "surface-raised"),
    *((gauge, "surface-sunken") for gauge in ("accent", "warn", "bad")),
]


def theme(selector: str) -> dict[str, str]:
    block = re.search(re.escape(selector) + r"\s*\{(.*?)\}", CSS, re.DOTALL)[1]
    return dict(re.findall(r"--([\w-]+):\s*([^;]+);", block))


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


THEMES = {"light": theme(":root"), "dark": theme(':root[data-theme="dark"]')}


@pytest.mark.parametrize("name", THEMES)
@pytest.mark.parametrize(("ink", "surface"), TEXT)
def test_text_is_readable(name, ink, surface):
    colours = THEMES[name]
    assert contrast(colours[ink], colours[surface]) >= 4.5


@pytest.mark.parametrize("name", THEMES)
@pytest.mark.parametrize(("shape", "surface"), SHAPES)
def test_shapes_are_visible(name, shape, surface):
    colours = THEMES[name]
    assert contrast(colours[shape], colours[surface]) >= 3


def test_the_dark_theme_is_the_same_chosen_or_preferred():
    assert theme(":root:not([data-theme])") == THEMES["dark"]


def test_no_style_or_script_comes_from_elsewhere():
    script = (settings.BASE_DIR / "static" / "penstock.js").read_text()
    assert "http" not in CSS
    assert "@import" not in CSS
    assert "http" not in script
    assert "eval" not in script
