"""What the measured gateway is configured with: a price, and every limit that a key and its team may have."""

from typing import Final

from accounts.caller import Caller, Owner, Quota, RateLimit
from benchmarks.wire import USAGE
from gateway.relay.catalog import Price, Rates

INPUT_NANOS, CACHED_NANOS, OUTPUT_NANOS = 150_000_000, 75_000_000, 600_000_000
"""The price, in nano-units per million tokens."""
CALL_NANOS: Final = (
    USAGE["prompt_tokens"] * INPUT_NANOS + USAGE["completion_tokens"] * OUTPUT_NANOS
) // 1_000_000
AMPLE: Final = 10**15
"""Requests, tokens or nano-units that no run uses up."""
MOST_TOKENS: Final = 10_000_000
"""Of an answer: one of a megabyte has more than routes usually allow."""
KEY, TEAM = Owner("key", 1, "bench"), Owner("team", 1, "Bench")
PRICE: Final = Price(1, 0, Rates(INPUT_NANOS, CACHED_NANOS, OUTPUT_NANOS))
LIMITED: Final = Caller(
    key_id=1,
    team_id=1,
    rate_limits=(
        RateLimit(1, KEY, "requests", AMPLE),
        RateLimit(2, KEY, "tokens", AMPLE),
        RateLimit(3, TEAM, "requests", AMPLE),
        RateLimit(4, TEAM, "tokens", AMPLE),
    ),
    quotas=(
        Quota(1, KEY, "money", AMPLE, "month", "UTC", hard=True),
        Quota(2, TEAM, "money", AMPLE, "month", "UTC", hard=True),
    ),
)
"""The caller that `SET_UP` makes of the first key. None of the limits ever refuses; hard quotas cost most."""
NO_USUAL_LIMITS: Final = dict.fromkeys(
    ("KEY_REQUESTS_PER_MINUTE", "TEAM_REQUESTS_PER_MINUTE", "TEAM_TOKENS_PER_MINUTE"), "0"
)
"""Of the environment: keys and teams begin without the rate limits that they usually have."""
SET_UP: Final = f"""
from datetime import UTC, datetime
from accounts.models import ApiKey, User
from accounts.services import create_key, create_team, set_quota, set_rate_limit
from gateway.models import Route, Target
from gateway.services import add_price
add_price(Target.objects.get(), datetime(2020, 1, 1, tzinfo=UTC), input_nanos={INPUT_NANOS},
          cached_input_nanos={CACHED_NANOS}, output_nanos={OUTPUT_NANOS})
Route.objects.update(max_tokens={MOST_TOKENS})
key = ApiKey.objects.get()
for owner in (key, key.team):
    set_rate_limit(owner, "requests", {AMPLE}, by_administrator=True)
    set_rate_limit(owner, "tokens", {AMPLE}, by_administrator=True)
    set_quota(owner, "money", {AMPLE}, hard=True, by_administrator=True)
print(create_key(create_team("Unlimited", User.objects.get()), "unlimited", None)[1])
"""
"""For `manage.py shell`: gives the first key and its team their limits, and prints a key without any."""
