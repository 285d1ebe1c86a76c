"""What was received and sent, on disk and in memory."""

import stat

import msgspec
import pytest

from gateway.simulator import Ended, Journal, read_journal


def an_end(number):
    return Ended(
        number=number,
        at_us=1,
        request_id="call-1",
        model_name="gpt-4o",
        streamed=False,
        status=200,
        sent_whole=True,
        bytes_sent=2,
        prompt_tokens=3,
        completion_tokens=4,
        usage=None,
        fault=None,
        client_gone=False,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


def test_lines_are_read_back_as_they_were_written(path):
    journal = Journal(path)
    for number in range(3):
        journal.append(an_end(number))
    journal.close()
    assert read_journal(path) == journal.lines() == [an_end(number) for number in range(3)]


def test_a_line_is_on_disk_before_append_returns(path):
    journal = Journal(path)
    journal.append(an_end(1))
    assert read_journal(path) == [an_end(1)]
    journal.close()


def test_a_journal_is_continued_and_only_its_owner_may_read_it(path):
    for number in range(2):
        journal = Journal(path)
        journal.append(an_end(number))
        journal.close()
    assert [line.number for line in read_journal(path)] == [0, 1]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_torn_tail_is_left_out(path):
    journal = Journal(path)
    journal.append(an_end(1))
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    assert read_journal(path) == [an_end(1)]


def test_a_line_that_is_not_ours_is_an_error(path):
    path.write_text("{}\n")
    with pytest.raises(msgspec.DecodeError):
        read_journal(path)


def test_a_line_says_its_event_and_its_model_name_as_the_wire_does(path):
    journal = Journal(path)
    journal.append(an_end(1))
    journal.close()
    line = msgspec.json.decode(path.read_bytes())
    assert (line["event"], line["model"]) == ("ended", "gpt-4o")


def test_a_full_disk_is_an_error():
    journal = Journal("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        journal.append(an_end(1))
    journal.close()


async def test_waiting_ends_when_there_is_enough_or_time_is_up():
    journal = Journal()
    journal.append(an_end(1))
    await journal.until(lambda journal: len(journal.ended()) == 1)
    with pytest.raises(TimeoutError):
        await journal.until(lambda journal: len(journal.ended()) == 2, within_s=0.01)
