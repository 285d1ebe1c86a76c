"""Examples of what the management API says of calls: one call that fell back, told whole."""

from typing import Any

CALL_ID = "01900000-0000-7000-8000-000000000000"

LIMIT: dict[str, Any] = {
    "owner": "team",
    "kind": "money",
    "period": "month",
    "amount": 100_000_000_000,
    "used": 41_500_000_000,
    "asked": 12_000_000,
    "hard": True,
    "model_name": "",
}
TOKENS: dict[str, Any] = {
    "input_tokens": 1200,
    "cached_tokens": 1000,
    "cache_write_tokens": 0,
    "audio_input_tokens": 0,
    "output_tokens": 300,
    "reasoning_tokens": 0,
    "audio_output_tokens": 0,
    "basis": "reported",
}
NO_TOKENS: dict[str, Any] = dict.fromkeys(TOKENS, 0) | {"basis": "none"}
PLANNED: dict[str, Any] = {
    "target": "acme/gpt-4o",
    "attempts": 1,
    "passed_over": "",
    "why": "Tried once.",
}
BILL_LINE: dict[str, Any] = {
    "kind": "output",
    "quantity": 300,
    "per": 1_000_000,
    "rate_nanos": 10_000_000_000,
    "amount": "0.003",
}
BILL: dict[str, Any] = {
    "price_id": 7,
    "price_source": "operator",
    "price_valid_from": "2030-01-01T00:00:00Z",
    "currency": "USD",
    "above_tokens": 0,
    "lines": [
        {
            **BILL_LINE,
            "kind": "cached_input",
            "quantity": 1000,
            "rate_nanos": 1_250_000_000,
            "amount": "0.00125",
        },
        {**BILL_LINE, "kind": "input", "quantity": 200, "rate_nanos": 2_500_000_000, "amount": "0.0005"},
        BILL_LINE,
    ],
    "total": "0.00475",
    "exchange_numerator": 1,
    "exchange_denominator": 1,
    "cost_nanos": 4_750_000,
    "adds_up": True,
}
_FAILED: dict[str, Any] = {
    "attempt_no": 1,
    "target": "acme/gpt-4o",
    "outcome": "failed",
    "code": "status_503",
    "status": 503,
    "breaker": "closed",
    "started_at": "2030-01-15T03:00:00.001000Z",
    "after_us": 1_000,
    "backoff_us": 0,
    "gate_us": 0,
    "pool_wait_us": 200,
    "first_byte_us": 80_000,
    "first_token_us": None,
    "latency_us": 81_000,
    "trimmed": 0,
    "usage": NO_TOKENS,
    "cost_nanos": 0,
    "booked_nanos": 0,
    "bill": {**BILL, "price_id": 6, "lines": [], "total": "0.00", "cost_nanos": 0},
    "bill_missing": "",
    "why": "The provider answered with status 503 Service Unavailable.",
    "then": "So the call fell back to openai/gpt-4o.",
}
TRIED: dict[str, Any] = {
    **_FAILED,
    "attempt_no": 2,
    "target": "openai/gpt-4o",
    "outcome": "answered",
    "code": "",
    "status": 200,
    "started_at": "2030-01-15T03:00:00.082500Z",
    "after_us": 82_500,
    "first_byte_us": 310_000,
    "first_token_us": 312_000,
    "latency_us": 4_120_000,
    "usage": TOKENS,
    "cost_nanos": 4_750_000,
    "booked_nanos": 3_800_000,
    "bill": BILL,
    "why": "It answered.",
    "then": "",
}
CORRECTED: dict[str, Any] = {
    "attempt_no": 2,
    "before_nanos": 3_800_000,
    "after_nanos": 4_750_000,
    "at": "2030-01-16T09:30:00Z",
    "why": "A price for openai/gpt-4o from 2030-01-01 was entered.",
}
SHARE: dict[str, Any] = {
    "where": "writing",
    "duration_us": 3_808_000,
    "words": "the provider writing its answer",
}
_WHO: dict[str, Any] = {
    "call_id": CALL_ID,
    "team_id": 3,
    "team": "Hydro",
    "key_id": 11,
    "key": "nightly index",
    "route": "gpt-4o",
    "priority": "normal",
}
EXPLANATION: dict[str, Any] = {
    **_WHO,
    "tags": {"project": "apollo"},
    "streamed": True,
    "simulated": False,
    "outcome": "answered",
    "status": 200,
    "code": "",
    "started_at": "2030-01-15T03:00:00Z",
    "ended_at": "2030-01-15T03:00:04.203000Z",
    "latency_us": 4_203_000,
    "first_token_us": 394_500,
    "gate_us": 0,
    "pool_wait_us": 400,
    "backoff_us": 0,
    "summary": [
        "The call was answered by openai/gpt-4o, at attempt 2. "
        "The first, at acme/gpt-4o: The provider answered with status 503 Service Unavailable.",
        "Of its 4.20 s, 3.81 s went into the provider writing its answer.",
        "It costs 0.00475 USD, 63% of it for 300 output tokens at 10.00 USD a million.",
    ],
    "time": [
        {**SHARE, "where": "failed", "duration_us": 81_000, "words": "attempts that did not answer"},
        SHARE,
    ],
    "limits": [LIMIT],
    "plan": [PLANNED, {**PLANNED, "target": "openai/gpt-4o"}],
    "attempts": [_FAILED, TRIED],
    "usage": TOKENS,
    "cost_nanos": 4_750_000,
    "booked_nanos": 3_800_000,
    "unpriced": False,
    "corrections": [CORRECTED],
    "adds_up": True,
}
REFUSED: dict[str, Any] = {
    **_WHO,
    "at": "2030-01-15T03:00:00Z",
    "status": 429,
    "code": "rate_limit_exceeded",
    "message": "The API key 'nightly index' may make 100 requests a minute and made 100 in the last one. "
    "Try again in 12 s.",
    "limits": [
        {
            **LIMIT,
            "owner": "key",
            "kind": "requests",
            "period": "minute",
            "amount": 100,
            "used": 100,
            "asked": 1,
            "hard": False,
        }
    ],
}
CALL: dict[str, Any] = {
    **{name: value for name, value in _WHO.items() if name != "team"},
    "target": "openai/gpt-4o",
    "outcome": "answered",
    "status": 200,
    "code": "",
    "streamed": True,
    "simulated": False,
    "tags": {"project": "apollo"},
    "started_at": "2030-01-15T03:00:00Z",
    "latency_us": 4_203_000,
    "first_token_us": 394_500,
    "queued_us": 400,
    "attempts": 2,
    "input_tokens": 1200,
    "output_tokens": 300,
    "usage_basis": "reported",
    "cost_nanos": 4_750_000,
    "unpriced": False,
}
