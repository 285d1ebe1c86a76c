"""What a run is asked for, and what it leaves where."""

import json

import pytest

from benchmarks import run
from benchmarks.load import NotWhole
from benchmarks.processes import Cores
from benchmarks.sections import Effort, Section

EFFORT = Effort(Cores(0, 1), 1, 0.1)
FACTS = {"Penstock": "1", "load before the run": "0.0"}


def section(name, measure):
    return Section(
        name,
        measure,
        lambda found: f"## {name}\n\n{found}",
        lambda found: {"n": found},
        lambda _: {"a.svg": "<svg/>"},
    )


def breaks(effort):
    raise NotWhole("a stream lacks an event")


def breaks_oddly(effort):
    raise KeyError("nobody thought of it")


@pytest.fixture
def asked(monkeypatch):
    def ask(*words):
        monkeypatch.setattr("sys.argv", ["benchmarks.run", *words])
        return run._arguments()

    return ask


def test_a_quick_run_has_the_quick_sections_and_writes_nothing(asked):
    found = asked()

    assert [each.name for each in found.sections] == ["relay", "peers"]
    assert (found.quick, found.docs) == (True, None)


def test_a_full_run_has_every_section_and_writes_into_the_docs(asked):
    found = asked("--full", "--rounds", "1")

    assert found.sections == list(run.SECTIONS)
    assert (found.quick, found.docs.name, found.rounds) == (False, "docs", 1)


def test_sections_may_be_named(asked):
    assert [each.name for each in asked("--only", "scaling,streams").sections] == ["scaling", "streams"]


def test_a_section_that_does_not_exist_is_refused_with_those_that_do(asked, capsys):
    with pytest.raises(SystemExit):
        asked("--only", "scalding")

    assert "there is no scalding; there are relay" in capsys.readouterr().err


def test_a_section_is_printed_and_written_in_its_place(tmp_path, capsys):
    assert run._run(section("relay", lambda _: 3), EFFORT, FACTS, tmp_path / "docs")

    assert "## relay\n\n3\n" in capsys.readouterr().out
    page = (tmp_path / "docs" / "performance.md").read_text()
    assert page.startswith("# Performance")
    assert "## relay\n\n3\n" in page
    assert "| Penstock | 1 |" in page
    written = json.loads((tmp_path / "docs" / "performance.json").read_text())
    assert written["sections"]["relay"]["n"] == 3
    assert (tmp_path / "docs" / "plots" / "a.svg").read_text() == "<svg/>"


@pytest.mark.parametrize("measure", [breaks, breaks_oddly])
def test_a_section_that_breaks_loses_no_other(measure, tmp_path):
    run._run(section("relay", lambda _: 3), EFFORT, FACTS, tmp_path)
    before = (tmp_path / "performance.md").read_text(), (tmp_path / "performance.json").read_text()

    assert run._run(section("scaling", measure), EFFORT, FACTS, tmp_path) is False

    assert before == ((tmp_path / "performance.md").read_text(), (tmp_path / "performance.json").read_text())


def test_without_a_place_for_it_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert run._run(section("relay", lambda _: 3), EFFORT, FACTS, None)

    assert list(tmp_path.iterdir()) == []
