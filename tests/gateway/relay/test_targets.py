import asyncio
import time
from dataclasses import dataclass, replace

import pytest

from gateway.relay.breaker import Breaker
from gateway.relay.catalog import Catalog, Route, Secret, Target
from gateway.relay.ports import Change
from gateway.relay.targets import LiveTarget, Targets, places_of
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


def told_open(for_s: float = 60.0) -> Change:
    at_us = time.time_ns() // 1000
    return Change(at_us, "closed", "open", "5 failures in a row", at_us + int(for_s * 1_000_000))


def test_what_opened_in_another_process_is_open_here_and_is_no_news(
    targets: Targets, clock: Clock, news: Told
) -> None:
    live = targets.of(TARGET)
    targets.told(TARGET.id, told_open())

    assert live.breaker.state(clock()) == "open"
    assert 59 < live.breaker.ready_in_s(clock()) <= 60
    assert news.changes == [], "that process wrote it down, and an echo would never end"


def test_a_target_that_was_not_called_here_opens_when_it_is(targets: Targets, clock: Clock) -> None:
    targets.told(TARGET.id, told_open())

    assert targets.of(TARGET).breaker.state(clock()) == "open"


def test_an_opening_that_is_over_is_not_heeded(targets: Targets, clock: Clock) -> None:
    targets.told(TARGET.id, told_open(for_s=-1))
    live = targets.of(TARGET)
    targets.told(TARGET.id, told_open(for_s=-1))

    assert live.breaker.state(clock()) == "closed"


def test_a_recovery_in_another_process_lets_one_probe_through_here(targets: Targets, clock: Clock) -> None:
    live = targets.of(TARGET)
    opened(live.breaker, clock())
    targets.told(TARGET.id, Change(0, "half_open", "closed", "the probe succeeded"))

    probe = live.breaker.enter(clock())
    assert probe is not None
    assert probe.probe
    assert live.breaker.enter(clock()) is None


@pytest.mark.parametrize("amount", [1, 7, 50])
@pytest.mark.parametrize("live", [1, 2, 3, 8])
def test_shares_add_up_and_nobody_has_none(amount: int, live: int) -> None:
    shares = [places_of(amount, rank, live) for rank in range(live)]

    assert min(shares) >= 1
    assert sum(shares) == max(amount, live)


def places(live: LiveTarget) -> int:
    return live.gate.figures().places


def test_the_places_are_divided_among_processes_that_come_and_go(targets: Targets) -> None:
    live = targets.of(replace(TARGET, max_concurrency=7))
    targets.divide(1, 2)
    assert places(live) == 3
    targets.divide(0, 2)
    assert places(live) == 4
    targets.divide(0, 1)
    assert places(live) == 7


def test_what_is_first_called_or_changed_later_is_divided_too(targets: Targets) -> None:
    targets.divide(0, 2)
    assert places(targets.of(replace(TARGET, max_concurrency=7))) == 4
    assert places(targets.of(replace(TARGET, max_concurrency=10))) == 5


async def test_a_smaller_share_loses_nobody(targets: Targets) -> None:
    live = targets.of(replace(TARGET, max_concurrency=2))
    assert live.gate.enter_now(1, "normal")
    assert live.gate.enter_now(2, "normal")
    waiting = asyncio.ensure_future(live.gate.enter(1, "normal", 60.0))
    await asyncio.sleep(0)  # it takes its place in the line
    targets.divide(1, 2)
    live.gate.leave(1, 0.1)
    assert not waiting.done()

    live.gate.leave(2, 0.1)
    assert await waiting >= 0.0, "it was let in after both, and nobody was turned away"
