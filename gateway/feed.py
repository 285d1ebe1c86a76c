"""What one process changed and the others must hear of, at once: through Redis.

    commit ──► Publisher, in the thread that committed ──► Redis ──► Feed of every other process

The database's change counter is what counts; this only makes it quick.
Whoever misses a message hears of the change by polling that counter.
"""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable
from functools import cache
from typing import Any, Final
from uuid import uuid4

import msgspec
from msgspec import Struct

from gateway.redis_client import AWAY, PUBLISH_S, QUICK_S, Client, connect, connect_thread, end
from gateway.relay.ports import Change

log = logging.getLogger(__name__)

CHANGES: Final = "pst:changes"
BREAKERS: Final = "pst:breakers"

SOMETHING: Final = -1
"""A change whose number is not known: messages may have been missed."""
EVERYBODY: Final = 0
"""Anybody's rights may have changed: everybody's did, or messages were missed. No user has this id."""
PAUSE_S: Final = 0.5
"""Between two tries to reach Redis; jittered, so that not all processes come back at the same moment."""
PING_S: Final = 1.0
LOST_S: Final = 3.0
"""A connection on which nothing came for so long, not even an answer to a ping, is dead."""
LEFT_ALONE_S: Final = 1.0
"""How long a Redis that did not take a message is not asked again by threads that commit.

Short, because on a busy machine a healthy one may miss a deadline, and until it is asked again every change
of this process is only heard of by polling."""
STALE_S: Final = 5.0
"""Older news of a breaker that closed helps nobody."""


class Changed(Struct, frozen=True, tag="changed"):
    """Keys, limits, routes or prices changed."""

    number: int
    origin: str


class RightsChanged(Struct, frozen=True, tag="rights"):
    """What a person may see changed, or what everybody may."""

    user_id: int
    origin: str


class BreakerNews(Struct, frozen=True, tag="breaker"):
    """A breaker opened or closed by itself."""

    target_id: int
    change: Change
    origin: str


Message = Changed | RightsChanged | BreakerNews
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Message).decode


def this_process() -> str:
    """Names this process to itself, so that it need not heed its own messages."""
    return _name_of(os.getpid())


@cache
def _name_of(pid: int) -> str:  # by pid, so that a forked process has one of its own
    return uuid4().hex


class Publisher:
    """Says what was committed, from whatever thread committed it.

    Never raises, and never holds a thread up for long: a Redis that fails is left alone for a while.
    """

    def __init__(
        self,
        url: str,
        *,
        origin: Callable[[], str] = this_process,
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = PUBLISH_S,
    ) -> None:
        self._client = connect_thread(url, timeout_s=timeout_s)
        self._origin, self._clock = origin, clock
        self._left_alone_until = 0.0

    def changed(self, number: int) -> None:
        self._publish(Changed(number, self._origin()))

    def rights_changed(self, user_id: int | None) -> None:
        """None: everybody's."""
        self._publish(RightsChanged(EVERYBODY if user_id is None else user_id, self._origin()))

    def close(self) -> None:
        self._client.close()

    def _publish(self, message: Message) -> None:
        if self._clock() < self._left_alone_until:
            return
        try:
            self._client.publish(CHANGES, _encode(message))
        except AWAY as why:
            self._left_alone_until = self._clock() + LEFT_ALONE_S
            log.warning("Redis did not take %r, the other processes hear of it later: %r", message, why)


def ignore(_: Any) -> None:
    """Nobody wants to know."""


class Feed:
    """Hears what other processes say, and says what breakers did. Lives on one event loop.

    Comes back by itself, and then takes for granted that something was missed.
    Keeps nothing that it heard: what hears must be quick, and put off what is not.
    Without an address it says and hears nothing.
    """

    def __init__(
        self,
        url: str,
        heard: Callable[[int], None],
        *,
        rights: Callable[[int], None] = ignore,
        told: Callable[[int, Change], object] | None = None,
        origin: Callable[[], str] = this_process,
    ) -> None:
        """`heard` is given a change's number, or SOMETHING; `rights` a user's id, or EVERYBODY;
        `told` a target's id and what its breaker did in another process."""
        self._url, self._origin = url, origin
        self._heard, self._rights, self._told = heard, rights, told
        self.away = bool(url)
        """Not subscribed at this moment."""
        self._was_here = False
        self._untold: dict[int, BreakerNews] = {}
        """The newest by target id, so that what waits for Redis cannot pile up."""
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def __repr__(self) -> str:
        return f"<Feed {'away' if self.away else 'listening'}, {len(self._untold)} to say>"

    async def open(self) -> None:
        if self._url:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._listen()), loop.create_task(self._say())]

    async def close(self) -> None:
        tasks, self._tasks = self._tasks, []
        await end(tasks)

    def tell(self, target_id: int, change: Change) -> None:
        """Say what a breaker did by itself. Never waits."""
        if self._url:
            self._untold[target_id] = BreakerNews(target_id, change, self._origin())
            self._wake.set()

    async def _listen(self) -> None:
        while True:
            client = connect(self._url)
            try:
                await self._hear(client)
            except AWAY as why:
                if not self.away:
                    log.warning("Redis is away, other processes' changes are heard of by polling: %r", why)
            finally:
                await client.aclose()
            self.away = True
            await _pause()

    async def _hear(self, client: Client) -> None:
        """Until the connection is lost; raises one of AWAY then."""
        async with client.pubsub() as pubsub:
            async with asyncio.timeout(2 * QUICK_S):
                await pubsub.subscribe(CHANGES, BREAKERS)
            heard_at = time.monotonic()
            while True:
                message = await pubsub.get_message(timeout=PING_S)
                if message is not None:
                    heard_at = time.monotonic()
                    self._take(message)
                elif time.monotonic() - heard_at > LOST_S:
                    raise TimeoutError("nothing was heard")
                else:
                    await pubsub.ping()

    def _take(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribe" and message["channel"] == CHANGES.encode():
            self._subscribed()
        elif message["type"] == "message":
            try:
                said = _decode(message["data"])
            except (
                msgspec.DecodeError
            ) as why:  # a process of another release may say what this one cannot read
                log.warning("a message on %s cannot be read: %s", message["channel"], why)
                self._heard(SOMETHING)
                return
            if said.origin != self._origin():
                self._hand_on(said)

    def _subscribed(self) -> None:
        self.away = False
        self._heard(SOMETHING)
        if self._was_here:
            self._rights(EVERYBODY)
        self._was_here = True

    def _hand_on(self, said: Message) -> None:
        if isinstance(said, Changed):
            self._heard(said.number)
        elif isinstance(said, RightsChanged):
            self._rights(said.user_id)
        elif self._told is not None:
            self._told(said.target_id, said.change)

    async def _say(self) -> None:
        client = connect(self._url)
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                if not await self._said(client):
                    await _pause()
                    self._wake.set()
        finally:
            await client.aclose()

    async def _said(self, client: Client) -> bool:
        """Say what is new and still of use; whether Redis took it."""
        saying = {key: each for key, each in self._untold.items() if is_fresh(each.change, time.time())}
        self._untold = {}
        try:
            async with asyncio.timeout(QUICK_S):
                for each in saying.values():
                    await client.publish(BREAKERS, _encode(each))
        except AWAY:
            self._untold = saying | self._untold  # said twice does no harm
            return False
        return True


def is_fresh(change: Change, now_s: float) -> bool:
    """Another process can still use this: the breaker is open yet, or has only just closed."""
    over_us = change.at_us + STALE_S * 1_000_000 if change.until_us is None else change.until_us
    return over_us > now_s * 1_000_000


async def _pause() -> None:
    await asyncio.sleep(PAUSE_S * (0.5 + random.random()))  # noqa: S311  # jitter, no secret
