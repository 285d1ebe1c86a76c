"""One real gateway for every hostile test, with a provider that keeps what it received."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.simulator import Fault
from tests.served import provider_of, serve
from tests.system.conftest import simulator_in_a_thread
from tests.system.hostile.door import Door

MODEL_NAMES = ("gpt-4o", "gpt-4o-mini", *(fault.model_name for fault in Fault))


@contextlib.contextmanager
def open_door(folder: Path, **environ: str) -> Iterator[Door]:
    """At the end its log must tell of no accident."""
    with (
        simulator_in_a_thread(folder / "provider.jsonl") as provider,
        serve(folder / "var", **provider_of(provider.base_url, *MODEL_NAMES), **environ) as served,
    ):
        door = Door(served, provider)
        yield door
        assert door.complaints() == []


@pytest.fixture(scope="package")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with open_door(tmp_path_factory.mktemp("door"), BODY_TIMEOUT_S="1.5") as opened:
        yield opened


@pytest.fixture(autouse=True)
def fresh_start(request: pytest.FixtureRequest) -> Iterator[None]:
    """What one test scripted for the provider, and made it write down, is not left to the next."""
    doors = [request.getfixturevalue(name) for name in ("door", "hasty") if name in request.fixturenames]
    for each in doors:
        each.forget()
    yield
    for each in doors:
        each.provider.forget_script()
