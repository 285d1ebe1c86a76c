"""The page that a run writes."""

import json

from benchmarks.figures import Beside, Books, Figure, Load, Results, Sample
from benchmarks.report import document, page
from tests.benchmarks.test_rows import FIELD

SAMPLE = Sample(1000, 250.4, 251.0, 3900.2, 12.5, 0.93, 0.04)
EMPTY = Sample(9000, 50.1, 50.1, 19_000.0, 3.1, 0.99)
RESULTS = Results(
    (
        Figure("CPU per call", "µs", (250.4, 240.0, 300.0), 260),
        Figure("calls a second", "calls/s", (3900.2, 3000.0, 3000.0), 3800, at_least=True),
        Figure("idle", "%", (1.2,)),
    ),
    (Beside(Load(False, 64), (SAMPLE,), (EMPTY,)),),
    Books(1000, 1000, 0, 57_600_000),
    171.2,
)


def test_the_page_says_of_each_bound_whether_it_was_reached():
    lines = page("How.\n", RESULTS, FIELD, {"cores": "2"}).splitlines()

    assert "| CPU per call | ≤ 260 µs | 250 µs | 240 to 300 | reached |" in lines
    assert "| calls a second | ≥ 3,800 calls/s | 3,000 calls/s | 3,000 to 3,900 | **not reached** |" in lines


def test_the_page_has_all_else_that_was_measured():
    lines = page("How.\n", RESULTS, FIELD, {"cores": "2"}).splitlines()

    assert lines[0] == "How."
    assert "| idle | 1.20 % | one round |" in lines
    assert any(each.startswith("| whole, 64 connections | 250 (250 to 250) | 251") for each in lines)
    assert "1,000 calls were answered, and 1,000 entries are on the ledger." in lines
    assert "## A field report, made again" in lines
    assert "| cores | 2 |" in lines


def test_the_document_has_every_round():
    content = json.loads(document(RESULTS, FIELD, {"cores": "2"}))

    assert [each["reached"] for each in content["figures"]] == [True, False, None]
    assert content["figures"][0]["values"] == [250.4, 240.0, 300.0]
    assert content["beside_empty"][0]["cpu_ratios"] == [round(250.4 / 50.1, 3)]
    assert content["books"]["entries"] == 1000
    assert len(content["field"]["rows"]) == 4
