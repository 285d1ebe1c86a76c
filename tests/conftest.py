"""Fixtures that every room's tests share. Nothing here touches the checkout's own `var/`."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.simulator import RunningSimulator, running_simulator
from tests.served import Served, serve


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["VAR_DIR"], ignore_errors=True)


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[RunningSimulator]:
    """A provider on a real socket that answers at once and writes down what it received and sent."""
    async with running_simulator(journal=tmp_path / "upstream.jsonl", keep_bodies=True) as running:
        yield running


@pytest.fixture
def var_dir(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
def served(var_dir: Path) -> Iterator[Served]:
    """The real thing, `manage.py up`, with its own simulator."""
    with serve(var_dir) as running:
        yield running
