"""Processes of a run."""

import os

import psutil
import pytest

from benchmarks.processes import awake
from tests.served import eventually

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="Linux has this class")


def test_what_keeps_a_core_awake_is_on_that_core_takes_nothing_from_others_and_ends():
    core = min(os.sched_getaffinity(0))
    with awake(core) as watching:
        [process] = watching
        eventually(lambda: os.sched_getscheduler(process.pid) == os.SCHED_IDLE, 30, "the lowest class")
        assert os.sched_getaffinity(process.pid) == {core}
        assert psutil.Process(process.pid).nice() == 19
    assert process.returncode is not None
