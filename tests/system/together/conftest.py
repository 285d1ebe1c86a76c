"""A Redis and a provider of the test's own, and four processes that serve between such."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.simulator import Fault, Step
from tests.redis import RunningRedis, running_redis
from tests.system.together.house import IGNORING, SILENT, TALKING, USUAL, WHOLE, WORDY, Together, together
from tests.system.upstream_side.provider import Provider, running_provider

PROCESSES = 4
ALL = (USUAL, WORDY, WHOLE, IGNORING, SILENT, TALKING)
SCRIPT = (
    Step(model_name=WORDY, text="water " * 400, count=None),
    Step(model_name=IGNORING, fault=Fault.MAX_TOKENS_IGNORED, text="water " * 10, count=None),
    Step(model_name=SILENT, fault=Fault.SILENCE, count=None),
    Step(model_name=TALKING, fault=Fault.SLOW_DRIP, pause_s=0.1, text="water " * 30, count=None),
)


@pytest.fixture
def redis() -> Iterator[RunningRedis]:
    """It may be killed and frozen."""
    with running_redis() as running:
        yield running


@pytest.fixture
def provider(tmp_path) -> Iterator[Provider]:
    with running_provider(tmp_path / "provider") as running:
        yield running


@contextlib.contextmanager
def four_together(folder: Path, **environ: str) -> Iterator[Together]:
    """With a provider that answers by the model name, and a Redis of their own."""
    with running_redis() as redis, running_provider(folder / "provider") as provider:
        provider.script(*SCRIPT)
        with together(folder, provider, redis, PROCESSES, *ALL, **environ) as running:
            yield running


@pytest.fixture(scope="package")
def gateway(tmp_path_factory) -> Iterator[Together]:
    """For tests that leave it, and its Redis, as they are."""
    with four_together(tmp_path_factory.mktemp("together")) as running:
        yield running


@pytest.fixture(scope="module")
def fragile(tmp_path_factory) -> Iterator[Together]:
    """Its Redis and its processes may be killed and frozen."""
    with four_together(tmp_path_factory.mktemp("fragile"), CALL_TIMEOUT_S="15") as running:
        yield running
