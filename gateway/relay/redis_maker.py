"""Make quota counters in Redis from the ledger and the journals, one process at a time.

`pst:making` is held meanwhile. What ends in the meantime leaves a note of what it used,
so a call that the survey saw as open is counted all the same; see settle.lua and build.lua.
Surveying is left to whoever passes `survey`.
"""

import asyncio
import secrets
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Final

import redis.asyncio

from gateway.relay.holdings import OpenHold, Survey, Surveyor
from gateway.relay.limits import QuotaAsk
from gateway.relay.redis_scripts import LIMB, Row, encode, kept_s, kind_of, script

SOCKET_S: Final = 2.0
LOOK_AGAIN_S: Final = 0.02
"""While another process makes counters."""
LASTS_MS: Final = 30_000
"""After that, whoever makes counters is taken for dead."""
PART: Final = 500
"""Counters a script, some milliseconds of Redis's time."""

LEAVE = "if redis.call('GET', 'pst:making') == ARGV[1] then redis.call('DEL', 'pst:making') end"


class Superseded(Exception):
    """It took so long that somebody else makes the counters now."""


class Maker:
    """Makes the counters that are missing; two of them never make the same one twice."""

    def __init__(
        self,
        url: str,
        survey: Surveyor,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        boot: str,
    ) -> None:
        self._survey, self._clock, self._wall_clock, self._boot = survey, clock, wall_clock, boot
        self._client = redis.asyncio.Redis.from_url(
            url, socket_timeout=SOCKET_S, socket_connect_timeout=SOCKET_S
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def make(self, wanted: Sequence[QuotaAsk]) -> str:
        """These counters, and all that are configured if Redis has no epoch. Says which epoch it is then.

        Raises redis.RedisError, Superseded, and whatever the survey does.
        """
        while True:
            epoch = await self._epoch()
            if epoch and not await self._missing(epoch, wanted):
                return epoch
            token = secrets.token_hex(8)
            if await self._client.set("pst:making", token, nx=True, px=LASTS_MS):
                await self._make(token, wanted)
            else:
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _epoch(self) -> str:
        """Empty where there is none."""
        found = await self._client.get("pst:epoch")
        return found.decode() if isinstance(found, bytes) else ""

    async def _missing(self, epoch: str, wanted: Sequence[QuotaAsk]) -> list[QuotaAsk]:
        async with self._client.pipeline(transaction=False) as pipeline:
            for each in wanted:
                pipeline.exists(f"pst:{epoch}:{each.counter}")
            found = await pipeline.execute()
        return [each for each, there in zip(wanted, found, strict=True) if not there]

    async def _make(self, token: str, wanted: Sequence[QuotaAsk]) -> None:
        """Under the lock: once more look what is missing, since it may have been made until now."""
        try:
            epoch = await self._epoch()
            missing = await self._missing(epoch, wanted) if epoch else []
            if not epoch:
                survey = await self._survey(None)
                await self._write(token, token, True, _parts(survey, ()))
            elif missing:
                survey = await self._survey(missing)
                await self._write(token, epoch, False, _parts(survey, [each.counter for each in missing]))
        finally:
            await self._client.eval(LEAVE, 0, token)

    async def _write(
        self, token: str, epoch: str, whole: bool, parts: Sequence[tuple[list[Row], list[OpenHold]]]
    ) -> None:
        for number, (counters, holds) in enumerate(parts, start=1):
            rows = [self._hold_row(each) for each in holds]
            last = number == len(parts)
            row = (token, epoch, whole, last, self._clock(), self._boot, counters, rows)
            if not await self._client.eval(script("build"), 0, encode(row)):
                raise Superseded("the survey took too long")

    def _hold_row(self, hold: OpenHold) -> Row:
        lives_s = max(0.0, hold.expires_at_us / 1e6 - self._wall_clock())
        limbs = divmod(hold.amount, LIMB)
        return (hold.call_id, hold.process, hold.counter, kind_of(hold.counter), *limbs, lives_s)


def _parts(survey: Survey, wanted: Sequence[str]) -> list[tuple[list[Row], list[OpenHold]]]:
    """Counters and what is held of them, so many at a time; at least one part."""
    held = {
        counter: list(holds) for counter, holds in groupby(sorted(survey.open, key=_counter), key=_counter)
    }
    names = list(dict.fromkeys([*wanted, *survey.spent, *held]))
    return [_part(survey, held, names[at : at + PART]) for at in range(0, max(1, len(names)), PART)]


def _part(
    survey: Survey, held: dict[str, list[OpenHold]], names: Sequence[str]
) -> tuple[list[Row], list[OpenHold]]:
    counters = [(each, kept_s(each), *divmod(survey.spent.get(each, 0), LIMB)) for each in names]
    return counters, [hold for each in names for hold in held.get(each, ())]


def _counter(hold: OpenHold) -> str:
    return hold.counter
