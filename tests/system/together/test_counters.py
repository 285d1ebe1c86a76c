"""Calls whose worst case fits are never refused, and counters are what the ledger says (M6, M10).

The quotas of the keys and of their teams fit all calls at their worst exactly:
one call more, and it is refused.
"""

import asyncio
from dataclasses import replace

import pytest

from tests.system.together import findings as f
from tests.system.together.crowds import at_once
from tests.system.together.house import PLENTY, USUAL, Key, Team, Together
from tests.system.upstream_side.clients import Answer, closed_loop, wires_to

TEAMS, KEYS_A_TEAM = 2, 5
KEYS = TEAMS * KEYS_A_TEAM
CLIENTS = 64
MAX_TOKENS = 30


def request(gateway: Together, key: Key, number: int) -> bytes:
    """Of one length, so that each holds the same."""
    trial = f"trial-{number:06}"
    return gateway.house.request(USUAL, key=key.text, trial=trial, max_tokens=MAX_TOKENS)


def worst_case(gateway: Together, name: str) -> dict[str, int]:
    """What one call holds of each kind of quota."""
    key = gateway.key(name, *[(kind, PLENTY, "month") for kind in ("requests", "tokens", "money")])
    [answer] = asyncio.run(at_once(gateway.port, [request(gateway, key, 0)]))
    assert answer.status == 200
    return {kind: amount for kind, [amount] in gateway.holds(key).items()}


def teams_that_fit(gateway: Together, name: str, calls_a_key: int) -> list[Team]:
    """Each with quotas of every kind for exactly so many worst cases a key, the keys as well as the team."""
    worst = worst_case(gateway, f"{name}-measured")
    of_a_key = [(kind, amount * calls_a_key, "month") for kind, amount in worst.items()]
    of_a_team = [(kind, amount * KEYS_A_TEAM, period) for kind, amount, period in of_a_key]
    return [
        gateway.team(
            f"{name}-{each}", {f"key-{number}": of_a_key for number in range(KEYS_A_TEAM)}, of_a_team
        )
        for each in range(TEAMS)
    ]


def call_all(gateway: Together, keys: list[Key], count: int) -> list[Answer]:
    async def run() -> list[Answer]:
        async with wires_to(gateway.port) as wires:
            numbers = iter(range(count))

            async def ask(_: int) -> Answer:
                number = next(numbers)
                return await wires.ask(request(gateway, keys[number % len(keys)], number))

            return await closed_loop(ask, CLIENTS, count)

    return asyncio.run(run())


def sums_apart(gateway: Together, team: Team) -> list[str]:
    """The ledger's sum of a team is that of its keys, and so is the counter's."""
    wrong = []
    ledgers = [gateway.sums(key) for key in team.keys.values()]
    for kind, quota_id in team.quotas.items():
        counted = [gateway.figures(key.quotas[kind]).spent for key in team.keys.values()]
        found = {
            sum(each.of(kind) for each in ledgers),
            gateway.sums(team).of(kind),
            sum(counted),
            gateway.figures(quota_id).spent,
        }
        if len(found) != 1:
            wrong.append(f"{kind}: {sorted(found)}")
    return wrong


def check_plants(standing: f.Standing) -> None:
    """A unit too much or too little, and a hold that nobody gave back, are found."""
    (name, (figures, ledger)), *_ = standing.items()
    for planted in ((figures, ledger + 1), (figures, ledger - 1), (replace(figures, held=1), ledger)):
        assert len(list(f.drifted({**standing, name: planted}))) == 1


def nothing_refused(gateway: Together, name: str, count: int) -> str:
    """So many calls that fit; then one that does not, which shows that the quotas were that tight."""
    teams = teams_that_fit(gateway, name, count // KEYS)
    keys = [key for team in teams for key in team.keys.values()]
    answers = call_all(gateway, keys, count)
    assert list(f.refused(answers)) == []
    standing = gateway.at_rest(*teams, *keys)
    assert list(f.drifted(standing)) == []
    check_plants(standing)
    assert [each for team in teams for each in sums_apart(gateway, team)] == []

    [one_more] = asyncio.run(at_once(gateway.port, [request(gateway, keys[0], count)]))
    assert list(f.refused([*answers, one_more])) == [f"1 calls got 429 {f.EXHAUSTED}"]
    nanos = sum(gateway.sums(team).money for team in teams)
    return (
        f"M6  {count} calls whose worst case fits, {len(standing)} hard quotas of {TEAMS} teams "
        f"and {KEYS} keys: 0 refused, the next one refused; sum of ledger - counter = 0, held 0\n"
        f"M10  by team = by key = by counter, to the nano-unit: {nanos / 1e9:.9f} USD"
    )


def test_500_calls_that_fit_are_let_in_and_counted_to_the_last_unit(gateway, say):
    say(nothing_refused(gateway, "few", 500))


@pytest.mark.prove
def test_10000_calls_that_fit_are_let_in_and_counted_to_the_last_unit(gateway, say):
    say(nothing_refused(gateway, "many", 10_000))
