"""The page of figures: what a run writes down, and what it leaves as it was."""

import json
import re

import pytest

from tests import proofs
from tests.proofs import Proofs, Ran, is_a_proof, merged, rendered, rows_said, stated

EARLIER = {"by": "", "figure": "0 lost", "n": "20 kills", "on": "before", "version": "0"}
M1 = {
    "row": "M1",
    "goal": "0 lost",
    "repeat": "`pytest`",
    "tests": ["tests/a.py", "tests/b.py"],
    "figures": [],
}


def ran(test="tests/a.py::test_kills", figure="", n="", **more) -> Ran:
    figures = (stated(more.pop("row", "M1"), figure, n),) if figure else ()
    return Ran(test, more.pop("passed", True), stated=figures, **more)


def after(row, *tests):
    [found] = merged([row], tests, "2030-01-02", "7.1")
    return found


def told(row) -> list[str]:
    return [each["figure"] for each in row["figures"]]


def test_a_figure_is_kept_with_its_test_day_and_version():
    assert after(M1, ran(figure="1 lost", n="5 kills"))["figures"] == [
        {
            "by": "tests/a.py::test_kills",
            "figure": "1 lost",
            "n": "5 kills",
            "on": "2030-01-02",
            "version": "7.1",
        }
    ]


def test_a_test_replaces_its_own_figure_and_leaves_those_of_others():
    row = after(M1, ran(figure="1 lost"), ran("tests/b.py::test_restarts", "2 lost"))

    assert told(after(row, ran(figure="3 lost"))) == ["2 lost", "3 lost"]


def test_a_row_that_did_not_run_stays_as_it_was():
    row = {**M1, "figures": [EARLIER]}
    assert after(row, ran("tests/c.py::test_other", "9", row="M2")) == row


def test_the_text_of_an_earlier_run_goes_when_all_that_proves_the_row_has_run():
    row = {**M1, "figures": [EARLIER]}
    part = after(row, ran(figure="1 lost"))

    assert told(part) == ["0 lost", "1 lost"]
    assert told(after(row, ran(figure="1 lost"), ran("tests/b.py::test_restarts"))) == ["1 lost"]


def test_the_long_variant_counts_where_the_short_one_ran_too():
    short = ran("tests/a.py::test_short", "0 of 5")
    assert told(after(M1, short, ran(figure="0 of 500", is_long=True))) == ["0 of 500"]
    assert told(after(M1, short)) == ["0 of 5"]


def test_a_row_that_is_green_tests_counts_them():
    row = {**M1, "green": "all hold"}
    found = after(row, ran(), ran("tests/b.py::test_one"), ran("tests/b.py::test_two"))

    assert [(each["figure"], each["n"]) for each in found["figures"]] == [("all hold", "3 tests")]
    assert after(row, ran())["figures"] == [], "only one of its files ran"


def test_a_failed_test_takes_its_row_down_until_all_of_it_is_green_again():
    row = {**M1, "figures": [EARLIER]}
    failed = after(row, ran(passed=False, failure="AssertionError: 2 lost\nassert 2 == 0"))

    assert "**not held** (tests/a.py::test_kills: AssertionError: 2 lost); 0 lost |" in rendered("", [failed])
    assert "not_held" in after(failed, ran("tests/b.py::test_restarts"))
    assert "not_held" not in after(failed, ran(), ran("tests/b.py::test_restarts"))


def test_what_a_failed_test_stated_is_no_figure():
    assert after(M1, ran(figure="0 lost", passed=False))["figures"] == []


def test_a_row_without_a_figure_says_so():
    assert "| M1 | 0 lost | not measured yet |  |  | `pytest` |" in rendered("# What survives", [M1])


def test_no_text_ends_its_cell_or_its_line():
    row = {**M1, "figures": [{**EARLIER, "figure": "|t| 0.2\nand \\|t\\| 0.3"}]}
    line = rendered("", [row]).splitlines()[-1]

    assert "\\|t\\| 0.2 and \\|t\\| 0.3" in line
    assert len(re.findall(r"(?<!\\)\|", line)) == 7


@pytest.mark.parametrize(
    ("text", "rows"),
    [("M4  500 deaths", ["M4"]), ("O2/O4 5 s", ["O2", "O4"]), ("H5: 3 MiB", ["H5"]), ("Gate  600", [])],
)
def test_a_line_that_begins_with_rows_is_their_figure(text, rows):
    assert [each["row"] for each in rows_said(text)] == rows


@pytest.mark.parametrize(
    ("marks", "writes"),
    [("prove", True), ("prove or not prove", True), ("not prove", False), ("", False)],
)
def test_only_a_run_of_proofs_writes(marks, writes):
    assert is_a_proof(marks) is writes


def test_a_run_writes_both_files(tmp_path):
    data, page = tmp_path / "reliability.json", tmp_path / "reliability.md"
    data.write_text(json.dumps({"preface": "# What survives", "rows": [M1]}))
    plugin = Proofs("7.1", data, page)
    plugin.pytest_runtest_logreport(report("passed", [(proofs.STATED, stated("M1", "0 lost", "20 kills"))]))
    plugin.pytest_sessionfinish()

    assert "| 0 lost | 20 kills |" in page.read_text()
    assert json.loads(data.read_text())["rows"][0]["figures"][0]["version"] == "7.1"


def test_a_run_without_tests_writes_nothing(tmp_path):
    plugin = Proofs("7.1", tmp_path / "none.json", tmp_path / "none.md")
    plugin.pytest_runtest_logreport(report("skipped", []))
    plugin.pytest_sessionfinish()

    assert list(tmp_path.iterdir()) == []


def report(outcome, properties):
    where = ("tests/a.py", 1, "test_kills")
    return pytest.TestReport(
        "tests/a.py::test_kills", where, {"prove": 1}, outcome, None, "call", user_properties=properties
    )


def test_a_test_states_a_figure_of_a_row_that_there_is(proof, request):
    proof("M1", figure="0 lost", n="1 kill")
    with pytest.raises(KeyError, match="no row M0"):
        proof("M0", figure="0 lost")

    assert request.node.user_properties.pop() == (proofs.STATED, stated("M1", "0 lost", "1 kill"))


def test_the_page_is_what_its_data_say():
    kept = proofs.read()
    assert proofs.PAGE.read_text() == rendered(kept["preface"], kept["rows"])


def test_the_tests_of_a_row_are_there():
    places = [each for row in proofs.read()["rows"] for each in row["tests"]]
    assert [each for each in places if not (proofs.BASE_DIR / each.partition("::")[0]).exists()] == []
