import asyncio

import pytest

from gateway.relay.lifeline import Cut, Lifeline, Lifelines


class Clock:
    """Monotonic seconds that move when told."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


async def waiting() -> None:
    await asyncio.Event().wait()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def line(clock: Clock) -> Lifeline:
    return Lifeline(asyncio.create_task(waiting()), 110.0, clock)


async def cut_of(lines: Lifelines, line: Lifeline) -> Cut | None:
    lines.check()
    if line.cut:
        with pytest.raises(asyncio.CancelledError):
            await line.task
    else:
        line.task.cancel()
    return line.cut


async def test_a_call_within_its_time_is_left_alone(clock: Clock, line: Lifeline) -> None:
    line.expect(105.0, Cut.SILENT)
    clock.now = 104.9
    assert await cut_of(Lifelines(clock, {line}), line) is None


async def test_silence_is_cut_before_the_deadline(clock: Clock, line: Lifeline) -> None:
    line.expect(105.0, Cut.SILENT)
    clock.now = 105.0
    assert await cut_of(Lifelines(clock, {line}), line) is Cut.SILENT


async def test_the_deadline_cuts_whatever_is_expected(clock: Clock, line: Lifeline) -> None:
    line.expect(500.0, Cut.SILENT)
    clock.now = 110.0
    assert await cut_of(Lifelines(clock, {line}), line) is Cut.DEADLINE


async def test_a_call_is_cut_once_and_keeps_the_first_reason(clock: Clock, line: Lifeline) -> None:
    line.cut_off(Cut.HUNG_UP)
    line.cut_off(Cut.STOPPING)
    assert await cut_of(Lifelines(clock, {line}), line) is Cut.HUNG_UP


async def test_a_task_that_recovers_goes_on(clock: Clock) -> None:
    lines = Lifelines(clock)

    async def call() -> str:
        try:
            await waiting()
        except asyncio.CancelledError:
            line.recover()
        await asyncio.sleep(0)
        return "settled"

    line = Lifeline(asyncio.create_task(call()), 101.0, clock)
    lines.lines.add(line)
    await asyncio.sleep(0)
    clock.now = 101.0
    lines.check()

    assert await line.task == "settled"
    assert line.overdue(10_000.0) is None


async def test_only_the_calls_of_ended_secrets_are_cut(clock: Clock) -> None:
    mine, theirs, nobodys = (
        Lifeline(asyncio.create_task(waiting()), 110.0, clock, secret_id=each) for each in (7, 8, 0)
    )
    lines = Lifelines(clock, {mine, theirs, nobodys})
    assert lines.secrets() == {7, 8}
    lines.cut_revoked({7, 9})
    assert [each.cut for each in (mine, theirs, nobodys)] == [Cut.REVOKED, None, None]
    for each in (mine, theirs, nobodys):
        each.task.cancel()
