"""Rollups as somebody would write them who has one afternoon and few calls: one loop over the ledger."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from gateway import histograms
from gateway.ledger.measuring import SUMMED, minute_of
from gateway.models import Attempt, Correction, Entry, RefusalCount, Rollup, TagName, TagRollup

Row = tuple[dict[str, int], dict[int, int], dict[int, int]]
"""Sums that are not 0, latency, first-token time."""
Rows = dict[tuple[Any, ...], Row]


def expected(sizes: Iterable[int] = (1, 15, 1440)) -> Rows:
    """By size, start, team, key, route, target, outcome, code and priority."""
    sums: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    latency: dict[tuple[Any, ...], Counter[int]] = defaultdict(Counter)
    first_token: dict[tuple[Any, ...], Counter[int]] = defaultdict(Counter)
    for size in sizes:
        for entry in Entry.objects.all():
            _add(entry, size, (), sums, latency, first_token)
        for refused in RefusalCount.objects.all():
            start = refused.minute // size * size
            of = (refused.team_id, refused.key_id, refused.route, "", "refused", refused.code)
            sums[(size, start, *of, refused.priority)]["calls"] += refused.calls
    return _rows(sums, latency, first_token)


def expected_of_tags(sizes: Iterable[int] = (1, 15, 1440)) -> Rows:
    """The same with name and value in front."""
    sums: dict[tuple[Any, ...], Counter[str]] = defaultdict(Counter)
    latency: dict[tuple[Any, ...], Counter[int]] = defaultdict(Counter)
    first_token: dict[tuple[Any, ...], Counter[int]] = defaultdict(Counter)
    for tag in TagName.objects.all():
        for entry in Entry.objects.filter(team_id=tag.team_id):
            if tag.name in entry.tags:
                for size in sizes:
                    _add(entry, size, (tag.name, entry.tags[tag.name][:256]), sums, latency, first_token)
    return _rows(sums, latency, first_token)


def found() -> Rows:
    return _found(Rollup.objects.all(), ())


def found_of_tags() -> Rows:
    return _found(TagRollup.objects.all(), ("name", "value"))


def _add(entry: Entry, size: int, tag: tuple[str, ...], sums: Any, latency: Any, first_token: Any) -> None:
    attempts = list(Attempt.objects.filter(entry_id=entry.pk).order_by("attempt_no"))
    corrections = list(Correction.objects.filter(call_id=entry.pk))
    start = minute_of(entry.started_at) // size * size
    last = f"{attempts[-1].provider}/{attempts[-1].upstream_model}" if attempts else ""

    def key(target: str) -> tuple[Any, ...]:
        of = (entry.team_id, entry.key_id, entry.route, target, entry.outcome, entry.code, entry.priority)
        return (*tag, size, start, *of)

    own = sums[key(last)]
    own["calls"] += 1
    own["simulated"] += entry.simulated
    own["estimated"] += entry.usage_basis == "estimated"
    priced = {each.attempt_no for each in corrections if each.prices}
    left = [each for each in attempts if each.price_id is None and each.attempt_no not in priced]
    own["unpriced"] += entry.unpriced and (not corrections or bool(left))
    if entry.outcome != "abandoned":
        own["latency_us"] += entry.latency_us
        latency[key(last)][histograms.bucket_of(entry.latency_us)] += 1
        if entry.first_token_us is not None:
            first_token[key(last)][histograms.bucket_of(entry.first_token_us)] += 1
    for each in attempts:
        into = sums[key(f"{each.provider}/{each.upstream_model}")]
        into["attempts"] += 1
        into["billed_attempts"] += each.usage_basis != "none"
        into["queued_us"] += each.queued_us
        for name in SUMMED:
            if name.endswith("_tokens"):
                into[name] += getattr(each, name)
        into["cost_nanos"] += each.cost_nanos
        into["cost_nanos"] += sum(
            correction.after_nanos - correction.before_nanos
            for correction in corrections
            if correction.attempt_no == each.attempt_no
        )


def _rows(sums: Any, latency: Any, first_token: Any) -> Rows:
    return {
        key: ({name: each for name, each in of.items() if each}, dict(latency[key]), dict(first_token[key]))
        for key, of in sums.items()
    }


def _found(rows: Any, more: tuple[str, ...]) -> Rows:
    found: Rows = {}
    for row in rows:
        names = ("size", "start", "team_id", "key_id", "route", "target", "outcome", "code", "priority")
        key = tuple(getattr(row, name) for name in (*more, *names))
        assert key not in found, "one row of a kind"
        found[key] = (
            {name: getattr(row, name) for name in SUMMED if getattr(row, name)},
            histograms.unpacked(row.latency),
            histograms.unpacked(row.first_token),
        )
    return found
