"""Plots of results."""

import xml.etree.ElementTree as ET

import pytest

from benchmarks.plots import Line, Panel, short, svg

MOST_BYTES = 40_000
PANEL = Panel(
    "Keys", "API keys", "CPU per call, µs", [Line("", {10: (250, 260, 240), 1_000_000: (270, 255, 290)})]
)


def texts(drawn):
    return [each.text for each in ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")]


def test_the_same_results_make_the_same_file():
    assert svg(PANEL) == svg(PANEL)


def test_a_plot_says_what_its_axes_are_in_text_that_can_be_read():
    found = texts(svg(PANEL))

    assert {"Keys", "API keys", "CPU per call, µs", "10", "1M"} <= set(found)


def test_nothing_in_it_says_when_or_by_what_it_was_drawn():
    drawn = svg(PANEL)

    assert "dc:date" not in drawn
    assert "dc:creator" not in drawn


def test_it_is_white_behind():
    behind = svg(PANEL).partition('<g id="patch_1">')[2].partition("</g>")[0]

    assert "fill: #ffffff" in behind


def test_nought_has_its_place_before_the_logarithms():
    found = texts(svg(Panel("", "x", "y", [Line("", {0: (1,), 10: (2,), 300: (3,)})])))

    assert [each for each in found if each in ("0", "10", "300")] == ["0", "10", "300"]


@pytest.mark.parametrize("panels", [1, 2])
def test_a_plot_stays_small(panels):
    """As many lines and places as the fullest that is drawn."""
    points = {10**place: (place + 1.0, place + 2.0, place + 4.0) for place in range(5)}
    panel = Panel("A title", "things", "µs", [Line(name, points) for name in ("one", "two")])

    assert len(svg(*[panel] * panels).encode()) < MOST_BYTES


def test_bars_have_their_names_below_them():
    found = texts(svg(Panel("", "", "µs", bars={"SQLite": (200, 210), "PostgreSQL": (300, 250)})))

    assert {"SQLite", "PostgreSQL"} <= set(found)


def test_what_is_below_nought_is_drawn():
    drawn = svg(Panel("", "x", "%", [Line("", {0: (-4.0, -3.0), 10: (2.0,)})]))

    assert any(each.startswith("\N{MINUS SIGN}") for each in texts(drawn))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (512, "512"),
        (1000, "1,000"),
        (32_000, "32k"),
        (100_000, "100k"),
        (10**7, "10M"),
    ],
)
def test_large_numbers_are_short(number, said):
    assert short(number) == said


def test_places_may_be_even():
    points = {25: (1.0,), 50: (2.0,), 75: (3.0,)}
    even, uneven = (svg(Panel("", "x", "y", [Line("", points)], even=each)) for each in (True, False))

    def gaps(drawn):
        ticks = ET.fromstring(drawn).iter("{http://www.w3.org/2000/svg}text")
        places = [float(each.get("x")) for each in ticks if each.text in ("25", "50", "75")]
        return places[1] - places[0], places[2] - places[1]

    assert gaps(even)[0] == pytest.approx(gaps(even)[1], abs=0.01)
    assert gaps(uneven)[0] > gaps(uneven)[1] * 1.1
