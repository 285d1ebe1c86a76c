"""Why one call went as it did, was slow, cost so much, or was refused: put together from its rows alone.

    entry, attempts, corrections, prices, breaker changes ──► told() ──► Explanation

Putting together is pure. Does not decide who may see it: the teams are passed in.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from accounts.amounts import figure
from accounts.models import ApiKey, Team
from gateway.ledger import bills, reasons
from gateway.ledger.bills import Bill, PriceRow
from gateway.models import Attempt, BreakerChange, Correction, Entry, Price, Refusal
from gateway.relay import pricing
from gateway.relay.records import Basis, Seen, Usage

WORTH_TELLING = 0.15
"""Of the latency: a part that took less is not among what one wants to know first."""
WORTH_A_WORD_US = 1000
"""A gate or a pool that took less did not let the call wait: it was on its way through."""
MOST_OPEN = 2
"""Targets that were passed over, of whose breakers the last change is looked up."""
WHERE: Mapping[str, Promise] = {
    "gate": gettext_lazy("waiting at the gate for a place"),
    "connection": gettext_lazy("waiting for a connection"),
    "backoff": gettext_lazy("waiting before the same target was asked again"),
    "failed": gettext_lazy("attempts that did not answer"),
    "first": gettext_lazy("waiting for the provider's first word"),
    "writing": gettext_lazy("the provider writing its answer"),
    "gateway": gettext_lazy("the gateway itself"),
}
WAITS = ("gate", "connection")
Where = Literal["gate", "connection", "backoff", "failed", "first", "writing", "gateway"]


class NotOnTheBooks(LookupError):
    """There is no such call; the message says what may be."""


@dataclass(frozen=True, slots=True)
class Limit:
    """One rate limit or quota with its figures at the moment of admission."""

    owner: Literal["key", "team"]
    kind: Literal["requests", "tokens", "concurrent", "money"]
    period: Literal["minute", "call", "day", "month"]
    """`call`: calls under way were counted, and none that had ended."""
    amount: int
    """Money in nano-units of the ledger currency, as below."""
    used: int
    """Without this call; of a quota, with what calls under way held."""
    asked: int
    hard: bool
    model_name: str
    """The route that it is for; empty: all together."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """What models counted. Cached, cache-write and audio input are parts of the input, and so on."""

    input_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    audio_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    audio_output_tokens: int
    basis: Basis
    """reported by the provider, or estimated here."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A target of the plan, in its order, and what came of it."""

    target: str
    attempts: int
    passed_over: Literal["", "open", "full"]
    """Its breaker was open, or no place was free."""
    why: str


@dataclass(frozen=True, slots=True)
class Tried:
    """One attempt. Durations in microseconds."""

    attempt_no: int
    target: str
    outcome: str
    code: str
    """What went wrong, in a word; empty for an answer."""
    status: int | None
    """The provider's HTTP status; null: none was received."""
    breaker: Literal["closed", "half-open"]
    """When it was sent; while it is open nothing is."""
    started_at: datetime
    after_us: int
    """From the call's begin."""
    backoff_us: int
    """The wait before it, because it is a retry."""
    gate_us: int
    pool_wait_us: int
    """The wait for a connection."""
    first_byte_us: int | None
    """From the attempt's begin, as the following two."""
    first_token_us: int | None
    latency_us: int
    """To the last byte."""
    trimmed: int
    """Messages that were left out because all of them were too long."""
    usage: Tokens
    cost_nanos: int
    """With all corrections."""
    booked_nanos: int
    """As it was booked at first."""
    bill: Bill | None
    bill_missing: str
    """Why there is no bill; empty where there is one."""
    why: str
    """What became of it."""
    then: str
    """What was done next; empty after an answer."""


@dataclass(frozen=True, slots=True)
class Corrected:
    """A price that came late changed what an attempt costs. The old figure stays."""

    attempt_no: int
    before_nanos: int
    after_nanos: int
    at: datetime
    why: str


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a call's time."""

    where: Where
    duration_us: int
    words: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """A call, and why it went as it did. Money in nano-units of the ledger currency, durations in µs."""

    call_id: UUID
    team_id: int
    team: str
    key_id: int
    key: str
    route: str
    priority: str
    tags: dict[str, str]
    streamed: bool
    simulated: bool
    outcome: str
    status: int
    """What the client received; 499 where it had gone."""
    code: str
    started_at: datetime
    ended_at: datetime
    latency_us: int
    first_token_us: int | None
    gate_us: int
    """Over all attempts, as the following two."""
    pool_wait_us: int
    backoff_us: int
    summary: list[str]
    """What one wants to know first: what became of it, where its time went, what its cost is made of."""
    time: list[Share]
    """Adds up to the latency; parts that took no time are left out."""
    limits: list[Limit]
    plan: list[Planned]
    attempts: list[Tried]
    usage: Tokens
    cost_nanos: int
    """With all corrections."""
    booked_nanos: int
    """As it was booked at first."""
    unpriced: bool
    """Part of it has no price even now."""
    corrections: list[Corrected]
    adds_up: bool
    """Every bill that was kept comes to what is on the books, and together they are the cost."""


@dataclass(frozen=True, slots=True)
class Refused:
    """A call that was not let in."""

    call_id: UUID
    at: datetime
    team_id: int
    team: str
    key_id: int
    key: str
    route: str
    """The model name as it was asked for."""
    priority: str
    status: int
    code: str
    message: str
    """What the client was told."""
    limits: list[Limit]
    """The one that was exceeded."""


@dataclass(frozen=True, slots=True)
class Names:
    """Of a call's team and key; a number where the name is gone."""

    team: str
    key: str


@dataclass(frozen=True, slots=True)
class Rows:
    """What one explanation is made of."""

    entry: Entry
    attempts: Sequence[Attempt]
    corrections: Sequence[Correction]
    prices: Mapping[int, PriceRow]
    opened: Mapping[int, BreakerChange]
    """By target: how the breaker came to be open that had the target passed over."""
    names: Names


# Look it up


def explain(call_id: UUID, team_ids: Iterable[int] | None, currency: str) -> Explanation:
    """A call of one of these teams; None: of any. `currency` is the ledger's. Raises NotOnTheBooks."""
    entry = Entry.objects.filter(pk=call_id, **_of(team_ids)).first()
    if entry is None:
        raise _nothing(call_id, team_ids)
    attempts = list(Attempt.objects.filter(entry_id=call_id).order_by("attempt_no"))
    corrections = list(Correction.objects.filter(call_id=call_id).select_related("repricing").order_by("id"))
    texts = [each.price for each in attempts] + [each.price for each in corrections]
    names = names_of([(entry.team_id, entry.key_id)])[entry.team_id, entry.key_id]
    rows = Rows(entry, attempts, corrections, _price_rows(texts), _opened(entry), names)
    return told(rows, currency)


def explain_refusal(call_id: UUID, team_ids: Iterable[int] | None) -> Refused:
    """A refused call of one of these teams; None: of any. Raises NotOnTheBooks."""
    row = Refusal.objects.filter(pk=call_id, **_of(team_ids)).first()
    if row is None:
        raise NotOnTheBooks(
            _(
                "No refused call with this id is explained here: the last 1,000 of a team are, "
                "and each is written down within a few seconds."
            )
        )
    return told_refusals([row])[0]


def told_refusals(rows: Sequence[Refusal]) -> list[Refused]:
    """With names: two queries."""
    names = names_of([(each.team_id, each.key_id) for each in rows])
    return [_refused(each, names[each.team_id, each.key_id]) for each in rows]


def names_of(pairs: Iterable[tuple[int, int]]) -> dict[tuple[int, int], Names]:
    """Names of teams and API keys: two queries."""
    pairs = set(pairs)
    teams = dict(Team.objects.filter(pk__in={each[0] for each in pairs}).values_list("pk", "name"))
    keys = dict(ApiKey.objects.filter(pk__in={each[1] for each in pairs}).values_list("pk", "name"))
    return {
        (team, key): Names(
            teams.get(team) or _("team %(id)s") % {"id": team},
            keys.get(key) or _("API key %(id)s") % {"id": key},
        )
        for team, key in pairs
    }


def _of(team_ids: Iterable[int] | None) -> dict[str, Any]:
    return {} if team_ids is None else {"team_id__in": list(team_ids)}


def _nothing(call_id: UUID, team_ids: Iterable[int] | None) -> NotOnTheBooks:
    if Refusal.objects.filter(pk=call_id, **_of(team_ids)).exists():
        return NotOnTheBooks(_("This call was refused: GET /api/refusals/%(id)s says why.") % {"id": call_id})
    return NotOnTheBooks(
        _(
            "There is no call with this id on the books. "
            "One that is still under way is booked when it ends; a call of another team is not shown."
        )
    )


def _price_rows(texts: Iterable[str]) -> dict[int, PriceRow]:
    ids = {how.price_id for text in texts if (how := pricing.read(text))}
    rows = Price.objects.filter(pk__in=ids).values_list("pk", "source", "valid_from")
    return {pk: PriceRow(source, valid_from) for pk, source, valid_from in rows}


def _opened(entry: Entry) -> dict[int, BreakerChange]:
    """One query a target that was passed over because of its breaker."""
    passed = [each["target_id"] for each in entry.skipped if each["why"] == "open"]
    found = (
        BreakerChange.objects.filter(target_id=each, at__lte=entry.ended_at).order_by("-at", "-id").first()
        for each in passed[:MOST_OPEN]
    )
    return {each.target_id: each for each in found if each and each.after != "closed"}


# Put it together


def told(rows: Rows, currency: str) -> Explanation:
    """The explanation. Pure: the rows are not changed, and nothing is looked up."""
    entry = rows.entry
    tried = [_tried(rows, place, currency) for place in range(len(rows.attempts))]
    cost_nanos = entry.cost_nanos + sum(each.after_nanos - each.before_nanos for each in rows.corrections)
    shares = _shares(entry, tried)
    return Explanation(
        call_id=entry.call_id,
        team_id=entry.team_id,
        team=rows.names.team,
        key_id=entry.key_id,
        key=rows.names.key,
        route=entry.route,
        priority=entry.priority,
        tags=entry.tags,
        streamed=entry.streamed,
        simulated=entry.simulated,
        outcome=entry.outcome,
        status=entry.status,
        code=entry.code,
        started_at=entry.started_at,
        ended_at=entry.ended_at,
        latency_us=entry.latency_us,
        first_token_us=entry.first_token_us,
        gate_us=sum(each.gate_us for each in tried),
        pool_wait_us=sum(each.pool_wait_us for each in tried),
        backoff_us=sum(each.backoff_us for each in tried),
        summary=_summary(entry, tried, shares, cost_nanos, currency),
        time=shares,
        limits=_limits(entry.facts),
        plan=_plan(rows),
        attempts=tried,
        usage=_tokens(entry),
        cost_nanos=cost_nanos,
        booked_nanos=entry.cost_nanos,
        unpriced=_is_unpriced(rows),
        corrections=[_corrected(each) for each in rows.corrections],
        adds_up=_adds_up(tried, cost_nanos),
    )


def _tried(rows: Rows, place: int, currency: str) -> Tried:
    row = rows.attempts[place]
    following = rows.attempts[place + 1] if place + 1 < len(rows.attempts) else None
    corrections = [each for each in rows.corrections if each.attempt_no == row.attempt_no]
    cost_nanos = row.cost_nanos + sum(each.after_nanos - each.before_nanos for each in corrections)
    text = corrections[-1].price if corrections else row.price
    answered = row.outcome == "answered"
    return Tried(
        attempt_no=row.attempt_no,
        target=_target(row),
        outcome=row.outcome,
        code=row.code,
        status=row.status,
        breaker="half-open" if row.probe else "closed",
        started_at=row.started_at,
        after_us=max(0, (row.started_at - rows.entry.started_at) // timedelta(microseconds=1)),
        backoff_us=row.backoff_us,
        gate_us=max(0, row.queued_us - row.pool_wait_us),
        pool_wait_us=row.pool_wait_us,
        first_byte_us=row.first_byte_us,
        first_token_us=row.first_token_us,
        latency_us=row.latency_us,
        trimmed=row.trimmed,
        usage=_tokens(row),
        cost_nanos=cost_nanos,
        booked_nanos=row.cost_nanos,
        bill=bills.bill(_usage(row), text, cost_nanos, currency, rows.prices),
        bill_missing="" if text else _bill_missing(row),
        why=_why(row),
        then=_then(row, following, answered=answered),
    )


def _why(row: Attempt) -> str:
    said = reasons.of_attempt(row.outcome, row.code, row.status)
    if row.probe:
        said += " " + _("It was the probe of a half-open breaker.")
    if row.trimmed:
        words = _("%(number)s of the oldest messages were left out, because all of them were too long.")
        said += " " + words % {"number": row.trimmed}
    return said


def _then(row: Attempt, following: Attempt | None, *, answered: bool) -> str:
    next_target = None if following is None else _target(following)
    waited = reasons.lasting(0 if following is None else following.backoff_us)
    if next_target == _target(row) and following is not None and following.trimmed > row.trimmed:
        return _("The same target was asked again with shorter messages.")
    return reasons.after(_target(row), next_target, waited, answered=answered)


def _bill_missing(row: Attempt) -> str:
    if row.price_id is None:
        return _("The target had no price, so nothing is booked for it. A late price corrects it.")
    return _("It was booked before the lines were kept; the sum alone is.")


def _plan(rows: Rows) -> list[Planned]:
    """Targets that were tried and are not of the plan come last: the call was sent on to another route."""
    skipped = {f"{each['provider']}/{each['upstream_model']}": each for each in rows.entry.skipped}
    tried = [_target(each) for each in rows.attempts]
    names = dict.fromkeys([*rows.entry.facts.get("plan", ()), *tried, *skipped])
    return [_planned(name, tried, skipped.get(name), rows.opened) for name in names]


def _planned(
    name: str, tried: list[str], skipped: Mapping[str, Any] | None, opened: Mapping[int, BreakerChange]
) -> Planned:
    attempts = tried.count(name)
    if skipped is None:
        told = _tried_so_often(attempts) if attempts else _("Not needed, or not allowed to take the call.")
        return Planned(name, attempts, "", told)
    why = str(reasons.SKIPPED[skipped["why"]])
    if change := opened.get(skipped["target_id"]):
        said = {"moment": f"{change.at:%Y-%m-%d %H:%M:%S}", "cause": change.cause.removesuffix(".")}
        why += " " + _("It opened at %(moment)s UTC: %(cause)s.") % said
    if attempts:
        why += " " + _tried_all_the_same(attempts)
    return Planned(name, attempts, skipped["why"], why)


def _tried_so_often(number: int) -> str:
    return ngettext("Tried once.", "Tried %(number)s times.", number) % {"number": number}


def _tried_all_the_same(number: int) -> str:
    words = ngettext("It was tried once all the same.", "It was tried %(number)s times all the same.", number)
    return words % {"number": number}


def _shares(entry: Entry, tried: list[Tried]) -> list[Share]:
    """Where the time went. Attempts follow one another, so what is left is the gateway's own."""
    parts: dict[Where, int] = {
        "gate": sum(each.gate_us for each in tried),
        "connection": sum(each.pool_wait_us for each in tried),
        "backoff": sum(each.backoff_us for each in tried),
        "failed": sum(each.latency_us for each in tried[:-1]),
    }
    if tried:
        last = tried[-1]
        first_us = min(last.latency_us, _first_us(last))
        parts |= {"first": first_us, "writing": last.latency_us - first_us}
    parts["gateway"] = max(0, entry.latency_us - sum(parts.values()))
    return [Share(where, took_us, str(WHERE[where])) for where, took_us in parts.items() if took_us]


def _first_us(last: Tried) -> int:
    """Until the provider's first word; a whole answer has none before its head."""
    for found in (last.first_token_us, last.first_byte_us):
        if found is not None:
            return found
    return last.latency_us


def _summary(
    entry: Entry, tried: list[Tried], shares: list[Share], cost_nanos: int, currency: str
) -> list[str]:
    """What became of it, where its time went, what its cost is made of."""
    sentences = [_outcome(entry, tried)]
    if shares:
        sentences.append(_slow(entry.latency_us, shares))
    sentences.append(_dear(tried, cost_nanos, currency))
    return sentences


def _slow(latency_us: int, shares: Sequence[Share]) -> str:
    """The parts that most of the time went into, the longest first."""
    telling = [each for each in shares if each.duration_us >= WORTH_A_WORD_US or each.where not in WAITS]
    longest = sorted(telling or shares, key=lambda each: -each.duration_us)
    told = [each for each in longest[:3] if each.duration_us >= WORTH_TELLING * latency_us] or longest[:1]
    part = _("%(duration)s went into %(what)s")
    words = [part % {"duration": reasons.lasting(each.duration_us), "what": each.words} for each in told]
    return _("Of its %(latency)s, %(parts)s.") % {
        "latency": reasons.lasting(latency_us),
        "parts": "; ".join(words),
    }


def _outcome(entry: Entry, tried: list[Tried]) -> str:
    said = reasons.of_call(entry.outcome, entry.code)
    if not tried:
        return said + " " + _("Nothing was sent to any provider.")
    first, last = tried[0], tried[-1]
    if len(tried) == 1 and entry.outcome == "answered":
        return _("The call was answered by %(target)s.") % {"target": last.target}
    if len(tried) == 1:
        return f"{said} {last.target}: {last.why}"
    if entry.outcome == "answered":
        told = {"target": last.target, "number": len(tried), "first": first.target, "why": first.why}
        return (
            _("The call was answered by %(target)s, at attempt %(number)s. The first, at %(first)s: %(why)s")
            % told
        )
    told = {"said": said, "number": len(tried), "target": last.target, "why": last.why}
    return _("%(said)s It took %(number)s attempts; the last, at %(target)s: %(why)s") % told


def _dear(tried: list[Tried], cost_nanos: int, currency: str) -> str:
    said: dict[str, object] = {"cost": f"{figure('money', cost_nanos)} {currency}"}
    dearest = bills.dearest([each.bill for each in tried if each.bill])
    if dearest is None:
        return _("It costs %(cost)s.") % said
    line, of, share = dearest
    said["share"] = f"{share:.0%}"
    if line.kind == "request":
        return _("It costs %(cost)s, %(share)s of it for the request as such.") % said
    said |= {"quantity": f"{line.quantity:,}", "kind": bills.KINDS[line.kind]}
    said |= {"rate": figure("money", line.rate_nanos), "currency": of.currency}
    return (
        _(
            "It costs %(cost)s, %(share)s of it for "
            "%(quantity)s %(kind)s tokens at %(rate)s %(currency)s a million."
        )
        % said
    )


def _corrected(row: Correction) -> Corrected:
    return Corrected(row.attempt_no, row.before_nanos, row.after_nanos, row.created_at, row.repricing.cause)


def _limits(facts: Mapping[str, Any]) -> list[Limit]:
    """Kept as the journal keeps them: by place, without names."""
    seen = msgspec.convert(facts.get("limits", []), list[Seen])
    return [Limit(*msgspec.structs.astuple(each)) for each in seen]


def _is_unpriced(rows: Rows) -> bool:
    """An attempt had no price, and none came since."""
    priced = {each.attempt_no for each in rows.corrections if each.prices}
    if not rows.attempts:
        return rows.entry.unpriced
    return rows.entry.unpriced and any(
        each.price_id is None and each.attempt_no not in priced for each in rows.attempts
    )


def _adds_up(tried: list[Tried], cost_nanos: int) -> bool:
    return sum(each.cost_nanos for each in tried) == cost_nanos and all(
        each.bill.adds_up for each in tried if each.bill
    )


def _target(row: Attempt) -> str:
    return f"{row.provider}/{row.upstream_model}"


def _usage(row: Attempt) -> Usage:
    """As it was recorded."""
    return Usage(
        row.input_tokens,
        row.output_tokens,
        row.cached_tokens,
        row.usage_basis,  # type: ignore[arg-type]  # the writer knows no other
        row.cache_write_tokens,
        row.reasoning_tokens,
        row.audio_input_tokens,
        row.audio_output_tokens,
    )


def _tokens(row: Entry | Attempt) -> Tokens:
    return Tokens(
        row.input_tokens,
        row.cached_tokens,
        row.cache_write_tokens,
        row.audio_input_tokens,
        row.output_tokens,
        row.reasoning_tokens,
        row.audio_output_tokens,
        row.usage_basis,  # type: ignore[arg-type]  # as above
    )


def _refused(row: Refusal, names: Names) -> Refused:
    return Refused(
        call_id=row.call_id,
        at=row.at,
        team_id=row.team_id,
        team=names.team,
        key_id=row.key_id,
        key=names.key,
        route=row.route,
        priority=row.priority,
        status=row.status,
        code=row.code,
        message=row.message,
        limits=_limits(row.facts),
    )
