"""What calls have used and still hold of quotas, from the ledger and from every process's journal.

Counters are made from this where they are not known, and held to it while they are.
Reads only: takes no lock, sets nothing aside, and leaves adopting to the sweeper.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import cast

import msgspec
from django.db import connection
from django.db.models import Count, F, Sum
from msgspec import Struct

from accounts import models
from accounts.caller import Owner, Period, Quota, QuotaKind
from gateway.ledger.journal import payloads
from gateway.models import Entry
from gateway.relay.holdings import OpenHold, Survey, Surveyor
from gateway.relay.limits import QuotaAsk, counter_of
from gateway.relay.records import Dispatched, Opened, Settled

CHUNK = 900
"""Call ids a query; SQLite's oldest bound on the variables of one is 999."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIND = f"SELECT call_id FROM {Entry._meta.db_table} WHERE call_id IN"  # noqa: S608


class Wanted(Struct, frozen=True):
    """One quota's counter of one calendar period, and whose calls it counts."""

    counter: str
    quota: Quota
    team_id: int
    """Of its owner, or of the team that the owner's key belongs to."""
    start_us: int
    end_us: int
    """Microseconds since the Unix epoch; the end is outside."""

    def counts(self, call: Opened | Settled) -> bool:
        """Whether a call is the owner's and began in the period."""
        owner = self.quota.owner
        return (
            self.start_us <= call.started_at_us < self.end_us
            and call.team_id == self.team_id
            and (owner.kind == "team" or call.key_id == owner.id)
        )


class Used(Struct, frozen=True):
    """What some calls used, or may use."""

    requests: int = 0
    tokens: int = 0
    cost_nanos: int = 0

    def of(self, kind: QuotaKind) -> int:
        """In a quota's unit."""
        if kind == "requests":
            return self.requests
        return self.tokens if kind == "tokens" else self.cost_nanos


class InJournals(Struct):
    """What the journals know of calls that are counted."""

    settled: dict[str, tuple[Used, list[Wanted]]] = {}
    """By call id; those that were not on the ledger yet."""
    open: dict[str, tuple[str, Opened, list[Wanted]]] = {}
    """By call id: its process, and its opening."""
    sent: dict[str, list[Dispatched]] = {}
    """By call id, of the open ones."""


class Head(Struct, array_like=True):
    """As much of a record as tells whose it is. Decoding no more of it saves most of the time."""

    call_id: str


class OpenedHead(Head, tag="o"):
    pass


class DispatchedHead(Head, tag="d"):
    pass


class SettledHead(Head, tag="s"):
    pass


class ReleasedHead(Head, tag="r"):
    pass


_head = msgspec.msgpack.Decoder(OpenedHead | DispatchedHead | SettledHead | ReleasedHead).decode
_opened = msgspec.msgpack.Decoder(Opened).decode
_dispatched = msgspec.msgpack.Decoder(Dispatched).decode
_settled = msgspec.msgpack.Decoder(Settled).decode


def all_wanted(now_us: int) -> list[Wanted]:
    """The counters of now of every quota that calls can meet: of teams and keys that may make some.

    Raises DatabaseError.
    """
    rows = models.Quota.objects.select_related("team", "key__team").order_by("id")
    of_teams = rows.filter(team__archived_at=None, key=None)
    of_keys = rows.filter(key__revoked_at=None, key__team__archived_at=None, team=None)
    return [_wanted(quota_of(row), _team_id(row), now_us) for row in (*of_teams, *of_keys)]


def quota_of(row: models.Quota) -> Quota:
    """A quota as callers carry it."""
    return Quota(
        row.pk,
        _owner(row),
        cast(QuotaKind, row.kind),
        row.amount,
        cast(Period, row.period),
        row.zone,
        row.hard,
        tuple(row.warn_at),
    )


def wanted_of(asked: Sequence[QuotaAsk]) -> list[Wanted]:
    """The same counters, with their periods and teams. A key that is gone counts nothing.

    Raises DatabaseError.
    """
    keys = {each.quota.owner.id for each in asked if each.quota.owner.kind == "key"}
    teams = dict(models.ApiKey.objects.filter(pk__in=keys).values_list("pk", "team_id")) if keys else {}
    found = []
    for each in asked:
        owner = each.quota.owner
        team_id = owner.id if owner.kind == "team" else teams.get(owner.id)
        if team_id is not None:
            found.append(_wanted(each.quota, team_id, each.ends_at_us - 1))
    return found


def _wanted(quota: Quota, team_id: int, at_us: int) -> Wanted:
    counter, start_us, end_us = counter_of(quota, at_us)
    return Wanted(counter, quota, team_id, start_us, end_us)


def _owner(row: models.Quota) -> Owner:
    if row.key is not None:
        return Owner("key", row.key.pk, row.key.name)
    assert row.team is not None  # the database has a constraint
    return Owner("team", row.team.pk, row.team.name)


def _team_id(row: models.Quota) -> int:
    if row.key is not None:
        return row.key.team_id
    assert row.team_id is not None
    return row.team_id


def surveyor(
    root: Path, *, lives_s: float, now_us: Callable[[], int], threads: Executor | None = None
) -> Surveyor:
    """`survey` for those on a loop. `lives_s`: how long a reservation lives from the call's start."""

    def look(asked: Sequence[QuotaAsk] | None) -> Survey:
        try:
            wanted = all_wanted(now_us()) if asked is None else wanted_of(asked)
            return survey(root, wanted, lives_s=lives_s)
        finally:
            connection.close()

    async def ask(asked: Sequence[QuotaAsk] | None) -> Survey:
        return await asyncio.get_running_loop().run_in_executor(threads, look, asked)

    return ask


def survey(root: Path, wanted: Sequence[Wanted], *, lives_s: float) -> Survey:
    """What was spent of each wanted counter, and what calls under way hold.

    Runs in a thread, and closes its connection. Raises DatabaseError.

    Every call that any journal knew when its turn came to be read is counted once:
    as spent at what it used if it is on the ledger or its end is in a journal, else as open.
    The journals are read first, so what leaves them meanwhile is on the ledger by then;
    a call that was open and is on the ledger is spent. The ledger is read in one transaction.

    A call that begins or ends after its journal was read may be missing, or open still;
    its process settles it with the counters afterwards, by its id, so nothing is lost for long,
    and `gateway/reconcile.py` finds what was.
    """
    try:
        journals = read_journals(root, wanted)
        with _one_view():
            spent = _sums(wanted)
            booked = on_ledger([*journals.settled, *journals.open])
    finally:
        connection.close()
    for call_id, (used, counted) in journals.settled.items():
        if call_id not in booked:
            for each in counted:
                spent[each.counter] += used.of(each.quota.kind)
    return Survey(spent, _open_holds(journals, booked, lives_s))


@contextlib.contextmanager
def _one_view() -> Iterator[None]:
    """All that is read inside is as of one moment.

    By hand, because `transaction.atomic` takes SQLite's write lock here, and the writer need not wait.
    """
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        try:
            yield
        finally:
            cursor.execute("ROLLBACK")


def _sums(wanted: Sequence[Wanted]) -> dict[str, int]:
    """By counter; quotas that count the same calls share a query."""
    alike: dict[tuple[int, int | None, int, int], list[Wanted]] = defaultdict(list)
    for each in wanted:
        key_id = each.quota.owner.id if each.quota.owner.kind == "key" else None
        alike[each.team_id, key_id, each.start_us, each.end_us].append(each)
    spent = {}
    for of, counters in alike.items():
        used = _used(*of)
        spent.update({each.counter: used.of(each.quota.kind) for each in counters})
    return spent


def _used(team_id: int, key_id: int | None, start_us: int, end_us: int) -> Used:
    """What the ledger's calls that began in a span used. Goes through the index by team and start."""
    entries = Entry.objects.filter(
        team_id=team_id, started_at__gte=_moment(start_us), started_at__lt=_moment(end_us)
    )
    if key_id is not None:
        entries = entries.filter(key_id=key_id)
    found = entries.aggregate(
        requests=Count("call_id"),
        tokens=Sum(F("input_tokens") + F("output_tokens"), default=0),
        cost_nanos=Sum("cost_nanos", default=0),
    )
    return Used(found["requests"], found["tokens"], found["cost_nanos"])


def _moment(at_us: int) -> datetime:
    return EPOCH + timedelta(microseconds=at_us)


def on_ledger(call_ids: Iterable[str]) -> set[str]:
    """Which of these calls have an entry."""
    found: set[str] = set()
    waiting = iter(call_ids)
    with connection.cursor() as cursor:
        while chunk := list(islice(waiting, CHUNK)):
            by_hex = {each.replace("-", ""): each for each in chunk}
            cursor.execute(f"{_FIND} ({', '.join(['%s'] * len(by_hex))})", list(by_hex))
            found.update(by_hex[str(row[0]).replace("-", "")] for row in cursor.fetchall())
    return found


def read_journals(root: Path, wanted: Sequence[Wanted]) -> InJournals:
    """What every journal under `root` knows, of living and of dead processes, of calls that are wanted.

    Raises DatabaseError, because ends that are on the ledger already are passed over undecoded:
    that is nearly all of them.
    """
    by_team: dict[int, list[Wanted]] = defaultdict(list)
    for each in wanted:
        by_team[each.team_id].append(each)
    reading = _Reading(by_team)
    if wanted and root.is_dir():
        for folder in sorted(each for each in root.iterdir() if not each.name.startswith(".")):
            for path in sorted(folder.glob("*.seg")):
                reading.segment(folder.name, _bytes(path))
    return reading.found()


def _bytes(path: Path) -> bytes:
    """Nothing where the segment has gone: whoever put it away had booked every call in it, and the
    ledger is read later. What follows a torn tail is not written yet, or was lost to a crash."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


class _Reading:
    """Goes through segments, oldest first within a process, and keeps what is not on the ledger."""

    def __init__(self, by_team: Mapping[int, list[Wanted]]) -> None:
        self._by_team = by_team
        self._settled: dict[str, tuple[Used, list[Wanted]]] = {}
        self._opened: dict[str, tuple[str, bytes]] = {}
        self._sent: dict[str, list[bytes]] = defaultdict(list)

    def segment(self, process: str, data: bytes) -> None:
        ends: dict[str, bytes] = {}
        for _, payload in payloads(data):
            head = _head(payload)
            call_id = head.call_id
            if isinstance(head, OpenedHead):
                self._opened[call_id] = (process, payload)
            elif isinstance(head, DispatchedHead):
                self._sent[call_id].append(payload)
            else:
                self._opened.pop(call_id, None)
                self._sent.pop(call_id, None)
                if isinstance(head, SettledHead):
                    ends[call_id] = payload
        for call_id in ends.keys() - on_ledger(ends):
            self._keep(_settled(ends[call_id]))

    def _keep(self, call: Settled) -> None:
        if counted := self._counted(call):
            self._settled[call.call_id] = (_used_by(call), counted)

    def _counted(self, call: Opened | Settled) -> list[Wanted]:
        return [each for each in self._by_team.get(call.team_id, ()) if each.counts(call)]

    def found(self) -> InJournals:
        under_way = {}
        for call_id, (process, payload) in self._opened.items():
            opened = _opened(payload)
            if counted := self._counted(opened):
                under_way[call_id] = (process, opened, counted)
        sent = {call_id: [_dispatched(each) for each in self._sent.get(call_id, ())] for call_id in under_way}
        return InJournals(self._settled, under_way, sent)


def _used_by(call: Settled) -> Used:
    return Used(1, call.usage.input_tokens + call.usage.output_tokens, call.cost_nanos)


def _open_holds(journals: InJournals, booked: set[str], lives_s: float) -> list[OpenHold]:
    """Of each call under way, for each counter that it counts in."""
    lives_us = int(lives_s * 1_000_000)
    return [
        OpenHold(
            call_id,
            process,
            each.counter,
            held(opened, journals.sent[call_id], each),
            opened.started_at_us + lives_us,
        )
        for call_id, (process, opened, counted) in journals.open.items()
        if call_id not in booked
        for each in counted
    ]


def held(opened: Opened, sent: Sequence[Dispatched], wanted: Wanted) -> int:
    """What a call under way holds of a counter: what it was admitted with, where it was asked of it then.

    Under a hard quota, and under one that is younger than the call, at least the worst case of what was
    sent: what its process asked for on the way from attempt to attempt is in no journal.
    """
    kind = wanted.quota.kind
    worst = Used(
        1,
        sum(each.worst.input_tokens + each.worst.output_tokens for each in sent),
        sum(each.worst_cost_nanos for each in sent),
    ).of(kind)
    asked = next((each.amount for each in opened.holds if each.counter == wanted.counter), None)
    if asked is None:
        return worst
    return max(asked, worst) if wanted.quota.hard else asked
