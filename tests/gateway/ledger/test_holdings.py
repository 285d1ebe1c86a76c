import random
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.caller import Quota
from accounts.models import ApiKey, Team
from accounts.models import Quota as QuotaRow
from gateway.ledger import holdings, retention, rollups
from gateway.ledger.holdings import Journals, Wanted, all_wanted, quota_of, survey, surveyor, wanted_of
from gateway.ledger.journal import Journal
from gateway.ledger.sweeper import sweep
from gateway.ledger.writer import Writer, book
from gateway.models import Entry
from gateway.relay.holdings import OpenHold, Survey
from gateway.relay.limits import QuotaAsk, counter_of
from gateway.relay.ports import Ticket
from gateway.relay.records import Hold, Opened, Released
from tests.gateway.records import AT_US, USED, WORST, dispatched, opened, settled

pytestmark = pytest.mark.django_db(transaction=True)

LIVES_S = 660.0
DAY_US = 86_400_000_000
AT = datetime.fromtimestamp(AT_US / 1e6, UTC)
TOKENS = USED.input_tokens + USED.output_tokens
COST = 22_500


@pytest.fixture
def team() -> Team:
    return Team.objects.create(name="Tide", slug="tide")


@pytest.fixture
def api_key(team: Team) -> ApiKey:
    return ApiKey.objects.create(team=team, name="alice's")


@pytest.fixture
def call(team: Team, api_key: ApiKey) -> dict[str, Any]:
    return {"team_id": team.pk, "key_id": api_key.pk}


@pytest.fixture
def money(team: Team) -> Wanted:
    """The counter of a hard quota of the team, for the day of AT_US."""
    return wanted(quota(team=team))


def quota(**changes: Any) -> QuotaRow:
    usual = {"kind": "money", "amount": 10**9, "period": "day", "hard": True}
    return QuotaRow.objects.create(**usual | changes)


def wanted(row: QuotaRow) -> Wanted:
    [found] = [each for each in all_wanted(AT_US) if each.quota.id == row.pk]
    return found


def look(root: Path, *of: Wanted) -> Survey:
    return survey(root, of, lives_s=LIVES_S)


def spent(root: Path, of: Wanted) -> int:
    return look(root, of).spent[of.counter]


def test_a_call_on_the_ledger_is_spent(journals: Path, call: dict[str, Any], team: Team) -> None:
    book([settled(opened(**call)), settled(opened(**call))])
    kinds = {kind: wanted(quota(team=team, kind=kind)) for kind in ("requests", "tokens", "money")}

    found = look(journals, *kinds.values())

    assert {kind: found.spent[each.counter] for kind, each in kinds.items()} == {
        "requests": 2,
        "tokens": 2 * TOKENS,
        "money": 2 * COST,
    }
    assert found.open == []


def test_nothing_is_spent_where_nobody_called(journals: Path, money: Wanted) -> None:
    assert look(journals, money) == Survey({money.counter: 0}, [])


def test_a_settled_call_that_is_not_booked_is_spent(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    made = opened(**call)
    journal.settle(journal.open(made), settled(made))

    assert look(journals, money) == Survey({money.counter: COST}, [])


def test_a_call_in_the_journal_and_on_the_ledger_counts_once(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    made = opened(**call)
    journal.settle(journal.open(made), settled(made))
    book([settled(made)])

    assert spent(journals, money) == COST


@pytest.mark.sqlite  # on PostgreSQL calls go by whole months
def test_a_call_whose_entry_was_deleted_counts_once_though_its_journal_is_there(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    made = opened(**call)
    journal.settle(journal.open(made), settled(made))
    book([settled(made)])
    day = timedelta(days=1)
    rollups.work(AT + day)
    retention.retain(AT + 5 * day, entries_days=1, minutes_days=35)
    assert not Entry.objects.exists()

    assert spent(journals, money) == COST


def test_journals_of_the_dead_count_too(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    dead = Journal(journals / "dead", max_bytes=1 << 20, segment_bytes=1 << 16)
    for each in (journal, dead):
        made = opened(**call)
        each.settle(each.open(made), settled(made))
    dead.close()

    assert spent(journals, money) == 2 * COST


def test_a_call_under_way_holds_what_it_was_admitted_with(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    made = opened(**call, holds=(Hold("q0:other", 5), Hold(money.counter, 1_500_000)))
    journal.open(made)

    expires_at_us = AT_US + int(LIVES_S * 1_000_000)
    assert look(journals, money) == Survey(
        {money.counter: 0}, [OpenHold(made.call_id, "mine", money.counter, 1_500_000, expires_at_us)]
    )


def test_a_call_holds_the_worst_case_of_its_attempts_where_that_is_more(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    made = opened(**call, holds=(Hold(money.counter, 1_000_000),))
    ticket = journal.open(made)
    journal.dispatch(ticket, dispatched(made))
    journal.dispatch(ticket, dispatched(made, attempt_no=2))

    assert [each.amount for each in look(journals, money).open] == [2 * 999_000]


def test_a_soft_quota_is_held_by_what_was_expected(
    journals: Path, journal: Journal, call: dict[str, Any], team: Team
) -> None:
    soft = wanted(quota(team=team, hard=False))
    made = opened(**call, holds=(Hold(soft.counter, 1_000),))
    journal.dispatch(journal.open(made), dispatched(made))

    assert [each.amount for each in look(journals, soft).open] == [1_000]


@pytest.mark.parametrize(
    ("kind", "sent", "amount"),
    [
        ("requests", 0, 1),
        ("tokens", 0, 0),
        ("money", 0, 0),
        ("requests", 2, 1),
        ("tokens", 2, 2 * (WORST.input_tokens + WORST.output_tokens)),
        ("money", 2, 2 * 999_000),
    ],
)
def test_a_quota_younger_than_a_call_is_held_by_what_was_sent(
    journals: Path, journal: Journal, call: dict[str, Any], team: Team, kind: str, sent: int, amount: int
) -> None:
    made = opened(**call)
    ticket = journal.open(made)
    for number in range(sent):
        journal.dispatch(ticket, dispatched(made, attempt_no=number + 1))

    assert [each.amount for each in look(journals, wanted(quota(team=team, kind=kind))).open] == [amount]


def test_a_call_that_was_refused_after_all_holds_nothing(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    made = opened(**call)
    journal.release(journal.open(made), Released(made.call_id, AT_US))

    assert look(journals, money) == Survey({money.counter: 0}, [])


def test_a_call_that_looks_open_and_is_on_the_ledger_is_spent(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    made = opened(**call, holds=(Hold(money.counter, 1),))
    journal.open(made)
    book([settled(made)])

    assert look(journals, money) == Survey({money.counter: COST}, [])


def test_a_call_counts_in_the_period_that_it_began_in(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    for at_us in (money.start_us - 1, money.start_us, money.end_us - 1, money.end_us):
        on_ledger, in_journal = (opened(**call, started_at_us=at_us) for _ in range(2))
        book([settled(on_ledger, ended_at_us=money.end_us + 5)])
        journal.settle(journal.open(in_journal), settled(in_journal, ended_at_us=money.end_us + 5))
        journal.open(opened(**call, started_at_us=at_us))

    found = look(journals, money)

    assert found.spent[money.counter] == 4 * COST
    assert len(found.open) == 2


def test_a_quota_counts_its_owners_calls_only(
    journals: Path, journal: Journal, call: dict[str, Any], team: Team, api_key: ApiKey
) -> None:
    strangers = Team.objects.create(name="Ebb", slug="ebb")
    own, other = (
        ApiKey.objects.create(team=team, name="bob's"),
        ApiKey.objects.create(team=strangers, name="x"),
    )
    for of in (call, call | {"key_id": own.pk}, {"team_id": strangers.pk, "key_id": other.pk}):
        booked, unbooked = opened(**of), opened(**of)
        book([settled(booked)])
        journal.settle(journal.open(unbooked), settled(unbooked))
        journal.open(opened(**of))
    of_team, of_key = wanted(quota(team=team)), wanted(quota(key=api_key))

    found = look(journals, of_team, of_key)

    assert found.spent == {of_team.counter: 4 * COST, of_key.counter: 2 * COST}
    assert sorted(each.counter for each in found.open) == sorted([of_team.counter] * 2 + [of_key.counter])


def test_a_torn_tail_is_left_alone(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    made = opened(**call)
    journal.settle(journal.open(made), settled(made))
    segment = journal.segments[-1]
    segment._map[segment.end : segment.end + 9] = b"\x20\0\0\0torn!"

    assert spent(journals, money) == COST
    assert [each.name for each in journals.iterdir()] == ["mine"]


def test_a_survey_takes_no_journal_from_who_holds_it(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    journal.open(opened(**call))
    look(journals, money)
    assert sweep(journals, book) == 0


def test_more_calls_than_a_query_can_name_count_once_each(
    journals: Path, call: dict[str, Any], money: Wanted
) -> None:
    journal = Journal(journals / "long", max_bytes=1 << 24)
    calls = [opened(**call) for _ in range(2 * holdings.CHUNK + 7)]
    for each in calls:
        journal.settle(journal.open(each), settled(each))
    book([settled(each) for each in calls[1::2]])

    assert spent(journals, money) == len(calls) * COST
    journal.close()


@pytest.mark.sqlite
def test_there_is_no_scan_of_entries(
    journals: Path, journal: Journal, call: dict[str, Any], team: Team, api_key: ApiKey
) -> None:
    made = opened(**call)
    journal.settle(journal.open(made), settled(made))
    book([settled(opened(**call)) for _ in range(50)])
    both = wanted(quota(team=team)), wanted(quota(key=api_key, period="month"))

    with CaptureQueriesContext(connection) as queries:
        look(journals, *both)

    of_entries = [each["sql"] for each in queries if "gateway_entry" in each["sql"]]
    # What the team used, what the key used and how that was corrected, twice which calls are booked.
    assert len(of_entries) == 5
    plans = [plan(sql) for sql in of_entries]
    assert all("SEARCH" in each and "SCAN" not in each for each in plans), plans
    assert (
        sum("entry_by_team_and_start (team_id=? AND started_at>? AND started_at<?)" in each for each in plans)
        == 3
    )


def plan(sql: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        return "; ".join(row[-1] for row in cursor.fetchall())


def test_quotas_that_count_the_same_calls_share_a_query(journals: Path, team: Team) -> None:
    alike = [wanted(quota(team=team, kind=kind)) for kind in ("requests", "tokens", "money")]
    with CaptureQueriesContext(connection) as queries:
        look(journals, *alike)
    assert sum("gateway_entry" in each["sql"] for each in queries) == 1


def test_a_survey_does_not_wait_for_who_writes(journals: Path, call: dict[str, Any], money: Wanted) -> None:
    """Nor is what is not committed yet spent."""
    writing, done = threading.Event(), threading.Event()

    def write() -> None:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE" if connection.vendor == "sqlite" else "BEGIN")
            cursor.execute("UPDATE accounts_team SET name = 'Flood'")
            writing.set()
            done.wait(30)
            cursor.execute("ROLLBACK")
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    writing.wait(30)
    try:
        assert spent(journals, money) == 0
    finally:
        done.set()
        writer.join()


class Life:
    """A process that calls at random, each call open for a while, and carries its journal over meanwhile."""

    def __init__(self, root: Path, name: str, call: dict[str, Any], counter: str) -> None:
        self.journal = Journal(root / name, max_bytes=1 << 26, segment_bytes=1 << 15)
        self.writer = Writer(self.journal, root, pause_s=0.001)
        self._call, self._counter, self._random = call, counter, random.Random(name)
        self.under_way: list[tuple[Opened, Ticket]] = []
        self.settled = 0

    def begin(self) -> None:
        made = opened(**self._call, holds=(Hold(self._counter, 30_000),))
        self.under_way.append((made, self.journal.open(made)))

    def end(self) -> None:
        made, ticket = self.under_way.pop(self._random.randrange(len(self.under_way)))
        self.journal.settle(ticket, settled(made))
        self.settled += 1

    @property
    def booked(self) -> bool:
        """Whether some of its journal is on the ledger, and gone."""
        return self.journal.segments[0].path.name != "00000001.seg"

    def step(self) -> None:
        if self.under_way and (len(self.under_way) > 40 or self._random.random() < 0.5):
            self.end()
        else:
            self.begin()


@pytest.fixture
def lives(journals: Path, call: dict[str, Any], money: Wanted) -> Iterator[list[Life]]:
    made = [Life(journals, name, call, money.counter) for name in ("one", "two")]
    for each in made:
        each.writer.start()
    yield made
    for each in made:
        if each.writer.running:
            each.writer.stop()
        each.journal.close()


@pytest.mark.parametrize("reading_on", [False, True])
def test_a_survey_is_a_cut_while_two_processes_write_and_book(
    journals: Path, money: Wanted, lives: list[Life], reading_on: bool
) -> None:
    """What was settled before is spent, what is settled later is not; no call is in both.

    At least 25 surveys, and more until each writer has put a segment away.
    """
    reader = Journals(journals)
    over = threading.Event()
    deadline, surveys = time.monotonic() + 20.0, 0

    def work() -> None:
        while not over.is_set():
            for each in lives:
                if len(each.journal.segments) < 4:
                    for _ in range(20):
                        each.step()
            over.wait(0.001)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        while surveys < 25 or not all(each.booked for each in lives):
            assert time.monotonic() < deadline, "the writers booked nothing meanwhile"
            surveys += 1
            before = sum(each.settled for each in lives)
            found = (reader if reading_on else Journals(journals)).survey([money], lives_s=LIVES_S)
            after = sum(each.settled for each in lives)
            assert before <= found.spent[money.counter] // COST <= after + len(lives)
            assert len({each.call_id for each in found.open}) == len(found.open)
    finally:
        over.set()
        worker.join()

    found = (reader if reading_on else Journals(journals)).survey([money], lives_s=LIVES_S)
    assert found.spent[money.counter] == sum(each.settled for each in lives) * COST
    assert {each.call_id for each in found.open} == {
        made.call_id for each in lives for made, _ in each.under_way
    }


def test_what_was_appended_since_is_read_on(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    reader = Journals(journals)
    first, second = (opened(**call, holds=(Hold(money.counter, 7),)) for _ in range(2))
    journal.settle(journal.open(first), settled(first))
    ticket = journal.open(second)

    before = reader.survey([money], lives_s=LIVES_S)
    journal.dispatch(ticket, dispatched(second))
    sent = reader.survey([money], lives_s=LIVES_S)
    journal.settle(ticket, settled(second))
    after = reader.survey([money], lives_s=LIVES_S)

    assert [each.spent[money.counter] for each in (before, sent, after)] == [COST, COST, 2 * COST]
    assert [[hold.amount for hold in each.open] for each in (before, sent, after)] == [[7], [999_000], []]


def test_what_one_look_knew_of_a_journal_is_forgotten_with_it(
    journals: Path, call: dict[str, Any], money: Wanted
) -> None:
    """Its calls are on the ledger by then, or were refused after all and are nowhere."""
    reader = Journals(journals)
    gone = Journal(journals / "gone", max_bytes=1 << 20, segment_bytes=1 << 16)
    lost, refused = opened(**call), opened(**call)
    gone.dispatch(gone.open(lost), dispatched(lost))
    ticket = gone.open(refused)
    before = reader.survey([money], lives_s=LIVES_S)
    gone.release(ticket, Released(refused.call_id, AT_US))
    gone.close()

    sweep(journals, book)

    assert (before.spent[money.counter], len(before.open)) == (0, 2)
    assert reader.survey([money], lives_s=LIVES_S) == Survey({money.counter: 999_000}, [])


def test_a_counter_that_is_wanted_twice_counts_once(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted
) -> None:
    made = opened(**call)
    journal.settle(journal.open(made), settled(made))
    journal.open(opened(**call))

    found = look(journals, money, money)

    assert found.spent == {money.counter: COST}
    assert len(found.open) == 1


def test_a_segment_that_vanishes_meanwhile_was_booked(
    journals: Path, journal: Journal, call: dict[str, Any], money: Wanted, tmp_path: Path
) -> None:
    """A dangling name stands for one that went between the listing and the reading."""
    (journals / "mine" / "00000000.seg").symlink_to(tmp_path / "gone")
    made = opened(**call)
    journal.settle(journal.open(made), settled(made))

    assert spent(journals, money) == COST


def test_every_quota_that_a_call_can_meet_is_wanted(team: Team, api_key: ApiKey) -> None:
    archived = Team.objects.create(name="Ebb", slug="ebb", archived_at=datetime.now(UTC))
    of_archived = ApiKey.objects.create(team=archived, name="x")
    revoked = ApiKey.objects.create(team=team, name="y", revoked_at=datetime.now(UTC))
    rows = [quota(team=team, zone="Europe/Berlin"), quota(key=api_key, period="month", warn_at=[50, 90])]
    for each in ({"team": archived}, {"key": of_archived}, {"key": revoked}):
        quota(**each)

    found = all_wanted(AT_US)

    assert [each.quota.id for each in found] == [each.pk for each in rows]
    assert [(each.counter, each.start_us, each.end_us) for each in found] == [
        counter_of(each.quota, AT_US) for each in found
    ]
    of_key = found[1]
    assert (of_key.team_id, of_key.quota.owner.id, of_key.quota.owner.name) == (
        team.pk,
        api_key.pk,
        "alice's",
    )
    assert of_key.quota.warn_at == (50, 90)


def test_all_quotas_are_found_in_two_queries(team: Team, api_key: ApiKey) -> None:
    for kind in ("requests", "tokens", "money"):
        quota(team=team, kind=kind)
        quota(key=api_key, kind=kind)
    with CaptureQueriesContext(connection) as queries:
        assert len(all_wanted(AT_US)) == 6
    assert len(queries) == 2  # quotas of teams, quotas of keys


def ask(of: Quota, at_us: int = AT_US) -> QuotaAsk:
    counter, _, ends_at_us = counter_of(of, at_us)
    return QuotaAsk(of, counter, 1, ends_at_us)


def test_what_is_asked_is_wanted_in_its_own_period(team: Team, api_key: ApiKey) -> None:
    of_team, of_key = quota_of(quota(team=team)), quota_of(quota(key=api_key))
    asked = [ask(of_team), ask(of_key, AT_US - DAY_US)]

    found = wanted_of(asked)

    assert [(each.counter, each.end_us) for each in found] == [
        (each.counter, each.ends_at_us) for each in asked
    ]
    assert [each.team_id for each in found] == [team.pk, team.pk]


def test_a_quota_of_a_key_that_is_gone_counts_nothing(api_key: ApiKey) -> None:
    of_key = quota_of(quota(key=api_key))
    api_key.delete()
    assert wanted_of([ask(of_key)]) == []


async def test_the_survey_of_a_loop_takes_what_is_asked_or_everything(
    journals: Path, call: dict[str, Any], team: Team, api_key: ApiKey
) -> None:
    rows = await sync_to_async(lambda: [quota_of(quota(team=team)), quota_of(quota(key=api_key))])()
    await sync_to_async(book)([settled(opened(**call))])
    ask_for = surveyor(journals, lives_s=LIVES_S, now_us=lambda: AT_US)

    assert (await ask_for([ask(rows[1])])).spent == {ask(rows[1]).counter: COST}
    assert (await ask_for(None)).spent == {ask(each).counter: COST for each in rows}
