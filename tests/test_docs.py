"""Prose that can be wrong is held to the tree: links lead somewhere, commands and files exist."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard.env import BASE_DIR, Env

PAGES = [BASE_DIR / "README.md", BASE_DIR / "CHANGELOG.md", *sorted((BASE_DIR / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
TREE = re.compile(
    r"`((?:accounts|gateway|dashboard|tests|docs|requirements|static|templates|benchmarks)/[^`*]*)`"
)


def names(pages: list[Path]) -> list[str]:
    return [str(each.relative_to(BASE_DIR)) for each in pages]


def links(page: Path) -> Iterator[Path]:
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            yield page.parent / target


def made() -> set[str]:
    """What `make help` says can be made."""
    text = subprocess.run(["make", "help"], cwd=BASE_DIR, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^  ([a-z-]+) ", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_link_leads_somewhere(page: Path):
    assert [str(each) for each in links(page) if not each.exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=names(PAGES))
def test_every_file_that_is_named_exists(page: Path):
    named = TREE.findall(page.read_text())

    assert [each for each in named if not (BASE_DIR / each).exists()] == []


def test_the_pages_name_only_what_can_be_made():
    named = {
        target
        for page in PAGES
        for target in re.findall(r"(?:^|`)(?:[A-Z_]+=\S* )?make ([a-z-]+)", page.read_text(), re.MULTILINE)
    }

    assert named
    assert named <= made()


def test_help_explains_every_target():
    phony = re.search(r"^\.PHONY: (.*)$", (BASE_DIR / "Makefile").read_text(), re.MULTILINE)

    assert phony
    assert set(phony[1].split()) == made()


def test_the_pages_name_only_commands_that_exist():
    ours = {each.stem for each in BASE_DIR.glob("*/management/commands/*.py")}
    there = ours | {"changepassword", "migrate"}
    named = {name for page in PAGES for name in re.findall(r"manage\.py ([a-z_]+)", page.read_text())}

    assert "up" in named
    assert named <= there


def test_operations_names_only_settings_that_exist():
    known = {each.upper() for each in Env.__dataclass_fields__}
    page = (BASE_DIR / "docs" / "operations.md").read_text()

    assert set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=[^`]*)?`", page)) <= known


def test_prose_has_one_sentence_a_line():
    """Outside code, tables and lists, so that a change of a sentence is a change of a line."""
    for page in PAGES:
        prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
        for line in prose.splitlines():
            if not line.startswith(("|", "-", "#")):
                assert not re.search(r"[a-z0-9`)]\. [A-Z]", line), f"{page.name}: {line}"
