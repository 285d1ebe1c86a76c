"""The section of the relay's cost."""

from benchmarks.figures import SHARES, Beside, Books, Figure, Load, Results, Sample, latency_figures
from benchmarks.report import document, machine_page, page, plots

SAMPLE = Sample(1000, 250.4, 251.0, 3900.2, 12.5, 0.93, 0.04)
EMPTY = Sample(9000, 50.1, 50.1, 19_000.0, 3.1, 0.99)
RESULTS = Results(
    (
        Figure("CPU per call", "µs", (250.4, 240.0, 300.0), 260),
        Figure("calls a second", "calls/s", (3900.2, 3000.0, 3000.0), 3800, at_least=True),
        Figure("idle", "%", (1.2,)),
        *(each for share in SHARES for each in latency_figures(share, [(0.5, 2.0), (0.7, 9.0)], "whole")),
    ),
    (Beside(Load(False, 64), (SAMPLE,), (EMPTY,)),),
    Books(1000, 1000, 0, 57_600_000),
    171.2,
)


def test_the_page_says_of_each_bound_whether_it_was_reached():
    lines = page(RESULTS).splitlines()

    assert "| CPU per call | ≤ 260 µs | 250 µs | 240 to 300 | reached |" in lines
    assert "| calls a second | ≥ 3,800 calls/s | 3,000 calls/s | 3,000 to 3,900 | **not reached** |" in lines


def test_the_page_has_all_else_that_was_measured():
    lines = page(RESULTS).splitlines()

    assert "| idle | 1.20 % | one round |" in lines
    assert any(each.startswith("| whole, 64 connections | 250 | 251 |") for each in lines)
    assert "1,000 calls were answered, and 1,000 entries are on the ledger." in lines


def test_latency_has_a_row_for_each_share_and_a_bound_at_half_of_capacity():
    lines = page(RESULTS).splitlines()

    assert "| latency added at a quarter load, whole, p50 | 0.60 ms | 0.50 to 0.70 |" in lines
    assert "| latency added at half load, whole, p99 | ≤ 5 ms | 5.50 ms | 2 to 9 | **not reached** |" in lines
    assert sum("latency added at three quarters load" in each for each in lines) == 2


def test_latency_is_drawn_over_the_share_of_capacity():
    assert all(f">{share}<" in plots(RESULTS)["latency.svg"] for share in (25, 50, 75))


def test_the_machine_is_a_table_of_its_own():
    assert "| cores | 2 |" in machine_page({"cores": "2"}).splitlines()


def test_the_document_has_every_round():
    content = document(RESULTS)

    assert [each["reached"] for each in content["figures"][:3]] == [True, False, None]
    assert content["figures"][0]["values"] == [250.4, 240.0, 300.0]
    assert content["beside_empty"][0]["cpu_ratios"] == [round(250.4 / 50.1, 3)]
    assert content["books"]["entries"] == 1000
