"""No secret is in the tree, nor in any line that a commit ever added.

detect-secrets' shapes of secrets that vendors give out, and keys of our own, which their checksum tells from
what only looks like one. Its guesses by entropy and by words are left out: a lock file is made of hashes.
"""

import re
import subprocess
from collections.abc import Iterable

import pytest
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import BasePlugin

from accounts.keys import ACCESS_PREFIX, LENGTH, PREFIX, mint, take_apart
from dashboard.env import BASE_DIR

GUESSES = {"Base64 High Entropy String", "Hex High Entropy String", "Secret Keyword", "Public IP (ipv4)"}
OURS = re.compile(rf"(?:{PREFIX}|{ACCESS_PREFIX})[0-9A-Za-z_]+")
MADE_UP = re.compile(r"://(?:[a-z]+:[^/@ ]+|[^/@ ]*[{<$][^/@ ]*|[a-z.]+\.invalid:\d+)@")
"""An address with a user and a password in a test or on a page, of nobody."""


def shapes() -> list[BasePlugin]:
    return [kind() for name, kind in get_mapping_from_secret_type_to_class().items() if name not in GUESSES]


def found_in(lines: Iterable[str]) -> list[str]:
    """Kind and line, cut short, of whatever looks like a secret."""
    plugins = shapes()
    return [f"{kind}: {line[:60]}" for line in lines for kind in _kinds(line, plugins)]


def _kinds(line: str, plugins: list[BasePlugin]) -> list[str]:
    kinds = [each.secret_type for each in plugins if any(each.analyze_string(line))]
    if any(_is_ours(each) for each in OURS.findall(line)):
        kinds.append("a key of ours")
    return [each for each in kinds if each != "Basic Auth Credentials" or not MADE_UP.search(line)]


def _is_ours(text: str) -> bool:
    """Anywhere in it, for what stands behind a key may look like a part of it.

    One whose secret is a single character, over and over, is an example and opens nothing.
    """
    starts = [match.start() for match in re.finditer(f"(?={PREFIX}|{ACCESS_PREFIX})", text)]
    taken = [
        take_apart(text[at : at + LENGTH], prefix) for at in starts for prefix in (PREFIX, ACCESS_PREFIX)
    ]
    return any(each is not None and len(set(each.secret)) > 1 for each in taken)


def told_by_git(*command: str) -> set[str]:
    done = subprocess.run(["git", *command], cwd=BASE_DIR, capture_output=True, check=True)
    return set(done.stdout.decode("utf-8", "replace").splitlines())


def test_no_secret_is_in_the_tree():
    files = [BASE_DIR / name for name in told_by_git("ls-files")]
    lines = {
        line for each in files if each.is_file() for line in each.read_text(errors="replace").splitlines()
    }

    assert len(lines) > 10_000
    assert found_in(sorted(lines)) == []


@pytest.mark.prove
def test_no_secret_is_in_the_history(proof):
    said = told_by_git("log", "-p", "--all", "-m", "-U0", "--text", "--no-color", "--no-ext-diff")
    commits = sum(line.startswith("commit ") for line in said)
    lines = sorted(line for line in said if line.startswith(("+", "    ")))  # added, and messages
    found = found_in(lines)

    proof("C3", figure=f"{len(found)} found", n=f"{len(lines):,} different lines of {commits:,} commits")
    assert commits >= len(told_by_git("rev-list", "HEAD"))
    assert found == []


PLANTED = {
    "a key of ours": f'KEY = "{mint().text}"',
    "AWS Access Key": "AKIA" + "QYLPMN5HHHFPZAM2",
    "GitHub Token": "ghp_" + "wWPw5k4aXcaT4fNP0UcnZwJUVFk6LO0pINUx",
    "Private Key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    "Slack Token": "xoxb-" + "34532454-e039d02840a0b9379c",
    "OpenAI Token": "sk-" + "a1b2c3d4e5f6g7h8i9j0" + "T3BlbkFJ" + "a1b2c3d4e5f6g7h8i9j0",
    "Basic Auth Credentials": "https://alice9:" + "d5f7a2@db.example/",
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_secret_that_is_planted_is_found(kind):
    assert [each.partition(":")[0] for each in found_in([PLANTED[kind]])] == [kind]


def test_a_key_is_found_whatever_stands_around_it():
    assert found_in([f"x{mint().text}"]) != []
    assert found_in([f"{mint(ACCESS_PREFIX).text}_and_more"]) != []


def test_a_secret_that_is_planted_in_a_history_is_found(tmp_path, monkeypatch):
    """Also one that a later commit took back."""
    monkeypatch.setattr("tests.test_history.BASE_DIR", tmp_path)
    key = mint().text
    told_by_git("init", "-q")
    for text in (f"KEY = {key}", "KEY = none"):
        (tmp_path / "settings").write_text(text)
        told_by_git("add", "settings")
        told_by_git("-c", "user.name=Alice", "-c", "user.email=alice@example.com", "commit", "-qm", "Set up")

    said = told_by_git("log", "-p", "--all", "-m", "-U0", "--text", "--no-color", "--no-ext-diff")
    assert [each.partition(":")[0] for each in found_in(sorted(said))] == ["a key of ours", "a key of ours"]
