"""Cost by what is carried and where it is kept."""

from benchmarks.figures import Sample
from benchmarks.matrix import ALONE, CENTRE, ELSEWHERE, KB, Cell, Matrix, document, page, plots, size
from tests.benchmarks.test_plots import MOST_BYTES

ROUNDS = (Sample(100, 250.0, 260.0, 3000.0, 12.0, 0.9), Sample(100, 300.0, 310.0, 2500.0, 14.0, 0.9))
FOUND = Matrix(dict.fromkeys((*ALONE, *ELSEWHERE), ROUNDS), dict.fromkeys(ELSEWHERE, (90.0, 110.0)))


def test_a_size_is_told_in_words():
    assert [size(each) for each in (0, 32 * KB, KB * KB)] == ["1 KB", "32 KB", "1 MB"]


def test_the_centre_is_measured_once_and_every_cell_differs():
    cells = (*ALONE, *ELSEWHERE)

    assert cells.count(CENTRE) == 1
    assert len(set(cells)) == len(cells)


def test_a_cell_says_what_it_is():
    cell = Cell(streamed=True, connections=1, answer_bytes=KB * KB)

    assert str(cell) == "streamed, request 1 KB, answer 1 MB, 1 connection, SQLite, 1 worker"
    assert (cell.want.chunks, cell.want.answer_bytes) == (32, KB * KB)


def test_the_page_begins_with_the_centre_and_has_every_cell():
    lines = [each for each in page(FOUND).splitlines() if each.startswith("| ") and "worker" in each]

    assert lines[0] == (
        f"| {CENTRE} | 275 (250 to 300) | 285 (260 to 310) |  | 2,750 (2,500 to 3,000) | 13 (12 to 14) |"
    )
    assert len(lines) == len(ALONE) + len(ELSEWHERE)
    assert sum("100 (90 to 110)" in each for each in lines) == len(ELSEWHERE)


def test_the_document_has_every_round():
    first, *_, last = document(FOUND)["cells"]

    assert (first["place"], first["rounds"][1]["cpu_us"], first["database_and_redis_us"]) == (
        "SQLite, 1 worker",
        300.0,
        [],
    )
    assert last["database_and_redis_us"] == [90.0, 110.0]


def test_its_plots_stay_small():
    drawn = plots(FOUND)

    assert set(drawn) == {"carried.svg", "kept.svg"}
    assert all(len(each.encode()) < MOST_BYTES for each in drawn.values())
