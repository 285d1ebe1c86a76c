"""`make bench` and `make bench-full`: measure the gateway.

    python -m benchmarks.run [--full | --only relay,scaling] [--rounds 3] [--seconds 1.5] [--docs docs]

Quick, it prints its tables and writes nothing unless `--docs` says where to. `--full` and `--only` write
performance.md, performance.json and plots/ there, a section as soon as it is measured: one that breaks loses
no other. A run of some sections leaves those of earlier runs where they are.

Exit code 1 where an answer or the ledger is not as it should be: of that section nothing is written.
A bound that is not reached is a figure like any other.
"""

import argparse
import logging
import sys
import time
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import field, machine, matrix, peers, profile, relay, report, rows, scaling, streams
from benchmarks.bench import say
from benchmarks.load import NotWhole
from benchmarks.processes import CannotMeasure, awake, two_cores
from benchmarks.sections import Effort, Part, Section, merged_document, merged_page, part_of
from gateway.server import raise_file_limit
from tests.served import ROOT

METHOD = ROOT / "benchmarks" / "method.md"
FIELD = Section("field", lambda _: field.measure(), rows.page, lambda found: {"field": rows.document(found)})
SECTIONS = (
    relay.SECTION,
    profile.SECTION,
    matrix.SECTION,
    streams.SECTION,
    scaling.SECTION,
    peers.SECTION,
    FIELD,
)
"""In the order of the page."""
MACHINE = "machine"
"""The page's last part, of the newest run."""
ORDER = (*(each.name for each in SECTIONS), MACHINE)
QUICK, FULL = (2, 1.0), (3, 1.5)
"""Rounds, and seconds of each."""

log = logging.getLogger("bench")


def main() -> None:
    """Raises SystemExit where a section was not measured."""
    asked = _arguments()
    logging.basicConfig()
    raise_file_limit()
    try:
        cores = two_cores()
    except CannotMeasure as why:
        sys.exit(f"bench: {why}")
    effort = Effort(cores, asked.rounds, asked.seconds, quick=asked.quick)
    facts = machine.facts(_version())
    with awake(cores.tested, cores.other):
        measured = [_run(each, effort, facts, asked.docs) for each in asked.sections]
    if not all(measured):
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.run", description="Measure the gateway.")
    parser.add_argument("--full", action="store_true", help="every section, into the docs")
    parser.add_argument("--only", type=_named, help="these sections, comma-separated, into the docs")
    parser.add_argument("--rounds", type=int, help="rounds of each figure")
    parser.add_argument("--seconds", type=float, help="length of a round; some take twice as long")
    parser.add_argument("--docs", type=Path, help="where the report goes")
    asked = parser.parse_args()
    asked.quick = not (asked.full or asked.only)
    asked.sections = asked.only or [each for each in SECTIONS if asked.full or each.quick]
    rounds, seconds = QUICK if asked.quick else FULL
    asked.rounds, asked.seconds = asked.rounds or rounds, asked.seconds or seconds
    asked.docs = asked.docs or (None if asked.quick else ROOT / "docs")
    return asked


def _named(names: str) -> list[Section]:
    """Raises argparse.ArgumentTypeError."""
    known = {each.name: each for each in SECTIONS}
    if unknown := [name for name in names.split(",") if name not in known]:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names.split(",")]


def _version() -> str:
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


def _run(section: Section, effort: Effort, facts: Mapping[str, str], docs: Path | None) -> bool:
    """Measure, print and write one section; whether that went well. The others go on if it did not."""
    say(f"section {section.name}")
    began = time.perf_counter()
    try:
        found = section.measure(effort)
    except (CannotMeasure, NotWhole) as why:
        say(f"bench: {section.name}: {why}")
        return False
    except Exception:  # the run's outermost edge: what other sections measured must not be lost with this one
        log.exception("the section %s broke", section.name)
        return False
    part = part_of(section, found, _stamp(effort, facts, time.perf_counter() - began))
    print(part.page, flush=True)
    if docs is not None:
        _write(docs, section.name, part, facts)
    return True


def _stamp(effort: Effort, facts: Mapping[str, str], seconds: float) -> dict[str, str | float]:
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "Penstock": facts["Penstock"],
        "seconds": round(seconds),
        "rounds": effort.rounds,
        "seconds of a round": effort.seconds,
        "quick": "yes" if effort.quick else "no",
        "load before the run": facts["load before the run"],
    }


def _write(docs: Path, name: str, part: Part, facts: Mapping[str, str]) -> None:
    """Put a section in its place. What is there of other sections stays."""
    plots = docs / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for file_name, text in part.plots.items():
        (plots / file_name).write_text(text)
    page, document = docs / "performance.md", docs / "performance.json"
    parts = {name: part.page, MACHINE: report.machine_page(facts)}
    documents = {name: part.document, MACHINE: dict(facts)}
    page.write_text(merged_page(_text(page), METHOD.read_text(), parts, ORDER))
    document.write_text(merged_document(_text(document), documents, ORDER))


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


if __name__ == "__main__":
    main()
