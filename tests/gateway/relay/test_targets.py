from dataclasses import dataclass, replace

import pytest

from gateway.relay.breaker import Breaker
from gateway.relay.catalog import Catalog, Route, Secret, Target
from gateway.relay.targets import LiveTarget, Targets
from gateway.relay.transports.choice import Transports
from tests.gateway.relay.carried import Told

TARGET = Target(1, "openai", "https://api.example/v1", "gpt-4o", Secret("sk-x"))


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def news() -> Told:
    return Told()


@pytest.fixture
def targets(news: Told, clock: Clock) -> Targets:
    return Targets(news, clock)


def opened(breaker: Breaker, now: float) -> None:
    for _ in range(5):
        permit = breaker.enter(now)
        assert permit is not None
        breaker.ended(permit, "failure", now, "status_500")


def catalog(*targets: Target) -> Catalog:
    return Catalog({"gpt-4o": Route("gpt-4o", targets)})


def test_a_target_keeps_its_breaker_when_the_catalog_is_read_again(targets: Targets, clock: Clock) -> None:
    opened(targets.of(TARGET).breaker, clock())

    assert targets.of(replace(TARGET, weight=5)).breaker.state(clock()) == "open"


def test_a_changed_gate_holds_at_once(targets: Targets) -> None:
    targets.of(TARGET)
    live = targets.of(replace(TARGET, max_concurrency=1))

    assert live.gate.enter_now(1, "normal")
    assert not live.gate.has_place(1, "normal")


def test_a_breaker_is_held_and_let_go_by_the_lever(targets: Targets, clock: Clock, news: Told) -> None:
    held = replace(TARGET, lever="open")

    assert not targets.of(held).breaker.permits(clock())
    assert targets.of(replace(held, lever="automatic")).breaker.permits(clock())
    assert not targets.of(replace(held, weight=2)).breaker.permits(clock())
    assert news.changes == [], "whoever pulled the lever has written it down"


def test_a_call_of_before_a_change_does_not_bring_the_old_settings_back(
    targets: Targets, clock: Clock
) -> None:
    before = replace(TARGET, read_no=1)
    held = replace(TARGET, lever="open", max_concurrency=1, read_no=2)
    targets.of(before)
    targets.of(held)

    live = targets.of(before)

    assert not live.breaker.permits(clock())
    assert live.target is held


def test_a_breaker_is_closed_by_hand_once_for_each_time(targets: Targets, clock: Clock) -> None:
    targets.of(TARGET)
    closed = replace(TARGET, closed_at_us=5)
    opened(targets.of(TARGET).breaker, clock())

    assert targets.of(closed).breaker.permits(clock())
    opened(targets.of(closed).breaker, clock())
    assert not targets.of(replace(closed, weight=2)).breaker.permits(clock())


def test_a_refused_credential_is_told_once_and_its_acceptance_too(targets: Targets, news: Told) -> None:
    live = targets.of(TARGET)
    targets.credential_refused(live, 401)
    targets.credential_refused(live, 403)
    targets.credential_accepted(live)

    assert news.credentials == [("openai", 401), ("openai", None)]


def flagged(targets: Targets) -> LiveTarget:
    live = targets.of(TARGET)
    targets.credential_refused(live, 401)
    return live


def test_a_flag_outlives_a_catalog_that_was_read_before_it_was_written(targets: Targets) -> None:
    flagged(targets)

    assert targets.of(replace(TARGET, weight=2)).credential_refused


def test_a_new_credential_is_a_new_chance(targets: Targets) -> None:
    flagged(targets)

    assert not targets.of(replace(TARGET, credential=Secret("sk-y"))).credential_refused


async def test_states_are_those_of_the_catalog(targets: Targets, clock: Clock) -> None:
    second = replace(TARGET, id=2, lever="open")
    opened(targets.of(TARGET).breaker, clock())
    clock.now += 20

    first, held = targets.states(catalog(second, TARGET), Transports())

    assert (first.target_id, first.route, first.breaker, first.held) == (1, "gpt-4o", "open", False)
    assert first.ready_in_s == 40.0
    assert (held.target_id, held.breaker, held.held) == (2, "open", True)
    assert first.pool is None, "not called yet"


async def test_what_left_the_catalog_is_forgotten(targets: Targets, clock: Clock) -> None:
    opened(targets.of(TARGET).breaker, clock())

    assert targets.states(catalog(), Transports()) == []
    assert targets.of(TARGET).breaker.permits(clock())
