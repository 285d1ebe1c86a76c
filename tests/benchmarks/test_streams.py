"""Many open streams as a page, as JSON and as a plot."""

from benchmarks.streams import Streams, document, page, plots

FOUND = (
    Streams(100, (100, 100), (40.0,), {"p50": (1.0, 2.0), "p99": (3.0, 4.0)}),
    Streams(1000, (1000, 1000), (38.5,), {"p50": (1.5, 2.5), "p99": (13.0, 24.0)}),
)


def test_the_page_has_first_token_and_memory_of_each_number():
    lines = page(FOUND).splitlines()

    assert "| time to the first token added, p99, 1,000 open | 18.5 ms | 13 to 24 |" in lines
    assert "| memory of the worker for a stream, 100 open | 40 KB | one round |" in lines


def test_the_document_has_every_round():
    assert document(FOUND)["streams"][1] == {
        "count": 1000,
        "most_open": [1000, 1000],
        "memory_kb": [38.5],
        "first_token_added_ms": {"p50": [1.5, 2.5], "p99": [13.0, 24.0]},
    }


def test_there_is_a_plot_of_it():
    assert set(plots(FOUND)) == {"streams.svg"}
