"""Usage, calls and statements as CSV, part by part, in constant memory.

Each part is one look at the database by an index, so files may be as long as the ledger.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from django.conf import settings
from django.db.models import Count, F, Q, Sum

from accounts.api.exports import lines
from accounts.models import ApiKey, Team
from gateway.ledger import queries
from gateway.ledger import statement as books
from gateway.ledger.queries import By, RateOn, Scope, Sums
from gateway.ledger.statement import Line, Month
from gateway.models import Correction, Entry

CALLS_AT_ONCE: Final = 1000
LINES_AT_ONCE: Final = 1000
MOST_VALUES: Final = 10_000
"""That are told apart in one span. A tag may have any number of them."""
NANOS: Final = Decimal(10**9)
COUNTED: Final = ("calls", "refused", "failed", "unpriced", "estimated", "simulated", "attempts")
TOKENS: Final = (
    "input_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "audio_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_output_tokens",
)

USAGE_COLUMNS: Final = (
    *("since", "until", "dimension", "value", "name", *COUNTED, *TOKENS, "queued_us", "latency_us"),
    *("cost", "currency", "note"),
)
CALL_COLUMNS: Final = (
    *("call_id", "team_id", "team", "key_id", "key", "route", "target", "outcome", "status", "code"),
    *("priority", "streamed", "simulated", "started_at", "ended_at", "latency_us", "first_token_us"),
    *("queued_us", "attempts", *TOKENS, "usage_basis", "unpriced", "priced_later"),
    *("booked_cost", "corrections", "cost", "currency", "tags"),
)
STATEMENT_COLUMNS: Final = (
    *("line", "day", "model_name", "key_id", "key", "calls", "unpriced", "estimated", *TOKENS),
    *("cost", "currency", "note"),
)
MOST_DAYS_NAMED: Final = 3


def usage(
    scope: Scope,
    edges: Sequence[datetime],
    by: By | None,
    currency: str,
    *,
    most: int = MOST_VALUES,
    lines_at_once: int = LINES_AT_ONCE,
) -> Iterator[str]:
    """A line for each span between two edges, or for each value of a dimension that there was in it.

    The dearest value first, and all beyond `most` as one. Raises DatabaseError.
    """
    yield lines([USAGE_COLUMNS])
    for since, until in pairwise(edges):
        found, names = _found(scope, since, until, by, currency, most)
        for start in range(0, len(found), lines_at_once):
            part = found[start : start + lines_at_once]
            yield lines(
                (since, until, *_value(by, value, names), *_figures(sums, currency)) for value, sums in part
            )


def _found(
    scope: Scope, since: datetime, until: datetime, by: By | None, currency: str, most: int
) -> tuple[list[tuple[str, Sums]], Mapping[str, str]]:
    if by is None:
        return [("", queries.totals(scope, since, until, currency))], {}
    found = queries.breakdown(scope, since, until, by, currency, most=most)
    return found, queries.names_of(by, [value for value, _ in found])


def _value(by: By | None, value: str, names: Mapping[str, str]) -> tuple[str, str, str]:
    if by is None:
        return "", "", ""
    return by if isinstance(by, str) else f"tag:{by[1]}", value, names.get(value, value)


def _figures(sums: Sums, currency: str) -> list[Any]:
    names = (*COUNTED, *TOKENS, "queued_us", "latency_us")
    return [*(getattr(sums, each) for each in names), *_money(sums, currency or settings.LEDGER_CURRENCY)]


def _money(sums: Sums, currency: str) -> tuple[Decimal | None, str, str]:
    """The cost, its currency, and what is to be said of it; none where a part of it is not known."""
    lacking = sums.no_rate_on
    note = f"{sums.unpriced} calls have no price, so their cost is not in this." if sums.unpriced else ""
    if lacking:
        days = ", ".join(map(str, lacking[:MOST_DAYS_NAMED])) + (", …" if lacking[MOST_DAYS_NAMED:] else "")
        return None, currency, f"No exchange rate is known for {days}. {note}".strip()
    return amount(sums.cost_nanos), currency, note


def amount(nanos: int) -> Decimal:
    """In units of a currency, exactly."""
    return nanos / NANOS


def calls(scope: Scope, since: datetime, until: datetime) -> Iterator[str]:
    """A line for each call on the ledger, team by team and the earliest first. Raises DatabaseError.

    `cost` is what the call costs by all that is known: `booked_cost` and what `corrections` changed.
    A call is of the target of its last attempt.
    """
    yield lines([CALL_COLUMNS])
    teams = Team.objects.order_by("pk")
    if scope.team_ids is not None:
        teams = teams.filter(pk__in=scope.team_ids)
    for team_id, name in teams.values_list("pk", "name"):
        yield from _calls_of(team_id, name, scope, since, until)


def _calls_of(team_id: int, team: str, scope: Scope, since: datetime, until: datetime) -> Iterator[str]:
    keys = dict(ApiKey.objects.filter(team_id=team_id).values_list("pk", "name"))
    wanted = _wanted(scope)
    rows = Entry.objects.filter(team_id=team_id, started_at__lt=until).order_by("started_at", "call_id")
    beyond = Q(started_at__gte=since)
    while found := list(rows.filter(beyond).values(*ENTRY)[:CALLS_AT_ONCE]):
        corrections = _corrections(team_id, found[0]["started_at"], found[-1]["started_at"])
        yield lines(_call(each, team, keys, corrections) for each in found if wanted(each))
        beyond = _after(found[-1])


ENTRY: Final = (
    *("call_id", "team_id", "key_id", "route", "target", "outcome", "status", "code", "priority"),
    *("streamed", "simulated", "started_at", "ended_at", "latency_us", "first_token_us", "queued_us"),
    *("attempts_made", *TOKENS, "usage_basis", "unpriced", "cost_nanos", "tags"),
)


def _after(row: Mapping[str, Any]) -> Q:
    """What comes after a row: by value, so that no place is lost where rows come meanwhile."""
    at, call_id = row["started_at"], row["call_id"]
    return Q(started_at__gte=at) & (Q(started_at__gt=at) | Q(call_id__gt=call_id))


def _wanted(scope: Scope) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a row is asked for. Looked at here, so that what is rare does not make one query long."""
    columns = {"team": "team_id", "key": "key_id"}
    where = [(columns.get(each, each), frozenset(values)) for each, values in scope.where.items()]

    def wanted(row: Mapping[str, Any]) -> bool:
        if scope.tag is not None and row["tags"].get(scope.tag[0]) != scope.tag[1]:
            return False
        return all(str(row[column]) in values for column, values in where)

    return wanted


def _corrections(team_id: int, first: datetime, last: datetime) -> dict[Any, tuple[int, int]]:
    """By call: what its corrections changed, and how many attempts they gave a price."""
    rows = Correction.objects.filter(team_id=team_id, started_at__gte=first, started_at__lte=last).order_by()
    found = rows.values_list("call_id").annotate(
        changed=Sum(F("after_nanos") - F("before_nanos")),
        priced=Count("attempt_no", filter=Q(prices=True), distinct=True),
    )
    return {call_id: (changed, priced) for call_id, changed, priced in found}


def _call(
    row: Mapping[str, Any], team: str, keys: Mapping[int, str], corrections: Mapping[Any, tuple[int, int]]
) -> Iterator[Any]:
    changed, priced = corrections.get(row["call_id"], (0, 0))
    told = {
        **row,
        "team": team,
        "key": keys.get(row["key_id"]),
        "attempts": row["attempts_made"],
        "priced_later": priced,
        "booked_cost": amount(row["cost_nanos"]),
        "corrections": amount(changed),
        "cost": amount(row["cost_nanos"] + changed),
        "currency": settings.LEDGER_CURRENCY,
    }
    return (told[each] for each in CALL_COLUMNS)


def statement(team: Team, month: Month, currency: str) -> Iterator[str]:
    """Lines by day, model name and API key, with later corrections as lines of their own; then what each
    model name adds up to, the sum, and the exchange rates. Raises DatabaseError.
    """
    currency, rate = currency or settings.LEDGER_CURRENCY, queries.rate_on(currency)
    keys = {str(pk): name for pk, name in ApiKey.objects.filter(team=team).values_list("pk", "name")}
    by_route: dict[str, Sums] = {}
    yield lines([STATEMENT_COLUMNS])
    for line in books.lines(team.pk, month, rate):
        _add_line(by_route.setdefault(line.route, Sums()), line)
        yield lines([_line(line, keys, currency)])
    yield lines(_sums(by_route, currency))
    if rate is not None:
        yield lines(_rates(month, rate, currency))
    yield lines(_behind(team, month))


def _add_line(into: Sums, line: Line) -> None:
    queries.add_up(into, line.sums if line.kind == "usage" else Sums(), line.sums.cost_nanos)
    for day in line.sums.no_rate_on:
        queries.add_up(into, Sums(), day)


def _line(line: Line, keys: Mapping[str, str], currency: str) -> list[Any]:
    cost, currency, note = _money(line.sums, currency)
    if line.kind == "correction":
        note = f"{line.cause}, worked out on {line.made_at:%Y-%m-%d}. {note}".strip()
    named = (line.kind, line.day, line.route, line.key_id, keys.get(line.key_id, ""))
    return [*named, *_counted(line.sums), cost, currency, note]


def _counted(sums: Sums) -> list[int]:
    return [getattr(sums, each) for each in ("calls", "unpriced", "estimated", *TOKENS)]


def _sums(by_route: Mapping[str, Sums], currency: str) -> Iterator[list[Any]]:
    everything = Sums()
    for route, sums in sorted(by_route.items()):
        yield ["model name", "", route, "", "", *_counted(sums), *_money(sums, currency)]
        queries.add_up(everything, sums, sums.cost_nanos)
        for day in sums.no_rate_on:
            queries.add_up(everything, Sums(), day)
    yield ["total", "", "", "", "", *_counted(everything), *_money(everything, currency)]


def _rates(month: Month, rate: RateOn, currency: str) -> Iterator[list[Any]]:
    """Each exchange rate with the first day in UTC that it was used for."""
    last: object = None
    for day in month.utc_days:
        exchange = rate(day)
        if exchange != last and exchange is not None:
            per_unit = Decimal(exchange.numerator) / Decimal(exchange.denominator)
            yield _note("rate", day, f"1 {settings.LEDGER_CURRENCY} is {per_unit.normalize():f} {currency}")
        last = exchange


def _behind(team: Team, month: Month) -> Iterator[list[Any]]:
    behind = queries.watermark((team.pk,))
    if behind is not None and behind < month.ends_at:
        yield _note("note", "", f"What began after {behind:%Y-%m-%d %H:%M} UTC may not be in this yet.")


def _note(kind: str, day: date | str, text: str) -> list[Any]:
    return [kind, day, *[""] * (len(STATEMENT_COLUMNS) - 3), text]
