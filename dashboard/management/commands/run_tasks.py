"""`manage.py run_tasks`: the worker of Celery and its clock, in one process with one task at a time.

`manage.py up` starts it, keeps it alive and stops it.
"""

import logging
import os
import signal
import sys
import threading
import warnings
from typing import Any

from celery.beat import Service
from celery.platforms import SecurityWarning
from celery.signals import setup_logging, task_postrun, task_prerun, worker_ready
from django.core.management.base import BaseCommand, CommandParser

from dashboard.celery import app
from gateway.memory import share_arenas
from gateway.server import die_with

log = logging.getLogger(__name__)

LONGEST_NAP_S = 1.0
"""The clock looks for work this often, which bounds how long a stop waits for it."""
NICENESS = 10
"""Calls and pages come first."""
CHATTER = ("celery.worker.strategy", "celery.app.trace", "celery.beat", "kombu")
"""They tell of every message that comes and goes, some every five seconds."""


class Command(BaseCommand):
    help = "Run background tasks until stopped. `manage.py up` does this by itself."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--with-parent",
            type=int,
            metavar="PID",
            help="end when the parent does (Linux), also where it was gone before this looked",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["with_parent"]:
            die_with(options["with_parent"])
        share_arenas()
        os.nice(NICENESS)
        setup_logging.connect(_quieten)
        end_at_once_when_idle()
        _start_the_clock()
        sys.exit(_work())


def _quieten(**_: Any) -> None:
    """Django has set logging up already; that somebody listens here keeps Celery from doing it again."""
    for each in CHATTER:
        logging.getLogger(each).setLevel(logging.WARNING)


def end_at_once_when_idle() -> None:
    """Celery hears of a stop only between two looks for messages, up to two seconds apart."""
    at_work = threading.Event()
    task_prerun.connect(lambda **_: at_work.set(), weak=False)
    task_postrun.connect(lambda **_: at_work.clear(), weak=False)

    def install(**_: Any) -> None:
        patient: Any = signal.getsignal(signal.SIGTERM)

        def stop(number: int, frame: Any) -> None:
            if not at_work.is_set():
                os._exit(0)
            patient(number, frame)

        signal.signal(signal.SIGTERM, stop)

    worker_ready.connect(install, weak=False)


def _work() -> int:
    """Until SIGTERM, and then until the task at hand is done. One task at a time, in this very process."""
    # It warns root of pickled messages, and we take none but JSON.
    warnings.simplefilter("ignore", SecurityWarning)
    worker = app.Worker(
        pool="solo",
        quiet=True,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        redirect_stdouts=False,
    )
    worker.start()
    return int(worker.exitcode or 0)


def _start_the_clock() -> None:
    """A thread: Celery's own embedded one is a second process, for a schedule of three lines.

    It keeps no file of when what was sent, which a kill could damage: after a start each task waits for its
    interval.
    """
    threading.Thread(target=_tick, name="clock", daemon=True).start()


def _tick() -> None:
    try:
        Service(app, max_interval=LONGEST_NAP_S, scheduler_cls="celery.beat:Scheduler").start()
    except Exception:  # the outermost edge of this thread
        log.exception("the clock of the tasks stopped; they are started again")
    os.kill(os.getpid(), signal.SIGTERM)
