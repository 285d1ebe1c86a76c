"""What may be wrong with limits and quotas, found in plain values.

Each detector returns sentences; none is well.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.system.upstream_side.clients import Answer

LIMITED, EXHAUSTED, UNAVAILABLE = "rate_limit_exceeded", "insufficient_quota", "unavailable"


@dataclass(frozen=True, slots=True)
class Figures:
    """A quota's counter, in the quota's unit."""

    spent: int
    held: int
    expired: int


@dataclass(frozen=True, slots=True)
class Sums:
    """What some of the ledger's calls used."""

    requests: int
    tokens: int
    money: int

    def of(self, kind: str) -> int:
        return getattr(self, kind)


Standing = Mapping[tuple[int, str], tuple[Figures, int]]
"""By quota and its kind: its counter, and the ledger's sum of the same."""


def code_of(answer: Answer) -> str:
    """Of an error; empty: there is none."""
    if answer.status == 200:
        return ""
    return json.loads(answer.body)["error"]["code"]


def wrong_answers(answers: Sequence[Answer], let_in: int, code: str) -> Iterator[str]:
    """Just so many calls were let in, the others refused with this code and with a time to come back."""
    outcomes = Counter((each.status, code_of(each)) for each in answers)
    if outcomes[200, ""] != let_in:
        yield f"{outcomes[200, '']} calls were answered, not {let_in}"
    for status, said in outcomes:
        if status != 200 and (status, said) != (429, code):
            yield f"{outcomes[status, said]} calls got {status} {said}"
    for each in answers:
        if each.status == 429 and each.header("Retry-After") is None:
            yield "a refusal does not say when to come back"


def refused(answers: Iterable[Answer]) -> Iterator[str]:
    """Every call was answered."""
    for (status, code), count in Counter((each.status, code_of(each)) for each in answers).items():
        if status != 200:
            yield f"{count} calls got {status} {code}"


def overshot(standing: Standing, amounts: Mapping[str, int]) -> Iterator[str]:
    """No quota has more spent than its amount, neither by its counter nor by the ledger."""
    for (quota_id, kind), (figures, ledger) in standing.items():
        for where, spent in (("counter", figures.spent + figures.expired), ("ledger", ledger)):
            if kind in amounts and spent > amounts[kind]:
                yield f"quota {quota_id}: {spent - amounts[kind]} {kind} too much by the {where}"


def drifted(standing: Standing) -> Iterator[str]:
    """At rest a counter is the ledger's sum to the last unit, and nothing is held."""
    for (quota_id, kind), (figures, ledger) in standing.items():
        if figures.spent != ledger:
            yield f"quota {quota_id}: counted {figures.spent} {kind}, the ledger has {ledger}"
        if figures.held or figures.expired:
            yield f"quota {quota_id}: {figures.held} {kind} held and {figures.expired} expired"


def alone(dealt: Sequence[int], processes: int, amount: int) -> Iterator[str]:
    """To every process came more calls than the amount, or nothing was shown of several."""
    enough = [each for each in dealt if each > amount]
    if len(enough) != processes:
        yield f"{len(enough)} of {processes} processes were offered more than {amount} calls"


def lost_or_doubled(received: Iterable[str], booked: Sequence[str]) -> Iterator[str]:
    """What the provider received is on the ledger, and nothing is on it twice. Both are call ids."""
    for call_id, count in Counter(booked).items():
        if count > 1:
            yield f"doubled: {call_id} is on the ledger {count} times"
    for call_id in set(received) - set(booked):
        yield f"lost: the provider received {call_id} and the ledger has no entry"
