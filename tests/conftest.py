"""Fixtures that every room's tests share. Nothing here touches the checkout's own `var/`."""

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from gateway.simulator import RunningSimulator, running_simulator
from tests import postgres, proofs
from tests.proofs import proof, say  # noqa: F401 - fixtures for every room
from tests.served import Served, serve

# Examples prove nothing of wall time, and on a busy machine one may take long.
AT_ANY_PACE = "at any pace"
hypothesis.settings.register_profile(
    AT_ANY_PACE, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile(AT_ANY_PACE)


def pytest_configure(config: pytest.Config) -> None:
    proofs.register(config)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["VAR_DIR"], ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is of the other database."""
    other = "sqlite" if postgres.is_of_this_run() else "postgresql"
    left_out = [each for each in items if each.get_closest_marker(other)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [each for each in items if each not in left_out]


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Whoever is still connected at the end would keep PostgreSQL from dropping the database."""
    yield
    if postgres.is_of_this_run():
        with django_db_blocker.unblock():
            postgres.throw_out_others()


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
