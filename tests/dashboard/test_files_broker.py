from pathlib import Path
from queue import Empty

import pytest
from kombu import Connection
from kombu.exceptions import ChannelError

from dashboard.broker import options
from dashboard.files_broker import Transport


@pytest.fixture
def channel(tmp_path):
    given = options("", tmp_path)
    for name in ("data_folder_in", "control_folder"):
        Path(given[name]).mkdir(parents=True)
    with Connection("filesystem://localhost", transport=Transport, transport_options=given) as connection:
        yield connection.channel()


class Impatient:
    """A part of a message that asks for the message while it is written."""

    def __init__(self, channel):
        self._channel = channel

    def __json__(self):
        with pytest.raises(Empty):
            self._channel._get("celery")
        return "nobody took it"


def test_a_message_is_taken_when_it_is_complete(channel):
    channel._put("celery", {"body": Impatient(channel)})

    assert channel._get("celery") == {"body": "nobody took it"}


def test_messages_are_taken_once_and_leave_nothing(channel):
    for number in range(3):
        channel._put("celery", {"number": number})

    assert sorted(channel._get("celery")["number"] for _ in range(3)) == [0, 1, 2]
    with pytest.raises(Empty):
        channel._get("celery")
    assert list(Path(channel.data_folder_out).iterdir()) == []


def test_a_folder_that_is_gone_is_said(channel):
    Path(channel.data_folder_out).rmdir()

    with pytest.raises(ChannelError, match="cannot be put"):
        channel._put("celery", {})
