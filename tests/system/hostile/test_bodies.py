"""Bodies: too large, of the wrong kind, never the whole of it kept."""

import contextlib
import gzip

import psutil
import pytest

from tests.system.hostile.conftest import open_door
from tests.system.hostile.door import CALLS, HOST, JSON, chat, error_of
from tests.system.raw import chunked, request

LARGEST = 10 * 1024 * 1024
PIECE = 64 * 1024
CHUNKED = b"Transfer-Encoding: chunked"
MIB = 1024 * 1024


def call_of(size):
    """A good call of exactly so many bytes."""
    empty = chat(text="")
    return chat(text="x" * (size - len(empty)))


def push(wire, most):
    """Send a body without end in chunks, until the gateway answers or `most` bytes are on their way."""
    piece = chunked(b" " * PIECE).removesuffix(b"0\r\n\r\n")
    sent = 0
    while sent < most and wire.say(piece):
        sent += PIECE
        if wire.has_news():
            break
    return sent


def test_the_largest_body_is_carried(door):
    body = call_of(LARGEST)
    assert door.ask(body).status == 200
    [received] = door.caused()
    assert b"x" * (LARGEST - 200) in received.body


def test_one_byte_more_that_is_announced_is_refused_before_it_is_sent(door):
    head = request(CALLS, HOST, door.key, JSON, b"Content-Length: %d" % (LARGEST + 1))

    answer, rest = door.send(head)

    assert (answer.status, error_of(answer)["code"], rest) == (413, "body_too_large", b"")
    assert str(LARGEST) in error_of(answer)["message"]
    assert door.caused() == []


def test_one_byte_more_in_chunks_is_refused_although_more_was_to_come(door):
    with door.wire() as wire:
        wire.say(request(CALLS, HOST, door.key, JSON, CHUNKED))
        for _ in range(LARGEST // PIECE):
            wire.say(chunked(b" " * PIECE).removesuffix(b"0\r\n\r\n"))
        assert not wire.has_news()
        wire.say(b"1\r\n \r\n")
        answer = wire.answer()
        assert wire.rest() == b""

    assert (answer.status, error_of(answer)["code"]) == (413, "body_too_large")
    assert door.caused() == []


def test_a_client_that_waits_for_100_is_refused_without_it(door):
    head = request(
        CALLS, HOST, door.key, JSON, b"Content-Length: %d" % (LARGEST + 1), b"Expect: 100-continue"
    )
    with door.wire() as wire:
        wire.say(head)
        assert wire.rest().startswith(b"HTTP/1.1 413 ")


def test_a_body_without_end_is_not_read(door):
    """What the gateway did not take lies in the two kernels' buffers."""
    with door.wire() as wire:
        wire.say(request(CALLS, HOST, door.key, JSON, CHUNKED))
        sent = push(wire, most=1024 * MIB)
    assert LARGEST < sent < LARGEST + 16 * MIB
    assert door.caused() == []


def test_a_stranger_s_body_is_not_read_at_all(door):
    with door.wire() as wire:
        wire.say(request(CALLS, HOST, b"Authorization: Bearer wrong", JSON, CHUNKED))
        answer = wire.answer()
        sent = push(wire, most=1024 * MIB)
    assert answer.status == 401
    assert sent < 16 * MIB


def test_memory_does_not_grow_with_a_body_that_is_too_large(tmp_path, say):
    """In a fresh gateway. The same measure sees a body that is taken, which has to be kept whole."""
    with open_door(tmp_path) as door:
        door.ask(chat())
        with peak_growth(door) as refused:
            with door.wire() as wire:
                wire.say(request(CALLS, HOST, door.key, JSON, CHUNKED))
                push(wire, most=64 * MIB)
            assert door.ask(chat()).status == 200
        with peak_growth(door) as taken:
            assert door.ask(call_of(LARGEST)).status == 200

    say(f"H5: a refused body: +{refused[0] / MIB:.1f} MiB; a taken one of 10 MiB: +{taken[0] / MIB:.1f} MiB")
    assert taken[0] > LARGEST
    assert refused[0] <= 16 * MIB


@contextlib.contextmanager
def peak_growth(door):
    """Fills in by how many bytes the processes that serve calls grew at their peaks, together.

    Background tasks run beside them, see no body, and grow when they like. The kernel
    keeps the peak of a resident set (VmHWM) and forgets it when told to.
    """
    grown = []
    pids = [each.pid for each in door.served.workers()]
    assert pids
    before = sum(map(begin_peak, pids))
    yield grown
    grown.append(sum(map(peak, pids)) - before)


def begin_peak(pid):
    """Forget the peak so far (proc(5), clear_refs); the resident set as it is."""
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")
    return psutil.Process(pid).memory_info().rss


def peak(pid):
    with open(f"/proc/{pid}/status") as file:
        [line] = [each for each in file if each.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


@pytest.mark.parametrize(
    "kind",
    [
        b"Content-Type: text/plain",
        b"Content-Type: application/x-www-form-urlencoded",
        b"Content-Type: multipart/form-data; boundary=x",
        b"Content-Type: application/jsonp",
        b"Content-Type:",
        b"X-Content-Type: application/json",
    ],
)
def test_another_content_type_is_refused(door, kind):
    body = chat()
    answer, rest = door.send(
        request(CALLS, HOST, door.key, kind, b"Content-Length: %d" % len(body), body=body)
    )
    assert (answer.status, error_of(answer)["code"], rest) == (415, "unsupported_media_type", b"")
    assert door.caused() == []


def test_a_content_type_may_have_parameters(door):
    body = chat()
    kind = b"Content-Type: Application/JSON ; charset=utf-8"
    length = b"Content-Length: %d" % len(body)
    answer, _ = door.send(request(CALLS, HOST, door.key, kind, length, b"Connection: close", body=body))
    assert answer.status == 200


@pytest.mark.parametrize("coding", [b"gzip", b"GZIP", b"br", b"deflate", b"identity, gzip", b"x"])
def test_an_encoded_body_is_refused(door, coding):
    bomb = gzip.compress(b" " * 20 * MIB)
    answer, rest = door.send(door.post(bomb, b"Content-Encoding: " + coding))
    assert (answer.status, error_of(answer)["code"], rest) == (415, "unsupported_encoding", b"")
    assert door.caused() == []


def test_a_body_that_breaks_off_is_no_call(door):
    with door.wire() as wire:
        wire.say(door.post(chat())[:-5])
        wire.say_no_more()
        assert wire.answer().status in (0, 400)
    assert door.caused() == []


@pytest.mark.parametrize("length", [[b"Content-Length: 2000000"], [CHUNKED]], ids=["announced", "in chunks"])
def test_a_page_takes_no_large_body(door, length):
    """Nor keeps it: a stranger could fill the disk."""
    kind = b"Content-Type: multipart/form-data; boundary=x"
    with door.wire() as wire:
        wire.say(request(b"POST /accounts/login/ HTTP/1.1", HOST, kind, *length))
        piece = chunked(b" " * PIECE).removesuffix(b"0\r\n\r\n") if length == [CHUNKED] else b" " * PIECE
        for _ in range(17):
            wire.say(piece)
        answer = wire.answer()
        assert wire.rest() == b""
    assert (answer.status, error_of(answer)["code"]) == (413, "body_too_large")


def test_a_page_s_body_that_is_malformed_is_400(door):
    head = request(b"POST /accounts/login/ HTTP/1.1", HOST, CHUNKED)
    answer, rest = door.send(head + b"zz\r\n")
    assert (answer.status, error_of(answer)["code"], rest) == (400, "incomplete_body", b"")
