"""A process that carries calls onto a ledger of its own; `benchmarks.books` begins it.

    VAR_DIR=… [DATABASE_URL=…] python -m benchmarks.carry_over ROUNDS

Prints, as JSON, how long a minute with 60,000 calls takes to be rolled up, in seconds,
and the CPU time of this process for a call of each round, in microseconds.
"""

import gc
import json
import os
import sys

import django
from django.core.management import call_command


def main() -> None:
    """With the garbage collector as the gateway sets it."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
    django.setup()
    call_command("migrate", verbosity=0)
    from benchmarks import rolling, writing

    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    rolled_s = rolling.measured()
    print(json.dumps({"rolled_s": rolled_s, "written_us": writing.measured(int(sys.argv[1]))}))


if __name__ == "__main__":
    main()
