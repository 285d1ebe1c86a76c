"""Helper processes: one for all gateways of a VAR_DIR, alive as long as one of them is."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.children import FIRST_PAUSE_S, LONGEST_PAUSE_S, TRY_AGAIN_S, Child, pause_s
from gateway.server import CannotStart

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def sleeper() -> subprocess.Popen[str]:
    return subprocess.Popen(SLEEP, text=True)


def child(folder: Path, start=sleeper) -> Child:
    return Child("the sleeper", folder / "sleeper.lock", start, stop_s=5)


@pytest.fixture
def first(tmp_path: Path) -> Iterator[Child]:
    made = child(tmp_path)
    yield made
    made.close()


@pytest.fixture
def second(tmp_path: Path) -> Iterator[Child]:
    """The same helper, as another gateway on the same VAR_DIR has it."""
    made = child(tmp_path)
    yield made
    made.close()


def die(one: Child) -> int:
    """Killed, as for want of memory; its process id."""
    assert one.process is not None
    one.process.kill()
    one.process.wait()
    return one.process.pid


def test_pauses_double_up_to_a_minute():
    pauses = [pause_s(0.0, 1)]
    while pauses[-1] < LONGEST_PAUSE_S:
        pauses.append(pause_s(pauses[-1], 1))

    assert pauses == [1, 2, 4, 8, 16, 32, 60]
    assert pause_s(60, 1) == 60


def test_who_lived_long_begins_anew():
    assert pause_s(60, LONGEST_PAUSE_S + 1) == FIRST_PAUSE_S


def test_a_helper_that_dies_is_started_again_after_a_pause(first):
    first.look_after(0)
    pid = die(first)

    first.look_after(10)
    assert first.process is None
    first.look_after(10 + FIRST_PAUSE_S / 2)
    assert first.process is None
    first.look_after(10 + FIRST_PAUSE_S)

    assert first.process is not None
    assert first.process.pid != pid


def test_a_helper_that_cannot_start_is_tried_again_later(tmp_path):
    tries = []

    def fail() -> subprocess.Popen[str]:
        tries.append(True)
        raise CannotStart("it did not start.")

    failing = child(tmp_path, fail)
    for now in (0.0, 0.5, FIRST_PAUSE_S, FIRST_PAUSE_S + 1.9, FIRST_PAUSE_S + 2):
        failing.look_after(now)
    failing.close()

    assert len(tries) == 3


def test_whoever_cannot_do_without_it_hears_that_it_did_not_start(tmp_path):
    def fail() -> subprocess.Popen[str]:
        raise CannotStart("it did not start.")

    failing = child(tmp_path, fail)
    with pytest.raises(CannotStart, match="did not start"):
        failing.start_now(0)
    failing.close()


def test_of_two_gateways_one_has_the_helper(first, second):
    first.look_after(0)
    second.look_after(0)

    assert first.process is not None
    assert second.process is None
    assert repr(first) == "<Child the sleeper runs>"
    assert repr(second) == "<Child the sleeper not ours>"


def test_the_other_gateway_takes_the_helper_over(first, second):
    first.look_after(0)
    second.look_after(0)
    first.close()

    second.look_after(TRY_AGAIN_S / 2)
    assert second.process is None
    second.look_after(TRY_AGAIN_S)

    assert second.process is not None


def test_a_renewed_helper_starts_again_without_a_pause(first):
    first.look_after(0)
    assert first.process is not None
    pid = first.process.pid

    first.renew()
    first.process.wait(10)
    first.look_after(1)

    assert first.process is not None
    assert first.process.pid != pid


def test_a_helper_that_is_not_renewed_goes_on(first):
    first.is_renewed = False
    first.look_after(0)
    assert first.process is not None
    pid = first.process.pid

    first.renew()
    first.look_after(1)

    assert first.process is not None
    assert first.process.pid == pid


def test_a_helper_that_does_not_stop_is_killed(tmp_path):
    stubborn = [
        *(sys.executable, "-uc"),
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('up'); time.sleep(600)",
    ]
    one = Child(
        "the stubborn one",
        tmp_path / "lock",
        lambda: subprocess.Popen(stubborn, text=True, stdout=subprocess.PIPE),
        stop_s=0.1,
    )
    one.look_after(0)
    process = one.process
    assert process is not None
    assert process.stdout is not None
    process.stdout.readline()

    one.close()

    assert process.returncode == -9
    process.stdout.close()
