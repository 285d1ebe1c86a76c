"""What Lighthouse says of the live page of a real gateway that is being called.

The median of five runs counts, as its own documentation advises.
Lighthouse is npm's: it is fetched beside the environment when the proof is run for the first time.
"""

import json
import shutil
import statistics
import subprocess

import pytest
from playwright.sync_api import sync_playwright

from tests.pages.photograph import CHROMIUM, called, moved_into
from tests.served import ROOT, free_port

VERSION = "13.5.0"
FOLDER = ROOT / ".venv" / f"lighthouse-{VERSION}"
LEAST = {"performance": 95, "accessibility": 100, "best-practices": 100}
RUNS = 5
FORMS = {"desktop": ("--preset=desktop",), "phone": ()}
"""Lighthouse's own: a desk, and a middling phone on a slow network."""


@pytest.fixture(scope="module")
def lighthouse():
    """Its program."""
    npm = shutil.which("npm")
    assert npm, "Lighthouse needs Node and npm, and there is no npm here: install them (Debian: nodejs, npm)."
    program = FOLDER / "node_modules" / ".bin" / "lighthouse"
    if not program.exists():
        wanted = ("--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(FOLDER))
        subprocess.run([npm, "install", *wanted, f"lighthouse@{VERSION}"], check=True, timeout=300)
    return program


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with (
        moved_into(tmp_path_factory.mktemp("lighthouse") / "var", days=3) as (running, house),
        called(running),
    ):
        yield running, house


@pytest.fixture
def browser_port(house, tmp_path):
    """Of a browser in which the house's owner is signed in."""
    running, moved = house
    port = free_port()
    args = [f"--remote-debugging-port={port}", "--no-sandbox", "--disable-gpu"]
    with sync_playwright() as playwright:
        profile = playwright.chromium.launch_persistent_context(
            str(tmp_path / "profile"), executable_path=CHROMIUM, args=args
        )
        cookie = {"name": moved["cookie"], "value": moved["sessions"]["owner"], "url": running.origin}
        profile.add_cookies([cookie])
        yield port
        profile.close()


@pytest.mark.prove
@pytest.mark.parametrize("form", FORMS)
def test_the_live_page_is_fast_and_for_everybody(lighthouse, house, browser_port, form, tmp_path):
    running, _moved = house
    wanted = (
        *FORMS[form],
        f"--port={browser_port}",
        "--disable-storage-reset",  # or the session would be gone
        f"--only-categories={','.join(LEAST)}",
        "--quiet",
        "--output=json",
    )
    all_told = []
    for run in range(RUNS):
        report = tmp_path / f"{run}.json"
        command = [str(lighthouse), f"{running.origin}/", *wanted, f"--output-path={report}"]
        subprocess.run(command, check=True, timeout=240)
        all_told.append(json.loads(report.read_text()))

    scores = {name: sorted(score(told, name) for told in all_told) for name in LEAST}
    print(form, scores)
    assert {told["finalDisplayedUrl"] for told in all_told} == {f"{running.origin}/"}
    medians = {name: statistics.median(each) for name, each in scores.items()}
    short = {name: medians[name] for name in LEAST if medians[name] < LEAST[name]}
    assert short == {}, [low(told) for told in all_told]


def score(told, category):
    """Of 100."""
    return round(100 * (told["categories"][category]["score"] or 0))


def low(told):
    """What cost the most, by the names that Lighthouse gives."""
    audits = told["audits"].items()
    return {
        name: each.get("displayValue", "")
        for name, each in audits
        if (each.get("score") or 1) < 0.9 or each.get("score") == 0
    }
