import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import JournalFull
from gateway.ledger.journal import BOOKED, Held, Journal, Segment, frames, hold
from gateway.ledger.sweeper import read
from gateway.relay.records import AttemptEnded, Dispatched, Opened, Refusals, Seen, Settled, Skipped, Usage
from tests.gateway.records import AT_US, dispatched, opened, refused, settled
from tests.served import ROOT, eventually


def test_what_was_appended_is_read_again_in_order(journal: Journal) -> None:
    call = opened(tags={"app": "tide"})
    ticket = journal.open(call)
    journal.dispatch(ticket, dispatched(call))
    journal.settle(ticket, settled(call))

    assert read(journal.folder) == [call, dispatched(call), settled(call)]


def test_a_call_keeps_room_for_its_end_until_it_is_settled(journal: Journal) -> None:
    call = opened()
    ticket = journal.open(call)
    journal.dispatch(ticket, dispatched(call))
    assert f"{ticket.room} B kept" in repr(journal)

    journal.settle(ticket, settled(call))
    assert " 0 B kept" in repr(journal)


def test_a_full_segment_is_followed_by_another(journal: Journal) -> None:
    calls = [opened() for _ in range(300)]
    for call in calls:
        journal.settle(journal.open(call), settled(call))

    assert len(journal.segments) > 1
    assert [each for each in read(journal.folder) if isinstance(each, Opened)] == calls


def test_a_turn_goes_on_in_a_new_segment_where_open_calls_have_room_for_their_end(journal: Journal) -> None:
    calls = [opened() for _ in range(60)]
    tickets = [journal.open(each) for each in calls]
    before = len(journal.segments)

    journal.turn()
    for call, ticket in zip(calls, tickets, strict=True):
        journal.settle(ticket, settled(call))

    assert len(journal.segments) == before + 1
    assert read(journal.folder)[-60:] == [settled(each) for each in calls]


def test_nothing_is_turned_that_is_empty(journal: Journal) -> None:
    journal.turn()
    assert len(journal.segments) == 1


def test_a_journal_without_room_for_another_segment_goes_on_in_its_own(journals: Path) -> None:
    journal = Journal(journals / "small", max_bytes=1 << 14, segment_bytes=1 << 14)
    ticket = journal.open(call := opened())

    journal.turn()
    journal.settle(ticket, settled(call))

    assert read(journal.folder) == [call, settled(call)]
    journal.close()


def test_open_calls_can_end_though_the_journal_is_full(journals: Path) -> None:
    journal = Journal(journals / "small", max_bytes=1 << 14, segment_bytes=1 << 13)
    tickets = []

    def open_one() -> bool:
        call = opened()
        tickets.append((call, journal.open(call)))
        return True

    with pytest.raises(JournalFull) as why:
        all(open_one() for _ in range(1000))

    for call, ticket in tickets:
        journal.settle(ticket, settled(call))

    assert why.value.status == 503
    assert len([each for each in read(journal.folder) if isinstance(each, Settled)]) == len(tickets)
    journal.close()


def test_a_full_disk_lets_no_call_in_and_loses_none(tmp_path: Path) -> None:
    """A file size limit stands in for the disk: it fails the same allocation with the same kind of error."""
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from gateway.errors import JournalFull\n"
        "from gateway.ledger.journal import Journal\n"
        "from tests.gateway.records import opened, settled\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "journal = Journal(Path(sys.argv[1]) / 'mine', max_bytes=1 << 30, segment_bytes=1 << 14)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 13, 1 << 13))\n"
        "open_calls = []\n"
        "try:\n"
        "    while True:\n"
        "        call = opened(); open_calls.append((call, journal.open(call)))\n"
        "except JournalFull: pass\n"
        "for call, ticket in open_calls: journal.settle(ticket, settled(call))\n"
        "print(len(open_calls))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True
    )

    ends = [each for each in read(tmp_path / "mine") if isinstance(each, Settled)]
    assert len(ends) == int(done.stdout) > 0
    assert len(list((tmp_path / "mine").glob("*.seg"))) == 1


@pytest.mark.parametrize("torn", [1, 7, 8, 20, 60])
def test_a_torn_tail_is_left_out_and_set_aside(journal: Journal, torn: int) -> None:
    whole, half = opened(), opened()
    journal.open(whole)
    end = journal.segments[0].end
    journal.open(half)
    path = journal.segments[0].path
    data = bytearray(path.read_bytes())
    data[end + torn :] = bytes(len(data) - end - torn)
    path.write_bytes(data)

    assert read(journal.folder) == [whole]
    aside = list(journal.folder.parent.glob(".unreadable-*"))
    assert len(aside) == 1
    assert data[end : end + torn].startswith(aside[0].read_bytes()[:1])


@pytest.mark.parametrize("place", [0, 4, 12])
def test_a_damaged_record_is_never_taken_for_a_good_one(journal: Journal, place: int) -> None:
    journal.open(opened())
    data = bytearray(journal.segments[0].path.read_bytes())
    data[place] ^= 0xFF

    assert list(frames(bytes(data))) == []


def test_a_journal_has_one_holder(journal: Journal) -> None:
    with pytest.raises(Held):
        hold(journal.folder)


def test_a_journal_that_was_let_go_can_be_taken(journals: Path) -> None:
    Journal(journals / "mine", max_bytes=1 << 20, segment_bytes=1 << 16).close()

    os.close(hold(journals / "mine"))


def test_a_segment_that_cannot_be_made_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space|too large"):
        Segment(tmp_path / "huge.seg", 1 << 62)
    assert list(tmp_path.iterdir()) == []


async def test_the_strict_setting_waits_for_the_disk(journals: Path) -> None:
    journal = Journal(journals / "strict", max_bytes=1 << 20, segment_bytes=1 << 16, strict=True)
    journal.open(opened())

    await journal.on_disk()

    assert journal.segments[0].synced == journal.segments[0].end
    journal.close()


def test_the_group_setting_reaches_the_disk_by_itself(journal: Journal) -> None:
    journal.open(opened())
    eventually(lambda: journal.segments[0].synced == journal.segments[0].end, what="the group sync")


NAMES = st.text(max_size=200)
TOKENS = st.integers(0, 2**63)
USAGES = st.builds(Usage, TOKENS, TOKENS, TOKENS, st.just("estimated"), TOKENS, TOKENS, TOKENS, TOKENS)
PRICES = st.text(alphabet="[0123456789,null]", max_size=150)
OTHER_RATES = "1" * 130
"""What a price may be longer by where other rates apply to the attempt than to its worst case."""


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=200)
@given(
    call=st.builds(
        Opened,
        st.just("0" * 36),
        TOKENS,
        TOKENS,
        TOKENS,
        NAMES,
        st.booleans(),
        st.booleans(),
        st.none() | st.dictionaries(st.text(max_size=100), st.text(max_size=100), max_size=10),
    ),
    tries=st.lists(
        st.builds(
            Dispatched,
            st.just("0" * 36),
            st.integers(1, 9),
            TOKENS,
            TOKENS,
            NAMES,
            NAMES,
            TOKENS,
            USAGES,
            TOKENS,
            PRICES,
        ),
        max_size=6,
    ),
    code=st.text(max_size=60),
    tokens=TOKENS,
    skipped=st.lists(st.builds(Skipped, TOKENS, NAMES, NAMES, st.sampled_from(("open", "full"))), max_size=4),
    seen=st.lists(
        st.builds(
            Seen,
            st.just("team"),
            st.just("concurrent"),
            st.just("minute"),
            TOKENS,
            TOKENS,
            TOKENS,
            st.booleans(),
            NAMES,
        ),
        max_size=9,
    ),
    plan=st.lists(NAMES, max_size=9),
)
def test_the_room_kept_is_always_enough_for_the_end(
    journal: Journal,
    call: Opened,
    tries: list[Dispatched],
    code: str,
    tokens: int,
    skipped: list[Skipped],
    seen: list[Seen],
    plan: list[str],
) -> None:
    ticket = journal.open(call)
    for each in tries:
        journal.dispatch(ticket, each)
    room = ticket.room
    attempts = tuple(
        AttemptEnded(
            each.attempt_no,
            each.target_id,
            each.provider,
            each.upstream_model,
            "abandoned",
            599,
            tokens,
            tokens,
            tokens,
            each.worst,
            each.price_id,
            tokens,
            "credential_refused",
            tokens,
            tokens,
            probe=True,
            trimmed=5000,
            price=each.price + OTHER_RATES,
            pool_wait_us=tokens,
            first_byte_us=tokens,
        )
        for each in tries
    )
    end = settled(
        call,
        code=code,
        status=599,
        outcome="abandoned",
        latency_us=tokens,
        first_token_us=tokens,
        ended_at_us=tokens,
        usage=Usage(tokens, tokens, tokens, "estimated", tokens, tokens, tokens, tokens),
        cost_nanos=tokens,
        unpriced=True,
        attempts=attempts,
        priority="urgent",
        skipped=tuple(skipped),
        limits=tuple(seen),
        plan=tuple(plan),
    )
    before = journal.segments[-1].end

    journal.settle(ticket, end)

    assert journal.segments[-1].end - before <= room


def test_long_names_of_passed_over_targets_are_left_out_and_spoil_nothing(journal: Journal) -> None:
    call = opened()
    ticket = journal.open(call)
    name = "\U0001d54f" * 200  # four bytes each
    journal.settle(ticket, settled(call, attempts=(), skipped=(Skipped(1, "p", name, "open"),) * 4))

    [*_, end] = journal.segments[-1].read(0, journal.segments[-1].end)
    assert end == settled(call, attempts=())
    assert "0 B kept" in repr(journal)


def test_what_only_explains_a_call_goes_before_what_was_passed_over(journal: Journal) -> None:
    call = opened()
    ticket = journal.open(call)
    skipped = (Skipped(1, "p", "m", "open"),)
    journal.settle(ticket, settled(call, skipped=skipped, attempts=(), plan=("\U0001d54f" * 200,) * 9))

    [*_, end] = journal.segments[-1].read(0, journal.segments[-1].end)
    assert end == settled(call, skipped=skipped, attempts=())


def test_what_was_refused_is_kept_without_a_ticket(journal: Journal) -> None:
    record = Refusals("0199", AT_US, (), (refused(),))
    journal.note(record)

    assert list(journal.segments[-1].read(0, journal.segments[-1].end)) == [record]
    assert "0 B kept" in repr(journal)


async def test_a_disk_that_fails_to_sync_lets_no_more_calls_in(journals: Path) -> None:
    def fails(_: int) -> None:
        raise OSError(5, "Input/output error")

    journal = Journal(journals / "bad", max_bytes=1 << 20, segment_bytes=1 << 16, strict=True, to_disk=fails)
    call = opened()
    journal.settle(journal.open(call), settled(call))

    with pytest.raises(JournalFull):
        await journal.on_disk()

    assert journal.broken
    with pytest.raises(JournalFull):
        journal.open(opened())
    journal.close()


def test_a_sealed_journal_takes_no_new_call_and_still_the_end_of_an_open_one(journal: Journal) -> None:
    call = opened()
    ticket = journal.open(call)

    journal.seal()

    with pytest.raises(JournalFull):
        journal.open(opened())
    with pytest.raises(JournalFull):
        journal.note(Refusals("0199", AT_US, (), (refused(),)))
    journal.dispatch(ticket, dispatched(call))
    journal.settle(ticket, settled(call))
    found = list(journal.segments[-1].read(0, journal.segments[-1].end))
    assert found == [call, dispatched(call), settled(call)]


def test_a_journal_says_that_it_is_booked_only_where_it_is_told_so(journals: Path) -> None:
    for name, is_booked in (("done", True), ("left", False)):
        made = Journal(journals / name, max_bytes=1 << 20, segment_bytes=1 << 16)
        made.close(is_booked=is_booked)
        assert (journals / name / BOOKED).exists() == is_booked


def test_a_mark_that_cannot_be_made_keeps_no_lock(journals: Path) -> None:
    """Without it the journal is booked again, each call once."""
    journal = Journal(journals / "done", max_bytes=1 << 20, segment_bytes=1 << 16)
    (journals / "done").rename(journals / "elsewhere")

    journal.close(is_booked=True)

    os.close(hold(journals / "elsewhere"))
