"""The lock files: how much there is to trust, why each is there, and that nothing of it is built here."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from dashboard.env import BASE_DIR

FOLDER = BASE_DIR / "requirements"
RUN = FOLDER / "run.txt"
REASONS = (BASE_DIR / "docs" / "decisions" / "dependencies.md").read_text().partition("## To work on it")[0]
FOR_SEVERAL = {"psycopg", "psycopg-binary", "psycopg-pool", "redis", "channels-redis", "msgpack"}
"""What only PostgreSQL and Redis need. One lock file serves both modes, so all is installed."""
MOST, MOST_EMBEDDED = 65, 58
PIN = re.compile(r"^(\S+==[^\\\n]+?)\s*\\?\n((?:\s+--hash=\S+.*\n?)*)", re.MULTILINE)


def pins(lock: Path) -> dict[Requirement, int]:
    """Each package of a lock file, and how many hashes it has."""
    return {
        Requirement(text): hashes.count("--hash=sha256:") for text, hashes in PIN.findall(lock.read_text())
    }


def installed_here(lock: Path) -> set[str]:
    return {
        canonicalize_name(each.name)
        for each in pins(lock)
        if each.marker is None or each.marker.evaluate({"extra": ""})
    }


def direct() -> list[str]:
    lines = (FOLDER / "run.in").read_text().splitlines()
    return [Requirement(each).name for each in lines if each and not each.startswith(("#", "-"))]


def test_what_runs_is_no_more_than_this():
    """Of PostgreSQL and Redis nothing is loaded in the embedded mode, but it is installed."""
    here = installed_here(RUN)
    assert here >= FOR_SEVERAL
    assert len(here) <= MOST
    assert len(here - FOR_SEVERAL) <= MOST_EMBEDDED


def test_every_direct_one_has_its_reason():
    told = {canonicalize_name(each) for each in re.findall(r"[A-Za-z0-9][\w.-]*", REASONS)}
    assert [each for each in direct() if canonicalize_name(each) not in told] == []


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_everything_is_pinned_by_hash(name):
    text = (FOLDER / name).read_text()
    found = pins(FOLDER / name)

    assert len(found) == len([line for line in text.splitlines() if line and line[0] not in " #"])
    assert [str(each) for each, hashes in found.items() if not hashes] == []


def counted(here: set[str]) -> str:
    """What the other tests of this file hold to be so, in words and figures."""
    over = f", **over the goal of {MOST_EMBEDDED} in the embedded mode**" if len(here) > MOST_EMBEDDED else ""
    return (
        f"{len(here)} installed in either mode{over}; {len(here - FOR_SEVERAL)} without what only PostgreSQL "
        "and Redis need; a reason for every direct one; all pinned by hash; a wheel for every one, so "
        "nothing is built and no script runs; vulnerabilities **not measured** by this test, see `make audit`"
    )


@pytest.mark.prove
def test_nothing_has_to_be_built(tmp_path, proof):
    """A package that has a wheel for this platform runs no script of its own when it is installed."""
    wheels_alone = ["--only-binary", ":all:", "--require-hashes", "--no-deps", "--quiet"]
    pip = [sys.executable, "-m", "pip", "download", *wheels_alone]
    done = subprocess.run([*pip, "-d", tmp_path, "-r", RUN], capture_output=True, text=True, check=False)
    got = {each.suffix for each in tmp_path.iterdir()}

    assert done.returncode == 0, done.stderr
    assert got == {".whl"}
    assert len(list(tmp_path.iterdir())) == len(installed_here(RUN))
    proof("C1", figure=counted(installed_here(RUN)), n=f"{len(installed_here(RUN))} packages")


@pytest.mark.prove
@pytest.mark.parametrize("name", ["run", "dev"])
def test_every_pin_is_the_newest_patch_of_its_line(name, tmp_path, proof):
    """Compared with what a fresh compilation takes from the registry, within the lines of the .in file."""
    newest = tmp_path / f"{name}.txt"
    uv = [str(Path(sys.executable).parent / "uv"), "pip", "compile", "--quiet", "--python-version", "3.11"]
    bound = ["-c", str(RUN)] if name == "dev" else []
    subprocess.run(
        [*uv, "--universal", "--no-header", *bound, str(FOLDER / f"{name}.in"), "-o", str(newest)],
        check=True,
        capture_output=True,
    )
    behind = lagging(_versions(FOLDER / f"{name}.txt"), _versions(newest))

    count = len(_versions(FOLDER / f"{name}.txt"))
    proof("C2", figure=f"{name}.txt: {len(behind)} of {count} pins lag", n=f"{count} pins")
    assert behind == []


def _versions(lock: Path) -> dict[tuple[str, str], Version]:
    found = [
        Requirement(line.rstrip(" \\"))
        for line in lock.read_text().splitlines()
        if re.match(r"\w\S*==", line)
    ]
    return {
        (canonicalize_name(each.name), str(each.marker)): Version(str(each.specifier)[2:]) for each in found
    }


def lagging(kept: dict[tuple[str, str], Version], newest: dict[tuple[str, str], Version]) -> list[str]:
    """Which pins have a newer patch of the same line: the same number but for the last part."""
    return [
        f"{name} {kept[name, marker]} -> {there}"
        for (name, marker), there in newest.items()
        if (name, marker) in kept
        and kept[name, marker] < there
        and kept[name, marker].release[:-1] == there.release[:-1]
    ]


def test_a_pin_that_lags_is_found():
    old, new = Version("5.2.18"), Version("5.2.19")
    assert lagging({("django", ""): old}, {("django", ""): new}) == ["django 5.2.18 -> 5.2.19"]
    assert lagging({("django", ""): new}, {("django", ""): new}) == []
    assert lagging({("django", ""): new}, {("django", ""): Version("5.3.0")}) == []
