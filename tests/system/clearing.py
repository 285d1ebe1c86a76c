"""What background tasks left behind, asked of one gateway's own database. Run by `manage.py shell`.

The rollups are compared with one loop over the ledger, costs with arithmetic done again here, on purpose.
"""

import json
from collections import Counter
from datetime import datetime
from typing import Any

from gateway.ledger import repricing
from gateway.models import Attempt, Correction, Entry, Price, Repricing, Stale
from tests.gateway.ledger import naive

SIZES = (1, 15)


def told() -> str:
    """As JSON."""
    return json.dumps({"calls": Entry.objects.count(), **_rollups(), **_corrections()})


def _rollups() -> dict[str, Any]:
    """Buckets without a mark whose sums are not those of the ledger."""
    marked = set(Stale.objects.values_list("size", "start"))
    expected = {key: of for key, of in naive.expected(SIZES).items() if key[:2] not in marked}
    found = {key: of for key, of in naive.found().items() if key[:2] not in marked and key[0] in SIZES}
    wrong = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
    return {
        "rolled_up": len(found),
        "wrong_rollups": [str(key) for key in wrong],
        "marked_minutes": len({each for each in marked if each[0] == 1}),
    }


def _corrections() -> dict[str, Any]:
    """Attempts that were corrected twice, or do not cost what the latest price says."""
    times = Counter(Correction.objects.values_list("call_id", "attempt_no"))
    return {
        "corrections": sum(times.values()),
        "counted": sum(Repricing.objects.values_list("corrected", flat=True)),
        "doubled": sum(count > 1 for count in times.values()),
        "wrong_costs": [str(each) for price in _late_prices() for each in _wrong_costs(price)],
    }


def _late_prices() -> list[Price]:
    return list(Price.objects.filter(source="late"))


def _wrong_costs(price: Price) -> list[Attempt]:
    """Of all attempts that began since it is valid."""
    tried = Attempt.objects.filter(target_id=price.target_id, started_at__gte=price.valid_from)
    known = repricing.corrections_of(set(tried.values_list("entry_id", flat=True)))
    return [each for each in tried if _cost_nanos(each, known.get(each.entry_id, [])) != _due(each, price)]


def _cost_nanos(attempt: Attempt, corrections: list[Correction]) -> int:
    own = [each for each in corrections if each.attempt_no == attempt.attempt_no]
    return attempt.cost_nanos + sum(each.after_nanos - each.before_nanos for each in own)


def _due(attempt: Attempt, price: Price) -> int:
    """Rounded half up, once."""
    fresh = attempt.input_tokens - attempt.cached_tokens
    millionths = (
        fresh * price.input_nanos
        + attempt.cached_tokens * price.cached_input_nanos
        + attempt.output_tokens * price.output_nanos
    )
    return (2 * millionths + 1_000_000) // 2_000_000


def enter_late_price(valid_from: datetime) -> None:
    """For one of the targets."""
    from gateway.models import Target
    from gateway.services import add_price

    target = Target.objects.get(route__model_name="gpt-4o")
    add_price(
        target,
        valid_from,
        input_nanos=5_000_000_003,
        cached_input_nanos=1_000_000_001,
        output_nanos=20_000_000_009,
        source="late",
    )


def write_mails(count: int) -> None:
    from accounts.notices import mail

    for number in range(count):
        mail(f"reader-{number}@example.com", "Hello", "How deep?", "test", f"mail {number}")
