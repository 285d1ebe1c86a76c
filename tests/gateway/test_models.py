"""What `docs/configuration.md` says of routes and targets is held to the tables."""

import re

import pytest
from django.conf import settings

from gateway.inputs import ROUTE_RANGES, TARGET_RANGES
from gateway.models import Route, Target
from gateway.services import ROUTE_SETTINGS, TARGET_SETTINGS

PAGE = (settings.BASE_DIR / "docs" / "configuration.md").read_text()
ROWS = {
    name: (default, least, most)
    for name, default, least, most in re.findall(
        r"^\| `([a-z0-9_]+)` \| (.*?) \| (.*?) ?\| (.*?) ?\| .+ \|$", PAGE, re.MULTILINE
    )
}
WORDS = {None: "not known", False: "off", "": "none"}
"""How the page writes a default that is no figure."""


def test_every_setting_is_on_the_page_and_nothing_else():
    assert set(ROWS) == (TARGET_SETTINGS | ROUTE_SETTINGS) - {"enabled", "unpriced"}


@pytest.mark.parametrize(("name", "bounds"), (TARGET_RANGES | ROUTE_RANGES).items())
def test_every_range_is_the_one_on_the_page(name, bounds):
    assert tuple(map(float, ROWS[name][1:])) == bounds


@pytest.mark.parametrize("name", sorted(set(ROWS) - {"parameters", "timeout_s"}))
def test_every_default_is_the_one_on_the_page(name):
    model = Route if name in ROUTE_SETTINGS else Target
    default = model._meta.get_field(name).default

    is_figure = isinstance(default, int | float) and not isinstance(default, bool)
    assert ROWS[name][0] == (f"{default:g}" if is_figure else WORDS.get(default, default))


def test_a_route_has_no_deadline_of_its_own_unless_it_is_given_one():
    assert Route._meta.get_field("timeout_s").default is None
    assert ROWS["timeout_s"][0] == "`CALL_TIMEOUT_S`"
