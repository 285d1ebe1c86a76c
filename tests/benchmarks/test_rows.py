"""What is made of the field report's calls and of the provider's journal."""

import dataclasses

import pytest

from benchmarks import world
from benchmarks.rows import Bill, Call, Field, Row, bills, document, fate, page, row
from gateway.simulator.journal import Ended, Received, ReportedUsage

PLAIN = Row(400, 1100.0, 1400.0, 8, 0, 400, 7.61)
OURS = Row(400, 330.0, 900.0, 0, 0, 408, 7.61)
FIELD = Field("httpx2 1", (PLAIN,) * 4, (OURS,) * 4, (PLAIN,) * 4, (PLAIN,) * 4, 2.5, 61.0)


def received(name):
    return Received(1, 0, None, "POST", "/v1/chat/completions", name, True, {}, 10, "")


def ended(name, usage):
    return Ended(1, 0, None, name, True, 200, True, 10, 5, 5, usage, None, False)


@pytest.mark.parametrize(
    ("status", "said", "streamed", "expected"),
    [
        (200, b'data: {"a": 1}\n\ndata: [DONE]\n\n', True, "answered"),
        (200, b'data: {"a": 1}\n\n', True, "failed"),
        (200, b'data: {"a": 1}\n\ndata: {"error":{"code":"upstream_timeout"}}\n\n', True, "timed_out"),
        (200, b'{"choices":[{"finish_reason":"stop"}]}', False, "answered"),
        (200, b'{"choices":[{"finish_reason":', False, "failed"),
        (504, b'{"error":{}}', False, "timed_out"),
        (502, b'{"error":{}}', True, "failed"),
    ],
)
def test_an_answer_has_to_be_whole(status, said, streamed, expected):
    assert fate(status, said, streamed=streamed) == expected


def test_a_row_is_of_all_its_calls():
    calls = [Call("answered", 0.5), Call("answered", 0.7), Call("timed_out", 10.0), Call("failed", 0.8)]
    found = row(calls, Bill(5, 0.03))

    assert (found.calls, found.timed_out, found.failed, found.attempts) == (4, 1, 1, 5)
    assert (found.mean_ms, found.p95_ms, found.timeouts) == (3000, 10_000, 0.25)
    assert found.usd == 15.0  # three cents for two answers


def test_a_row_without_an_answer_is_no_figure():
    with pytest.raises(ValueError, match="not one call"):
        row([Call("failed", 1.0)], Bill(1, 0.0))


def test_the_provider_bills_what_it_reported_and_else_the_work_it_did():
    journal = [
        received("a"),
        received("a"),
        received("b"),
        ended("a", ReportedUsage(1000, 100, 0)),
        ended("a", None),
        ended("b", ReportedUsage(0, 0, 0)),
        received(None),
    ]
    whole = (world.PROMPT_TOKENS * world.INPUT_USD + world.COMPLETION_TOKENS * world.OUTPUT_USD) / 1e6
    found = bills(journal)

    assert found["a"].requests == 2
    assert found["a"].usd == pytest.approx(0.0035 + whole)
    assert found["b"] == Bill(1, 0.0)


def test_the_aim_is_measured_against_the_plain_first_row():
    assert FIELD.less_latency == pytest.approx(0.7)
    assert FIELD.fewer_timeouts == 1
    assert FIELD.possible == pytest.approx(1 - (world.mean_answer_s() + 0.08) / 1.1)
    never = dataclasses.replace(PLAIN, timed_out=0)
    assert dataclasses.replace(FIELD, plain=(never,) * 4).fewer_timeouts is None


def test_the_page_has_every_row_beside_the_published_one():
    lines = page(FIELD).splitlines()

    assert "| **pool of 10**, published | 890 ms |  | 3.1% |  | 7.85 |  |" in lines
    assert lines.count("| plain client | 1,100 ms | 1,400 ms | 2.0% (8) | 0 | 7.61 |  |") == 4
    ours = [line for line in lines if line.startswith("| Penstock |")]
    assert [line.split("|")[-2].strip() for line in ours] == [
        "latency won, time-outs won, cost won",
        "latency won, time-outs won, cost won",
        "latency won, time-outs won, cost **lost**",
        "latency won, time-outs won, cost **lost**",
    ]
    assert any("70% less time (aim 85%: **not reached**)" in line for line in lines)
    assert any("beside the plain client with the same, 70% less time." in line for line in lines)
    assert any("had 100% fewer time-outs (aim 98%: reached)" in line for line in lines)


def test_what_is_answered_late_is_said():
    late = dataclasses.replace(FIELD.near[0], p95_ms=FIELD.plain[0].p95_ms + 1)
    slow = dataclasses.replace(FIELD, near=(late, *FIELD.near[1:]))

    assert "is the higher one in 1 of 4 rows" in page(slow)
    assert "is the higher one" not in page(FIELD)


def test_a_prose_line_is_one_sentence():
    for line in page(FIELD).splitlines():
        assert line.startswith(("|", "#")) or ". " not in line


def test_the_document_has_every_row_of_every_program():
    content = document(FIELD)

    assert [each["name"] for each in content["rows"]] == [each.name for each in world.PUBLISHED]
    assert content["rows"][3]["near"]["timed_out"] == 0
    assert content["rows"][0]["plain"]["mean_ms"] == 1100.0
    assert (content["less_latency"], content["fewer_timeouts"]) == (0.7, 1)
