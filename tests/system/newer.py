"""The present version beside an older one: books calls, and tells what it reads.

    VAR_DIR=… [DATABASE_URL=…] python -m tests.system.newer book|read

`read` prints JSON.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import Any

import django

CALLS = 40
AT_ONCE = 4
ROUTE = "newer"
"""By which its calls are told apart."""


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "dashboard.settings")
    django.setup()
    print(json.dumps({"book": book, "read": read}[sys.argv[1]]()))


def book() -> int:
    """As the ledger's writer does. Prices for one moment, too, of which the version before allows one."""
    from gateway.ledger import writer
    from gateway.relay.call import new_call_id
    from tests.gateway.records import opened, settled

    _enter_prices()
    for _ in range(CALLS // AT_ONCE):
        calls = [opened(call_id=new_call_id(time.time_ns()), route=ROUTE) for _ in range(AT_ONCE)]
        writer.book([settled(each) for each in calls])
    return CALLS


def _enter_prices() -> None:
    from gateway.models import Price, Provider, Route, Target

    provider = Provider.objects.create(slug="openai", name="OpenAI", base_url="http://127.0.0.1/v1")
    route = Route.objects.create(model_name="gpt-4o")
    target = Target.objects.create(route=route, provider=provider, upstream_model="gpt-4o")
    for nanos in (3, 2, 1):
        Price.objects.create(
            target=target,
            valid_from=datetime(2026, 1, 1, tzinfo=UTC),
            input_nanos=nanos,
            cached_input_nanos=0,
            output_nanos=0,
        )


def read() -> dict[str, Any]:
    """How many calls there are of either version, and which columns are not as they should be."""
    from gateway.models import Attempt, Entry

    own = Entry.objects.filter(route=ROUTE, target="openai/gpt-4o", attempts_made=1)
    return {
        "newer": own.filter(attempts__first_byte_us=None).count(),
        "older": Entry.objects.exclude(route=ROUTE).count(),
        "attempts": Attempt.objects.count(),
        "wrong": [
            *_not_by_default(Entry, Entry.objects.exclude(route=ROUTE)),
            *_not_by_default(Attempt, Attempt.objects.exclude(entry__route=ROUTE)),
        ],
    }


def _not_by_default(model: Any, rows: Any) -> list[str]:
    """Columns that the version before does not know, and that have another value than their default."""
    known = [each for each in model._meta.concrete_fields if each.has_db_default()]
    return [
        f"{model._meta.db_table}.{each.column}"
        for each in known
        if rows.exclude(**{each.name: each.get_default()}).exists()
    ]


if __name__ == "__main__":
    main()
