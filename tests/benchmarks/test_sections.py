"""Sections, and how one takes its place among others of earlier runs."""

import json

import pytest

from benchmarks.sections import Section, merged_document, merged_page, part_of

ORDER = ("relay", "scaling", "machine")
SECTION = Section(
    "relay",
    lambda effort: 3,
    lambda found: f"## Relay\n\n{found}\n",
    lambda found: {"calls": found},
    lambda found: {"a.svg": "<svg/>"},
)


def test_a_part_says_when_it_was_measured():
    part = part_of(SECTION, 3, {"measured": "2026-11-23", "rounds": 3})

    assert part.page == "## Relay\n\n3\n\n*measured: 2026-11-23, rounds: 3.*\n"
    assert part.document == {"stamp": {"measured": "2026-11-23", "rounds": 3}, "calls": 3}
    assert part.plots == {"a.svg": "<svg/>"}


def test_sections_stand_in_their_order_after_the_method():
    page = merged_page("", "How.\n", {"scaling": "## Growth\n", "relay": "## Relay\n"}, ORDER)

    assert [each for each in page.splitlines() if each and not each.startswith("<!--")] == [
        "How.",
        "## Relay",
        "## Growth",
    ]


def test_a_section_takes_its_own_place_and_leaves_the_others():
    before = merged_page("", "How.\n", {"relay": "## Relay\n\nold", "scaling": "## Growth\n"}, ORDER)

    after = merged_page(before, "How, told better.\n", {"relay": "## Relay\n\nnew"}, ORDER)

    assert "\nold" not in after
    assert "new" in after
    assert "## Growth" in after
    assert after.startswith("How, told better.\n")
    assert "How.\n" not in after


def test_merging_the_same_again_changes_nothing():
    parts = {"relay": "## Relay\n", "machine": "## The machine\n"}
    once = merged_page("", "How.\n", parts, ORDER)

    assert merged_page(once, "How.\n", parts, ORDER) == once


def test_a_page_without_sections_keeps_nothing():
    page = merged_page("# Performance\n\n## Bounds\n", "How.\n", {"relay": "## Relay\n"}, ORDER)

    assert "## Bounds" not in page


def test_a_section_that_is_no_longer_known_goes():
    before = merged_page("", "How.\n", {"relay": "## Relay\n"}, ORDER)

    assert "Relay" not in merged_page(before, "How.\n", {"scaling": "## Growth\n"}, ("scaling",))


def test_the_json_keeps_the_sections_of_earlier_runs():
    before = merged_document("", {"relay": {"calls": 1}, "scaling": {"points": 2}}, ORDER)

    after = json.loads(merged_document(before, {"relay": {"calls": 9}}, ORDER))

    assert after == {"sections": {"relay": {"calls": 9}, "scaling": {"points": 2}}}


def test_json_of_an_older_version_is_left_behind():
    after = merged_document('{"figures": []}', {"relay": {"calls": 9}}, ORDER)

    assert json.loads(after) == {"sections": {"relay": {"calls": 9}}}


def test_a_file_that_is_no_json_is_not_written_over():
    with pytest.raises(ValueError, match="Expecting"):
        merged_document("half a fi", {"relay": {}}, ORDER)
