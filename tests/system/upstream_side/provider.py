"""A simulator in a process of its own, so that what it does costs the test's own loop nothing.

Its journal is the ground truth of these tests.
"""

import contextlib
import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from gateway.simulator import Ended, Received, Step
from tests.served import ROOT, eventually

LISTENING = re.compile(r"simulator listening on (\S+)")
_lines = msgspec.json.Decoder(Received | Ended)


@dataclass
class Provider:
    """Where it listens, and what it wrote down."""

    base_url: str
    journal: Path
    process: subprocess.Popen[bytes]
    _read_to: int = field(default=0, repr=False)

    def script(self, *steps: Step) -> None:
        """For the calls to come, after the steps that are there already."""
        self._control("POST", msgspec.json.encode(steps))

    def forget_script(self) -> None:
        self._control("DELETE")

    def _control(self, method: str, body: bytes | None = None) -> None:
        address = self.base_url.removesuffix("/v1") + "/control/script"
        request = urllib.request.Request(address, body, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert json.load(answer).keys() == {"steps"}

    def news(self) -> list[Received | Ended]:
        """The lines of its journal since last time; a torn last one waits for its rest."""
        with self.journal.open("rb") as file:
            file.seek(self._read_to)
            whole, _, _ = file.read().rpartition(b"\n")
        self._read_to += len(whole) + 1 if whole else 0
        return [_lines.decode(line) for line in whole.split(b"\n") if line]

    def news_at_rest(self) -> list[Received | Ended]:
        """The lines since last time, once each request among them has ended.

        A client may have its whole answer before the provider has written down that it sent it.
        """
        lines: list[Received | Ended] = []

        def have_ended() -> bool:
            lines.extend(self.news())
            return not under_way(lines)

        eventually(have_ended, 20, "the end of every request in the provider's journal")
        return lines

    def received(self) -> int:
        """Requests since the last look at the journal."""
        return sum(isinstance(line, Received) for line in self.news())


def under_way(lines: Iterable[Received | Ended]) -> set[int]:
    """The numbers of the requests that have not ended."""
    received, ended = set[int](), set[int]()
    for line in lines:
        (received if isinstance(line, Received) else ended).add(line.number)
    return received - ended


@contextlib.contextmanager
def running_provider(folder: Path, *, speed: float = 0.0, seed: int = 0, port: int = 0) -> Iterator[Provider]:
    """A provider while the block runs."""
    folder.mkdir(parents=True, exist_ok=True)
    journal, out = folder / "upstream.jsonl", folder / "upstream.txt"
    command = [
        *(sys.executable, "manage.py", "simulate_upstream", "--keep-bodies", "--with-parent"),
        *("--speed", str(speed), "--seed", str(seed), "--port", str(port), "--journal", str(journal)),
    ]
    with out.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    try:
        found = eventually(lambda: LISTENING.search(out.read_text()), 20, "the provider's start")
        yield Provider(found.group(1), journal, process)
    finally:
        process.terminate()
        process.wait(10)
