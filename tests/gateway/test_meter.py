"""What ended is counted once, by route and outcome, and handed on."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.meter import BOUNDS_S, MOST_ROUTES, OTHER, Meter
from gateway.relay.records import Refused, Settled, Usage
from tests.gateway.records import opened, refused, settled


@dataclass
class Floor:
    """The floor above, as a listener that keeps what it hears."""

    heard: list[Any] = field(default_factory=list)

    def settled(self, record: Settled, /) -> None:
        self.heard.append(record)

    def refused(self, refused: Refused, /) -> None:
        self.heard.append(refused)


@pytest.fixture
def floor() -> Floor:
    return Floor()


@pytest.fixture
def meter(floor: Floor) -> Meter:
    return Meter(floor)


def ended(**changes: Any) -> Settled:
    return settled(opened(), **changes)


def test_calls_add_up_by_route_and_outcome(meter: Meter) -> None:
    used = Usage(1000, 20, 896, "reported")
    meter.settled(ended(usage=used, cost_nanos=7, latency_us=400_000))
    meter.settled(ended(usage=used, cost_nanos=5, latency_us=600_000))
    meter.settled(ended(outcome="failed", usage=Usage(), cost_nanos=0, latency_us=10))
    meter.settled(ended(route="gpt-4o-mini"))

    assert set(meter.tallies) == {("gpt-4o", "answered"), ("gpt-4o", "failed"), ("gpt-4o-mini", "answered")}
    tally = meter.tallies["gpt-4o", "answered"]
    assert (tally.calls, tally.input_tokens, tally.output_tokens) == (2, 2000, 40)
    assert (tally.cost_nanos, tally.latency_us) == (12, 1_000_000)


def test_teams_and_keys_are_not_told_apart(meter: Meter) -> None:
    meter.settled(ended(team_id=1, key_id=1))
    meter.settled(ended(team_id=2, key_id=9))

    [tally] = meter.tallies.values()
    assert tally.calls == 2


@pytest.mark.parametrize("place", range(len(BOUNDS_S)))
def test_a_latency_counts_up_to_its_bound_and_no_further(meter: Meter, place: int) -> None:
    bound_us = int(BOUNDS_S[place] * 1_000_000)
    meter.settled(ended(latency_us=bound_us))
    meter.settled(ended(latency_us=bound_us + 1))

    buckets = meter.tallies["gpt-4o", "answered"].buckets
    assert (buckets[place], buckets[place + 1], sum(buckets)) == (1, 1, 2)


def test_refusals_are_counted_by_code(meter: Meter) -> None:
    for route in ("gpt-4o", "anything at all"):
        meter.refused(refused(route=route, code="model_not_found"))
    meter.refused(refused())

    assert meter.refusals == {"model_not_found": 2, "overloaded": 1}
    assert meter.tallies == {}


def test_everything_is_handed_on_as_it_came(meter: Meter, floor: Floor) -> None:
    call, not_let_in = ended(), refused()
    meter.settled(call)
    meter.refused(not_let_in)

    assert floor.heard == [call, not_let_in]


def test_a_thousand_routes_are_told_apart_and_no_call_is_lost(meter: Meter) -> None:
    for number in range(MOST_ROUTES + 5):
        meter.settled(ended(route=f"route-{number}"))
    meter.settled(ended(route=f"route-{MOST_ROUTES + 4}"))

    assert len(meter.tallies) == MOST_ROUTES + 1
    assert meter.tallies[OTHER, "answered"].calls == 6
    assert sum(each.calls for each in meter.tallies.values()) == MOST_ROUTES + 6


def test_a_tally_introduces_itself(meter: Meter) -> None:
    meter.settled(ended())
    assert repr(meter.tallies["gpt-4o", "answered"]) == "<Tally 1 calls>"
