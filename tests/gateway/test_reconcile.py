import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from hypothesis import given, settings
from hypothesis import strategies as st

from accounts.caller import Owner, Quota
from accounts.models import ApiKey, AuditEvent, Membership, Outbox, Team, User
from accounts.models import Quota as QuotaRow
from gateway.errors import Unavailable
from gateway.ledger.holdings import Wanted, all_wanted, surveyor
from gateway.ledger.journal import Journal
from gateway.ledger.writer import book
from gateway.reconcile import Notice, Warner, drift, notice, reconcile, subject_of, text_of
from gateway.relay.counters import LocalCounters
from gateway.relay.holdings import Survey, Surveyor
from gateway.relay.limits import Admitted, Ask, Figures, QuotaAsk, Spent, counter_of
from gateway.relay.ports import Ticket
from gateway.relay.records import Hold, Opened
from gateway.relay.redis_counters import RedisCounters
from tests.gateway.records import AT_US, opened, settled
from tests.redis import RunningRedis, running_redis

COST = 22_500


def spent(amount: int) -> Figures:
    return Figures(amount, 0, 0)


# The decision


def test_a_counter_that_agrees_is_left_alone() -> None:
    assert drift(spent(100), 100, spent(100)) == 0


def test_a_counter_that_is_too_high_stands_out_before_the_survey() -> None:
    assert drift(spent(130), 100, spent(130)) == 30


def test_a_counter_that_is_too_low_stands_out_after_it() -> None:
    assert drift(spent(60), 100, spent(60)) == -40


def test_calls_that_end_meanwhile_are_no_drift() -> None:
    assert drift(spent(90), 100, spent(140)) == 0


def test_what_is_held_is_not_spent() -> None:
    assert drift(Figures(100, 500, 0), 100, Figures(100, 700, 0)) == 0


def test_an_expired_reservation_whose_call_ended_is_counted_twice() -> None:
    assert drift(Figures(100, 0, 70), 100, Figures(100, 0, 70)) == 70


def test_an_expired_reservation_of_a_call_under_way_is_right() -> None:
    assert drift(Figures(100, 0, 70), 100, Figures(100, 0, 70), late=True) == 0


def test_an_expired_reservation_that_was_settled_meanwhile_is_no_drift() -> None:
    assert drift(Figures(90, 0, 50), 100, Figures(100, 0, 0)) == 0


def test_a_counter_made_anew_in_between_is_left_for_the_next_look() -> None:
    assert drift(spent(500), 100, spent(100)) == 0


class World:
    """Calls that begin, expire and end; journals that are read one after the other; a counter that lags.

    The counter is off by `spent_off`, and by calls whose settlement it will never hear of.
    """

    def __init__(self, spent_off: int, lost: Sequence[tuple[int, int]]) -> None:
        self.spent, self.held, self.expired = spent_off, 0, 0
        self.journals: list[dict[int, int]] = [{}, {}]
        """Cost by call id, of each process."""
        self.ledger: dict[int, int] = {}
        self.open: dict[int, tuple[int, bool]] = {}
        """By call id: what is held, and whether it may expire soon."""
        self.has_expired: set[int] = set()
        self.lagging: list[tuple[int, int]] = []
        self.holds: dict[int, int] = {}
        self.number = 0
        self.off = spent_off
        for hold, cost in lost:
            self.begin(hold, old=True)
            self.expire(self.number)
            self.end(self.number, cost)
            self.lagging.pop()
            self.off += hold - cost

    @property
    def figures(self) -> Figures:
        return Figures(self.spent, self.held, self.expired)

    def begin(self, hold: int, *, old: bool) -> None:
        self.number += 1
        self.open[self.number] = (hold, old)
        self.holds[self.number] = hold
        self.held += hold

    def expire(self, call: int) -> None:
        if call not in self.has_expired:
            self.has_expired.add(call)
            self.held -= self.holds[call]
            self.expired += self.holds[call]

    def end(self, call: int, cost: int) -> None:
        """In the journal first; the counter hears of it later."""
        del self.open[call]
        self.journals[call % 2][call] = cost
        self.lagging.append((call, cost))

    def settle_one(self) -> None:
        call, cost = self.lagging.pop(0)
        self.spent += cost
        if call in self.has_expired:
            self.expired -= self.holds[call]
        else:
            self.held -= self.holds[call]

    def book(self, process: int) -> None:
        self.ledger |= self.journals[process]
        self.journals[process].clear()

    def step(self, data: st.DataObject) -> None:
        """Something happens; only calls that were old at the start may expire."""
        for _ in range(data.draw(st.integers(0, 4))):
            may = ["begin", "book"]
            may += ["end"] if self.open else []
            may += ["settle"] if self.lagging else []
            ripe = [call for call, (_, old) in self.open.items() if old]
            may += ["expire"] if ripe else []
            what = data.draw(st.sampled_from(may))
            if what == "begin":
                self.begin(data.draw(st.integers(0, 50)), old=False)
            elif what == "book":
                self.book(data.draw(st.integers(0, 1)))
            elif what == "end":
                self.end(data.draw(st.sampled_from(sorted(self.open))), data.draw(st.integers(0, 80)))
            elif what == "settle":
                self.settle_one()
            else:
                self.expire(data.draw(st.sampled_from(ripe)))

    def survey(self, data: st.DataObject) -> tuple[int, bool]:
        """As `holdings.survey`: each journal in its turn, then the ledger at one moment."""
        known: dict[int, int] = {}
        under_way: dict[int, bool] = {}
        for process in (0, 1):
            known |= self.journals[process]
            under_way |= {call: old for call, (_, old) in self.open.items() if call % 2 == process}
            self.step(data)
        known |= self.ledger
        self.step(data)
        return sum(known.values()), any(old for call, old in under_way.items() if call not in known)


AMOUNTS = st.integers(0, 60)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(-100, 100), st.lists(st.tuples(AMOUNTS, AMOUNTS), max_size=2), st.integers(0, 4), st.data()
)
def test_no_correction_goes_past_the_truth(
    off: int, lost: list[tuple[int, int]], before: int, data: st.DataObject
) -> None:
    """However calls, settlements and bookings fall between the readings."""
    world = World(off, lost)
    for _ in range(before):
        old = data.draw(st.booleans())
        world.begin(data.draw(st.integers(0, 50)), old=old)
        if old and data.draw(st.booleans()):
            world.expire(world.number)
    world.step(data)
    first = world.figures
    world.step(data)
    ledger, late = world.survey(data)
    while world.lagging:
        world.settle_one()
    world.step(data)

    found = drift(first, ledger, world.figures, late=late)

    assert min(world.off, 0) <= found <= max(world.off, 0)


@given(st.integers(-100, 100), st.lists(st.tuples(AMOUNTS, AMOUNTS), max_size=2), st.data())
def test_a_quiet_counter_is_put_right_at_once(
    off: int, lost: list[tuple[int, int]], data: st.DataObject
) -> None:
    world = World(off, lost)
    world.step(data)
    while world.open:
        world.end(next(iter(world.open)), data.draw(AMOUNTS))
    while world.lagging:
        world.settle_one()
    ledger = sum((world.ledger | world.journals[0] | world.journals[1]).values())

    assert drift(world.figures, ledger, world.figures) == world.off


# The whole


@pytest.fixture
def team(transactional_db: None) -> Team:
    made = Team.objects.create(name="Search", slug="search")
    alice = User.objects.create_user("alice@example.com", "secret")
    Membership.objects.create(user=alice, team=made, role="owner")
    return made


@pytest.fixture
def api_key(team: Team) -> ApiKey:
    return ApiKey.objects.create(team=team, name="ci")


@pytest.fixture
def quota(team: Team) -> QuotaRow:
    return QuotaRow.objects.create(
        team=team, kind="money", amount=100_000, period="day", warn_at=[50, 80, 100], hard=True
    )


Counters = LocalCounters | RedisCounters


@pytest.fixture(params=["here", "redis"])
async def counters(request: pytest.FixtureRequest, journals: Path) -> AsyncIterator[Counters]:
    survey = surveyor(journals, lives_s=660, now_us=lambda: AT_US)

    if request.param == "here":
        yield LocalCounters(survey, wall_clock=lambda: AT_US / 1e6)
        return
    with running_redis() as server:
        async with shared(server, survey) as opened_now:
            yield opened_now


@asynccontextmanager
async def shared(server: RunningRedis, survey: Surveyor) -> AsyncIterator[RedisCounters]:
    """Patient, so that a busy machine does not count as Redis being away."""
    made = RedisCounters(
        server.url,
        "mine",
        survey=survey,
        share=lambda: (0, 1),
        wall_clock=lambda: AT_US / 1e6,
        timeout_s=10,
        patience_s=10,
    )
    await made.open()
    try:
        yield made
    finally:
        await made.close()


HOLD = 10_000


async def begin(counters: Counters, journal: Journal, of: Quota, **changes: Any) -> tuple[Opened, Ticket]:
    """One call, counted and in the journal. Raises errors.Unavailable."""
    counter, _, ends_at_us = counter_of(of, AT_US)
    made = opened(holds=(Hold(counter, HOLD),), **changes)
    ask = Ask(made.call_id, 660, (), (QuotaAsk(of, counter, HOLD, ends_at_us),))
    assert isinstance(await counters.admit(ask), Admitted)
    return made, journal.open(made)


def end(counters: Counters, journal: Journal, made: Opened, ticket: Ticket) -> None:
    journal.settle(ticket, settled(made))
    counters.settle(made.call_id, Spent(45, COST))


async def call_once(counters: Counters, journal: Journal, of: Quota, **changes: Any) -> None:
    end(counters, journal, *await begin(counters, journal, of, **changes))


async def only_wanted() -> Wanted:
    [found] = await sync_to_async(all_wanted)(AT_US)
    return found


async def no_pause() -> None:
    """Counters in this process hear of a settlement at once."""


class Reconciling:
    """The task, over real counters, a real journal and a real ledger."""

    def __init__(self, counters: Counters, root: Path) -> None:
        self._counters = counters
        self._survey = surveyor(root, lives_s=660, now_us=lambda: AT_US)

    async def __call__(self) -> list[int]:
        """How far each counter that was put right had been off."""
        done = await reconcile(self._counters, self._survey, now_us=lambda: AT_US, pause=no_pause)
        return [each.drift for each in done]


@pytest.fixture
def reconciling(counters: Counters, journals: Path) -> Reconciling:
    return Reconciling(counters, journals)


@pytest.mark.parametrize("off", [7_000, -7_000])
async def test_a_counter_that_drifted_is_put_right_and_the_audit_says_so(
    quota: QuotaRow,
    api_key: ApiKey,
    counters: Counters,
    journal: Journal,
    reconciling: Reconciling,
    off: int,
) -> None:
    wanted = await only_wanted()
    await call_once(counters, journal, wanted.quota, team_id=api_key.team_id, key_id=api_key.pk)
    assert await reconciling() == []
    await counters.correct(wanted.counter, off)

    assert await reconciling() == [off]

    assert (await counters.figures([wanted.counter]))[wanted.counter] == spent(COST)
    event = await AuditEvent.objects.aget()
    assert (event.action, event.actor_kind, event.team_id) == ("quota.corrected", "system", api_key.team_id)
    assert (event.subject_kind, event.subject_id) == ("quota", str(quota.pk))
    assert event.before == {"counter": wanted.counter, "used": COST + off}
    assert event.after == {"counter": wanted.counter, "used": COST, "ledger": COST}
    assert await reconciling() == []


async def test_a_counter_that_nobody_asked_for_is_not_made(
    quota: QuotaRow, api_key: ApiKey, journals: Path
) -> None:
    async def never(asked: Sequence[QuotaAsk] | None) -> Survey:
        raise AssertionError("nobody asked")

    counters = LocalCounters(never)
    await sync_to_async(book)([settled(opened(team_id=api_key.team_id, key_id=api_key.pk))])

    assert await Reconciling(counters, journals)() == []
    assert await counters.figures([(await only_wanted()).counter]) == {}


async def test_a_quota_that_went_meanwhile_is_left_alone(
    quota: QuotaRow, api_key: ApiKey, counters: Counters, journal: Journal, journals: Path
) -> None:
    wanted = await only_wanted()
    await call_once(counters, journal, wanted.quota, team_id=api_key.team_id, key_id=api_key.pk)
    await counters.correct(wanted.counter, 5)
    survey = surveyor(journals, lives_s=660, now_us=lambda: AT_US)

    assert await reconcile(counters, survey, now_us=lambda: AT_US, pause=quota.adelete) == []
    assert (await counters.figures([wanted.counter]))[wanted.counter] == spent(COST + 5)
    assert await AuditEvent.objects.acount() == 0


async def test_counters_that_redis_lost_are_made_anew_from_ledger_and_journals(
    quota: QuotaRow, api_key: ApiKey, journal: Journal, journals: Path
) -> None:
    of, whose = (await only_wanted()).quota, {"team_id": api_key.team_id, "key_id": api_key.pk}
    counter, _, _ = counter_of(of, AT_US)
    survey = surveyor(journals, lives_s=660, now_us=lambda: AT_US)
    await sync_to_async(book)([settled(opened(**whose))])
    with running_redis() as server:
        async with shared(server, survey) as counters:
            await call_once(counters, journal, of, **whose)
            under_way = await begin(counters, journal, of, **whose)
            server.kill()
            server.start()

            later = await when_it_is_back(lambda: begin(counters, journal, of, **whose))

            assert await counters.figures([counter]) == {counter: Figures(2 * COST, 2 * HOLD, 0)}
            end(counters, journal, *under_way)
            end(counters, journal, *later)
            assert await counters.figures([counter]) == {counter: spent(4 * COST)}
            assert await Reconciling(counters, journals)() == []


async def when_it_is_back(work: Callable[[], Awaitable[tuple[Opened, Ticket]]]) -> tuple[Opened, Ticket]:
    async with asyncio.timeout(30):
        while True:
            try:
                return await work()
            except Unavailable:
                await asyncio.sleep(0.01)


# Notices


def wanted_of(**changes: Any) -> Wanted:
    usual = Quota(1, Owner("team", 1, "Search"), "money", 1_000_000_000, "day", "Europe/Berlin", hard=True)
    of = dataclasses.replace(usual, **changes)
    counter, start_us, end_us = counter_of(of, AT_US)
    return Wanted(counter, of, 1, start_us, end_us)


@pytest.mark.parametrize(
    ("used", "share"),
    [(499_999_999, None), (500_000_000, 50), (999_999_999, 80), (1_000_000_000, 100), (3_000_000_000, 100)],
)
def test_the_highest_share_that_was_reached_is_told(used: int, share: int | None) -> None:
    found = notice(wanted_of(), spent(used))
    assert (found.share if found else None) == share


def test_what_never_settled_is_used_and_what_is_held_is_not() -> None:
    assert notice(wanted_of(), Figures(0, 900_000_000, 0)) is None
    found = notice(wanted_of(), Figures(300_000_000, 0, 200_000_000))
    assert found is not None
    assert found.used == 500_000_000


@pytest.mark.parametrize("changes", [{"amount": 0}, {"warn_at": ()}])
def test_there_is_nothing_to_tell(changes: dict[str, Any]) -> None:
    assert notice(wanted_of(**changes), spent(10**12)) is None


def test_a_notice_says_whose_quota_and_how_much_and_until_when() -> None:
    told = Notice(wanted_of(), 80, 812_000_000)
    assert subject_of(told) == "Search: 80 % of the day's money quota is used"
    assert text_of(told, "EUR") == (
        "The team 'Search' has used 0.812 of its quota of 1.00 EUR a day, which is 81 %. "
        "It begins anew at 2026-09-22 00:00 Europe/Berlin."
    )


def test_a_notice_of_tokens_counts_them() -> None:
    of_key = wanted_of(kind="tokens", amount=20_000, period="month", owner=Owner("key", 3, "ci"))
    assert text_of(Notice(of_key, 100, 20_001), "EUR") == (
        "The API key 'ci' has used 20,001 of its quota of 20,000 tokens a month, which is 100 %. "
        "It begins anew at 2026-10-01 00:00 Europe/Berlin. "
        "Until then calls that count against it are refused."
    )


@pytest.fixture
def warner() -> Warner:
    return Warner(now_us=lambda: AT_US)


async def test_each_share_is_told_once_to_each_address(
    quota: QuotaRow, api_key: ApiKey, counters: Counters, journal: Journal, warner: Warner
) -> None:
    of = (await only_wanted()).quota
    bob = await sync_to_async(User.objects.create_user)("bob@example.com", "secret")
    await Membership.objects.acreate(user=bob, team_id=api_key.team_id, role="owner")

    told = []
    for _ in range(5):  # 22.5 % each
        await call_once(counters, journal, of, team_id=api_key.team_id, key_id=api_key.pk)
        told.append([each.share for each in await warner.look(counters)])
        assert await warner.look(counters) == []

    assert told == [[], [], [50], [80], [100]]
    written = [(each.event, each.email) async for each in Outbox.objects.order_by("id")]
    assert sorted(written) == sorted(
        (event, email)
        for event in ("quota.warned", "quota.warned", "quota.reached")
        for email in ("alice@example.com", "bob@example.com")
    )
    last = await Outbox.objects.order_by("id").alast()
    assert last is not None
    assert (last.data["used"], last.data["share"], last.data["currency"]) == (5 * COST, 100, "USD")
    assert (last.data["period_started_at"], last.data["period_ends_at"]) == (
        "2026-09-21T00:00:00+00:00",
        "2026-09-22T00:00:00+00:00",
    )


async def test_another_process_tells_nothing_again(
    quota: QuotaRow, api_key: ApiKey, counters: Counters, journal: Journal, warner: Warner
) -> None:
    of = (await only_wanted()).quota
    for _ in range(3):
        await call_once(counters, journal, of, team_id=api_key.team_id, key_id=api_key.pk)
    await warner.look(counters)

    await Warner(now_us=lambda: AT_US).look(counters)

    assert await Outbox.objects.acount() == 1


async def test_a_new_period_is_told_of_anew(
    quota: QuotaRow, api_key: ApiKey, counters: Counters, journal: Journal
) -> None:
    moment = [AT_US]
    warner = Warner(now_us=lambda: moment[0])
    of = (await only_wanted()).quota
    for _ in range(3):
        await call_once(counters, journal, of, team_id=api_key.team_id, key_id=api_key.pk)
    first = await warner.look(counters)
    moment[0] += 86_400_000_000
    assert await warner.look(counters) == []
    name, _, ends_at_us = counter_of(of, moment[0])
    await counters.admit(Ask("tomorrow", 660, (), (QuotaAsk(of, name, 60_000, ends_at_us),)))
    counters.settle("tomorrow", Spent(45, 60_000))

    [again] = await warner.look(counters)

    assert [each.share for each in first] == [again.share] == [50]
    assert await Outbox.objects.acount() == 2


async def test_what_could_not_be_told_is_told_at_the_next_look(
    quota: QuotaRow, api_key: ApiKey, counters: Counters, journal: Journal, warner: Warner
) -> None:
    class Away:
        async def figures(self, counters: Sequence[str]) -> Mapping[str, Figures]:
            raise Unavailable("the counters are away")

        async def correct(self, counter: str, by: int) -> None:
            raise AssertionError("nothing is put right here")

    of = (await only_wanted()).quota
    for _ in range(3):
        await call_once(counters, journal, of, team_id=api_key.team_id, key_id=api_key.pk)

    with pytest.raises(Unavailable):
        await warner.look(Away())

    assert [each.share for each in await warner.look(counters)] == [50]
