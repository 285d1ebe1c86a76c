"""How this house talks to Redis where several processes share one: quickly, or not at all."""

import asyncio
from collections.abc import Iterable
from typing import Any, Final

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

QUICK_S: Final = 0.25
"""Nothing waits longer for Redis. A healthy one answers in a thousandth of that."""
PUBLISH_S: Final = 0.1
"""A thread that has just committed a change waits so long at most, once to connect and once to be heard."""

AWAY: Final = (RedisError, OSError, TimeoutError)
"""What is raised where Redis is dead, frozen, cut off, loading or full."""

Client = redis.asyncio.Redis


def connect(url: str, *, timeout_s: float = QUICK_S, silence_s: float | None = None) -> Client:
    """A client for one event loop, not connected yet.

    A connection is made within `timeout_s`; an answer may be `silence_s` in coming, else four times as long.
    Tries nothing twice: who asks knows better whether it is still worth it.
    Whoever must not wait so long sets a shorter deadline of its own, `timeout_s`.
    """
    return redis.asyncio.Redis.from_url(
        url,
        protocol=2,
        socket_connect_timeout=timeout_s,
        socket_timeout=4 * timeout_s if silence_s is None else silence_s,
        retry=AsyncRetry(NoBackoff(), 0),
    )


def connect_thread(url: str, *, timeout_s: float = PUBLISH_S) -> redis.Redis:
    """A client for any thread. A connection that died since it was last used is made anew, once."""
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_connect_timeout=timeout_s,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1, (redis.ConnectionError,)),
    )


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel what may be talking to Redis, and wait until it has ended.

    Asked again while it goes on: the client can lose a cancellation that comes together with a timeout.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=QUICK_S)
