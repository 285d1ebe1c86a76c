"""The scripts that run in Redis, and the rows that they are given; see `scripts/`.

Rows are packed with msgpack. A figure that may exceed what Lua's numbers hold goes as two limbs.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from accounts.caller import QuotaKind, RateLimitKind
from gateway.relay.limits import QuotaAsk, RateAsk, rate_counter

SETTLE, RELEASE, UNDO, ENROL = range(4)
"""What became of a call; see settle.lua."""
RATE_KINDS: Final[Mapping[RateLimitKind, int]] = {"requests": 0, "tokens": 1, "concurrent": 2}
QUOTA_KINDS: Final[Mapping[QuotaKind, int]] = {"requests": 0, "tokens": 1, "money": 2}
LIMB: Final = 10**9
"""Lua's numbers are doubles, exact to 2**53, which is 9 million dollars; two of these reach 10**18."""
DAY_S: Final = 86_400

Row = tuple[Any, ...]

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder().decode


@cache
def script(name: str) -> str:
    """One of the scripts, with what all of them share in front."""
    folder = Path(__file__).parent / "scripts"
    return (folder / "common.lua").read_text() + (folder / f"{name}.lua").read_text()


def rate_row(rate: RateAsk) -> Row:
    limit = rate.limit
    return (rate_counter(limit), RATE_KINDS[limit.kind], limit.amount, rate.amount)


def quota_row(ask: QuotaAsk) -> Row:
    quota = ask.quota
    return (ask.counter, QUOTA_KINDS[quota.kind], *divmod(ask.amount, LIMB), *divmod(quota.amount, LIMB))


def kind_of(counter: str) -> int:
    """Of a quota's counter, by its name; see `limits.counter_of`."""
    return QUOTA_KINDS[cast(QuotaKind, counter.split(":")[1])]


def kept_s(counter: str) -> int:
    """How long Redis keeps a quota's counter: its period, late ends, a day for a wall clock that jumps."""
    return (34 if counter.split(":")[2] == "month" else 4) * DAY_S
