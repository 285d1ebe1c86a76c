"""What the proofs reached, written to `docs/reliability.md` by the run that reached it.

    proof("M1", figure="0 lost, 0 doubled", n="200 kills")

A figure is kept in `docs/reliability.json` with the test that stated it, the day and the version, until that
test states another. Only a run with `-m prove` writes (see `is_a_proof`); what did not run stays as it was.
Everything but `read` and `write` is pure.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dashboard.env import BASE_DIR
from tests import postgres

DATA = BASE_DIR / "docs" / "reliability.json"
PAGE = BASE_DIR / "docs" / "reliability.md"
STATED = "proof"
"""The user property of a test's report that a stated figure travels in, also from another process."""
WRITING = ("prove", "prove or not prove")
"""The marks that a run is asked for when it is to be written down."""
SAID = re.compile(r"([A-Z]\d+(?:/[A-Z]\d+)*)[: ]+(\S.*)", re.DOTALL)
"""A line for the reader of the run that begins with the rows that it is about."""
LONGEST_FAILURE = 200

Row = dict[str, Any]
Proof = Callable[..., None]


@dataclass(frozen=True)
class Ran:
    """One test of a run, and the figures that it stated."""

    test: str
    passed: bool
    is_long: bool = False
    stated: tuple[Mapping[str, str], ...] = ()
    failure: str = ""


def is_a_proof(marks: str) -> bool:
    """Whether a run that is asked for these marks is written down."""
    return marks.strip() in WRITING


def rows_said(text: str) -> list[dict[str, str]]:
    """The figures in a printed line: `O2/O4 5 s` is one of each. Empty where it is about no row."""
    found = SAID.fullmatch(text.strip())
    return [] if found is None else [stated(row, found[2]) for row in found[1].split("/")]


def stated(row: str, figure: str, n: str = "") -> dict[str, str]:
    return {"row": row, "figure": " ".join(figure.split()), "n": n}


def merged(rows: Sequence[Row], ran: Iterable[Ran], day: str, version: str) -> list[Row]:
    """The rows with what this run found; a figure of no row is left out."""
    tests = list(ran)
    return [_of_this_run(row, tests, {"on": day, "version": version}) for row in rows]


def _of_this_run(row: Row, ran: list[Ran], when: Mapping[str, str]) -> Row:
    mine = [each for each in ran if _belongs(each, row)]
    if not mine:
        return row
    figures = _figures(row, mine, when)
    if failures := [each for each in mine if not each.passed]:
        return {**row, "figures": figures, "not_held": {"why": _told(failures), **when}}
    mended = _ran_whole(row, mine)
    kept = {name: value for name, value in row.items() if name != "not_held" or not mended}
    return {**kept, "figures": figures}


def _belongs(test: Ran, row: Row) -> bool:
    in_its_files = any(_is_in(test.test, file) for file in row["tests"])
    return in_its_files or any(each["row"] == row["row"] for each in test.stated)


def _is_in(test: str, place: str) -> bool:
    """A place is a folder, a file or a test."""
    return test == place or test.startswith((f"{place}::", f"{place}/", f"{place}[", f"{place} "))


def _figures(row: Row, mine: list[Ran], when: Mapping[str, str]) -> list[dict[str, str]]:
    """What each test states replaces what it stated before; the long variant's counts where both did."""
    spoke = [each for each in mine if each.passed and any(one["row"] == row["row"] for one in each.stated)]
    counting = [each for each in spoke if each.is_long] or spoke
    new = [
        {"by": each.test, "figure": one["figure"], "n": one["n"], **when}
        for each in counting
        for one in each.stated
        if one["row"] == row["row"]
    ]
    if not new and all(each.passed for each in mine) and not any(one["by"] for one in row["figures"]):
        return _counted(row, mine, when)
    replaced = {each["by"] for each in new}
    if new and _ran_whole(row, mine):
        replaced.add("")  # of an earlier run, before figures were kept by their test
    return [each for each in row["figures"] if each["by"] not in replaced] + new


def _counted(row: Row, mine: list[Ran], when: Mapping[str, str]) -> list[dict[str, str]]:
    """Where the proof is that every test is green: how many there were, if all its files ran."""
    if row.get("green") and _ran_whole(row, mine):
        return [{"by": "", "figure": row["green"], "n": f"{len(mine):,} tests", **when}]
    return list(row["figures"])


def _ran_whole(row: Row, mine: list[Ran]) -> bool:
    """Something of each of its places; a failure is forgotten, and a text replaced, only then."""
    return bool(row["tests"]) and all(
        any(_is_in(each.test, place) for each in mine) for place in row["tests"]
    )


def _told(failures: list[Ran]) -> str:
    first = failures[0]
    lines = first.failure.strip().splitlines()
    return f"{first.test}: {lines[0] if lines else 'failed'}"[:LONGEST_FAILURE]


def rendered(preface: str, rows: Iterable[Row]) -> str:
    """The page: pure Markdown, one row of a table each."""
    head = "| Row | Goal | Figure | n | Measured | Repeat with |\n|---|---|---|---|---|---|\n"
    return f"{preface.strip()}\n\n{head}" + "".join(_line(row) for row in rows)


def _line(row: Row) -> str:
    figures = row["figures"]
    told = [_cell(each["figure"]) for each in figures] or ["not measured yet"]
    if failed := row.get("not_held"):
        told.insert(0, f"**not held** ({_cell(failed['why'])})")
    days = dict.fromkeys(each["on"] for each in ([failed] if failed else []) + figures)
    cells = [
        row["row"],
        _cell(row["goal"]),
        "; ".join(told),
        "; ".join(dict.fromkeys(_cell(each["n"]) for each in figures if each["n"])),
        ", ".join(days),
        _cell(row["repeat"]),
    ]
    return f"| {' | '.join(cells)} |\n"


def _cell(text: str) -> str:
    """No text of a measurement ends its cell or its line."""
    return re.sub(r"(?<!\\)\|", r"\\|", " ".join(text.split()))


def read(data: Path = DATA) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data.read_text())
    return found


def write(kept: Mapping[str, Any], data: Path = DATA, page: Path = PAGE) -> None:
    data.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n")
    page.write_text(rendered(kept["preface"], kept["rows"]))


@pytest.fixture
def proof(request: pytest.FixtureRequest) -> Proof:
    """State the figure of a row, and of how many trials it is; made of what was measured.

    Raises KeyError at once where there is no such row.
    """
    known = {each["row"] for each in read()["rows"]}

    def state(row: str, *, figure: str, n: str = "") -> None:
        if row not in known:
            raise KeyError(f"there is no row {row} in {DATA.name}")
        request.node.user_properties.append((STATED, stated(row, figure, n)))

    return state


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Print a figure where the reader of the run sees it; one that begins with a row is stated too."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", flush=True)
        request.node.user_properties.extend((STATED, each) for each in rows_said(text))

    return line


class Proofs:
    """Notes how each test of a run ended, and writes the page at the end of a run of proofs."""

    def __init__(self, version: str, data: Path = DATA, page: Path = PAGE) -> None:
        self._version, self._data, self._page = version, data, page
        self._ran: dict[str, Ran] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped or (report.when != "call" and not report.failed):
            return
        name = report.nodeid + (" on PostgreSQL" if postgres.is_of_this_run() else "")
        figures = tuple(value for key, value in report.user_properties if key == STATED)
        self._ran[name] = Ran(name, report.passed, "prove" in report.keywords, figures, _first_line(report))

    def pytest_sessionfinish(self) -> None:
        if self._ran:
            kept = read(self._data)
            day = datetime.now(UTC).date().isoformat()
            rows = merged(kept["rows"], self._ran.values(), day, self._version)
            write({**kept, "rows": rows}, self._data, self._page)


def _first_line(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash is not None else (report.longreprtext if report.failed else "")


def register(config: pytest.Config) -> None:
    """Once, in the process that leads the run."""
    if is_a_proof(config.option.markexpr) and not hasattr(config, "workerinput"):
        project = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]
        config.pluginmanager.register(Proofs(project["version"]))
