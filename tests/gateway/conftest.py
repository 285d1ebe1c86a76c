"""Fixtures of the gateway: records and a journal."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.ledger.journal import Journal


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(journals: Path) -> Iterator[Journal]:
    made = Journal(journals / "mine", max_bytes=1 << 24, segment_bytes=1 << 16)
    yield made
    made.close()
