"""Processes that die right after the commit of their ledger's batch, before anything else is done.

    VAR_DIR=… [DATABASE_URL=…] python -m tests.system.dying DEATHS

Then what they left behind is adopted, as a living process would. Prints what came of it, as JSON.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import django
from django.core.management import call_command

CALLS = 3
"""Settled by each process; one more is left open."""


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
    django.setup()
    call_command("migrate", verbosity=0)
    from django.db import connection

    connection.close()
    deaths = int(sys.argv[1])
    root = Path(os.environ["VAR_DIR"]) / "journal"
    signals = [_die(root, number) for number in range(deaths)]
    booked = _count()
    began = time.monotonic()
    _adopt(root)
    took_s = time.monotonic() - began
    print(json.dumps({"signals": signals, "booked": booked, "took_s": took_s, **_count(), **_left(root)}))


def _die(root: Path, number: int) -> int:
    """Fork, and wait for the end; the signal that it died of."""
    if child := os.fork():
        return os.WTERMSIG(os.waitpid(child, 0)[1])
    try:
        _carry_over_and_die(root, number)
    finally:
        os._exit(1)  # it should be dead by now


def _carry_over_and_die(root: Path, number: int) -> None:
    from django.db import transaction

    from gateway.ledger.journal import Journal
    from gateway.ledger.writer import Writer
    from gateway.relay.call import new_call_id
    from tests.gateway.records import opened, settled

    journal = Journal(root / f"process-{number:04d}", max_bytes=1 << 20, segment_bytes=1 << 16)
    for _ in range(CALLS):
        call = opened(call_id=new_call_id(time.time_ns()))
        journal.settle(journal.open(call), settled(call))
    journal.open(opened(call_id=new_call_id(time.time_ns())))
    with transaction.atomic():
        transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        Writer(journal, root).carry_over()


def _adopt(root: Path) -> None:
    from gateway.ledger.sweeper import sweep
    from gateway.ledger.writer import book

    sweep(root, book)


def _count() -> dict[str, int]:
    from gateway.models import Attempt, Entry

    entries = Entry.objects.values_list("call_id", flat=True)
    return {
        "entries": len(entries),
        "calls": len(set(entries)),
        "attempts": Attempt.objects.count(),
        "abandoned": Entry.objects.filter(outcome="abandoned").count(),
    }


def _left(root: Path) -> dict[str, list[str]]:
    return {"left": sorted(each.name for each in root.iterdir())}


if __name__ == "__main__":
    main()
