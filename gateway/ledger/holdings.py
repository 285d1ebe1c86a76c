"""What calls have used and still hold of quotas, from the ledger and from every process's journal.

Counters are made from this where they are not known, and held to it while they are.
Reads only: takes no lock, sets nothing aside, and leaves adopting to the sweeper.
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from itertools import islice
from pathlib import Path
from typing import cast

import msgspec
from django.db import connection
from msgspec import Struct

from accounts import models
from accounts.caller import Owner, Period, Quota, QuotaKind
from gateway.ledger import spending
from gateway.ledger.journal import payloads
from gateway.ledger.reading import one_view
from gateway.ledger.retention import kept_from
from gateway.ledger.spending import Used
from gateway.models import Entry
from gateway.relay.holdings import OpenHold, Survey, Surveyor
from gateway.relay.limits import QuotaAsk, counter_of
from gateway.relay.records import Dispatched, Opened, Settled

CHUNK = 900
"""Call ids a query; SQLite's oldest bound on the variables of one is 999."""
MINUTE_US = 60_000_000
"""A quota's period begins with a whole one."""
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

    def counts(self, call: "Opened | Ended") -> bool:
        """Whether a call is the owner's and began in the period."""
        owner = self.quota.owner
        return (
            self.start_us <= call.started_at_us < self.end_us
            and call.team_id == self.team_id
            and (owner.kind == "team" or call.key_id == owner.id)
        )


class Ended(Struct, frozen=True):
    """As much of a settled call as quotas ask for."""

    started_at_us: int
    team_id: int
    key_id: int
    used: Used


class Known(Struct):
    """What was read of one segment, as far as it still matters."""

    process: str
    place: int = 0
    """Where the next record begins."""
    opened: dict[str, list[bytes]] = {}
    """By call id, of calls that were opened in it and are under way: the opening, then each dispatch."""
    fresh: dict[str, bytes] = {}
    """By call id, of calls that were settled in it: records that nobody looked at yet."""
    ended: dict[str, Ended] = {}
    """By call id, of calls that were settled in it and are not on the ledger, as far as is known."""


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


class RefusalsHead(Head, tag="f"):
    """It is of no call, and counts in no quota."""


_head = msgspec.msgpack.Decoder(
    OpenedHead | DispatchedHead | SettledHead | ReleasedHead | RefusalsHead
).decode
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
    """`Journals.survey` for those on a loop. A reservation lives for `lives_s` from its call's start."""
    journals = Journals(root)

    def look(asked: Sequence[QuotaAsk] | None) -> Survey:
        try:
            wanted = all_wanted(now_us()) if asked is None else wanted_of(asked)
            return journals.survey(wanted, lives_s=lives_s)
        finally:
            connection.close()

    async def ask(asked: Sequence[QuotaAsk] | None) -> Survey:
        return await asyncio.get_running_loop().run_in_executor(threads, look, asked)

    return ask


def survey(root: Path, wanted: Sequence[Wanted], *, lives_s: float) -> Survey:
    """See `Journals.survey`. Runs in a thread, and closes its connection. Raises DatabaseError."""
    try:
        return Journals(root).survey(wanted, lives_s=lives_s)
    finally:
        connection.close()


class Journals:
    """Every journal under a folder, of living and of dead processes, read on from where the last look ended.

    Keeps what is open and what ended and is not on the ledger. Reading a full segment takes some 0.3 s,
    reading on next to nothing. May be asked from any thread.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._segments: dict[Path, Known] = {}
        self._opening: dict[str, Known] = {}
        """By call id, of calls under way: the segment that they were opened in."""
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Journals {self._root}, {len(self._segments)} segments>"

    def survey(self, wanted: Sequence[Wanted], *, lives_s: float) -> Survey:
        """What was spent of each wanted counter, and what calls under way hold. Raises DatabaseError.

        Every call that any journal knew when its turn came to be read is counted once:
        as spent at what it used if it is on the ledger or its end is in a journal, else as open.
        The journals are read first, so what leaves them meanwhile is on the ledger by then;
        a call that was open and is on the ledger is spent. The ledger is read in one transaction.

        A call that begins or ends after its journal was read may be missing, or open still;
        its process settles it with the counters afterwards, by its id, so nothing is lost for long,
        and `gateway/reconcile.py` finds what was.
        """
        wanted = list({each.counter: each for each in wanted}.values())
        with self._lock:
            self._read()
            with one_view():
                spent = _sums(wanted)
                self._drop_booked()
            counted = _by_team(wanted)
            for call in (call for each in self._segments.values() for call in each.ended.values()):
                for each in _counting(counted, call):
                    spent[each.counter] += call.used.of(each.quota.kind)
            return Survey(spent, list(self._open_holds(counted, int(lives_s * 1_000_000))))

    def _read(self) -> None:
        """What was appended since, and which segments are new or gone."""
        there = _segments(self._root)
        for path in self._segments.keys() - set(there):
            self._forget(path)
        for path in there:
            try:
                self._read_on(path, self._segments.setdefault(path, Known(path.parent.name)))
            except FileNotFoundError:
                self._forget(path)
        for known in self._segments.values():
            _look_at(known)

    def _forget(self, path: Path) -> None:
        """Whoever put a segment away had booked every call that was opened or settled in it,
        and the ledger is read later."""
        for call_id in self._segments.pop(path).opened:
            del self._opening[call_id]

    def _read_on(self, path: Path, known: Known) -> None:
        """Up to what is no whole record: it is not written yet, or was lost to a crash.

        Raises FileNotFoundError.
        """
        with path.open("rb") as file:
            file.seek(known.place)
            data = file.read()
        start = known.place
        for behind, payload in payloads(data):
            try:
                self._note(known, payload)
            except msgspec.DecodeError:
                return
            known.place = start + behind

    def _note(self, known: Known, payload: bytes) -> None:
        head = _head(payload)
        if isinstance(head, RefusalsHead):
            return
        call_id = head.call_id
        if isinstance(head, OpenedHead):
            known.opened[call_id] = [payload]
            self._opening[call_id] = known
        elif isinstance(head, DispatchedHead):
            if opening := self._opening.get(call_id):
                opening.opened[call_id].append(payload)
        else:
            if opening := self._opening.pop(call_id, None):
                del opening.opened[call_id]
            if isinstance(head, SettledHead):
                known.fresh[call_id] = payload

    def _drop_booked(self) -> None:
        """What is on the ledger by now, or was until it was deleted, need never be asked about again."""
        known = self._segments.values()
        booked = on_ledger(call_id for each in known for call_id in (*each.ended, *each.opened))
        oldest_us = kept_from() * MINUTE_US
        for each in known:
            deleted = {call_id for call_id, call in each.ended.items() if call.started_at_us < oldest_us}
            for call_id in (booked & each.ended.keys()) | deleted:
                del each.ended[call_id]
            for call_id in booked & each.opened.keys():
                del each.opened[call_id], self._opening[call_id]

    def _open_holds(self, counted: Mapping[int, list[Wanted]], lives_us: int) -> Iterator[OpenHold]:
        """Of each call under way, for each counter that it counts in."""
        for known in self._segments.values():
            for opening, *dispatches in known.opened.values():
                call = _opened(opening)
                sent = [_dispatched(each) for each in dispatches]
                for each in _counting(counted, call):
                    amount, expires_at_us = held(call, sent, each), call.started_at_us + lives_us
                    yield OpenHold(call.call_id, known.process, each.counter, amount, expires_at_us)


def _segments(root: Path) -> list[Path]:
    """Of every process; within each, the oldest first."""
    if not root.is_dir():
        return []
    folders = (each for each in root.iterdir() if not each.name.startswith("."))
    return [path for folder in folders for path in sorted(folder.glob("*.seg"))]


def _look_at(known: Known) -> None:
    """Decode ends that are not on the ledger. Most are: the writer is behind by a fraction of a second."""
    for call_id in known.fresh.keys() - on_ledger(known.fresh):
        call = _settled(known.fresh[call_id])
        used = Used(1, call.usage.input_tokens + call.usage.output_tokens, call.cost_nanos)
        known.ended[call_id] = Ended(call.started_at_us, call.team_id, call.key_id, used)
    known.fresh.clear()


def _by_team(wanted: Sequence[Wanted]) -> Mapping[int, list[Wanted]]:
    found: dict[int, list[Wanted]] = defaultdict(list)
    for each in wanted:
        found[each.team_id].append(each)
    return found


def _counting(by_team: Mapping[int, list[Wanted]], call: Opened | Ended) -> list[Wanted]:
    """The counters that a call counts in."""
    return [each for each in by_team.get(call.team_id, ()) if each.counts(call)]


def _sums(wanted: Sequence[Wanted]) -> dict[str, int]:
    """By counter; quotas that count the same calls share a query."""
    alike: dict[tuple[int, int | None, int, int], list[Wanted]] = defaultdict(list)
    for each in wanted:
        key_id = each.quota.owner.id if each.quota.owner.kind == "key" else None
        alike[each.team_id, key_id, each.start_us, each.end_us].append(each)
    spent = {}
    for of, counters in alike.items():
        team_id, key_id, start_us, end_us = of
        used = spending.used(team_id, key_id, start_us // MINUTE_US, end_us // MINUTE_US)
        spent.update({each.counter: used.of(each.quota.kind) for each in counters})
    return spent


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
