"""`manage.py simulate_upstream`: a stand-in provider, until it is told to stop."""

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from gateway.simulator import running_simulator

_PR_SET_PDEATHSIG = 1


def _speed(raw: str) -> float:
    try:
        speed = float(raw)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number, not {raw!r}") from None
    if not 0 <= speed < float("inf"):
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {raw}")
    return speed


ARGUMENTS: dict[str, dict[str, Any]] = {
    "--host": {"default": "127.0.0.1", "help": "Address to listen on; loopback unless told otherwise."},
    "--port": {"type": int, "default": 0, "help": "Port to listen on; 0: any free one."},
    "--speed": {
        "type": _speed,
        "default": 1.0,
        "help": "1: believable, 10: ten times faster, 0: no delays.",
    },
    "--seed": {"type": int, "default": 0, "help": "Of the times that are drawn."},
    "--journal": {"help": "File to which what was received and sent is appended as JSON lines."},
    "--keep-bodies": {"action": "store_true", "help": "Whole request bodies in the journal."},
    "--api-key": {"help": "The one bearer that is accepted; any, where not given."},
    "--with-parent": {
        "type": int,
        "nargs": "?",
        "const": 0,
        "metavar": "PID",
        "help": "End when the parent does (Linux); with its PID, also where it is gone already.",
    },
}


class Command(BaseCommand):
    help = "Run a stand-in provider; everything it answers is simulated."
    requires_system_checks = []
    """It needs no database, so nothing of Django's is checked."""

    def add_arguments(self, parser: CommandParser) -> None:
        for name, options in ARGUMENTS.items():
            parser.add_argument(name, **options)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            asyncio.run(self._run(options))
        except OSError as why:
            raise CommandError(f"cannot start the simulator: {why}") from None

    async def _run(self, options: dict[str, Any]) -> None:
        stopped = _stop_signal()
        if options["with_parent"] is not None:
            end_with_parent(options["with_parent"])
        async with running_simulator(
            host=options["host"],
            port=options["port"],
            speed=options["speed"],
            seed=options["seed"],
            journal=options["journal"],
            keep_bodies=options["keep_bodies"],
            api_key=options["api_key"],
        ) as simulator:
            self.stdout.write(f"simulator listening on {simulator.base_url}")
            self.stdout.flush()
            await stopped.wait()


def _stop_signal() -> asyncio.Event:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


def end_with_parent(parent_pid: int = 0) -> None:
    """Ask Linux to send us SIGTERM when our parent ends; elsewhere nothing happens. Raises OSError.

    With `parent_pid` (0: not known) it also ends where the parent was gone before we asked.
    Linux takes the parent's thread for the parent: start this from a thread that stays.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl: {os.strerror(number)}")
    if parent_pid and os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGTERM)
