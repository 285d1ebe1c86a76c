"""Growth as a page, as JSON and as plots."""

import re

import pytest

from benchmarks.growth import AXES, GROWN, LIMITS, PAGES, Point, document, page, plots, verdict

KEYS = GROWN[0]


def grown(count, *cost):
    return Point(count, list(cost), 4.0, 180.0, [3.0, 4.0, 5.0], [1.0, 1.5])


FOUND = {axis.name: [grown(count, 250.0, 260.0) for count in axis.counts] for axis in GROWN} | {
    axis.name: [Point(count, [1.0, 2.0]) for count in axis.counts] for axis in (LIMITS, PAGES)
}


def test_a_line_is_flat_while_its_dearest_point_overlaps_with_its_first():
    points = [grown(10, 240, 260), grown(1000, 250, 280), grown(100_000, 255, 258)]

    assert verdict(KEYS, points).startswith("Flat")
    assert "1,000" in verdict(KEYS, points)


def test_of_a_line_that_rises_the_reason_is_told():
    points = [grown(10, 200, 200, 210), grown(1000, 300, 305, 400)]

    assert verdict(KEYS, points) == f"At 1,000 it is 1.52 times what it is at 10.\n{KEYS.why}"


def test_a_line_that_falls_is_no_dearer_than_it_began():
    assert verdict(KEYS, [grown(10, 300, 310), grown(1000, 200, 210)]).startswith("Flat")


def test_one_round_tells_nothing():
    assert verdict(KEYS, [grown(10, 200), grown(1000, 300)]).startswith("One round cannot tell")


@pytest.mark.parametrize("axis", AXES, ids=[each.name for each in AXES])
def test_every_axis_has_its_plot_its_table_and_a_reason(axis):
    said = page(FOUND)

    assert f"plots/scaling_{axis.name}.svg" in said
    assert all(f"| {count:,} |" in said for count in axis.counts)
    assert axis.why.endswith(".")
    assert f"scaling_{axis.name}.svg" in plots(FOUND)


def test_what_was_not_measured_is_not_shown():
    limits = page(FOUND).partition(f"### By {LIMITS.what}")[2].partition("###")[0]

    assert "start, s" not in limits
    assert "first_ms" not in document(FOUND)["axes"]["limits"]["points"][0]


def test_the_document_has_every_round():
    first = document(FOUND)["axes"]["keys"]["points"][0]

    assert first == {
        "count": 10,
        "cost": [250.0, 260.0],
        "first_ms": [3.0, 4.0, 5.0],
        "again_ms": [1.0, 1.5],
        "start_s": 4.0,
        "memory_mb": 180.0,
    }


def test_a_page_has_one_sentence_a_line():
    risen = {
        name: [Point(each.count, [1.0 + each.count] * 2) for each in points] for name, points in FOUND.items()
    }
    prose = [each for each in page(risen).splitlines() if not each.startswith(("|", "#"))]

    assert any(LIMITS.why.splitlines()[1] in each for each in prose)
    assert [each for each in prose if re.search(r"[a-z0-9`)]\. [A-Z]", each)] == []
