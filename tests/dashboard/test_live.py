"""The hub hands every frame to every socket once, whatever the socket does."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from dashboard import live
from dashboard.frames import ALL, COUNTS, KEPT_S, TRAILING_S, Fold, Frame
from dashboard.gathering import Alone
from gateway.glance import Seen
from gateway.models import Entry
from tests.dashboard.records import settled
from tests.dashboard.test_standing import target

NOW = 1_700_000_000
CALLS = COUNTS.index("calls")


def publish(hub, *seconds, **facts):
    for second in seconds:
        frame = Frame(second)
        frame.add(settled(second, **facts))
        hub.publish(frame)


async def take(socket, count=1):
    """The next messages of a socket, decoded."""
    messages = socket.messages()
    async with asyncio.timeout(5):
        return [json.loads(await anext(messages)) for _ in range(count)]


def ids(*messages):
    """The ids of all frames in these messages, in order."""
    return [
        frame["id"]
        for message in messages
        for frame in (message["frames"] if message["kind"] == "snapshot" else [message["frame"]])
        if frame
    ]


@pytest.fixture
def hub():
    return live.Hub()


def watching(hub, team_id=1, run_id="", since=0, user_id=5):
    socket = hub.join(user_id)
    socket.watch(team_id, run_id, since)
    return socket


async def test_a_new_socket_gets_what_is_kept_and_then_each_frame_once(hub):
    publish(hub, NOW, NOW + 1)
    socket = watching(hub)
    (snapshot,) = await take(socket)
    publish(hub, NOW + 2, NOW + 3)

    assert snapshot["full"] is True
    assert ids(snapshot, *await take(socket, 2)) == [NOW, NOW + 1, NOW + 2, NOW + 3]


async def test_a_socket_that_comes_back_gets_what_it_missed_and_nothing_twice(hub):
    publish(hub, NOW, NOW + 1, NOW + 2)
    (snapshot,) = await take(watching(hub, run_id=hub.run_id, since=NOW))

    assert (snapshot["full"], snapshot["id"]) == (False, NOW + 2)
    assert ids(snapshot) == [NOW + 1, NOW + 2]
    assert len(snapshot["calls"]) == 2


async def test_a_socket_of_an_earlier_run_starts_afresh(hub):
    publish(hub, NOW, NOW + 1)
    (snapshot,) = await take(watching(hub, run_id="another", since=NOW))

    assert snapshot["full"] is True
    assert snapshot["run"] == hub.run_id
    assert ids(snapshot) == [NOW, NOW + 1]


async def test_a_socket_that_was_away_for_too_long_starts_afresh(hub):
    publish(hub, NOW, NOW + KEPT_S + 1)
    (snapshot,) = await take(watching(hub, run_id=hub.run_id, since=NOW))

    assert snapshot["full"] is True
    assert ids(snapshot) == [NOW + KEPT_S + 1]


async def test_a_slow_reader_is_caught_up_and_never_makes_the_hub_wait(hub):
    hub.publish(Frame(NOW - 1))
    socket = watching(hub)
    await take(socket)
    seconds = range(NOW, NOW + 3 * live.QUEUE_FRAMES)
    publish(hub, *seconds)
    (caught_up,) = await take(socket)
    publish(hub, NOW + 100)

    assert socket.dropped == 2 * live.QUEUE_FRAMES
    assert caught_up["full"] is False
    assert ids(caught_up, *await take(socket)) == [*seconds, NOW + 100]


async def test_what_is_kept_comes_in_messages_of_a_bounded_length(hub):
    seconds = range(NOW, NOW + KEPT_S)
    publish(hub, *seconds)
    socket = watching(hub)
    parts = await take(socket)
    publish(hub, NOW + KEPT_S)  # while it is being caught up
    while parts[-1]["id"] < NOW + KEPT_S:
        parts += await take(socket)

    assert len(parts) > 1
    assert [each["full"] for each in parts] == [True] + [False] * (len(parts) - 1)
    assert ids(*parts) == [*seconds, NOW + KEPT_S]
    assert all(len(json.dumps(each["frames"])) < 1.5 * live.LONGEST_MESSAGE for each in parts)
    assert [each["id"] for each in parts] == [each["frames"][-1]["id"] for each in parts]
    assert len({each["id"] for part in parts for each in part["calls"]}) == live.LATEST_KEPT


async def test_every_socket_of_a_team_shares_one_string(hub):
    sockets = [watching(hub, user_id=each) for each in range(3)]
    for socket in sockets:
        await take(socket)
    publish(hub, NOW)

    texts = [await anext(socket.messages()) for socket in sockets]
    assert texts[0] is texts[1] is texts[2]


async def test_a_team_sees_its_own_frames_and_all_teams_see_the_sum(hub):
    frame = Frame(NOW)
    frame.add(settled(NOW, team_id=1))
    frame.add(settled(NOW, team_id=2, route="o3"))
    hub.publish(frame)

    (one,) = await take(watching(hub, 1))
    (everything,) = await take(watching(hub, ALL))
    assert list(one["frames"][0]["routes"]) == ["gpt-4o"]
    assert one["frames"][0]["total"][CALLS] == 1
    assert set(everything["frames"][0]["routes"]) == {"gpt-4o", "o3"}
    assert everything["frames"][0]["total"][CALLS] == 2
    assert [call["team"] for call in one["calls"]] == [1]


async def test_an_idle_team_hears_that_the_second_has_passed(hub):
    socket = watching(hub, 9)
    await take(socket)
    publish(hub, NOW)

    (said,) = await take(socket)
    assert (said["kind"], said["id"], said["frame"], said["calls"]) == ("frame", NOW, None, [])


async def test_refused_calls_are_in_the_frame_by_reason(hub):
    frame = Frame(NOW)
    for code in ("rate_limit_exceeded", "rate_limit_exceeded", "model_not_found"):
        frame.refuse(1, 7, "gpt-4o", code)
    hub.publish(frame)

    (snapshot,) = await take(watching(hub, 1))
    assert snapshot["frames"][0]["refused"] == {"rate_limit_exceeded": 2, "model_not_found": 1}
    assert snapshot["frames"][0]["total"][COUNTS.index("refused")] == 3


async def test_the_latest_calls_are_kept_in_a_ring(hub):
    for second in range(NOW, NOW + 10):
        frame = Frame(second)
        for number in range(15):
            frame.add(settled(second, call_id=f"{second}-{number}"))
        hub.publish(frame)

    (snapshot,) = await take(watching(hub))
    assert len(snapshot["calls"]) == live.LATEST_KEPT
    assert snapshot["calls"][-1]["id"] == f"{NOW + 9}-14"


async def test_frames_and_calls_are_forgotten_in_time_also_for_a_team_that_went_quiet(hub):
    publish(hub, NOW)
    for second in range(NOW + 1, NOW + KEPT_S + TRAILING_S):
        hub.publish(Frame(second))

    (snapshot,) = await take(watching(hub))
    assert (snapshot["frames"], snapshot["calls"]) == ([], [])


async def test_a_change_of_rights_closes_the_sockets_of_that_person_only(hub):
    alices, bobs = watching(hub, user_id=5), watching(hub, user_id=6)
    await asyncio.to_thread(hub.close_user, 5)
    await asyncio.sleep(0)  # one turn, for what the other thread handed over

    assert [message async for message in alices.messages()] == []
    assert alices.closing == (live.RIGHTS_CHANGED, "Your rights have changed.")
    assert bobs.closing is None


async def test_the_ticker_publishes_each_second(hub):
    fold, stop = Fold(), asyncio.Event()
    socket = watching(hub)
    ticking = asyncio.create_task(live.run(fold, hub.publish, stop))
    fold.add(settled(time.time()))
    first, second = (await take(socket, 3))[1:]
    stop.set()
    await ticking

    assert second["id"] == first["id"] + 1


async def test_at_the_end_every_socket_closes(hub):
    socket = watching(hub)
    await asyncio.to_thread(hub.close_all)
    await asyncio.sleep(0)  # one turn, for what the other thread handed over

    assert socket.closing == (live.GOING_AWAY, "The server is restarting.")


async def test_a_change_of_anybodys_rights_makes_every_page_come_back(hub):
    socket = watching(hub)
    await asyncio.to_thread(hub.recheck_all)
    await asyncio.sleep(0)  # one turn, for what the other thread handed over

    assert socket.closing == (live.GOING_AWAY, "Come back: your rights may have changed.")


def test_a_database_that_is_away_is_told_with_every_frame(hub):
    hub.database_away = True
    hub.publish(Frame(NOW), ("process 7",))
    assert hub.missing == ("process 7", "the database")

    hub.database_away = False
    hub.publish(Frame(NOW + 1))
    assert hub.missing == ()


async def test_pages_are_told_what_is_missing_and_that_there_is_no_frame_yet(hub):
    socket = watching(hub)
    await take(socket)
    frame = Frame(NOW)
    frame.add(settled(NOW))
    hub.publish(frame, ("process 7",))
    hub.wait(("Redis",))

    published, waiting = await take(socket, 2)
    assert (published["missing"], published["id"]) == (["process 7"], NOW)
    assert waiting == {"kind": "waiting", "missing": ["Redis"]}
    (snapshot,) = await take(watching(hub))
    assert (snapshot["missing"], ids(snapshot)) == (["Redis"], [NOW])


async def test_the_ticker_survives_a_second_that_cannot_be_published(caplog):
    class Stumbling(live.Hub):
        stumbled = False

        def publish(self, frame, missing=()):
            if not self.stumbled:
                self.stumbled = True
                raise ValueError("once")
            super().publish(frame, missing)

    hub, stop = Stumbling(), asyncio.Event()
    socket = watching(hub)
    ticking = asyncio.create_task(live.run(Fold(), Alone(hub).publish, stop))
    messages = await take(socket, 2)
    stop.set()
    await ticking

    assert messages[1]["kind"] == "frame"
    assert "was not published" in caplog.text


def entry(ended_at, **facts):
    call = settled(ended_at.timestamp(), **facts)
    return Entry(
        call_id=call.call_id,
        team_id=call.team_id,
        key_id=call.key_id,
        route=call.route,
        streamed=call.streamed,
        simulated=call.simulated,
        outcome=call.outcome,
        status=call.status,
        code=call.code,
        started_at=ended_at - timedelta(microseconds=call.latency_us),
        ended_at=ended_at,
        latency_us=call.latency_us,
        first_token_us=call.first_token_us,
        input_tokens=call.usage.input_tokens,
        cached_tokens=call.usage.cached_tokens,
        output_tokens=call.usage.output_tokens,
        usage_basis=call.usage.basis,
        cost_nanos=call.cost_nanos,
        unpriced=call.unpriced,
        tags=call.tags or {},
    )


@pytest.mark.django_db
def test_history_is_what_the_books_say_of_the_kept_time_and_not_more():
    start = datetime.fromtimestamp(NOW, UTC)
    too_old, first, last, not_yet = (
        start - timedelta(seconds=KEPT_S, microseconds=1),
        start - timedelta(seconds=KEPT_S),
        start - timedelta(microseconds=1),
        start,
    )
    Entry.objects.bulk_create([entry(moment, cost_nanos=3) for moment in (too_old, first, last, not_yet)])
    fold = Fold()

    assert live.load_history(fold, before=start) == 2
    frames = [each for each in fold.tick(NOW) if each.numbers]
    assert [each.at_s for each in frames] == [NOW - KEPT_S, NOW - 1]
    assert frames[1].numbers[1, "gpt-4o"]["cost_nanos"] == 3
    assert frames[1].latest_of(1)[0].ended_at_us == NOW * 1_000_000 - 1


def seen(breaker="closed"):
    return Seen([target(breaker=breaker)], 0)


async def test_how_targets_are_is_said_when_it_changes_and_to_whoever_comes(hub):
    first = watching(hub)
    await take(first)
    said = []
    for second, breaker in enumerate(["closed", "closed", "open"]):
        hub.see(seen(breaker))
        hub.publish(Frame(NOW + second))
        said += [each["targets"] for each in await take(first)]

    assert [each and each["lines"][0]["state"] for each in said] == ["closed", None, "open"]
    (snapshot,) = await take(watching(hub))
    assert snapshot["targets"] == said[2]


async def test_news_of_a_target_is_not_lost_when_a_second_is_late(hub):
    socket = watching(hub)
    await take(socket)
    hub.see(seen("open"))
    hub.see(seen("open"))
    hub.publish(Frame(NOW))
    (said,) = await take(socket)
    assert said["targets"]["lines"][0]["state"] == "open"


async def test_only_who_sees_all_teams_is_told_how_much_of_a_target_is_used(hub):
    everybody, team = watching(hub, ALL), watching(hub, 1)
    await take(everybody)
    await take(team)
    hub.see(seen())
    hub.publish(Frame(NOW))
    told = {
        name: (await take(each))[0]["targets"]["lines"][0]
        for name, each in (("all", everybody), ("team", team))
    }
    assert (told["all"]["places"], told["team"]["places"]) == (5, None)


async def test_what_is_under_way_is_in_the_frame_of_each_team_that_has_any(hub):
    frame = Frame(NOW, under_way={1: [0, 2, 0, 0, 1, 0], 2: [1, 0, 0, 0, 0, 0]})
    hub.publish(frame)
    told = {}
    for team_id in (1, 2, 3, ALL):
        (snapshot,) = await take(watching(hub, team_id))
        assert snapshot["under_way_from"] == NOW
        told[team_id] = [each["under_way"] for each in snapshot["frames"]]

    assert told == {1: [[0, 2, 0, 0, 1, 0]], 2: [[1, 0, 0, 0, 0, 0]], 3: [], ALL: [[1, 2, 0, 0, 1, 0]]}


async def test_what_was_under_way_before_the_start_is_not_known(hub):
    publish(hub, NOW)
    (snapshot,) = await take(watching(hub))
    assert snapshot["under_way_from"] is None
    assert snapshot["frames"][0]["under_way"] is None


async def test_a_team_is_told_of_its_own_keys_and_all_teams_of_the_teams(hub):
    publish(hub, NOW, team_id=1, key_id=7, cost_nanos=5)
    publish(hub, NOW + 1, team_id=2, key_id=8, outcome="failed", cost_nanos=9)
    (of_team,) = await take(watching(hub, 1))
    (of_all,) = await take(watching(hub, ALL))

    assert of_team["busiest"] == {"keys": [[1, 7, 1, 0, 5]], "teams": None}
    assert of_all["busiest"] == {
        "keys": [[2, 8, 1, 1, 9], [1, 7, 1, 0, 5]],
        "teams": [[2, 1, 1, 9], [1, 1, 0, 5]],
    }
