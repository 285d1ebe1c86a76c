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
MAY_HAVE_WORKED = frozenset({None, 200, 408, 504})
"""Statuses of a provider that may bill what it was sent; None: what it answered never came."""
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
    refused: bool = False
    """The gateway said that it has no place, so nothing was to be sent and nothing booked."""


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
    status: int | None
    """The provider's; None: none came."""
    started_at_s: float

    def __str__(self) -> str:
        return f"attempt {self.attempt_no} of {self.call_id}"


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

    def attempts_by_call(self) -> dict[str, list[Attempt]]:
        """Each call's in the order of their numbers."""
        found: dict[str, list[Attempt]] = defaultdict(list)
        for each in sorted(self.attempts, key=lambda each: each.attempt_no):
            found[each.call_id].append(each)
        return found


@dataclass(frozen=True, slots=True)
class Upstream:
    """The provider's side of one attempt."""

    received: Received
    ended: Ended | None


Rows = Callable[[str], list[tuple[Any, ...]]]

ENTRIES = (
    "SELECT call_id, outcome, usage_basis, input_tokens, cached_tokens, output_tokens, cost_nanos, tags,"
    " ended_at FROM gateway_entry"
)
ATTEMPTS = (
    "SELECT entry_id, outcome, usage_basis, input_tokens, cached_tokens, output_tokens, cost_nanos,"
    " attempt_no, price_id, status, started_at FROM gateway_attempt"
)
PRICES = "SELECT id, input_nanos, cached_input_nanos, output_nanos FROM gateway_price"


def read_books(rows: Rows) -> Books:
    return Books(
        [_entry(*row) for row in rows(ENTRIES)],
        [_attempt(*row) for row in rows(ATTEMPTS)],
        {price_id: Price(*nanos) for price_id, *nanos in rows(PRICES)},
    )


def _entry(call_id: str, *rest: Any) -> Entry:
    *line, tags, ended_at = rest
    trial = json.loads(tags).get("trial", "")
    return Entry(with_dashes(call_id), *line, trial=trial, ended_at_s=_moment_s(ended_at))


def _attempt(call_id: str, *rest: Any) -> Attempt:
    *line, started_at = rest
    return Attempt(with_dashes(call_id), *line, started_at_s=_moment_s(started_at))


def _moment_s(kept: str) -> float:
    """Seconds since the Unix epoch, of a moment as SQLite keeps it."""
    return datetime.fromisoformat(f"{kept}+00:00").timestamp()


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
"""By call id; one for each time that the provider received it."""


def joined(upstream: Calls, books: Books) -> tuple[dict[tuple[str, int], list[Upstream]], list[str]]:
    """What the provider received, by attempt; and the calls of which it received more than was attempted.

    All attempts of a call carry its id, so they are told apart by time, on one machine's one clock:
    an attempt is written down, then sent, and the next one comes when it is over.
    """
    attempts = books.attempts_by_call()
    found: dict[tuple[str, int], list[Upstream]] = defaultdict(list)
    strays: list[str] = []
    for call_id, requests in upstream.items():
        for each in requests:
            before = [
                one for one in attempts.get(call_id, []) if one.started_at_s <= each.received.at_us / 1e6
            ]
            if before:
                found[call_id, before[-1].attempt_no].append(each)
            else:
                strays.append(call_id)
    return found, strays


def findings(seen: Sequence[Seen], upstream: Calls, books: Books) -> list[str]:
    """All that is wrong; empty where the books are right."""
    return [
        *lost(seen, upstream, books),
        *doubled(seen, upstream, books),
        *unexplained(seen, upstream, books),
        *unexplained_attempts(upstream, books),
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
        if each.call_id is not None and each.call_id not in booked and not each.refused:
            yield f"lost: a client has an answer to {each.call_id} and the ledger has no entry"
    for call_id in upstream:
        if call_id not in booked:
            yield f"lost: the provider received {call_id or 'a nameless call'} and the ledger has no entry"


def doubled(seen: Iterable[Seen], upstream: Calls, books: Books) -> Iterator[str]:
    """One request with two entries, two attempts of one number, or one attempt sent more than once."""
    yield from _twice("entries of call", (each.call_id for each in books.entries))
    yield from _twice("entries of trial", (each.trial for each in books.entries))
    yield from _twice("attempts", ((each.call_id, each.attempt_no) for each in books.attempts))
    yield from _twice("answers with call id", (each.call_id for each in seen if each.call_id is not None))
    for (call_id, number), requests in joined(upstream, books)[0].items():
        if len(requests) > 1:
            yield f"doubled: the provider received attempt {number} of {call_id} {len(requests)} times"


def _twice(what: str, names: Iterable[object]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"doubled: {count} {what} {name}"


def unexplained(seen: Iterable[Seen], upstream: Calls, books: Books) -> Iterator[str]:
    """Entries that say more than anybody saw, and refused calls of which there is anything."""
    entries = books.by_call()
    for entry in books.entries:
        if entry.call_id not in upstream and entry.outcome not in LOST_ON_THE_WAY:
            yield f"unexplained: {entry.call_id} is {entry.outcome} and no provider received it"
    for each in seen:
        if each.refused and (each.call_id in entries or each.call_id in upstream):
            yield f"unexplained: {each.call_id} was refused, and there is more of it"


def unexplained_attempts(upstream: Calls, books: Books) -> Iterator[str]:
    """Attempts without an entry, a request or another before them, and requests without an attempt."""
    entries = books.by_call()
    requests, strays = joined(upstream, books)
    for call_id in strays:
        yield f"unexplained: the provider received {call_id} and the ledger has no attempt for it"
    for attempt in books.attempts:
        if attempt.call_id not in entries:
            yield f"unexplained: {attempt} is on the ledger, and its call has no entry"
        mine = requests.get((attempt.call_id, attempt.attempt_no), [])
        said = {each.ended.status for each in mine if each.ended is not None}
        if attempt.status is not None and attempt.status not in said:
            yield f"unexplained: {attempt} has status {attempt.status}, its provider said {said or 'nothing'}"
    for call_id, all_of_it in books.attempts_by_call().items():
        numbers = sorted({each.attempt_no for each in all_of_it})
        if numbers != list(range(1, len(numbers) + 1)):
            yield f"unexplained: {call_id} has the attempts {numbers}"


def wrong_outcomes(seen: Iterable[Seen], books: Books) -> Iterator[str]:
    """A client that has its whole answer was answered, whatever happened afterwards; by its last attempt."""
    entries, attempts = books.by_call(), books.attempts_by_call()
    for each in seen:
        entry = entries.get(each.call_id or "")
        if each.whole and entry is not None and entry.outcome != "answered":
            yield f"outcome: {entry.call_id} was answered whole and is on the ledger as {entry.outcome}"
        if entry is not None and entry.trial != each.trial:
            yield f"outcome: {entry.call_id} is {each.trial} to its client and {entry.trial} on the ledger"
    for entry in books.entries:
        *before, last = [each.outcome for each in attempts.get(entry.call_id, [])] or [""]
        if "answered" in before or (entry.outcome == "answered") != (last == "answered"):
            yield f"outcome: {entry.call_id} is {entry.outcome}, its attempts {[*before, last]}"


def wrong_tokens(upstream: Calls, books: Books) -> Iterator[str]:
    """An answered attempt has the tokens that its provider really reported, an error of the provider none."""
    requests, _ = joined(upstream, books)
    for attempt in books.attempts:
        for request in requests.get((attempt.call_id, attempt.attempt_no), []):
            if attempt.outcome == "answered":
                yield from _not_as_reported(attempt, request)
            elif attempt.status not in MAY_HAVE_WORKED:
                if (attempt.tokens, attempt.basis) != ((0, 0, 0), "none"):
                    yield f"tokens: {attempt} was an error of its provider and has {attempt.tokens}"
            elif attempt.basis == "none":
                yield f"tokens: {attempt} was received, its provider may have worked on it, and it has none"


def _not_as_reported(attempt: Attempt, request: Upstream) -> Iterator[str]:
    usage = request.ended.usage if request.ended is not None else None
    if usage is None:
        yield f"tokens: {attempt} is answered and its provider never reported usage"
        return
    reported = (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    if (attempt.tokens, attempt.basis) != (reported, "reported"):
        yield f"tokens: {attempt} has {attempt.tokens} {attempt.basis}, reported were {reported}"


def wrong_costs(books: Books) -> Iterator[str]:
    """An attempt costs its tokens at its price."""
    for attempt in books.attempts:
        price = books.prices.get(attempt.price_id or 0)
        if price is None:
            yield f"cost: {attempt} has no price"
        elif attempt.cost_nanos != price.of(attempt):
            yield f"cost: {attempt} costs {attempt.cost_nanos}, its tokens cost {price.of(attempt)}"


def badly_interrupted(upstream: Calls, books: Books) -> Iterator[str]:
    """Every attempt of an interrupted call is estimated, and never below what its provider did."""
    entries = books.by_call()
    requests, _ = joined(upstream, books)
    for attempt in books.attempts:
        entry = entries.get(attempt.call_id)
        if entry is None or INTERRUPTED not in (entry.outcome, attempt.outcome):
            continue
        if (entry.outcome, attempt.outcome, attempt.basis) != (INTERRUPTED, INTERRUPTED, "estimated"):
            said = f"{attempt.outcome}, {attempt.basis}"
            yield f"interrupted: {attempt} is {said}, and its call is {entry.outcome}"
        for request in requests.get((attempt.call_id, attempt.attempt_no), []):
            if (ended := request.ended) is None:
                continue
            did = (ended.prompt_tokens, ended.completion_tokens)
            if attempt.input_tokens < did[0] or attempt.output_tokens < did[1]:
                yield f"interrupted: {attempt} has {attempt.tokens}, its provider did {did} already"


def wrong_sums(books: Books) -> Iterator[str]:
    """An entry is the sum of its attempts, and as sure as the least sure of them."""
    attempts = books.attempts_by_call()
    for entry in books.entries:
        mine = attempts.get(entry.call_id, [])
        cost = sum(each.cost_nanos for each in mine)
        tokens = tuple(map(sum, zip(*(each.tokens for each in mine), strict=True))) or (0, 0, 0)
        if (entry.cost_nanos, entry.tokens) != (cost, tokens):
            mine_said = f"{entry.cost_nanos} for {entry.tokens}"
            yield f"sum: {entry.call_id} has {mine_said}, its attempts have {cost} for {tokens}"
        bases = {each.basis for each in mine}
        basis = next((each for each in ("estimated", "reported") if each in bases), "none")
        if entry.basis != basis:
            yield f"sum: {entry.call_id} is {entry.basis}, its attempts are {basis}"


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
    again = sum(each.attempt_no > 1 for each in books.attempts)
    n = len(upstream)
    return (
        f"M1  {kills} kills, {in_flight} calls in flight at them; {n} calls dispatched, {again} retries, "
        f"{whole} answered whole; entries: {told}; 0 lost, 0 doubled (95 % bound {3 / n:.3%})"
    )
