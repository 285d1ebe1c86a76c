"""Joins of what clients saw, what the provider wrote down and what the ledger has, and what is wrong in them.

Pure, but for `read_books`, which asks the database directly. Each detector returns sentences; none is well.
The arithmetic is done again here, on purpose: a mistake of the gateway's own must not check itself.
Money is whole nano-units of the ledger currency.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from gateway.simulator import Ended, Received

INTERRUPTED = "abandoned"
LOST_ON_THE_WAY = frozenset({INTERRUPTED, "failed", "hung_up"})
"""How a call may end that no provider received."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as its client saw it. `trial` is its own mark, kept in the entry's tags."""

    trial: str
    call_id: str | None
    """From the answer's headers; None: none came."""
    streamed: bool
    whole: bool
    """The answer's last byte came, and nothing was missing before it."""


@dataclass(frozen=True, slots=True)
class Line:
    """What an entry and an attempt have in common."""

    call_id: str
    outcome: str
    basis: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_nanos: int

    @property
    def tokens(self) -> tuple[int, int, int]:
        return (self.input_tokens, self.cached_tokens, self.output_tokens)


@dataclass(frozen=True, slots=True)
class Entry(Line):
    trial: str
    ended_at_s: float


@dataclass(frozen=True, slots=True)
class Attempt(Line):
    attempt_no: int
    price_id: int | None


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-units per million tokens."""

    input_nanos: int
    cached_input_nanos: int
    output_nanos: int

    def of(self, line: Line) -> int:
        """Rounded half up, once."""
        fresh = line.input_tokens - line.cached_tokens
        exact = Fraction(
            fresh * self.input_nanos
            + line.cached_tokens * self.cached_input_nanos
            + line.output_tokens * self.output_nanos,
            1_000_000,
        )
        return math.floor(exact + Fraction(1, 2))


@dataclass(frozen=True, slots=True)
class Books:
    """The ledger as the database has it."""

    entries: Sequence[Entry]
    attempts: Sequence[Attempt]
    prices: Mapping[int, Price]

    def by_call(self) -> dict[str, Entry]:
        return {each.call_id: each for each in self.entries}


@dataclass(frozen=True, slots=True)
class Upstream:
    """The provider's side of one call."""

    received: Received
    ended: Ended | None


Rows = Callable[[str], list[tuple[Any, ...]]]

ENTRIES = (
    "SELECT call_id, outcome, usage_basis, input_tokens, cached_tokens, output_tokens, cost_nanos, tags,"
    " ended_at FROM gateway_entry"
)
ATTEMPTS = (
    "SELECT entry_id, outcome, usage_basis, input_tokens, cached_tokens, output_tokens, cost_nanos,"
    " attempt_no, price_id FROM gateway_attempt"
)
PRICES = "SELECT id, input_nanos, cached_input_nanos, output_nanos FROM gateway_price"


def read_books(rows: Rows) -> Books:
    return Books(
        [_entry(*row) for row in rows(ENTRIES)],
        [Attempt(with_dashes(call_id), *rest) for call_id, *rest in rows(ATTEMPTS)],
        {price_id: Price(*nanos) for price_id, *nanos in rows(PRICES)},
    )


def _entry(call_id: str, *rest: Any) -> Entry:
    *line, tags, ended_at = rest
    moment = datetime.fromisoformat(f"{ended_at}+00:00").timestamp()
    trial = json.loads(tags).get("trial", "")
    return Entry(with_dashes(call_id), *line, trial=trial, ended_at_s=moment)


def with_dashes(call_id: str) -> str:
    """A call id as headers have it; SQLite keeps it without dashes."""
    bare = call_id.replace("-", "")
    return "-".join((bare[:8], bare[8:12], bare[12:16], bare[16:20], bare[20:]))


def upstream_calls(lines: Iterable[Received | Ended]) -> dict[str, list[Upstream]]:
    """By call id: every time that the provider received it. `lines` in the order of its journal."""
    received: dict[int, Received] = {}
    ended: dict[int, Ended] = {}
    for line in lines:
        if isinstance(line, Received):
            received[line.number] = line
        else:
            ended[line.number] = line
    calls: dict[str, list[Upstream]] = defaultdict(list)
    for number, line in received.items():
        calls[line.request_id or ""].append(Upstream(line, ended.get(number)))
    return dict(calls)


Calls = Mapping[str, Sequence[Upstream]]


def findings(seen: Sequence[Seen], upstream: Calls, books: Books) -> list[str]:
    """All that is wrong; empty where the books are right."""
    return [
        *lost(seen, upstream, books),
        *doubled(seen, upstream, books),
        *unexplained(upstream, books),
        *wrong_outcomes(seen, books),
        *wrong_tokens(upstream, books),
        *wrong_costs(books),
        *badly_interrupted(upstream, books),
        *wrong_sums(books),
    ]


def lost(seen: Iterable[Seen], upstream: Calls, books: Books) -> Iterator[str]:
    """Calls that somebody knows of and the ledger does not."""
    booked = {each.call_id for each in books.entries}
    for each in seen:
        if each.call_id is not None and each.call_id not in booked:
            yield f"lost: a client has an answer to {each.call_id} and the ledger has no entry"
    for call_id in upstream:
        if call_id not in booked:
            yield f"lost: the provider received {call_id or 'a nameless call'} and the ledger has no entry"


def doubled(seen: Iterable[Seen], upstream: Calls, books: Books) -> Iterator[str]:
    """One request with two entries, two attempts of one number, or sent upstream more than once."""
    yield from _twice("entries of call", (each.call_id for each in books.entries))
    yield from _twice("entries of trial", (each.trial for each in books.entries))
    yield from _twice("attempts", ((each.call_id, each.attempt_no) for each in books.attempts))
    yield from _twice("answers with call id", (each.call_id for each in seen if each.call_id is not None))
    for call_id, times in upstream.items():
        if len(times) > 1:
            yield f"doubled: the provider received {call_id} {len(times)} times"


def _twice(what: str, names: Iterable[object]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"doubled: {count} {what} {name}"


def unexplained(upstream: Calls, books: Books) -> Iterator[str]:
    """Entries that say more than anybody saw: an answer without a provider, attempts without an entry."""
    booked = {each.call_id for each in books.entries}
    for entry in books.entries:
        if entry.call_id not in upstream and entry.outcome not in LOST_ON_THE_WAY:
            yield f"unexplained: {entry.call_id} is {entry.outcome} and no provider received it"
    for attempt in books.attempts:
        if attempt.call_id not in booked:
            yield f"unexplained: an attempt of {attempt.call_id}, which has no entry"
    for call_id in upstream.keys() - {each.call_id for each in books.attempts}:
        yield f"unexplained: the provider received {call_id} and the ledger has no attempt"


def wrong_outcomes(seen: Iterable[Seen], books: Books) -> Iterator[str]:
    """A client that has its whole answer was answered, whatever happened afterwards."""
    entries = books.by_call()
    for each in seen:
        entry = entries.get(each.call_id or "")
        if each.whole and entry is not None and entry.outcome != "answered":
            yield f"outcome: {entry.call_id} was answered whole and is on the ledger as {entry.outcome}"
        if entry is not None and entry.trial != each.trial:
            yield f"outcome: {entry.call_id} is {each.trial} to its client and {entry.trial} on the ledger"


def wrong_tokens(upstream: Calls, books: Books) -> Iterator[str]:
    """An answered call has the tokens that the provider really reported."""
    for entry in books.entries:
        if entry.outcome != "answered" or entry.call_id not in upstream:
            continue
        ended = upstream[entry.call_id][0].ended
        usage = ended.usage if ended is not None else None
        if usage is None:
            yield f"tokens: {entry.call_id} is answered and its provider never reported usage"
            continue
        reported = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
        if (entry.tokens, entry.basis) != (reported, "reported"):
            yield f"tokens: {entry.call_id} has {entry.tokens} {entry.basis}, reported were {reported}"


def wrong_costs(books: Books) -> Iterator[str]:
    """An attempt costs its tokens at its price."""
    for attempt in books.attempts:
        price = books.prices.get(attempt.price_id or 0)
        if price is None:
            yield f"cost: attempt {attempt.attempt_no} of {attempt.call_id} has no price"
        elif attempt.cost_nanos != price.of(attempt):
            right = price.of(attempt)
            yield f"cost: attempt of {attempt.call_id} costs {attempt.cost_nanos}, its tokens cost {right}"


def badly_interrupted(upstream: Calls, books: Books) -> Iterator[str]:
    """An interrupted call is estimated, and never below what its provider did."""
    for entry in books.entries:
        if entry.outcome != INTERRUPTED:
            continue
        sent = upstream.get(entry.call_id)
        if sent and entry.basis != "estimated":
            yield f"interrupted: {entry.call_id} was dispatched and is {entry.basis}, not estimated"
        if sent and (ended := sent[0].ended) is not None:
            did = (ended.prompt_tokens, ended.completion_tokens)
            if entry.input_tokens < did[0] or entry.output_tokens < did[1]:
                yield f"interrupted: {entry.call_id} has {entry.tokens}, its provider did {did} already"


def wrong_sums(books: Books) -> Iterator[str]:
    """An entry is the sum of its attempts."""
    attempts: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in books.attempts:
        attempts[attempt.call_id].append(attempt)
    for entry in books.entries:
        mine = attempts.get(entry.call_id, [])
        cost = sum(each.cost_nanos for each in mine)
        tokens = tuple(map(sum, zip(*(each.tokens for each in mine), strict=True))) or (0, 0, 0)
        if (entry.cost_nanos, entry.tokens) != (cost, tokens):
            mine_said = f"{entry.cost_nanos} for {entry.tokens}"
            yield f"sum: {entry.call_id} has {mine_said}, its attempts have {cost} for {tokens}"


@dataclass(frozen=True, slots=True)
class Total:
    """What the live page and the ledger must agree on."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nanos: int = 0


def total_of_entries(books: Books, after_s: float = 0.0) -> Total:
    """Of what ended at that Unix second or later."""
    entries = [each for each in books.entries if each.ended_at_s >= after_s]
    return Total(
        len(entries),
        sum(each.input_tokens for each in entries),
        sum(each.output_tokens for each in entries),
        sum(each.cost_nanos for each in entries),
    )


def total_of_frames(totals: Iterable[Mapping[str, int]]) -> Total:
    """Of the live page's frames, each with its counts by name."""
    kept = list(totals)
    return Total(
        *(
            sum(each[name] for each in kept)
            for name in ("calls", "input_tokens", "output_tokens", "cost_nanos")
        )
    )


def summary(seen: Sequence[Seen], upstream: Calls, books: Books, kills: int, in_flight: int) -> str:
    """One line for the reader of `make prove`."""
    outcomes = sorted(Counter(each.outcome for each in books.entries).items())
    told = ", ".join(f"{count} {outcome}" for outcome, count in outcomes)
    whole = sum(each.whole for each in seen)
    n = len(upstream)
    return (
        f"M1  {kills} kills, {in_flight} calls in flight at them; {n} calls dispatched, "
        f"{whole} answered whole; entries: {told}; 0 lost, 0 doubled (95 % bound {3 / n:.3%})"
    )
