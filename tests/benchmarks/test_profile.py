"""Where a call's time goes, from what the clocks and py-spy said."""

import pytest

from benchmarks import profile
from benchmarks.profile import LOOP, REST, document, made_of, names_of, page, parts_of

RAW = """\
thread (10): MainThread;serve (granian/server/mp.py:249);Relay.carry (gateway/relay/pipeline.py:62) 3
thread (10): MainThread;serve (granian/server/mp.py:249);plan (gateway/relay/routing.py:64);f (x.py:1) 2
thread (10): MainThread;serve (granian/server/mp.py:249) 5
thread (11): ledger-writer;Thread.run (threading.py:1);_round (gateway/ledger/writer.py:10) 7
thread (11): ledger-writer 1
thread (12) 4
"""
HANDED_ON = "the answer: reading and handing on"
REQUEST = "the request, the route"


def test_threads_have_the_names_that_python_gave_them():
    assert names_of(RAW) == {10: "MainThread", 11: "ledger-writer", 12: ""}


def test_a_sample_belongs_to_the_innermost_frame_that_is_a_parts():
    assert parts_of(RAW) == {REST: 5, HANDED_ON: 3, REQUEST: 2}


def test_every_part_and_the_rest_have_a_name_of_their_own():
    names = [name for name, _ in profile.PARTS]

    assert len({*names, REST}) == len(names) + 1


def test_threads_are_named_and_sorted_and_what_is_next_to_nothing_is_left_out():
    found = made_of(
        310.0, {10: 200.0, 11: 40.0, 12: 20.0, 13: 45.0, 14: 0.2}, {13: "tokio-rt-worker", 14: "p"}, RAW
    )

    assert found.threads == (
        (LOOP, 200.0),
        ("Granian's network", 45.0),
        ("ledger-writer", 40.0),
        ("Granian's Python thread", 20.0),
    )
    assert found.parts == ((REST, 0.5), (HANDED_ON, 0.3), (REQUEST, 0.2))
    assert found.samples == 10


def test_threads_of_one_name_are_added_up():
    found = made_of(3.0, {12: 1.0, 15: 2.0}, {15: ""}, RAW)

    assert found.threads == (("Granian's Python thread", 3.0),)


@pytest.fixture
def found():
    return made_of(310.0, {10: 200.0, 11: 40.0}, {}, RAW)


def test_the_page_shares_the_loops_time_by_samples(found):
    text = page(found)

    assert "| event loop | 200 |" in text
    assert "| ledger-writer | 40 |" in text
    assert f"| {REQUEST} | 20% | 40 |" in text


def test_the_document_has_every_figure(found):
    assert document(found) == {
        "cpu_us": 310.0,
        "threads": ((LOOP, 200.0), ("ledger-writer", 40.0)),
        "parts": ((REST, 0.5), (HANDED_ON, 0.3), (REQUEST, 0.2)),
        "samples": 10,
    }
