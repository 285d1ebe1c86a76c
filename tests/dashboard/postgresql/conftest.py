"""A server of this room's own, that its tests may kill and freeze."""

from collections.abc import Callable, Iterator

import pytest

from dashboard.postgresql.wire import Wire
from tests.postgres import RunningPostgres, running_postgres


@pytest.fixture(scope="package")
def server() -> Iterator[RunningPostgres]:
    with running_postgres(quick=False) as running:
        yield running


@pytest.fixture
def connect(server: RunningPostgres) -> Callable[[], Wire]:
    def make() -> Wire:
        return Wire.connect(server.url, autocommit=True, connect_timeout=2)

    return make
