import asyncio
import contextlib
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import authentication, keys, services
from accounts.authentication import Authenticator, WrongPeppers, check_peppers
from accounts.caller import Caller, KeyCannotBeChecked, Owner, Quota, RateLimit
from accounts.models import ApiKey, KeySecret, KeyUse, PepperFingerprint

pytestmark = pytest.mark.django_db(transaction=True)

OLD, NEW = "old pepper " * 4, "new pepper " * 4


@dataclass
class Clock:
    """Unix time and steady time, both moved by hand."""

    now_s: float = 1_900_000_000.0
    steady_s: float = 1_000.0

    def pass_(self, seconds: float) -> None:
        self.now_s += seconds
        self.steady_s += seconds


class Threads(Executor):
    """Threads whose work is counted, may be held back, and may find the database away."""

    def __init__(self) -> None:
        self.pool = ThreadPoolExecutor(4)
        self.may_go = threading.Event()
        self.may_go.set()
        self.database_is_away = False
        self.submitted = 0
        self.running = 0
        self.most_at_once = 0

    def submit(self, fn, /, *args, **kwargs) -> Future:
        self.submitted += 1
        self.running += 1
        self.most_at_once = max(self.most_at_once, self.running)
        future = self.pool.submit(self._work, fn, args)
        future.add_done_callback(self._ended)
        return future

    def _work(self, fn, args):
        assert self.may_go.wait(10)
        if self.database_is_away:
            raise OperationalError("unable to open database file")
        return fn(*args)

    def _ended(self, _):
        self.running -= 1


@pytest.fixture
def clock() -> Clock:
    return Clock(now_s=timezone.now().timestamp())


@pytest.fixture
def threads():
    threads = Threads()
    yield threads
    threads.may_go.set()
    threads.pool.shutdown()


@pytest.fixture
def make(clock, threads):
    """Authenticators on this clock and these threads; in a coroutine, as in life."""

    def build(peppers=settings.KEY_PEPPERS, **options) -> Authenticator:
        options = {"executor": threads} | options
        return Authenticator(peppers, now_s=lambda: clock.now_s, steady_s=lambda: clock.steady_s, **options)

    return build


@pytest.fixture
def api_key(team, alice) -> tuple[ApiKey, str]:
    return services.create_key(team, "web", alice)


@pytest.fixture
def presented(api_key) -> str:
    return api_key[1]


@pytest.fixture
def caller(api_key, team) -> Caller:
    key = api_key[0]
    return Caller(key.pk, team.pk, secret_id=key.secrets.get().pk)


def wrong_secret(presented: str) -> str:
    return keys.Parts(keys.take_apart(presented).public_id, keys.mint().secret).text


async def eventually(holds) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_a_key_is_looked_up_once_and_then_remembered(make, presented, caller, threads):
    door = make()
    assert door.remembered(presented) is None
    assert await door.look_up(presented) == caller
    assert door.remembered(presented) == caller
    assert await door.look_up(presented) == caller
    assert threads.submitted == 1


@pytest.mark.parametrize("text", ["", "pst_", "sk-proj-whatever", "é" * 66, "\ud800" * 66, "x" * 100_000])
async def test_malformed_keys_ask_nobody(make, threads, text):
    door = make()
    assert door.remembered(text) is None
    assert await door.look_up(text) is None
    assert threads.submitted == 0


async def test_a_wrong_checksum_asks_nobody(make, presented, threads):
    mistyped = presented[:-1] + ("a" if presented[-1] != "a" else "b")
    assert await make().look_up(mistyped) is None
    assert threads.submitted == 0


async def test_an_unknown_key_is_asked_for_once_a_minute(make, clock, threads):
    door, unknown = make(), keys.mint().text
    assert [await door.look_up(unknown) for _ in range(3)] == [None, None, None]
    assert threads.submitted == 1
    clock.pass_(60)
    assert await door.look_up(unknown) is None
    assert threads.submitted == 2


async def test_of_unknown_keys_the_latest_are_remembered(make, threads):
    door = make(unknown_at_most=2)
    first, second, third = (keys.mint().text for _ in range(3))
    for unknown in (first, second, third, second, third):
        assert await door.look_up(unknown) is None
    assert threads.submitted == 3
    assert await door.look_up(first) is None
    assert threads.submitted == 4


async def test_a_caller_may_be_as_urgent_as_its_key_says(make, api_key, presented):
    await sync_to_async(services.set_priority_ceiling)(api_key[0], "urgent")

    found = await make().look_up(presented)

    assert found.priority_ceiling == "urgent"


async def test_a_wrong_secret_is_nobody_and_asks_once(make, presented, caller, threads):
    door = make()
    assert await door.look_up(wrong_secret(presented)) is None
    assert door.remembered(wrong_secret(presented)) is None
    assert await door.look_up(wrong_secret(presented)) is None
    assert door.remembered(presented) == caller
    assert threads.submitted == 1


async def test_a_revoked_key_is_nobody_after_the_change_is_heard(make, api_key, presented, caller, alice):
    door = make()
    assert await door.look_up(presented) == caller
    await sync_to_async(services.revoke_key)(api_key[0], by=alice)
    door.forget()
    assert door.remembered(presented) is None
    assert await door.look_up(presented) is None


async def test_a_key_stops_at_its_moment(make, team, alice, clock):
    ends = timezone.now() + timedelta(seconds=30)
    _, presented = await sync_to_async(services.create_key)(team, "web", alice, ends)
    clock.now_s = ends.timestamp() - 0.001
    door = make()
    found = await door.look_up(presented)
    assert found is not None
    assert found.expires_at_s == ends.timestamp()
    clock.now_s = ends.timestamp()
    assert door.remembered(presented) is None
    assert await door.look_up(presented) is None


async def test_a_key_made_after_it_was_asked_for_is_known_at_once(make, team, alice):
    door, parts = make(), keys.mint()
    assert await door.look_up(parts.text) is None
    key, _ = await sync_to_async(services.create_key)(team, "web", alice)
    await KeySecret.objects.filter(key=key).aupdate(
        public_id=parts.public_id, digest=keys.digest(parts.secret, settings.KEY_PEPPERS[0])
    )
    assert await door.look_up(parts.text) is None
    door.forget()
    assert (await door.look_up(parts.text)).key_id == key.pk


async def test_all_who_wait_for_a_key_share_one_look_up(make, presented, caller, threads):
    door = make()
    threads.may_go.clear()
    waiting = [asyncio.create_task(door.look_up(presented)) for _ in range(20)]
    stranger = asyncio.create_task(door.look_up(wrong_secret(presented)))
    await eventually(lambda: threads.submitted)
    threads.may_go.set()
    assert await asyncio.gather(*waiting) == [caller] * 20
    assert await stranger is None
    assert threads.submitted == 1


async def test_one_who_goes_away_does_not_take_the_others_along(make, presented, caller, threads):
    door = make()
    threads.may_go.clear()
    first, second = (asyncio.create_task(door.look_up(presented)) for _ in range(2))
    await eventually(lambda: threads.submitted)
    first.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await first
    threads.may_go.set()
    assert await second == caller


async def test_at_most_fifty_look_ups_run_at_once(make, threads):
    door = make()
    threads.may_go.clear()
    waiting = [asyncio.create_task(door.look_up(keys.mint().text)) for _ in range(200)]
    await eventually(lambda: threads.submitted >= authentication.LOOK_UPS_AT_ONCE)
    threads.may_go.set()
    assert await asyncio.gather(*waiting) == [None] * 200
    assert (threads.submitted, threads.most_at_once) == (200, 50)


async def test_what_was_read_before_a_change_is_not_remembered_after_it(make, presented, caller, threads):
    door = make()
    threads.may_go.clear()
    early = asyncio.create_task(door.look_up(presented))
    await eventually(lambda: threads.submitted)
    door.forget()
    late = asyncio.create_task(door.look_up(presented))
    await eventually(lambda: threads.submitted == 2)
    threads.may_go.set()
    assert await early == await late == caller
    assert door.remembered(presented) == caller


async def test_a_read_that_a_change_overtook_is_asked_again(make, presented, caller, threads):
    door = make()
    threads.may_go.clear()
    early = asyncio.create_task(door.look_up(presented))
    await eventually(lambda: threads.submitted)
    door.forget()
    threads.may_go.set()
    assert await early == caller
    assert door.remembered(presented) is None


async def test_while_the_database_is_away_a_known_key_keeps_its_rights_for_a_while(
    make, presented, caller, threads, clock, caplog
):
    door = make(stale_keys_s=300)
    assert await door.look_up(presented) == caller
    door.forget()
    threads.database_is_away = True
    assert await door.look_up(presented) == caller
    assert "database away" in repr(door)
    assert "the database does not answer" in caplog.text

    clock.pass_(200)
    door.forget()  # what is stale does not become fresh by being forgotten again
    assert await door.look_up(presented) == caller
    assert await door.look_up(wrong_secret(presented)) is None

    clock.pass_(100)
    with pytest.raises(KeyCannotBeChecked):
        await door.look_up(presented)


async def test_while_the_database_is_away_it_is_asked_once_a_second(make, presented, caller, threads, clock):
    door = make()
    await door.look_up(presented)
    door.forget()
    threads.database_is_away = True
    for _ in range(5):
        assert await door.look_up(presented) == caller
    assert threads.submitted == 2
    clock.pass_(1)
    assert await door.look_up(presented) == caller
    assert threads.submitted == 3


async def test_while_the_database_is_away_a_stranger_is_neither_yes_nor_no(make, presented, threads):
    door = make()
    threads.database_is_away = True
    with pytest.raises(KeyCannotBeChecked):
        await door.look_up(presented)


async def test_when_the_database_is_back_a_stale_key_is_read_again(
    make, api_key, presented, threads, clock, alice
):
    door = make()
    await door.look_up(presented)
    door.forget()
    threads.database_is_away = True
    assert await door.look_up(presented) is not None
    await sync_to_async(services.revoke_key)(api_key[0], by=alice)
    threads.database_is_away = False
    clock.pass_(1)
    assert await door.look_up(presented) is None
    assert "database away" not in repr(door)
    assert door.remembered(presented) is None


async def test_a_database_that_does_not_answer_in_time_counts_as_away(make, presented, threads):
    door = make(look_up_timeout_s=0.01)
    threads.may_go.clear()
    with pytest.raises(KeyCannotBeChecked):
        await door.look_up(presented)


async def test_an_expired_key_is_not_served_stale(make, team, alice, threads, clock):
    ends = timezone.now() + timedelta(seconds=30)
    _, presented = await sync_to_async(services.create_key)(team, "web", alice, ends)
    door = make()
    assert await door.look_up(presented)
    door.forget()
    threads.database_is_away = True
    clock.pass_(31)
    assert await door.look_up(presented) is None


async def test_a_secret_moves_to_the_newest_pepper_when_it_is_used(make, api_key, presented, caller):
    newer = "a newer pepper " * 3
    door = make((newer, *settings.KEY_PEPPERS))
    assert await door.look_up(wrong_secret(presented)) is None
    stored = await KeySecret.objects.aget(key=api_key[0])
    assert stored.pepper_id == keys.pepper_id(settings.KEY_PEPPERS[0])

    assert await door.look_up(presented) == caller

    await stored.arefresh_from_db()
    assert stored.pepper_id == keys.pepper_id(newer)
    assert bytes(stored.digest) == keys.digest(keys.take_apart(presented).secret, newer)
    assert door.remembered(presented) == caller
    assert await make((newer,)).look_up(presented) == caller


async def test_a_key_whose_pepper_is_gone_is_nobody(make, presented, caplog):
    assert await make(("another pepper " * 3,)).look_up(presented) is None
    assert "which is not in KEY_PEPPERS" in caplog.text


async def test_a_use_is_noted_when_it_is_said_and_written_when_asked_for(make, api_key, presented, clock):
    door = make()
    caller = await door.look_up(presented)
    await sync_to_async(door.flush_uses)()
    assert (await KeySecret.objects.aget(key=api_key[0])).uses == 0

    door.used(caller, "192.0.2.7", "curl/8")
    clock.pass_(5)
    door.used(caller, "192.0.2.9", "python-openai/1.50")
    await sync_to_async(door.flush_uses)()
    await sync_to_async(door.flush_uses)()

    stored = await KeySecret.objects.aget(key=api_key[0])
    assert stored.last_used_at.timestamp() == pytest.approx(clock.now_s)
    assert (stored.last_used_from, stored.last_user_agent) == ("192.0.2.9", "python-openai/1.50")
    assert stored.uses == 2


async def test_uses_that_could_not_be_written_are_kept(make, api_key, presented):
    door = make()
    door.used(await door.look_up(presented), "192.0.2.7", "curl/8")

    def refuse(execute, sql, params, many, context):
        raise OperationalError("database is locked")

    def flush_in_vain():
        with connection.execute_wrapper(refuse), pytest.raises(OperationalError):
            door.flush_uses()

    await sync_to_async(flush_in_vain)()
    await sync_to_async(door.flush_uses)()
    assert (await KeySecret.objects.aget(key=api_key[0])).uses == 1
    assert (await KeyUse.objects.aget()).uses == 1


async def test_a_caller_carries_the_scopes_and_limits_of_key_and_team(make, team, alice):
    def set_up() -> tuple[ApiKey, str]:
        key, presented = services.create_key(
            team,
            "web",
            alice,
            routes=["gpt-4o", "small"],
            networks=["10.0.0.0/8", "2001:db8::/32"],
            tags={"app": "shop"},
        )
        services.set_rate_limit(team, "tokens", 9, by_administrator=True)
        services.set_rate_limit(key, "concurrent", 3, "small", by_administrator=False)
        services.set_quota(key, "money", 10**9, "day", "Asia/Tokyo", True, [50], by_administrator=False)
        services.set_quota(team, "tokens", 10**6, "month", "UTC", False, [], by_administrator=True)
        return key, presented

    key, presented = await sync_to_async(set_up)()
    found = await make().look_up(presented)

    assert found.routes == {"gpt-4o", "small"}
    assert [str(each) for each in found.networks] == ["10.0.0.0/8", "2001:db8::/32"]
    assert dict(found.tags) == {"app": "shop"}
    its, theirs = Owner("key", key.pk, "web"), Owner("team", team.pk, "Search")
    tokens, concurrent = found.rate_limits
    assert tokens == RateLimit(tokens.id, theirs, "tokens", 9)
    assert concurrent == RateLimit(concurrent.id, its, "concurrent", 3, "small")
    day, month = found.quotas
    assert day == Quota(day.id, its, "money", 10**9, "day", "Asia/Tokyo", True, (50,))
    assert month == Quota(month.id, theirs, "tokens", 10**6, "month", "UTC", False, ())


async def test_a_look_up_takes_three_queries(presented):
    def count() -> list[str]:
        with CaptureQueriesContext(connection) as queries:
            parts = keys.take_apart(presented)
            peppers = {keys.pepper_id(each): each for each in settings.KEY_PEPPERS}
            assert authentication.read_key(parts.public_id, peppers) is not None
        return [each["sql"] for each in queries]

    assert len(await sync_to_async(count)()) == 3  # the key with its team, rate limits, quotas


async def test_a_key_of_an_archived_team_is_nobody_until_it_is_restored(make, team, presented, caller, alice):
    door = make()
    assert await door.look_up(presented) == caller
    await sync_to_async(services.archive_team)(team, by=alice)
    door.forget()
    assert await door.look_up(presented) is None

    await sync_to_async(services.restore_team)(team)
    door.forget()
    assert await door.look_up(presented) == caller


@pytest.mark.parametrize("end", ["membership removed", "account switched off", "account deleted"])
async def test_a_personal_key_is_nobody_without_its_person(make, team, bob, end):
    def set_up() -> tuple[str, str, set[int]]:
        _, personal = services.create_key(team, "laptop", bob, kind="personal")
        _, service = services.create_key(team, "nightly", bob)
        return personal, service, set(KeySecret.objects.values_list("pk", flat=True))

    def go() -> None:
        if end == "membership removed":
            bob.memberships.all().delete()
        elif end == "account switched off":
            type(bob).objects.filter(pk=bob.pk).update(is_active=False)
        else:
            bob.delete()

    personal, service, ids = await sync_to_async(set_up)()
    door, now_s = make(), timezone.now().timestamp()
    its_secret = (await door.look_up(personal)).secret_id
    assert await door.still_good(ids, now_s) == ids

    await sync_to_async(go)()
    door.forget()

    assert await door.look_up(personal) is None
    assert await door.look_up(service) is not None
    assert await door.still_good(ids, now_s) == ids - {its_secret}


async def test_a_key_of_the_playground_is_nobody_without_its_person(make, team, bob, ada):
    open_playground = sync_to_async(services.open_playground)
    (_, of_bob), (_, of_ada) = await open_playground(team, bob), await open_playground(team, ada)
    door = make()
    assert await door.look_up(of_bob) is not None
    assert await door.look_up(of_ada) is not None  # an administrator needs no place in the team

    await bob.memberships.all().adelete()
    await type(ada).objects.filter(pk=ada.pk).aupdate(is_superuser=False)
    door.forget()

    assert await door.look_up(of_bob) is None
    assert await door.look_up(of_ada) is None


async def test_both_secrets_of_a_key_work_during_the_overlap_and_share_its_limits(
    make, api_key, presented, clock, alice
):
    rotate = sync_to_async(services.rotate_key)
    secret, fresh = await rotate(api_key[0], by=alice, overlap=timedelta(hours=1))
    door = make()
    old, new = await door.look_up(presented), await door.look_up(fresh)

    assert (old.key_id, old.rate_limits, old.quotas) == (new.key_id, new.rate_limits, new.quotas)
    assert new.secret_id == secret.pk != old.secret_id
    assert new.expires_at_s is None
    ends_at = (await KeySecret.objects.aget(pk=old.secret_id)).ends_at
    assert old.expires_at_s == ends_at.timestamp()

    clock.now_s = ends_at.timestamp()
    assert door.remembered(presented) is None
    assert door.remembered(fresh) == new


async def test_a_secret_ends_with_its_key_where_that_ends_first(make, team, alice):
    def set_up():
        ends = timezone.now() + timedelta(minutes=1)
        key, text = services.create_key(team, "web", alice, ends)
        services.rotate_key(key, by=alice)
        return ends, text

    ends, presented = await sync_to_async(set_up)()
    assert (await make().look_up(presented)).expires_at_s == ends.timestamp()


async def test_the_secrets_that_are_still_good_are_told_in_one_query(make, team, alice, clock, threads):
    def set_up() -> dict[str, int]:
        now = timezone.now()
        made = {name: services.create_key(team, name, alice)[0] for name in ("good", "revoked", "rotated")}
        made["expired"], _ = services.create_key(team, "expired", alice, now + timedelta(seconds=10))
        ids = {name: key.secrets.get().pk for name, key in made.items()}
        services.revoke_key(made["revoked"], by=alice)
        services.rotate_key(made["rotated"], by=alice, overlap=timedelta(seconds=10))
        gone = services.create_team("Gone", alice)
        ids["archived"] = services.create_key(gone, "x", alice)[0].secrets.get().pk
        services.archive_team(gone, by=alice)
        return ids

    ids = await sync_to_async(set_up)()
    door, asked = make(), [*ids.values(), 10**9]
    now_s = timezone.now().timestamp()

    assert await door.still_good(asked, now_s) == {ids["good"], ids["rotated"], ids["expired"]}
    assert await door.still_good(asked, now_s + 11) == {ids["good"]}
    assert threads.submitted == 2
    threads.database_is_away = True
    with pytest.raises(OperationalError):
        await door.still_good(asked, now_s)


async def test_an_authenticator_with_threads_of_its_own_closes_them(make, presented, caller):
    before = set(threading.enumerate())
    door = make(executor=None)
    assert await door.look_up(presented) == caller
    ours = {thread for thread in set(threading.enumerate()) - before if "authenticate" in thread.name}
    assert ours
    await door.close()
    assert not any(thread.is_alive() for thread in ours)


async def test_a_look_up_leaves_no_connection_open(make, presented):
    pool = ThreadPoolExecutor(1)
    await make(executor=pool).look_up(presented)
    left = await asyncio.wrap_future(pool.submit(lambda: connections["default"].connection))
    pool.shutdown()
    assert left is None


async def test_an_authenticator_introduces_itself_without_secrets(make, presented):
    door = make()
    await door.look_up(presented)
    assert repr(door) == "<Authenticator knows 1 keys, 0 stale>"
    secret = keys.take_apart(presented).secret
    assert secret not in repr(door._known)
    assert settings.KEY_PEPPERS[0] not in repr(door._known)


def test_new_peppers_are_recorded(db):
    check_peppers((OLD,))
    check_peppers((NEW, OLD))
    check_peppers((NEW, OLD))
    recorded = dict(PepperFingerprint.objects.values_list("pepper_id", "fingerprint"))
    assert recorded == {keys.pepper_id(each): keys.fingerprint(each) for each in (OLD, NEW)}


def test_a_pepper_that_a_key_needs_may_not_be_missing(presented):
    check_peppers(settings.KEY_PEPPERS)
    check_peppers((NEW, *settings.KEY_PEPPERS))
    with pytest.raises(WrongPeppers, match="need a pepper that is not configured"):
        check_peppers((NEW,))


def test_a_pepper_that_no_key_needs_may_be_retired(db):
    check_peppers((OLD,))
    check_peppers((NEW,))


def test_a_pepper_is_held_to_its_fingerprint(db):
    PepperFingerprint.objects.create(pepper_id=keys.pepper_id(OLD), fingerprint="0" * 64)
    with pytest.raises(WrongPeppers, match="is not the one"):
        check_peppers((OLD,))
