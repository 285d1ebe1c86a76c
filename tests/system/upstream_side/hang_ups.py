"""What must be on the books when a client leaves, by the moment of its leaving, and what is not.

Pure. Detectors return sentences; none is well. Moments are microseconds since the Unix epoch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import msgspec

from gateway.relay import tokenizer
from gateway.simulator import Ended, Received
from gateway.simulator.answers import tokens_of

State = Literal[
    "before dispatch", "before the first byte", "in mid-stream", "before usage", "before [DONE]", "too late"
]
STATES: tuple[State, ...] = (
    "before dispatch",
    "before the first byte",
    "in mid-stream",
    "before usage",
    "before [DONE]",
)
GONE_WITHIN_US = 1_000_000
BOOKED_WITHIN_US = 2_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What one kind of call asks, and what the provider would say to it if nobody left."""

    model_name: str
    streamed: bool = True
    max_tokens: int = 1
    text: str = ""
    free: bool = False
    """The provider reports a usage of zeros."""
    drain_s: float = 0.0
    """How long the route reads on after a hang-up."""
    silent: bool = False
    queued: bool = False
    """It never gets beyond the gate."""


@dataclass(frozen=True, slots=True)
class Left:
    """A client that went away."""

    trial: str
    plan: Plan
    at_us: int
    saw_usage: bool


@dataclass(frozen=True, slots=True)
class Side:
    """The provider's side of a call."""

    received: Received
    ended: Ended | None


@dataclass(frozen=True, slots=True)
class Booked:
    """An entry, and when it was first seen in the database."""

    call_id: str
    outcome: str
    status: int
    basis: str
    input_tokens: int
    output_tokens: int
    cost_nanos: int
    attempts: tuple[tuple[str, str], ...]
    """Outcome and code of each."""
    seen_at_us: int


Sides = Mapping[str, Sequence[Side]]
Entries = Mapping[str, Sequence[Booked]]
"""By trial, as `Sides`."""


def sides(lines: Iterable[Received | Ended]) -> dict[str, list[Side]]:
    """By the trial that stands in the prompt; lines in the order of the journal."""
    received: dict[int, Received] = {}
    ended: dict[int, Ended] = {}
    for line in lines:
        if isinstance(line, Received):
            received[line.number] = line
        else:
            ended[line.number] = line
    found: dict[str, list[Side]] = {}
    for number, line in received.items():
        found.setdefault(_trial(line), []).append(Side(line, ended.get(number)))
    return found


def _trial(line: Received) -> str:
    text = msgspec.json.decode(line.body or b"{}")["messages"][0]["content"]
    return text.rpartition(" ")[2].rstrip("?")


def state_of(left: Left, mine: Sequence[Side]) -> State:
    """At which of the five moments the provider's journal says that it was."""
    if not mine:
        return "before dispatch"
    ended = mine[-1].ended
    if ended is None or not ended.bytes_sent or not left.plan.streamed:
        return "before the first byte"
    if ended.sent_whole:
        return "before [DONE]" if left.plan.drain_s and ended.at_us > left.at_us else "too late"
    if ended.usage is not None:
        return "before [DONE]"
    return "before usage" if ended.completion_tokens >= left.plan.max_tokens else "in mid-stream"


def findings(left: Iterable[Left], upstream: Sides, entries: Entries, slack: float = 1) -> list[str]:
    """All that is wrong; empty where the books are right and nothing lingers.

    `slack` is for machines that do much else: things may take so many times the bound.
    """
    found: list[str] = []
    for each in left:
        mine, booked = upstream.get(each.trial, ()), entries.get(each.trial, ())
        state = state_of(each, mine)
        found += [f"{each.trial}, {state}: {what}" for what in _wrong(each, state, mine, booked, slack)]
    return found


def _wrong(
    left: Left, state: State, mine: Sequence[Side], booked: Sequence[Booked], slack: float
) -> Iterator[str]:
    if len(booked) != 1:
        yield f"{len(booked)} entries"
        return
    entry = booked[0]
    if len(mine) > 1:
        yield f"the provider received it {len(mine)} times"
    if state != "too late" and (entry.outcome, entry.status) != ("hung_up", 499):
        yield f"the entry is {entry.outcome} {entry.status}"
    yield from _lingers(left, mine, slack)
    yield from _late(left, mine, entry, slack)
    yield from _misjudged(left, state, mine, entry)


def _lingers(left: Left, mine: Sequence[Side], slack: float) -> Iterator[str]:
    """The provider's connection is gone a second after the client, or after the time for reading on."""
    for side in mine:
        if side.ended is None:
            yield "the provider was never left"
        elif side.ended.at_us - left.at_us > GONE_WITHIN_US * slack + left.plan.drain_s * 1e6:
            yield f"the provider was left after {(side.ended.at_us - left.at_us) / 1000:.0f} ms"


def _late(left: Left, mine: Sequence[Side], entry: Booked, slack: float) -> Iterator[str]:
    """Where the answer is read on, the books close when that is over."""
    over_us = left.at_us
    if left.plan.drain_s and mine and mine[-1].ended is not None:
        over_us = max(over_us, mine[-1].ended.at_us)
    if entry.seen_at_us - over_us > BOOKED_WITHIN_US * slack:
        yield f"the entry came after {(entry.seen_at_us - over_us) / 1000:.0f} ms"


def _misjudged(left: Left, state: State, mine: Sequence[Side], entry: Booked) -> Iterator[str]:
    """Basis and tokens by the rule of the moment."""
    tokens = (entry.input_tokens, entry.output_tokens)
    if state == "before dispatch":
        if (entry.basis, *tokens, entry.cost_nanos) != ("none", 0, 0, 0) or entry.attempts:
            yield f"{entry.basis} {tokens}, {entry.cost_nanos} nanos, {len(entry.attempts)} attempts"
        return
    ended = mine[-1].ended
    if ended is not None and ended.usage is not None and left.plan.streamed:
        reported = (ended.usage.prompt_tokens, ended.usage.completion_tokens)
        if (entry.basis, tokens) == ("reported", reported):
            return
        if left.saw_usage or left.plan.drain_s:
            yield f"{entry.basis} {tokens}, reported were {reported}"
            return
    yield from _estimated(left, mine[-1], entry)


def _estimated(left: Left, side: Side, entry: Booked) -> Iterator[str]:
    if entry.basis != "estimated":
        yield f"basis {entry.basis}, not estimated"
    prompt = prompt_tokens(side.received, left.plan.model_name)
    if entry.input_tokens != prompt:
        yield f"{entry.input_tokens} prompt tokens, they are {prompt}"
    sent = side.ended.completion_tokens if side.ended is not None and left.plan.streamed else 0
    either = output_tokens(left.plan, sent), output_tokens(left.plan, sent - 1)
    if not min(either) <= entry.output_tokens <= max(either):
        told = f"the provider sent {either[0]}, without its last chunk {either[1]}"
        yield f"{entry.output_tokens} output tokens, {told}"


def prompt_tokens(received: Received, upstream_model: str) -> int:
    fields = msgspec.json.decode(received.body or b"{}", type=dict[str, msgspec.Raw])
    return tokenizer.tokens_of_prompt(fields, upstream_model)


def output_tokens(plan: Plan, chunks: int) -> int:
    """Of the text in the first chunks of an answer, of which each has one word or sign."""
    said = list(accumulate(tokens_of(plan.text)[: max(0, chunks)]))
    return tokenizer.count(said[-1], plan.model_name) if said else 0
