"""The style guide shows what there is, and the states of a region are as they say."""

import re

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.template.loader import render_to_string
from django.test import Client

from dashboard.styleguide_views import SPACES, TYPE, contrast, themes, tokens_of
from tests.dashboard.conftest import session_of, signed_in

CSS = (settings.BASE_DIR / "static" / "penstock.css").read_text()
STATES = ("empty", "loading", "error", "forbidden")


@pytest.fixture
def page(alice):
    client = Client()
    client.force_login(alice)
    return client.get("/styleguide/").content.decode()


def test_contrasts_are_those_of_wcag():
    assert contrast("#000000", "#ffffff") == 21
    assert contrast("#777777", "#777777") == 1
    assert round(contrast("#767676", "#ffffff"), 2) == 4.54


@pytest.mark.parametrize("theme", themes(), ids=lambda theme: theme.name)
def test_every_pair_of_colours_that_is_shown_reaches_what_it_must(theme):
    too_faint = [pair for pair in (*theme.words, *theme.shapes) if pair.contrast < pair.least]
    assert too_faint == []


def test_tokens_are_read_from_the_style_sheet_that_pages_have():
    light, dark = tokens_of(CSS, ":root"), tokens_of(CSS, ':root[data-theme="dark"]')

    assert {*dark} < {*light}
    assert light["ink"] != dark["ink"]
    assert {*SPACES, *(name for name, _use in TYPE)} < {*light}
    assert tokens_of(CSS, ".nowhere") == {}


def test_it_shows_every_state_and_every_token(page):
    assert re.findall(r'data-state="(\w+)"', page.partition("<template")[0]) == [*STATES]
    for name in (*SPACES, *(name for name, _use in TYPE), *(f"series-{number}" for number in range(1, 9))):
        assert name in page


def test_classes_that_it_names_are_in_the_style_sheet(page):
    named = set(re.findall(r"<code>\.([\w.-]+)</code>", page))

    assert len(named) > 20
    assert [each for each in named if f".{each}" not in CSS] == []


@pytest.mark.parametrize("state", STATES)
def test_a_state_says_what_it_was_given(state):
    told = {"title": "No call yet", "said": "They come here.", "address": "/keys/", "words": "Make a key"}
    drawn = render_to_string(f"states/{state}.html", told)

    assert "No call yet" in drawn
    assert ('href="/keys/"' in drawn) == (state != "loading")


def test_a_state_that_comes_later_is_called_out():
    assert 'role="alert"' in render_to_string("states/error.html")
    assert 'role="status"' in render_to_string("states/loading.html")
    assert "role=" not in render_to_string("states/error.html", {"quiet": True})


@pytest.mark.parametrize("size", ["", "small", "chart"])
async def test_states_are_equally_high_so_nothing_jumps(browser, size):
    page = await browser.new_page(viewport={"width": 1200, "height": 900})
    drawn = "".join(render_to_string(f"states/{state}.html", {"size": size}) for state in STATES)
    await page.set_content(f"<style>{CSS}</style>{drawn}")

    heights = await page.evaluate("[...document.querySelectorAll('.state')].map((each) => each.offsetHeight)")

    assert len(heights) == 4
    assert len(set(heights)) == 1


async def test_a_part_that_cannot_be_fetched_says_so_and_a_busy_one_too(site, browser, alice):
    page, _ = await signed_in(browser, site.origin, await sync_to_async(session_of)(alice))
    await page.goto(f"{site.origin}/styleguide/")
    fetch = """(address) => {
        const region = document.getElementById("keyboard");
        region.seen = [];
        new MutationObserver(() => region.seen.push(region.getAttribute("aria-busy"))).observe(
            region, { attributes: true, attributeFilter: ["aria-busy"] });
        return htmx.ajax("GET", address, { target: region, swap: "innerHTML" }).catch(() => null);
    }"""

    await page.evaluate(fetch, "/no-such-part/")

    assert "could not be fetched" in await page.locator("#keyboard > [role=alert]").inner_text()
    assert "Tab" in await page.locator("#keyboard").inner_text()
    assert await page.evaluate("document.getElementById('keyboard').seen") == ["true", None]


async def test_a_phone_has_the_places_behind_a_button_that_keys_open_and_close(site, browser, alice):
    page, complaints = await signed_in(browser, site.origin, await sync_to_async(session_of)(alice))
    await page.set_viewport_size({"width": 360, "height": 700})
    await page.goto(f"{site.origin}/styleguide/")
    places = page.get_by_role("navigation", name="Main")
    await places.wait_for(state="hidden")

    await page.get_by_role("button", name="Menu", exact=True).press("Enter")
    await places.wait_for(state="visible")
    assert await places.evaluate("(nav) => nav.getBoundingClientRect().right <= innerWidth")
    await page.keyboard.press("Escape")
    await places.wait_for(state="hidden")

    assert complaints == []
