"""The detectors catch what they are for: each is shown a plant in books that are right without it."""

from dataclasses import replace

import pytest

from gateway.simulator import Ended, Received
from gateway.simulator.journal import ReportedUsage
from tests.system import books as b

PRICE = b.Price(input_nanos=1_500_001, cached_input_nanos=700_003, output_nanos=6_000_007)


def call_id(number):
    return f"00000000-0000-7000-8000-{number:012d}"


def at_us(second):
    return int(second * 1_000_000)


def received(number, call=None, at_s=0.5):
    call = call or number
    return Received(
        number, at_us(call * 100 + at_s), call_id(call), "POST", "/v1/chat/completions", "gpt-4o",
        False, {}, 0, "",
    )  # fmt: skip


def ended(number, usage, call=None, status=200, did=None):
    """Usage None: none was reported; `did`: prompt and output tokens, where they are not the usage's."""
    tokens = did or (usage.prompt_tokens, usage.completion_tokens)
    return Ended(
        number, 0, call_id(call or number), "gpt-4o", False, status, True, 0, *tokens, usage, None, False,
    )  # fmt: skip


def line(number, outcome, basis, tokens):
    unpriced = b.Line(call_id(number), outcome, basis, *tokens, 0)
    return (*(getattr(unpriced, name) for name in b.Line.__slots__[:-1]), PRICE.of(unpriced))


def attempt(line, number=1, status=None, at_s=0.0):
    """One that began so many seconds after its call; calls begin a hundred seconds apart."""
    begun = int(line[0][-12:]) * 100
    return b.Attempt(*line, number, 7, status, begun + at_s)


USAGE = ReportedUsage(2000, 31, 896)
NOTHING = (0, 0, 0)


def requests():
    return [
        received(1),
        ended(1, USAGE),
        received(2),
        received(3, call=4),
        ended(3, None, call=4, status=500, did=NOTHING[:2]),
        received(4, call=4, at_s=10.5),
        ended(4, None, call=4, did=(2000, 3)),
        received(5, call=4, at_s=20.5),
        ended(5, USAGE, call=4),
    ]


def right():
    """Five calls, all well on the books.

    1 answered whole, 2 interrupted upstream, 3 interrupted before it was sent,
    4 answered at the third attempt, after an error and an answer that broke off, 5 refused.
    """
    seen = [
        b.Seen("t1", call_id(1), True, True),
        b.Seen("t2", None, True, False),
        b.Seen("t4", call_id(4), True, True),
        b.Seen("t5", call_id(5), False, False, refused=True),
    ]
    answered = line(1, "answered", "reported", (2000, 896, 31))
    cut = line(2, "abandoned", "estimated", (300, 0, 1000))
    tries = [
        attempt(line(4, "failed", "none", NOTHING), 1, 500),
        attempt(line(4, "failed", "estimated", (1990, 0, 3)), 2, 200, at_s=10),
        attempt(line(4, "answered", "reported", (2000, 896, 31)), 3, 200, at_s=20),
    ]
    cost = sum(each.cost_nanos for each in tries)
    books = b.Books(
        [
            b.Entry(*answered, "t1", 100.0),
            b.Entry(*cut, "t2", 101.0),
            b.Entry(call_id(3), "abandoned", "none", 0, 0, 0, 0, "t3", 101.0),
            b.Entry(call_id(4), "answered", "estimated", 3990, 896, 34, cost, "t4", 101.0),
        ],
        [attempt(answered, status=200), attempt(cut), *tries],
        {7: PRICE},
    )
    return seen, b.upstream_calls(requests()), books


def entries_with(books, place, **changes):
    entries = list(books.entries)
    entries[place] = replace(entries[place], **changes)
    return replace(books, entries=entries)


def attempts_with(books, place, **changes):
    attempts = list(books.attempts)
    attempts[place] = replace(attempts[place], **changes)
    return replace(books, attempts=attempts)


def without_attempt(books, place):
    return replace(books, attempts=[each for each in books.attempts if each is not books.attempts[place]])


def test_books_that_are_right_have_no_findings():
    assert b.findings(*right()) == []


PLANTS = {
    "a lost row of an answer": (lambda it: replace(it, entries=it.entries[1:]), "lost: a client"),
    "a lost row of a cut call": (
        lambda it: replace(it, entries=[it.entries[0], *it.entries[2:]]),
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
    "a lost attempt": (lambda it: without_attempt(it, 1), "has no attempt"),
    "a lost first attempt": (lambda it: without_attempt(it, 2), "has no attempt"),
    "a lost retry": (lambda it: without_attempt(it, 3), "has the attempts [1, 3]"),
    "a lost last attempt": (lambda it: without_attempt(it, 4), "2 times"),
    "an attempt that was never made": (
        lambda it: replace(
            it, attempts=[*it.attempts, replace(it.attempts[4], attempt_no=4, started_at_s=430.0)]
        ),
        "has status 200, its provider said nothing",
    ),
    "a status that nobody sent": (
        lambda it: attempts_with(it, 2, status=503),
        "has status 503, its provider said {500}",
    ),
    "an answer after an answer": (lambda it: attempts_with(it, 3, outcome="answered"), "outcome:"),
    "an answer whose last attempt failed": (lambda it: attempts_with(it, 4, outcome="failed"), "outcome:"),
    "a refused call on the ledger": (
        lambda it: replace(it, entries=[*it.entries, replace(it.entries[2], call_id=call_id(5), trial="t5")]),
        "was refused, and there is more of it",
    ),
    "an attempt without an entry": (
        lambda it: replace(it, attempts=[*it.attempts, replace(it.attempts[0], call_id=call_id(9))]),
        "its call has no entry",
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
    "a token too many": (lambda it: attempts_with(it, 0, output_tokens=32), "tokens:"),
    "cached tokens forgotten": (lambda it: attempts_with(it, 0, cached_tokens=0), "tokens:"),
    "a report called an estimate": (lambda it: attempts_with(it, 0, basis="estimated"), "tokens:"),
    "an error that is billed": (
        lambda it: attempts_with(it, 2, basis="estimated", input_tokens=1990),
        "was an error of its provider",
    ),
    "half an answer for nothing": (lambda it: attempts_with(it, 3, basis="none"), "and it has none"),
    "an entry a token short": (lambda it: entries_with(it, 0, output_tokens=30), "sum:"),
    "an entry without its failed attempts": (
        lambda it: entries_with(it, 3, input_tokens=2000, output_tokens=31),
        "sum:",
    ),
    "an entry surer than its attempts": (lambda it: entries_with(it, 3, basis="reported"), "sum:"),
    "an attempt a nano too dear": (
        lambda it: attempts_with(it, 0, cost_nanos=it.attempts[0].cost_nanos + 1),
        "cost:",
    ),
    "an attempt for nothing": (lambda it: attempts_with(it, 1, price_id=None), "has no price"),
    "an entry a nano too dear": (
        lambda it: entries_with(it, 0, cost_nanos=it.entries[0].cost_nanos + 1),
        "sum:",
    ),
    "a cut call called reported": (lambda it: attempts_with(it, 1, basis="reported"), "interrupted:"),
    "a cut call called failed": (lambda it: entries_with(it, 1, outcome="failed"), "interrupted:"),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_plant_is_found(plant):
    seen, upstream, books = right()
    change, finding = PLANTS[plant]

    assert any(finding in each for each in b.findings(seen, upstream, change(books)))


def test_an_attempt_that_was_sent_twice_is_found():
    seen, _, books = right()
    upstream = b.upstream_calls([*requests(), received(9, call=1, at_s=0.6)])

    assert any(
        "received attempt 1" in each and "2 times" in each for each in b.findings(seen, upstream, books)
    )


def test_a_request_from_before_its_call_is_found():
    seen, _, books = right()
    upstream = b.upstream_calls([*requests(), received(9, call=3)])

    assert any("no attempt for it" in each for each in b.findings(seen, upstream, books))


def test_a_refused_call_that_was_sent_is_found():
    seen, _, books = right()
    upstream = b.upstream_calls([*requests(), received(9, call=5)])

    assert any("there is more of it" in each for each in b.findings(seen, upstream, books))


def test_an_estimate_below_what_the_provider_did_is_found():
    seen, _, books = right()
    upstream = b.upstream_calls([*requests(), ended(2, ReportedUsage(301, 4, 0))])

    assert any("its provider did (301, 4)" in each for each in b.findings(seen, upstream, books))


def test_costs_are_rounded_half_up_once():
    price = b.Price(500_000, 0, 0)

    assert price.of(b.Line("", "", "", 1, 0, 0, 0)) == 1
    assert price.of(b.Line("", "", "", 3, 0, 0, 0)) == 2
    assert b.Price(499_999, 0, 0).of(b.Line("", "", "", 1, 0, 0, 0)) == 0


def test_a_call_missing_from_the_live_page_makes_the_totals_differ():
    _, _, books = right()
    costs = [each.cost_nanos for each in books.entries]
    frames = [
        {"calls": 2, "input_tokens": 2300, "output_tokens": 1031, "cost_nanos": costs[0] + costs[3]},
        {"calls": 2, "input_tokens": 3990, "output_tokens": 34, "cost_nanos": costs[1]},
    ]

    assert b.total_of_frames(frames) == b.total_of_entries(books)
    assert b.total_of_frames(frames[:1]) != b.total_of_entries(books)
    assert b.total_of_entries(books, after_s=101.0).calls == 3
