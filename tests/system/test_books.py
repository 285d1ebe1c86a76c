"""The detectors catch what they are for: each is shown a plant in books that are right without it."""

from dataclasses import replace

import pytest

from gateway.simulator import Ended, Received
from gateway.simulator.journal import ReportedUsage
from tests.system import books as b

PRICE = b.Price(input_nanos=1_500_001, cached_input_nanos=700_003, output_nanos=6_000_007)


def call_id(number):
    return f"00000000-0000-7000-8000-{number:012d}"


def received(number):
    return Received(number, 0, call_id(number), "POST", "/v1/chat/completions", "gpt-4o", False, {}, 0, "")


def ended(number, usage):
    return Ended(
        number, 0, call_id(number), "gpt-4o", False, 200, True, 0,
        usage.prompt_tokens, usage.completion_tokens, usage, None, False,
    )  # fmt: skip


def line(number, outcome, basis, tokens):
    unpriced = b.Line(call_id(number), outcome, basis, *tokens, 0)
    return (*(getattr(unpriced, name) for name in b.Line.__slots__[:-1]), PRICE.of(unpriced))


def right():
    """Call 1 answered whole, call 2 interrupted upstream, call 3 interrupted before it was sent."""
    usage = ReportedUsage(2000, 31, 896)
    seen = [b.Seen("t1", call_id(1), True, True), b.Seen("t2", None, True, False)]
    upstream = b.upstream_calls([received(1), ended(1, usage), received(2)])
    answered = line(1, "answered", "reported", (2000, 896, 31))
    cut = line(2, "abandoned", "estimated", (300, 0, 1000))
    books = b.Books(
        [
            b.Entry(*answered, "t1", 100.0),
            b.Entry(*cut, "t2", 101.0),
            b.Entry(call_id(3), "abandoned", "none", 0, 0, 0, 0, "t3", 101.0),
        ],
        [b.Attempt(*answered, 1, 7), b.Attempt(*cut, 1, 7)],
        {7: PRICE},
    )
    return seen, upstream, books


def entries_with(books, place, **changes):
    entries = list(books.entries)
    entries[place] = replace(entries[place], **changes)
    return replace(books, entries=entries)


def attempts_with(books, place, **changes):
    attempts = list(books.attempts)
    attempts[place] = replace(attempts[place], **changes)
    return replace(books, attempts=attempts)


def test_books_that_are_right_have_no_findings():
    assert b.findings(*right()) == []


PLANTS = {
    "a lost row of an answer": (lambda it: replace(it, entries=it.entries[1:]), "lost: a client"),
    "a lost row of a cut call": (
        lambda it: replace(it, entries=[it.entries[0], it.entries[2]]),
        "lost: the provider",
    ),
    "a doubled row": (lambda it: replace(it, entries=[*it.entries, it.entries[0]]), "doubled: 2 entries"),
    "a double under another call id": (
        lambda it: replace(it, entries=[*it.entries, replace(it.entries[0], call_id=call_id(9))]),
        "doubled: 2 entries of trial t1",
    ),
    "a doubled attempt": (
        lambda it: replace(it, attempts=[*it.attempts, it.attempts[0]]),
        "doubled: 2 attempts",
    ),
    "a lost attempt": (lambda it: replace(it, attempts=it.attempts[:1]), "has no attempt"),
    "an attempt without an entry": (
        lambda it: replace(it, attempts=[*it.attempts, replace(it.attempts[0], call_id=call_id(9))]),
        "which has no entry",
    ),
    "an answer that nobody gave": (
        lambda it: entries_with(it, 2, outcome="answered"),
        "no provider received it",
    ),
    "an answer booked as cut": (lambda it: entries_with(it, 0, outcome="hung_up"), "outcome:"),
    "entries that changed places": (
        lambda it: entries_with(it, 0, trial="t9"),
        "outcome:",
    ),
    "a token too many": (lambda it: entries_with(it, 0, output_tokens=32), "tokens:"),
    "cached tokens forgotten": (lambda it: entries_with(it, 0, cached_tokens=0), "tokens:"),
    "a report called an estimate": (lambda it: entries_with(it, 0, basis="estimated"), "tokens:"),
    "an attempt a nano too dear": (
        lambda it: attempts_with(it, 0, cost_nanos=it.attempts[0].cost_nanos + 1),
        "cost:",
    ),
    "an attempt for nothing": (lambda it: attempts_with(it, 1, price_id=None), "has no price"),
    "an entry a nano too dear": (
        lambda it: entries_with(it, 0, cost_nanos=it.entries[0].cost_nanos + 1),
        "sum:",
    ),
    "a cut call called reported": (
        lambda it: entries_with(it, 1, basis="reported"),
        "interrupted:",
    ),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_plant_is_found(plant):
    seen, upstream, books = right()
    change, finding = PLANTS[plant]

    assert any(finding in each for each in b.findings(seen, upstream, change(books)))


def test_a_call_sent_upstream_twice_is_found():
    seen, _, books = right()
    usage = ReportedUsage(2000, 31, 896)
    again = Received(9, 0, call_id(1), "POST", "/v1/chat/completions", "gpt-4o", False, {}, 0, "")
    upstream = b.upstream_calls([received(1), ended(1, usage), received(2), again])

    assert any("received" in each and "2 times" in each for each in b.findings(seen, upstream, books))


def test_an_estimate_below_what_the_provider_did_is_found():
    seen, _, books = right()
    lines = [received(1), ended(1, ReportedUsage(2000, 31, 896))]
    upstream = b.upstream_calls([*lines, received(2), ended(2, ReportedUsage(301, 4, 0))])

    assert any("its provider did (301, 4)" in each for each in b.findings(seen, upstream, books))


def test_costs_are_rounded_half_up_once():
    price = b.Price(500_000, 0, 0)

    assert price.of(b.Line("", "", "", 1, 0, 0, 0)) == 1
    assert price.of(b.Line("", "", "", 3, 0, 0, 0)) == 2
    assert b.Price(499_999, 0, 0).of(b.Line("", "", "", 1, 0, 0, 0)) == 0


def test_a_call_missing_from_the_live_page_makes_the_totals_differ():
    _, _, books = right()
    frames = [
        {"calls": 2, "input_tokens": 2300, "output_tokens": 1031, "cost_nanos": books.entries[0].cost_nanos},
        {"calls": 1, "input_tokens": 0, "output_tokens": 0, "cost_nanos": books.entries[1].cost_nanos},
    ]

    assert b.total_of_frames(frames) == b.total_of_entries(books)
    assert b.total_of_frames(frames[:1]) != b.total_of_entries(books)
    assert b.total_of_entries(books, after_s=101.0).calls == 2
